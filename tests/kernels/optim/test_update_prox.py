"""The momentum rules with the prox inside, against the formula in float64 group by group, over random shapes and tiles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sslnet.kernels.optim import update_prox as kernels
from sslnet.kernels.runtime.denormals import flushed
from sslnet.kernels.runtime.threads import parallel, set_deterministic, set_num_threads

CANARY = 123.0
TERMS = (0.5, 0.01, 0.02, 0.1, 0.9)
"""scale, l2, l1, rate, momentum"""

CASES = st.tuples(
    st.sampled_from([1, 2, 3, 5, 8, 40]),  # height of a tile
    st.sampled_from([1, 2, 9, 25, 36, 130, 256, 300]),  # its width
    st.integers(1, 4),  # tiles down
    st.integers(1, 9),  # tiles along
    st.booleans(),  # Nesterov
    st.booleans(),  # whether weights at zero follow the mean
    st.sampled_from(["float32", "float64"]),
    st.integers(0, 1000),
)


@pytest.fixture(params=[1, 3], ids=["one thread", "three threads"], autouse=True)
def threads(request: pytest.FixtureRequest):
    set_num_threads(request.param)
    yield
    set_num_threads(None)


class Guarded:
    """A flat array with canaries before and behind it."""

    def __init__(self, values: np.ndarray) -> None:
        self.whole = np.full(values.size + 64, CANARY, values.dtype)
        self.values = self.whole[32:-32]
        self.values[:] = values.reshape(-1)

    def check(self) -> None:
        assert (self.whole[:32] == CANARY).all()
        assert (self.whole[-32:] == CANARY).all()


def expected(w, grad, h, mean, tile, nesterov, threshold):
    """w, h and mean afterwards, in float64."""
    scale, l2, l1, rate, mu = TERMS
    w, grad, h, mean = (array.astype(np.float64) for array in (w, grad, h, mean))
    if mean.size:
        mean = 0.75 * mean + 0.25 * grad
        grad = np.where(w == 0, mean, grad)
    point = w - rate * (scale * grad + l2 * w + l1 * np.sign(w)) - (0 if nesterov else mu * h)
    start = w + mu * h if nesterov else w
    height, width = tile
    for i in range(0, w.shape[0], height):
        for j in range(0, w.shape[1], width):
            group = point[i : i + height, j : j + width]
            norm = np.linalg.norm(group)
            group *= max(0.0, 1 - threshold / norm) if norm else 0.0
    h = start - point
    return point - (mu * h if nesterov else 0), h, mean


def run(way: str, arrays, columns, tile, nesterov, threshold) -> None:
    height, width = tile
    w, grad, h, mean = arrays
    bands = w.size // (height * columns)
    settings = (w, grad, h, mean, 0.75, *TERMS, nesterov, columns, height)
    if way == "bands":
        parallel(kernels.bands, bands, *settings, width, threshold)
        return
    squares = np.full((bands * kernels.BLOCKS, columns), np.nan, w.dtype)
    parallel(kernels.blocks, len(squares), *settings, squares)
    parallel(kernels.shares, bands, squares, width, threshold)
    parallel(kernels.shrink_blocks, len(squares), w, h, squares, columns, height, TERMS[-1] if nesterov else 0.0)


@pytest.mark.parametrize("way", ["bands", "blocks"])
@settings(deadline=None, max_examples=60)
@given(case=CASES)
def test_step_and_prox_are_those_of_the_formula(way: str, case) -> None:
    height, width, down, along, nesterov, calm, dtype, seed = case
    random, shape = np.random.default_rng(seed), (height * down, width * along)
    w, grad, h, mean = (random.standard_normal(shape).astype(dtype) for _ in range(4))
    w[:height] = w[:, :width] = h[:height] = h[:, :width] = 0  # the first groups are zero
    mean = mean if calm else mean[:0]
    threshold = 0.1 * (height * width) ** 0.5
    wanted = expected(w, grad, h, mean, (height, width), nesterov, threshold)
    guarded = [Guarded(array) for array in (w, grad, h, mean)]
    run(way, [g.values for g in guarded], shape[1], (height, width), nesterov, threshold)
    tolerance = 2e-5 if dtype == "float32" else 1e-12
    for guard, values in zip((guarded[0], guarded[2], guarded[3]), wanted):
        np.testing.assert_allclose(guard.values, values.reshape(-1), rtol=tolerance, atol=tolerance)
    if not nesterov:
        assert not guarded[0].values[wanted[0].reshape(-1) == 0].any()
    for guard in guarded:
        guard.check()


@pytest.mark.parametrize("tile", [(64, 1), (1, 330), (4, 3)])
@pytest.mark.parametrize("way", ["bands", "blocks"])
def test_partition_changes_no_bit(way: str, tile: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    start = [random.standard_normal(64 * 330).astype(np.float32) for _ in range(4)]
    results = []
    for count in (1, 2, 3, 7):
        set_num_threads(count)
        arrays = [array.copy() for array in start]
        run(way, arrays, 330, tile, False, 0.3)
        results.append(np.concatenate(arrays))
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)


def test_large_bands_are_cut_where_threads_would_have_none() -> None:
    assert kernels.fits(4096, 9216)  # rows
    assert kernels.fits(128, 32 * 9216)  # blocks
    assert kernels.fits(1, 20 * 500)  # one band, soon done
    assert not kernels.fits(1, 4096 * 9216)  # columns
    assert not kernels.fits(2, 128 * 1200)  # columns of two conv groups


def test_group_that_overflows_is_not_taken_for_zero() -> None:
    w = np.full(300, np.nan, np.float32)
    arrays = [w, np.zeros(300, np.float32), np.zeros(300, np.float32), np.empty(0, np.float32)]
    flushed(kernels.bands, 0, 1, 0, *arrays, 0.0, *TERMS, False, 300, 1, 300, 1.0)
    assert np.isnan(w).all()


def test_deterministic_parts_do_not_matter_either() -> None:
    set_deterministic(True)
    try:
        test_partition_changes_no_bit("blocks", (64, 1))
    finally:
        set_deterministic(None)


@pytest.mark.parametrize("tile", [(1, 20_000), (1, 10_000), (2, 1), (2, 500)])
@pytest.mark.parametrize("way", ["bands", "blocks"])
def test_rows_of_several_chunks_are_done_whole(way: str, tile: tuple[int, int]) -> None:
    random, shape = np.random.default_rng(0), (4, 20_000)
    arrays = [random.standard_normal(shape) for _ in range(4)]
    wanted = expected(*arrays, tile, True, 0.5 * (tile[0] * tile[1]) ** 0.5)
    flat = [array.reshape(-1) for array in arrays]
    run(way, flat, shape[1], tile, True, 0.5 * (tile[0] * tile[1]) ** 0.5)
    for array, values in zip((flat[0], flat[2], flat[3]), wanted):
        np.testing.assert_allclose(array, values.reshape(-1), rtol=1e-10, atol=1e-12)
