"""Planned convolutions against float64 loops over the taps, for every geometry, every pass, and nothing written outside."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sslnet.errors import ShapeError
from sslnet.kernels.conv import packing as conv_engine
from sslnet.kernels.conv import weight_grad_filters as conv_weight_grad
from sslnet.kernels.conv.choose import estimates
from sslnet.kernels.conv.filters_loop import FilterLoop, FilterTile
from sslnet.kernels.conv.im2col import output_extent
from sslnet.kernels.conv.plan import (
    ConvGeometry,
    ConvPlan,
    WeightGradPlan,
    plan_forward,
    plan_input_grad,
    plan_weight_grad,
)
from sslnet.kernels.conv.problem import ConvProblem, Direction, long_rows
from sslnet.kernels.runtime.threads import set_num_threads

from ..conv_oracle import (
    ALL_UNITS,
    assert_close,
    assert_guards_untouched,
    guarded,
    naive_forward,
    naive_gradients,
    operands,
    precision,
)


@pytest.fixture(autouse=True)
def two_threads():
    """Even for what is too small to be worth it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conv_engine, "SMALL", 0)
        patch.setattr(conv_engine, "SMALL_PACK", 0)
        patch.setattr(conv_weight_grad, "SMALL_PACK", 0)
        set_num_threads(2)
        yield
        set_num_threads(None)


def check_forward(g, seed=0, unit=None):
    x, weights, bias, _ = operands(g, seed)
    expected = naive_forward(g, x, weights, bias)
    for relu in (False, True):
        plan = plan_forward(g, relu=relu, unit=unit)
        within = precision(plan.loop)
        y, whole = guarded(g.output_shape)
        plan.pack(weights, bias)
        plan.run(x, y)
        assert_close(y, np.maximum(expected, 0) if relu else expected, within)
        plan.pack(weights, None)
        plan.run(x, y)
        without = expected - bias[:, None, None]
        assert_close(y, np.maximum(without, 0) if relu else without, within)
        assert_guards_untouched(whole)


def check_gradients(g, seed=0, unit=None):
    x, weights, _, dy = operands(g, seed)
    expected_dx, expected_dw, expected_db = naive_gradients(g, x, weights, dy)
    dx, dx_whole = guarded(g.input_shape)
    plan = plan_input_grad(g, unit=unit)
    plan.pack(weights)
    plan.run(dy, dx)
    assert_close(dx, expected_dx, precision(plan.loop))
    dw, dw_whole = guarded(g.weight_shape, 1)
    db, db_whole = guarded((g.filters,), 2)
    grads = plan_weight_grad(g, unit=unit)
    grads.run(x, dy, dw, db)
    assert_close(dw, expected_dw + 1, precision(grads.loop))
    assert_close(db, expected_db + 2)
    grads.run(x, dy, dw, db, accumulate=False)
    assert_close(dw, expected_dw, precision(grads.loop))
    assert_close(db, expected_db)
    assert_guards_untouched(dx_whole, dw_whole, db_whole)


@st.composite
def geometries(draw):
    """Small ones of every kind: groups, rectangles, strides, dilation, pads beyond the kernel, widths below and above a vector."""
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    sizes = st.one_of(st.integers(1, 9), st.integers(10, 40))
    height, width = draw(st.integers(1, 9)), draw(sizes)
    kernel_h, kernel_w = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    stride_h, stride_w = (draw(st.sampled_from([1, 1, 2, 3])) for _ in "hw")
    pad_h, pad_w = (draw(st.integers(0, 5)) for _ in "hw")
    dilation_h, dilation_w = (draw(st.sampled_from([1, 1, 1, 2, 3])) for _ in "hw")
    ends = tuple(draw(st.sampled_from([-1, -1, 0, 1, 2, 5])) for _ in "hw")
    behind = [pad if end < 0 else end for pad, end in zip((pad_h, pad_w), ends)]
    assume(output_extent(height, kernel_h, stride_h, pad_h, dilation_h, behind[0]) >= 1)
    assume(output_extent(width, kernel_w, stride_w, pad_w, dilation_w, behind[1]) >= 1)
    channels, filters = draw(st.integers(1, 4)) * groups, draw(st.integers(1, 36)) * groups
    batch = draw(st.integers(1, 4))
    numbers = (kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, groups, *ends)
    return ConvGeometry(batch, channels, height, width, filters, *numbers)


@settings(max_examples=80, deadline=None)
@given(geometries(), st.integers(0, 99), st.sampled_from(ALL_UNITS))
def test_forward_equals_naive_loops(geometry, seed, unit):
    check_forward(geometry, seed, unit)


@settings(max_examples=80, deadline=None)
@given(geometries(), st.integers(0, 99), st.sampled_from(ALL_UNITS))
def test_gradients_equal_naive_loops(geometry, seed, unit):
    check_gradients(geometry, seed, unit)


@settings(max_examples=30, deadline=None)
@given(geometries(), st.integers(0, 99), st.data())
def test_every_tile_equals_naive_loops(geometry, seed, data):
    """Not only the tile that would be chosen, and taps in blocks."""
    x, weights, bias, _ = operands(geometry, seed)
    unit = data.draw(st.sampled_from(ALL_UNITS))
    problem = ConvProblem(Direction.FORWARD, geometry, unit, winograd=False)
    choice = data.draw(st.sampled_from([*estimates(problem)]))
    if isinstance(choice.tile, FilterTile):
        loop = FilterLoop(problem.lowering, unit, choice.tile, tap_block=data.draw(st.integers(1, 20)))
    else:
        loop = choice.loop()
    plan = ConvPlan(geometry, loop)
    plan.pack(weights, bias)
    y, whole = guarded(geometry.output_shape)
    plan.run(x, y)
    assert_close(y, naive_forward(geometry, x, weights, bias))
    assert_guards_untouched(whole)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(1, 20), st.integers(1, 9), st.integers(1, 9), st.integers(1, 36), st.data())
def test_a_pointwise_convolution_in_rows_of_any_length_gives_the_same_bits(batch, channels, h, w, filters, data):
    g = ConvGeometry(batch, channels, h, w, filters, 1, 1)
    rows = data.draw(st.sampled_from([n for n in range(1, h * w + 1) if h * w % n == 0]))
    unit = data.draw(st.sampled_from(ALL_UNITS))
    x, weights, bias, dy = operands(g, 0)
    for direction, source, target in (
        (Direction.FORWARD, x, g.output_shape),
        (Direction.INPUT_GRAD, dy, g.input_shape),
    ):
        found = []
        for geometry in (g, g.in_rows(rows)):
            choice = data.draw(st.sampled_from([*estimates(ConvProblem(direction, geometry, unit))]))
            loop = choice.loop()
            y, whole = guarded(target)
            loop.pack(weights, bias if direction is Direction.FORWARD else None)
            loop.run_at(source.ctypes.data, y.ctypes.data)
            assert_guards_untouched(whole)
            found.append(y.copy())
        assert (found[0] == found[1]).all()


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_rows_of_a_pointwise_convolution_give_all_threads_work(batch, threads):
    set_num_threads(threads)
    for pixels in (7, 14, 28, 56, 112):
        g = ConvGeometry(batch, 64, pixels, pixels, 64, 1, 1)
        rows = long_rows(g, 64, lanes=8)
        assert pixels * pixels % rows == 0
        assert rows * batch >= min(threads, 7)
        assert pixels * pixels // rows >= 7  # columns enough for a tile


@settings(max_examples=30, deadline=None)
@given(geometries(), st.integers(0, 99), st.data())
def test_every_weight_gradient_tile_equals_naive_loops(g, seed, data):
    x, weights, _, dy = operands(g, seed)
    unit = data.draw(st.sampled_from(ALL_UNITS))
    choice = data.draw(st.sampled_from([*estimates(ConvProblem(Direction.WEIGHT_GRAD, g, unit, winograd=False))]))
    dw, whole = guarded(g.weight_shape, 0)
    db, bias_whole = guarded((g.filters,), 0)
    WeightGradPlan(g, choice.loop()).run(x, dy, dw, db)
    _, expected_dw, expected_db = naive_gradients(g, x, weights, dy)
    assert_close(dw, expected_dw)
    assert_close(db, expected_db)
    assert_guards_untouched(whole, bias_whole)


# What nets are made of: batch, channels, height, width, filters, kernel, stride, pad, dilation, groups.
LAYERS = {
    "lenet conv1": (3, 1, 28, 28, 20, 5, 1, 0, 1, 1),
    "lenet conv2": (3, 20, 12, 12, 50, 5, 1, 0, 1, 1),
    "digits conv1": (5, 1, 8, 8, 16, 3, 1, 1, 1, 1),
    "digits conv2": (5, 16, 8, 8, 64, 5, 1, 2, 1, 1),
    "cifar conv1": (3, 3, 32, 32, 32, 5, 1, 2, 1, 1),
    "resnet 3x3": (2, 16, 32, 32, 16, 3, 1, 1, 1, 1),
    "resnet stride 2": (3, 16, 32, 32, 32, 3, 2, 1, 1, 1),
    "resnet shortcut": (2, 16, 32, 32, 32, 1, 2, 0, 1, 1),
    "alexnet conv1": (1, 3, 67, 67, 96, 11, 4, 0, 1, 1),
    "alexnet conv2": (2, 48, 27, 27, 64, 5, 1, 2, 1, 2),
    "vgg": (1, 64, 28, 28, 64, 3, 1, 1, 1, 1),
    "inception 1x1": (2, 96, 14, 14, 80, 1, 1, 0, 1, 1),
    "depthwise": (2, 32, 14, 14, 32, 3, 1, 1, 1, 32),
    "depthwise stride 2": (2, 32, 14, 14, 32, 3, 2, 1, 1, 32),
    "dilated": (2, 8, 20, 20, 24, 3, 1, 4, 4, 1),
    "whole image": (2, 32, 6, 6, 40, 6, 1, 0, 1, 1),
    "stride beyond the kernel": (2, 4, 11, 11, 8, 2, 3, 0, 1, 1),
}


def layer(batch, channels, height, width, filters, kernel, stride, pad, dilation, groups):
    twice = (number for number in (kernel, stride, pad, dilation) for _ in "hw")
    return ConvGeometry(batch, channels, height, width, filters, *twice, groups)


@pytest.mark.parametrize("numbers", LAYERS.values(), ids=LAYERS.keys())
def test_layer_of_a_known_net_equals_naive_loops(numbers):
    check_forward(layer(*numbers))
    check_gradients(layer(*numbers))


def test_kernel_row_too_long_for_any_tile_still_has_a_gradient():
    g = ConvGeometry(2, 2, 3, 60, 5, 2, 40, pad_w=1)
    check_forward(g)
    check_gradients(g)


def test_rows_and_images_beyond_a_chunk_are_all_computed():
    """An image larger than what is kept in the cache is done in pieces."""
    g = ConvGeometry(2, 40, 70, 70, 4, 3, 3, pad_h=1, pad_w=1)
    assert plan_forward(g).loop.window.chunk < g.out_h
    check_forward(g)
    check_gradients(g)


def test_relu_keeps_not_a_number():
    for numbers in (LAYERS["cifar conv1"], LAYERS["vgg"]):
        g = layer(*numbers)
        x, weights, bias, _ = operands(g)
        bias[1] = np.nan
        y = np.empty(g.output_shape, np.float32)
        plan = plan_forward(g, relu=True)
        plan.pack(weights, bias)
        plan.run(x, y)
        assert np.isnan(y[:, 1]).all()
        assert not np.isnan(y[:, 0]).any()


@pytest.mark.parametrize("name", ["digits conv2", "resnet stride 2", "depthwise"])
def test_repeated_runs_give_the_same_bits(name):
    g = layer(*LAYERS[name])
    x, weights, bias, dy = operands(g)
    results = []
    for _ in range(3):
        y, dx, dw, db = (np.zeros(s, np.float32) for s in (g.output_shape, g.input_shape, g.weight_shape, (g.filters,)))
        forward, input_grad = plan_forward(g), plan_input_grad(g)
        forward.pack(weights, bias)
        input_grad.pack(weights)
        forward.run(x, y)
        input_grad.run(dy, dx)
        plan_weight_grad(g).run(x, dy, dw, db)
        results.append([a.tobytes() for a in (y, dx, dw, db)])
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("batch", [1, 3])
def test_more_threads_than_images_give_the_same_result(batch):
    set_num_threads(5)
    g = layer(batch, *LAYERS["resnet 3x3"][1:])
    check_forward(g)
    check_gradients(g)


def test_inputs_are_left_unchanged():
    g = layer(*LAYERS["digits conv2"])
    given_arrays = operands(g)
    x, weights, bias, dy = kept = [array.copy() for array in given_arrays]
    for array in kept:
        array.flags.writeable = False
    forward, input_grad = plan_forward(g), plan_input_grad(g)
    forward.pack(weights, bias)
    input_grad.pack(weights)
    forward.run(x, np.empty(g.output_shape, np.float32))
    input_grad.run(dy, np.empty(g.input_shape, np.float32))
    plan_weight_grad(g).run(x, dy, np.zeros(g.weight_shape, np.float32))
    for array, original in zip(kept, given_arrays):
        np.testing.assert_array_equal(array, original)


def test_plan_names_its_kernel():
    for numbers in LAYERS.values():
        g = layer(*numbers)
        for plan in (plan_forward(g), plan_input_grad(g)):
            assert plan.kernel.split()[0] in ("depthwise", "filters", "pixels", "winograd")


def test_packed_weights_are_a_copy():
    g = layer(*LAYERS["digits conv1"])
    x, weights, bias, _ = operands(g)
    plan = plan_forward(g)
    plan.pack(weights, bias)
    expected = naive_forward(g, x, weights, bias)
    weights[:] = 0
    y = np.empty(g.output_shape, np.float32)
    plan.run(x, y)
    assert_close(y, expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 0}, "channels must be at least 1, not 0"),
        ({"pad_w": -1}, "pad_w must be at least 0, not -1"),
        ({"groups": 3}, "groups must divide channels: 4 % 3 != 0"),
        ({"kernel_h": 9}, "the kernel does not fit: input 5 x 6 with pad 0, 0, kernel 9 x 3"),
    ],
)
def test_geometry_that_cannot_be_is_an_error(changes, message):
    numbers = {"batch": 2, "channels": 4, "height": 5, "width": 6, "filters": 8, "kernel_h": 3, "kernel_w": 3}
    with pytest.raises(ShapeError, match=message):
        ConvGeometry(**(numbers | changes))


def test_arrays_of_another_shape_or_type_are_errors():
    g = layer(*LAYERS["digits conv1"])
    x, weights, bias, _ = operands(g)
    plan = plan_forward(g)
    with pytest.raises(ShapeError, match=r"weights must have shape \(16, 1, 3, 3\), not \(16, 9\)"):
        plan.pack(weights.reshape(16, 9), bias)
    plan.pack(weights, bias)
    y = np.empty(g.output_shape, np.float32)
    with pytest.raises(ShapeError, match="x must be C-contiguous float32, not C-contiguous float64"):
        plan.run(x.astype(np.float64), y)
    with pytest.raises(ShapeError, match="y must be C-contiguous float32, not strided float32"):
        plan.run(x, np.empty((*g.output_shape[:3], 16), np.float32)[..., ::2])
