"""Depthwise convolutions against float64 loops: planes below and above a vector, read in place and from windows."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sslnet.kernels.conv import packing as conv_engine
from sslnet.kernels.conv.depthwise.candidates import DepthwiseCandidate, DepthwiseGradCandidate
from sslnet.kernels.conv.depthwise.stencil import Stencil
from sslnet.kernels.conv.im2col import output_extent
from sslnet.kernels.conv.plan import (
    ConvGeometry,
    ConvPlan,
    WeightGradPlan,
    plan_forward,
    plan_input_grad,
    plan_weight_grad,
)
from sslnet.kernels.conv.problem import ConvProblem, Direction
from sslnet.kernels.runtime.threads import set_num_threads
from sslnet.kernels.simd.vector import GENERIC, UNITS, vector_unit

from ...conv_oracle import (
    ALL_UNITS,
    assert_close,
    assert_guards_untouched,
    guarded,
    naive_forward,
    naive_gradients,
    operands,
)


@pytest.fixture(autouse=True)
def two_threads():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conv_engine, "SMALL", 0)
        set_num_threads(2)
        yield
        set_num_threads(None)


def candidate_of(direction, g, unit, **options):
    kind = DepthwiseGradCandidate if direction is Direction.WEIGHT_GRAD else DepthwiseCandidate
    return kind(ConvProblem(direction, g, unit, **options))


def loop_of(direction, g, unit, **options):
    """The loop nest, or None where it does not take the geometry."""
    candidate = candidate_of(direction, g, unit, **options)
    return candidate.loop(next(candidate.tiles())) if candidate.suits() else None


def check(g, unit, seed=0):
    """Every pass that is taken; returns their names."""
    x, weights, bias, dy = operands(g, seed)
    taken = []
    for relu in (False, True):
        if (loop := loop_of(Direction.FORWARD, g, unit, relu=relu)) is not None:
            taken += [] if relu else ["forward"]
            plan = ConvPlan(g, loop)
            plan.pack(weights, bias)
            y, whole = guarded(g.output_shape)
            plan.run(x, y)
            expected = naive_forward(g, x, weights, bias)
            assert_close(y, np.maximum(expected, 0) if relu else expected)
            assert_guards_untouched(whole)
    expected_dx, expected_dw, expected_db = naive_gradients(g, x, weights, dy)
    if (loop := loop_of(Direction.INPUT_GRAD, g, unit)) is not None:
        taken.append("input")
        plan = ConvPlan(g, loop, backward=True)
        plan.pack(weights)
        dx, whole = guarded(g.input_shape)
        plan.run(dy, dx)
        assert_close(dx, expected_dx)
        assert_guards_untouched(whole)
    if (loop := loop_of(Direction.WEIGHT_GRAD, g, unit)) is not None:
        taken.append("weights")
        dw, dw_whole = guarded(g.weight_shape, 1)
        db, db_whole = guarded((g.filters,), 2)
        grads = WeightGradPlan(g, loop)
        grads.run(x, dy, dw, db)
        assert_close(dw, expected_dw + 1)
        assert_close(db, expected_db + 2)
        grads.run(x, dy, dw, accumulate=False)
        assert_close(dw, expected_dw)
        assert_close(db, expected_db + 2)
        assert_guards_untouched(dw_whole, db_whole)
    return taken


@st.composite
def geometries(draw):
    """Depthwise ones of every kind: rectangles, strides, dilation, several filters of a channel, no padding and much."""
    channels, filters = draw(st.integers(2, 5)), draw(st.sampled_from([1, 1, 1, 2, 3]))
    height, width = draw(st.integers(1, 20)), draw(st.one_of(st.integers(1, 9), st.integers(10, 40)))
    # Few kernels, for each is compiled.
    kernel_h, kernel_w = draw(st.sampled_from([(3, 3), (3, 3), (5, 5), (2, 3), (4, 4), (1, 2)]))
    strides = draw(st.sampled_from([(1, 1), (1, 1), (2, 2), (1, 2), (3, 1)]))
    dilations = draw(st.sampled_from([(1, 1), (1, 1), (1, 1), (2, 2)]))
    pads = draw(st.integers(0, 3)), draw(st.integers(0, 3))
    ends = tuple(draw(st.sampled_from([-1, -1, 0, 1, 3])) for _ in "hw")
    behind = [pad if end < 0 else end for pad, end in zip(pads, ends)]
    assume(output_extent(height, kernel_h, strides[0], pads[0], dilations[0], behind[0]) >= 1)
    assume(output_extent(width, kernel_w, strides[1], pads[1], dilations[1], behind[1]) >= 1)
    numbers = (kernel_h, kernel_w, *strides, *pads, *dilations, channels, *ends)
    return ConvGeometry(draw(st.integers(1, 3)), channels, height, width, channels * filters, *numbers)


@settings(max_examples=30, deadline=None)
@given(geometries(), st.integers(0, 99), st.sampled_from(ALL_UNITS))
def test_passes_equal_naive_loops(geometry, seed, unit):
    check(geometry, unit, seed)


# What nets are made of: batch, channels, height = width, filters of a channel, kernel, stride, pad.
LAYERS = {
    "mobilenet 112": (1, 3, 112, 1, 3, 1, 1),
    "mobilenet 112 stride 2": (1, 3, 112, 1, 3, 2, 1),
    "mobilenet 28": (2, 5, 28, 1, 3, 1, 1),
    "mobilenet 28 stride 2": (2, 5, 28, 1, 3, 2, 1),
    "mobilenet 14": (2, 40, 14, 1, 3, 1, 1),
    "mobilenet 14 stride 2": (2, 5, 14, 1, 3, 2, 1),
    "mobilenet 7": (3, 70, 7, 1, 3, 1, 1),
    "5x5": (2, 3, 14, 1, 5, 1, 2),
    "5x5 stride 2": (2, 3, 28, 1, 5, 2, 2),
    "two filters": (2, 3, 14, 2, 3, 1, 1),
    "two filters stride 2": (2, 3, 15, 2, 3, 2, 1),
    "without padding": (2, 3, 30, 1, 3, 1, 0),
}


@pytest.mark.parametrize("unit", [vector_unit(), UNITS["avx2"], GENERIC], ids=lambda unit: unit.name)
@pytest.mark.parametrize("numbers", LAYERS.values(), ids=LAYERS.keys())
def test_layer_of_a_known_net_equals_naive_loops(numbers, unit):
    batch, channels, size, filters, kernel, stride, pad = numbers
    g = ConvGeometry(
        batch, channels, size, size, channels * filters, kernel, kernel, stride, stride, pad, pad, 1, 1, channels
    )
    taken = check(g, unit)
    assert taken == ["forward", "input", "weights"] or (kernel == 5 and unit.registers == 16 and len(taken) == 2)


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("unit", [UNITS["avx512f"], GENERIC], ids=lambda unit: unit.name)
def test_bilinear_upsampling_is_the_gradient_of_a_strided_convolution(factor, unit):
    """What a Deconvolution with a filler of type bilinear does: kernel 2 f - f % 2, stride f, pad ceil((f - 1) / 2)."""
    if unit.lanes < factor:
        pytest.skip("its vectors hold fewer outputs than the factor")
    kernel, pad = 2 * factor - factor % 2, factor // 2
    size = 9 * factor
    g = ConvGeometry(2, 3, size, size, 3, kernel, kernel, factor, factor, pad, pad, 1, 1, 3)
    assert "input" in check(g, unit)


def test_plans_of_depthwise_geometries_are_depthwise():
    g = ConvGeometry(2, 8, 14, 14, 8, 3, 3, 1, 1, 1, 1, 1, 1, 8)
    for plan in (plan_forward(g), plan_input_grad(g), plan_weight_grad(g)):
        assert plan.kernel.startswith("depthwise")
    dense = ConvGeometry(2, 8, 14, 14, 8, 3, 3, 1, 1, 1, 1, 1, 1, 4)
    assert not any(candidate_of(direction, dense, vector_unit()).suits() for direction in Direction)


@pytest.mark.parametrize("threads", [1, 3])
def test_gradients_do_not_depend_on_the_number_of_threads(threads):
    g = ConvGeometry(3, 37, 7, 7, 37, 3, 3, 1, 1, 1, 1, 1, 1, 37)
    x, _, _, dy = operands(g)
    results = []
    for count in (2, threads):
        set_num_threads(count)
        dw, db = np.zeros(g.weight_shape, np.float32), np.zeros(g.filters, np.float32)
        plan_weight_grad(g).run(x, dy, dw, db)
        results.append((dw.tobytes(), db.tobytes()))
    assert results[0] == results[1]


def test_relu_keeps_not_a_number():
    for size in (7, 14, 30):
        g = ConvGeometry(1, 3, size, size, 3, 3, 3, 1, 1, 1, 1, 1, 1, 3)
        x, weights, bias, _ = operands(g)
        bias[1] = np.nan
        y = np.empty(g.output_shape, np.float32)
        plan = plan_forward(g, relu=True)
        plan.pack(weights, bias)
        plan.run(x, y)
        assert np.isnan(y[:, 1]).all()
        assert not np.isnan(y[:, [0, 2]]).any()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 3), st.integers(0, 6))
def test_every_tap_meets_one_phase_of_the_gradient(kernel, stride, dilation, pad):
    assume(pad <= (kernel - 1) * dilation)
    rows, columns = Stencil(kernel, 1, stride, 1, dilation, 1, 1, 1, pad, 0).along
    assert sorted(i for places in rows for i, _ in places) == list(range(kernel))
    assert all(at >= 0 for places in rows for _, at in places)
    assert columns == [[(0, 0)]]
