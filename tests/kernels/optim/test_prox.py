"""Group norm kernels against loops over the groups in float64, over every form of tile and several threads."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq

from sslnet.kernels.optim import prox as kernels
from sslnet.kernels.optim.prox import Panels
from sslnet.kernels.optim.prox_diagonal import prox_diagonal
from sslnet.kernels.runtime.threads import parallel, set_num_threads

SHAPE = (12, 96)
TILES = [(1, 96), (12, 1), (1, 1), (12, 96), (4, 3), (3, 32), (2, 48), (12, 8), (1, 9 * 4)]
TILES = [(h, w) for h, w in TILES if SHAPE[0] % h == 0 and SHAPE[1] % w == 0]


def groups(height: int, width: int) -> list[tuple[slice, slice]]:
    return [
        (slice(i, i + height), slice(j, j + width))
        for i in range(0, SHAPE[0], height)
        for j in range(0, SHAPE[1], width)
    ]


def matrix(seed: int = 0, dtype: str = "float32") -> np.ndarray:
    """Groups of very different norms, some of them zero."""
    random = np.random.default_rng(seed)
    x = random.standard_normal(SHAPE) * random.uniform(0, 2, (SHAPE[0], 1)) * random.uniform(0, 2, (1, SHAPE[1]))
    x[3], x[:, 5:9] = 0, 0
    return x.astype(dtype)


def cuts(height: int, width: int) -> list[Panels]:
    """The usual panels, and ones of a single tile."""
    return [Panels.cut(*SHAPE, height, width), Panels(*SHAPE, height, width, width)]


@pytest.fixture(params=[1, 3], ids=["one thread", "three threads"])
def threads(request: pytest.FixtureRequest):
    set_num_threads(request.param)
    yield request.param
    set_num_threads(None)


def rounding(tile: tuple[int, int], x: np.ndarray) -> float:
    """What rounding may do to x shrunk by the norms of its groups: that of the n squares and sums of a norm, of either
    sign, grows like sqrt(n); and some steps more."""
    return float((2 * np.sqrt(tile[0] * tile[1]) + 8) * np.finfo(x.dtype).eps * np.abs(x).max())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("tile", TILES)
def test_prox_shrinks_every_norm_by_the_threshold(tile: tuple[int, int], dtype: str, threads: int) -> None:
    before = matrix(dtype=dtype)
    threshold = float(np.median([np.linalg.norm(before[g]) for g in groups(*tile)])) or 0.1
    expected = before.astype(np.float64)
    for group in groups(*tile):
        norm = np.linalg.norm(expected[group])
        expected[group] *= max(0.0, 1 - threshold / norm) if norm else 0.0
    for panels in cuts(*tile):
        x, moved = before.copy(), np.ones_like(before)
        parallel(kernels.prox, panels.count, x, moved, *tile, panels.span, threshold)
        np.testing.assert_allclose(x, expected, atol=rounding(tile, before))
        np.testing.assert_allclose(moved - 1, before - x, atol=1e-6)
        assert not x[expected == 0].any()


@pytest.mark.parametrize("tile", TILES)
def test_norms_are_those_of_the_groups(tile: tuple[int, int], threads: int) -> None:
    x = matrix()
    expected = [np.linalg.norm(x[g].astype(np.float64)) for g in groups(*tile)]
    for panels in cuts(*tile):
        out = np.full(panels.tiles, np.nan, np.float32)
        parallel(kernels.norms, panels.count, x, *tile, panels.span, out)
        np.testing.assert_allclose(out.reshape(-1), expected, rtol=1e-6)


@pytest.mark.parametrize("tile", TILES)
def test_subgradient_adds_the_unit_vector_of_each_group(tile: tuple[int, int], threads: int) -> None:
    x = matrix()
    expected = np.ones(SHAPE)
    for group in groups(*tile):
        norm = np.linalg.norm(x[group].astype(np.float64))
        expected[group] += 0.3 * x[group] / norm if norm else 0
    for panels in cuts(*tile):
        grad = np.ones_like(x)
        parallel(kernels.add_subgradient, panels.count, x, grad, *tile, panels.span, 0.3)
        np.testing.assert_allclose(grad, expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("tile", TILES)
def test_prox_in_a_diagonal_metric_solves_for_the_norm(tile: tuple[int, int], dtype: str, threads: int) -> None:
    before = matrix(dtype=dtype)
    steps = np.random.default_rng(1).uniform(0.05, 2, SHAPE).astype(dtype)
    strength = 0.5 * np.sqrt(tile[0] * tile[1])
    expected = np.zeros(SHAPE)
    for group in groups(*tile):
        x, s = before[group].astype(np.float64), steps[group].astype(np.float64)
        if np.linalg.norm(x / s) > strength:

            def excess(norm: float, x: np.ndarray = x, s: np.ndarray = s) -> float:
                return float(np.linalg.norm(x / (norm + strength * s))) - 1

            norm = brentq(excess, 0, np.linalg.norm(x), xtol=1e-15, rtol=1e-15)
            expected[group] = x * norm / (norm + strength * s)
    assert expected.any(), "the case must leave something"
    for panels in cuts(*tile):
        x = before.copy()
        parallel(prox_diagonal, panels.count, x, steps, *tile, panels.span, strength)
        np.testing.assert_allclose(x, expected, atol=rounding(tile, before) if dtype == "float32" else 1e-11)
        assert not x[expected == 0].any()


def test_diagonal_metric_of_equal_steps_is_the_plain_prox() -> None:
    x, panels = matrix(), Panels.cut(*SHAPE, 1, SHAPE[1])
    plain, diagonal = x.copy(), x.copy()
    steps = np.full_like(x, 0.25)
    kernels.prox(0, panels.count, 0, plain, np.empty((0, 0), np.float32), 1, SHAPE[1], panels.span, 0.25 * 3)
    prox_diagonal(0, panels.count, 0, diagonal, steps, 1, SHAPE[1], panels.span, 3.0)
    np.testing.assert_allclose(diagonal, plain, atol=rounding((1, SHAPE[1]), x))


def test_panels_cover_every_tile_once() -> None:
    panels = Panels.cut(4096, 9216, 4096, 3)
    assert panels.span % 3 == 0
    assert panels.count == -(-9216 // panels.span) > 1
    assert panels.tiles == (1, 3072)
