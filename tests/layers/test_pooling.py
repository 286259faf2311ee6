"""Pooling against windows taken one by one, over drawn geometries; the draws of STOCHASTIC against their frequencies."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.kernels.pointwise import pooling as kernels
from sslnet.kernels.pointwise import pooling_tiles as tiles
from sslnet.kernels.runtime.threads import num_threads, set_num_threads
from sslnet.net.net import Net

from .harness import inputs


def pooling(shape, param: str, *, phase=pb.TRAIN, tops=("y",), dtype=np.float64, seed=1) -> Net:
    tops = " ".join(f'top: "{name}"' for name in tops)
    text = f'layer {{ name: "pool" type: "Pooling" bottom: "x" {tops} pooling_param {{ {param} }} }}'
    definition = prototxt.parse("force_backward: true " + inputs(x=shape) + text, pb.NetParameter)
    return Net(definition, phase=phase, dtype=dtype, seed=seed)


def naive(x, method, kernel, stride, pad, floor):
    """Value and place of each window, from the definition."""
    height, width = x.shape[2:]
    extents = []
    for k, s, p, size in zip(kernel, stride, pad, (height, width)):
        out = (math.floor if floor else math.ceil)((size + 2 * p - k) / s) + 1
        if any(pad) and (out - 1) * s >= size + p:
            out -= 1
        extents.append(out)
    y = np.zeros((*x.shape[:2], *extents))
    place = np.full(y.shape, -1)
    for n, c, r, q in np.ndindex(y.shape):
        top, left = r * stride[0] - pad[0], q * stride[1] - pad[1]
        window = [
            (h, w)
            for h in range(max(top, 0), min(top + kernel[0], height))
            for w in range(max(left, 0), min(left + kernel[1], width))
        ]
        if method == "MAX":
            y[n, c, r, q] = np.finfo(np.float32).min
            for h, w in window:
                if x[n, c, h, w] > y[n, c, r, q]:
                    y[n, c, r, q], place[n, c, r, q] = x[n, c, h, w], h * width + w
        else:
            sizes = [
                min(start + k, size + p) - start for start, k, size, p in zip((top, left), kernel, (height, width), pad)
            ]
            if min(sizes) > 0:
                y[n, c, r, q] = sum(x[n, c, h, w] for h, w in window) / math.prod(sizes)
    return y, place


pairs = st.tuples(st.integers(1, 5), st.integers(1, 5))


@settings(deadline=None, max_examples=60)
@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    kernel=pairs,
    stride=pairs,
    pad=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    floor=st.booleans(),
    seed=st.integers(0, 9),
)
@pytest.mark.parametrize("method", ["MAX", "AVE"])
def test_pooling_takes_the_windows_of_its_definition(method, size, kernel, stride, pad, floor, seed):
    pad = tuple(min(p, k - 1) for p, k in zip(pad, kernel))
    # Few different values, so that there are ties.
    x = np.random.default_rng(seed).integers(-3, 4, (2, 2, *size)).astype(float)
    expected, place = (
        naive(x, method, kernel, stride, pad, floor) if _fits(size, kernel, stride, pad, floor) else (None, None)
    )
    param = (
        f"pool: {method} kernel_h: {kernel[0]} kernel_w: {kernel[1]} stride_h: {stride[0]} stride_w: {stride[1]} "
        f"pad_h: {pad[0]} pad_w: {pad[1]} round_mode: {'FLOOR' if floor else 'CEIL'}"
    )
    if expected is None:
        with pytest.raises(Exception, match="the window does not fit"):
            pooling(x.shape, param)
        return
    net = pooling(x.shape, param, tops=("y", "place") if method == "MAX" else ("y",))
    y = net.forward(x=x)
    np.testing.assert_allclose(y["y"], expected, rtol=1e-12, atol=1e-12)

    # The derivative of a linear map (for MAX: of the choice made) is its transpose.
    dy = np.random.default_rng(seed + 1).standard_normal(expected.shape)
    dx = net.backward(y=dy)["x"]
    if method == "MAX":
        np.testing.assert_array_equal(y["place"], place)
        wanted = np.zeros((2, 2, size[0] * size[1]))
        for n, c, r, q in np.ndindex(dy.shape):
            if place[n, c, r, q] >= 0:
                wanted[n, c, place[n, c, r, q]] += dy[n, c, r, q]
        np.testing.assert_allclose(dx.reshape(wanted.shape), wanted, atol=1e-12)
    else:
        assert (dx * x).sum() == pytest.approx((dy * expected).sum(), abs=1e-9)


def _fits(size, kernel, stride, pad, floor) -> bool:
    for n, k, s, p in zip(size, kernel, stride, pad):
        out = (math.floor if floor else math.ceil)((n + 2 * p - k) / s) + 1
        if out - (any(pad) and (out - 1) * s >= n + p) < 1:
            return False
    return True


def test_max_of_equal_values_is_the_first_in_reading_order():
    net = pooling((1, 1, 2, 2), "kernel_size: 2", tops=("y", "place"))
    assert net.forward(x=np.array([[[[0.0, 1], [1, 1]]]]))["place"] == 1
    assert net.forward(x=np.zeros((1, 1, 2, 2)))["place"] == 0


def test_stride_far_beyond_the_image_leaves_empty_windows():
    net = pooling((1, 1, 3, 3), "kernel_size: 2 stride: 1000000")
    y = net.forward(x=np.ones((1, 1, 3, 3)))["y"]
    np.testing.assert_array_equal(y[0, 0] > 0, [[True, False], [False, False]])


def test_global_pooling_follows_the_image():
    net = pooling((1, 2, 3, 4), "pool: AVE global_pooling: true")
    net.blobs["x"].reshape(1, 2, 5, 2)
    net.reshape()
    x = np.random.default_rng(1).standard_normal((1, 2, 5, 2))
    np.testing.assert_allclose(net.forward(x=x)["y"][:, :, 0, 0], x.mean(axis=(2, 3)))


def test_stochastic_draws_in_proportion_to_the_activations():
    """Over 40,000 windows of the same four values, how often each is drawn; 5 standard deviations."""
    values = np.array([0.1, 0.4, 0.0, 0.5])
    net = pooling((40, 1000, 2, 2), "pool: STOCHASTIC kernel_size: 2", dtype=np.float32)
    y = net.forward(x=np.broadcast_to(values.reshape(2, 2), (40, 1000, 2, 2)))["y"]
    for value in values:
        share = np.isclose(y, value).mean()
        assert share == pytest.approx(value, abs=5 * math.sqrt(value * (1 - value) / 40_000))


def test_stochastic_sends_the_gradient_to_the_value_drawn():
    net = pooling((1, 2, 6, 6), "pool: STOCHASTIC kernel_size: 2 stride: 2")
    x = np.random.default_rng(1).uniform(0.1, 1, (1, 2, 6, 6))
    y = net.forward(x=x)["y"].copy()
    dx = net.backward(y=np.ones_like(y))["x"]
    assert set(np.unique(dx)) == {0, 1}
    np.testing.assert_array_equal(np.sort(x[dx == 1]), np.sort(y.ravel()))


def test_stochastic_does_not_depend_on_the_number_of_threads():
    x = np.random.default_rng(1).uniform(0, 1, (64, 16, 8, 8))
    results, before = [], num_threads()
    try:
        for threads in (1, 3):
            set_num_threads(threads)
            results.append(pooling(x.shape, "pool: STOCHASTIC kernel_size: 2 stride: 2").forward(x=x)["y"].copy())
    finally:
        set_num_threads(before)
    np.testing.assert_array_equal(*results)


def test_stochastic_weighs_in_test():
    net = pooling((1, 1, 2, 4), "pool: STOCHASTIC kernel_size: 2 stride: 2", phase=pb.TEST)
    x = np.array([[[[1.0, 2, 0, 0], [3, 4, 0, 0]]]])
    np.testing.assert_allclose(net.forward(x=x)["y"], [[[[(1 + 4 + 9 + 16) / 10, 0]]]])


@settings(deadline=None, max_examples=60)
@given(
    size=st.tuples(st.integers(1, 20), st.integers(1, 40)),
    kernel=st.one_of(pairs, st.sampled_from([(2, 2), (3, 3)])),
    stride=st.one_of(pairs, st.sampled_from([(1, 1), (2, 2)])),
    pad=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_pooling_reads_and_writes_nothing_outside_its_planes(size, kernel, stride, pad, dtype):
    pad = tuple(min(p, k - 1) for p, k in zip(pad, kernel))
    if not _fits(size, kernel, stride, pad, False):
        return
    x = np.random.default_rng(1).integers(-3, 4, (2, *size)).astype(dtype)
    geometry = (*(min(k, n + 2 * p) for k, n, p in zip(kernel, size, pad)), *stride, *pad)

    def guarded(shape, kind, around):
        """An array between guards, and the whole of it."""
        count = math.prod(shape)
        whole = np.full(count + 2 * 67, around, kind)
        return whole[67 : 67 + count].reshape(shape), whole

    source, _ = guarded(x.shape, dtype, math.nan)
    source[...] = x
    for method in ("MAX", "AVE"):
        expected, places = naive(x[None].astype(float), method, kernel, stride, pad, False)
        (y, whole_y), (place, whole_place) = (guarded(expected.shape[1:], kind, -7) for kind in (dtype, np.int32))
        if method == "MAX":
            kernels.max_forward(0, 2, 0, source, y, place, *geometry)
            np.testing.assert_array_equal(place, places[0])
            alone, whole_alone = guarded(y.shape, dtype, -7)
            kernels.max_values(0, 2, 0, source, alone, *geometry)
            np.testing.assert_array_equal(alone, y)
            assert (whole_alone[:67] == -7).all()
            assert (whole_alone[-67:] == -7).all()
            for kind in (tiles.MAX, tiles.MAX_AND_PLACE):
                tile = tiles.tile_of(geometry[:2], stride, np.dtype(dtype), kind)
                if tile:
                    found, whole_found = guarded(y.shape, dtype, -7)
                    spots, whole_spots = guarded(y.shape, np.int32, -7)
                    asked = spots if kind == tiles.MAX_AND_PLACE else np.empty((0, 0, 0), np.int32)
                    kernels.max_tiles(0, 2, 0, tile, source, found, asked, *geometry)
                    np.testing.assert_array_equal(found, y)
                    if asked.size:
                        np.testing.assert_array_equal(spots, place)
                    for whole in (whole_found, whole_spots):
                        assert (whole[:67] == -7).all()
                        assert (whole[-67:] == -7).all()
        else:
            tile = tiles.tile_of(geometry[:2], stride, np.dtype(dtype), tiles.SUM)
            kernels.ave_forward(0, 2, 0, tile, source, y, *geometry, False)
            dy, _ = guarded(y.shape, dtype, math.nan)
            dy[...] = 1
            dx, whole_dx = guarded(x.shape, dtype, -7)
            tile = tiles.spread_tile_of(geometry[:2], stride, np.dtype(dtype), tiles.SPREAD_WIDTH)
            kernels.ave_backward(0, 2, 0, tile, dy, dx, *geometry, False)
            np.testing.assert_allclose((dx * x).sum(), y.sum(), rtol=1e-4, atol=1e-4)
            assert (whole_dx[:67] == -7).all()
            assert (whole_dx[-67:] == -7).all()
        np.testing.assert_allclose(y, expected[0], rtol=1e-5, atol=1e-6)
        for whole in (whole_y, whole_place):
            assert (whole[:67] == -7).all()
            assert (whole[-67:] == -7).all()


@pytest.mark.parametrize("size", [5, 23, 40])
@pytest.mark.parametrize("window", tiles.WINDOWS)
def test_tiles_find_the_maxima_of_planes_of_the_lowest_values(window, size):
    """Where all values are -FLT_MAX or -inf, padding may be the maximum; its place is -1, as without tiles."""
    (kernel, stride), lowest = window, np.finfo(np.float32).min
    x = np.random.default_rng(size).choice(
        np.array([lowest, -np.inf, 1], np.float32), (3, size, size), p=[0.6, 0.3, 0.1]
    )
    out = -(-(size + 2 - kernel) // stride) + 1
    geometry = (kernel, kernel, stride, stride, 1, 1)
    results = []
    for tile in (0, tiles.tile_of((kernel,) * 2, (stride,) * 2, x.dtype, tiles.MAX_AND_PLACE)):
        y, place = np.empty((3, out, out), np.float32), np.empty((3, out, out), np.int32)
        if tile:
            kernels.max_tiles(0, 3, 0, tile, x, y, place, *geometry)
        else:
            kernels.max_forward(0, 3, 0, x, y, place, *geometry)
        results.append((y, place))
    np.testing.assert_array_equal(*[y for y, _ in results])
    np.testing.assert_array_equal(*[place for _, place in results])


def test_max_of_a_whole_plane_is_the_first_in_reading_order():
    x = np.array([[[[-5.0, -2], [-3, -2]]], [[[1, 0], [0, 1]]]])
    net = pooling(x.shape, "global_pooling: true", tops=("y", "place"))
    y = net.forward(x=x)
    np.testing.assert_array_equal(y["y"].reshape(-1), [-2, 1])
    np.testing.assert_array_equal(y["place"].reshape(-1), [1, 0])
    np.testing.assert_array_equal(
        net.backward(y=np.full((2, 1, 1, 1), 3.0))["x"].reshape(2, 4), [[0, 3, 0, 0], [3, 0, 0, 0]]
    )
