"""Quantised convolutions against sums of int64 in NumPy: every unit of the machine gives the same integers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sslnet.errors import ShapeError
from sslnet.kernels.conv.geometry import ConvGeometry
from sslnet.kernels.quantized.convolution import choose_tile, plan_quantized
from sslnet.kernels.quantized.dot import dot_unit, dot_units
from sslnet.kernels.quantized.packing import pixel_bytes
from sslnet.kernels.runtime.threads import set_num_threads

UNITS = dot_units()
GUARD = 64


def sums(g, x, weights, bias, source_zero):
    """bias + sum (x - source_zero) * weight, padding being source_zero: (batch, out_h, out_w, filters) int64."""
    padded = np.full(
        (g.batch, g.height + g.pad_h + g.pad_end_h, g.width + g.pad_w + g.pad_end_w, g.channels), source_zero, np.int64
    )
    padded[:, g.pad_h : g.pad_h + g.height, g.pad_w : g.pad_w + g.width] = x
    total = np.zeros((g.batch, g.out_h, g.out_w, g.filters), np.int64) + bias
    each, filters = g.group_channels, g.group_filters
    for i in range(g.kernel_h):
        for j in range(g.kernel_w):
            rows = slice(i * g.dilation_h, i * g.dilation_h + (g.out_h - 1) * g.stride_h + 1, g.stride_h)
            columns = slice(j * g.dilation_w, j * g.dilation_w + (g.out_w - 1) * g.stride_w + 1, g.stride_w)
            part = padded[:, rows, columns] - source_zero
            for k in range(g.groups):
                own = weights[k * filters : (k + 1) * filters, :, i, j].astype(np.int64)
                total[..., k * filters : (k + 1) * filters] += part[..., k * each : (k + 1) * each] @ own.T
    return total


def requantised(total, scale, zero, top):
    steps = np.rint(total.astype(np.float32) * scale)
    return (np.clip(steps, -zero, top - zero) + zero).astype(np.uint8)


def guarded(shape, dtype):
    """An array in the middle of a larger one, and the bytes around it."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.full(size + 2 * GUARD, 171, np.uint8)
    return raw[GUARD : GUARD + size].view(dtype).reshape(shape), raw


def padded_pixels(x, step, random):
    """x with pixels of ``step`` bytes; those behind the channels are arbitrary."""
    wide = random.integers(0, 256, (*x.shape[:3], step)).astype(np.uint8)
    wide[..., : x.shape[3]] = x
    return wide


@st.composite
def problems(draw):
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    if draw(st.integers(0, 3)) == 0:
        groups = channels = filters = draw(st.integers(2, 70))
    else:
        channels, filters = groups * draw(st.integers(1, 20)), groups * draw(st.integers(1, 70))
    numbers = {
        name: draw(st.integers(low, high))
        for name, low, high in (
            ("batch", 1, 3), ("height", 1, 11), ("width", 1, 15), ("kernel_h", 1, 4), ("kernel_w", 1, 4),
            ("stride_h", 1, 2), ("stride_w", 1, 3), ("pad_h", 0, 2), ("pad_w", 0, 3), ("dilation_h", 1, 2),
            ("dilation_w", 1, 2), ("pad_end_h", 0, 2), ("pad_end_w", 0, 2),
        )
    }  # fmt: skip
    try:
        geometry = ConvGeometry(channels=channels, filters=filters, groups=groups, **numbers)
    except ShapeError:
        geometry = ConvGeometry(
            channels=channels, filters=filters, groups=groups, batch=1, height=5, width=5, kernel_h=3, kernel_w=3
        )
    return geometry, {
        "dense": draw(st.booleans()), "floats": draw(st.booleans()), "extreme": draw(st.booleans()),
        "bits": draw(st.integers(2, 8)), "top": draw(st.sampled_from([255, 15])), "seed": draw(st.integers(0, 2**20)),
    }  # fmt: skip


@pytest.mark.parametrize("name", UNITS)
@settings(max_examples=60, deadline=None)
@given(problem=problems())
def test_integers_are_those_of_numpy(name, problem):
    g, options = problem
    unit = UNITS[name]
    random = np.random.default_rng(options["seed"])
    most = min(2 ** (options["bits"] - 1) - 1, unit.most)
    weights = random.integers(-most, most + 1, g.weight_shape)
    x = random.integers(0, 256, (g.batch, g.height, g.width, g.channels)).astype(np.uint8)
    if options["extreme"]:
        weights[:], x[:] = most * random.choice([-1, 1]), 255
    bias = random.integers(-10_000, 10_000, g.filters)
    scale = (random.uniform(0.1, 3, g.filters) / (np.sqrt(weights[0].size) * most * 40)).astype(np.float32)
    top = options["top"]
    source_zero, zero = int(random.integers(256)), int(random.integers(top + 1))
    plan = plan_quantized(g, dense=options["dense"], floats=options["floats"], unit=unit)
    plan.pack(weights, bias, scale, source_zero=source_zero, zero=zero, top=top)
    given_x, _ = guarded((*x.shape[:3], plan.source_step), np.uint8)
    given_x[...] = padded_pixels(x, plan.source_step, random)
    y, around = guarded((g.batch, g.out_h, g.out_w, plan.out_step), np.float32 if options["floats"] else np.uint8)
    plan.run(given_x, y)
    total = sums(g, x, weights, bias, source_zero)
    wanted = total.astype(np.float32) * scale if options["floats"] else requantised(total, scale, zero, top)
    np.testing.assert_array_equal(y[..., : g.filters], wanted)
    assert (around[:GUARD] == 171).all() and (around[-GUARD:] == 171).all()


def test_all_threads_give_the_integers_of_one():
    g = ConvGeometry(4, 32, 40, 40, 48, 3, 3, pad_h=1, pad_w=1)
    random = np.random.default_rng(0)
    plan = plan_quantized(g, weight_most=63)
    plan.pack(random.integers(-63, 64, g.weight_shape), np.zeros(48, int), np.full(48, 1e-4, np.float32), zero=100)
    x = random.integers(0, 256, (4, 40, 40, 32)).astype(np.uint8)
    results = []
    for threads in (1, 3):
        set_num_threads(threads)
        y = np.zeros((4, 40, 40, 48), np.uint8)
        plan.run(x, y)
        results.append(y)
    set_num_threads(None)
    np.testing.assert_array_equal(*results)


def test_large_sums_do_not_saturate():
    """16 MiB of the largest products: within int32, beyond 24 bits."""
    g = ConvGeometry(1, 20_000, 1, 1, 3, 1, 1)
    plan = plan_quantized(g, floats=True)
    plan.pack(np.full(g.weight_shape, 127), np.zeros(3, int), np.ones(3, np.float32))
    y = np.zeros((1, 1, 1, 3), np.float32)
    plan.run(np.full((1, 1, 1, 20_000), 255, np.uint8), y)
    np.testing.assert_array_equal(y, np.float32(20_000 * 127 * 255))


def test_what_cannot_be_exact_is_refused():
    g = ConvGeometry(1, 4, 3, 3, 2, 1, 1)
    plan = plan_quantized(g)
    one = np.ones(2, np.float32)
    with pytest.raises(ShapeError, match="weights of up to"):
        plan.pack(np.full(g.weight_shape, 128), np.zeros(2, int), one)
    with pytest.raises(ShapeError, match="do not fit 32 bits"):
        plan.pack(np.ones(g.weight_shape, int), np.array([2**31 - 1, 0]), one)
    with pytest.raises(ShapeError, match="whole numbers"):
        plan.pack(np.ones(g.weight_shape), np.zeros(2, int), one)
    with pytest.raises(ShapeError, match="shape"):
        plan.pack(np.ones((2, 4, 1, 2), int), np.zeros(2, int), one)
    plan.pack(np.ones(g.weight_shape, int), np.zeros(2, int), one)
    with pytest.raises(ShapeError, match="C-contiguous"):
        plan.run(np.zeros((1, 3, 3, 3), np.uint8), np.zeros((1, 3, 3, 4), np.uint8))


@pytest.mark.parametrize("name", UNITS)
@pytest.mark.parametrize(("filters", "pixels"), [(1, 1), (16, 1024), (50, 64), (500, 1), (384, 169), (1000, 16)])
def test_tiles_fit_the_registers(name, filters, pixels):
    unit = UNITS[name]
    tile = choose_tile(unit, filters, pixels)
    assert tile.pixels <= pixels and tile.vectors <= -(-filters // unit.lanes)
    assert tile.vectors * tile.pixels + tile.vectors + 1 <= unit.registers


def test_seven_bits_never_need_the_slower_unit():
    assert dot_unit(63).most >= 63 and dot_unit(127).most == 127
    assert list(UNITS.values()).index(dot_unit(63)) <= list(UNITS.values()).index(dot_unit(127))
    assert pixel_bytes(50) == 52 and pixel_bytes(4) == 4
