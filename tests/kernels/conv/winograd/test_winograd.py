"""Winograd's convolutions against float64 loops: every tile and vector unit, within 1e-4 of the largest output."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sslnet.errors import UsageError
from sslnet.kernels.conv import packing as conv_engine
from sslnet.kernels.conv.plan import (
    ConvGeometry,
    ConvPlan,
    WeightGradPlan,
    plan_forward,
    plan_input_grad,
    plan_weight_grad,
)
from sslnet.kernels.conv.problem import ConvProblem, Direction
from sslnet.kernels.conv.winograd import loop as winograd
from sslnet.kernels.conv.winograd import weight_grad as winograd_weight_grad
from sslnet.kernels.conv.winograd.candidates import VARIABLE, WinogradCandidate, WinogradGradCandidate
from sslnet.kernels.conv.winograd.loop import LINE_OUTPUTS, OUTPUTS
from sslnet.kernels.conv.winograd.matrices import GRADIENT, INPUT, OUTPUT, WEIGHT_GRADIENT, WEIGHTS, matrix_of
from sslnet.kernels.runtime.threads import set_num_threads

from ...conv_oracle import (
    ALL_UNITS,
    assert_close,
    assert_guards_untouched,
    guarded,
    naive_forward,
    naive_gradients,
    operands,
)

WITHIN = 1e-4
SQUARES = [(r, r) for r in OUTPUTS]
LINES = [shape for r in LINE_OUTPUTS for shape in ((r, 1), (1, r))]
KERNELS = [*SQUARES, *LINES]


def candidate_of(direction, g, unit, **options):
    kind = WinogradGradCandidate if direction is Direction.WEIGHT_GRAD else WinogradCandidate
    return kind(ConvProblem(direction, g, unit, **options))


@pytest.fixture(autouse=True)
def small_pieces():
    """Two threads, and blocks of few tiles, for shapes that are small."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conv_engine, "SMALL", 0)
        patch.setattr(winograd, "SMALL_TRANSFORM", 0)
        set_num_threads(2)
        yield patch
        set_num_threads(None)


@st.composite
def geometries(draw):
    """Kernels of 3 and 5 along both axes or one, groups, rectangles, any padding below the kernel, channels around a
    vector's."""
    groups = draw(st.sampled_from([1, 1, 2]))
    kernel = draw(st.sampled_from(KERNELS))
    pad_h, pad_w = (draw(st.integers(0, size - 1)) for size in kernel)
    height, width = (draw(st.integers(max(1, size - 2 * pad), 20)) for size, pad in zip(kernel, (pad_h, pad_w)))
    channels, filters = (draw(st.integers(1, 36)) * groups for _ in "cf")
    pads = {"pad_h": pad_h, "pad_w": pad_w, "groups": groups}
    if draw(st.booleans()):
        ends = zip("hw", kernel, (pad_h, pad_w))
        pads |= {f"pad_end_{side}": draw(st.integers(pad, size - 1)) for side, size, pad in ends}
    return ConvGeometry(draw(st.integers(1, 4)), channels, height, width, filters, *kernel, **pads)


@pytest.mark.parametrize("r", OUTPUTS)
@pytest.mark.parametrize("m", [2, 4])
def test_matrices_give_a_correlation_and_its_gradient(m, r):
    rng = np.random.default_rng(m + r)
    x, w, dy = (rng.standard_normal((size, size)) for size in (m + r - 1, r, m))
    b, a, g, up, down = (
        np.array(matrix_of(kind, m, r), float) for kind in (INPUT, OUTPUT, WEIGHTS, GRADIENT, WEIGHT_GRADIENT)
    )
    y = a @ ((g @ w @ g.T) * (b @ x @ b.T)) @ a.T
    dw = down @ ((b @ x @ b.T) * (up @ dy @ up.T)) @ down.T
    windows = np.lib.stride_tricks.sliding_window_view
    np.testing.assert_allclose(y, (windows(x, (r, r)) * w).sum((2, 3)), atol=1e-12)
    np.testing.assert_allclose(dw, (windows(x, (m, m)) * dy).sum((2, 3)), atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(geometries(), st.integers(0, 99), st.data())
def test_every_tile_equals_naive_loops(g, seed, data):
    x, weights, bias, dy = operands(g, seed)
    unit, backward, relu = data.draw(st.sampled_from(ALL_UNITS)), data.draw(st.booleans()), data.draw(st.booleans())
    candidate = candidate_of(Direction.INPUT_GRAD if backward else Direction.FORWARD, g, unit, relu=relu)
    tile = data.draw(st.sampled_from([*candidate.tiles()]))
    expected = naive_gradients(g, x, weights, dy)[0] if backward else naive_forward(g, x, weights, bias)
    plan = ConvPlan(g, candidate.loop(tile), backward=backward)
    plan.pack(weights, None if backward else bias)
    target, whole = guarded(expected.shape)
    plan.run(dy if backward else x, target)
    assert_close(target, np.maximum(expected, 0) if relu else expected, WITHIN)
    assert_guards_untouched(whole)


@settings(max_examples=60, deadline=None)
@given(geometries(), st.integers(0, 99), st.booleans(), st.data())
def test_every_weight_gradient_tile_equals_naive_loops(g, seed, shared, data):
    """With sums for each thread, and shared."""
    x, weights, _, dy = operands(g, seed)
    candidate = candidate_of(Direction.WEIGHT_GRAD, g, data.draw(st.sampled_from(ALL_UNITS)))
    tile = data.draw(st.sampled_from([*candidate.tiles()]))
    dw, whole = guarded(g.weight_shape, 1)
    db, bias_whole = guarded((g.filters,), 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd_weight_grad, "OWN_SUMS", 0 if shared else 1 << 30)
        patch.setattr(winograd_weight_grad, "SHARED_BYTES", 1)
        engine = candidate.loop(tile)
    assert engine.shared == shared
    _, expected_dw, expected_db = naive_gradients(g, x, weights, dy)
    plan = WeightGradPlan(g, engine)
    plan.run(x, dy, dw, db)
    assert_close(dw, expected_dw + 1, WITHIN)
    assert_close(db, expected_db + 2)
    plan.run(x, dy, dw, db, accumulate=False)
    assert_close(dw, expected_dw, WITHIN)
    assert_close(db, expected_db)
    assert_guards_untouched(whole, bias_whole)


@pytest.mark.parametrize("height, width", [(1, 1), (3, 5), (6, 7)])
@pytest.mark.parametrize("kernel", LINES)
def test_bias_gradient_counts_every_pixel(kernel, height, width):
    """Along one axis the pixels of the tiles need not be a multiple of four."""
    g = ConvGeometry(2, 5, height, width, 17, *kernel, pad_h=kernel[0] // 2, pad_w=kernel[1] // 2)
    x, weights, _, dy = operands(g)
    expected = naive_gradients(g, x, weights, dy)
    for unit in ALL_UNITS:
        candidate = candidate_of(Direction.WEIGHT_GRAD, g, unit)
        for tile in {tile.shape: tile for tile in candidate.tiles()}.values():
            dw, db = np.empty(g.weight_shape, np.float32), np.empty(g.filters, np.float32)
            WeightGradPlan(g, candidate.loop(tile)).run(x, dy, dw, db, accumulate=False)
            assert_close(db, expected[2])
            assert_close(dw, expected[1], WITHIN)


@pytest.mark.parametrize(
    "g",
    [
        ConvGeometry(2, 256, 13, 13, 384, 3, 3, pad_h=1, pad_w=1),
        ConvGeometry(4, 96, 27, 27, 64, 5, 5, pad_h=2, pad_w=2, groups=2),
        ConvGeometry(1, 512, 7, 7, 512, 3, 3, pad_h=1, pad_w=1),
        ConvGeometry(2, 256, 16, 16, 256, 5, 1, pad_h=2),
        ConvGeometry(2, 256, 16, 16, 256, 1, 5, pad_w=2),
        ConvGeometry(1, 512, 16, 16, 512, 1, 3, pad_w=1),
    ],
    ids=["alexnet conv3", "alexnet conv2", "resnet", "5x1", "1x5", "1x3"],
)
def test_errors_stay_below_their_bound_with_many_channels(g):
    x, weights, bias, dy = operands(g)
    expected = naive_forward(g, x, weights, bias), *naive_gradients(g, x, weights, dy)[:2]
    forward, input_grad, weight_grad = plan_forward(g), plan_input_grad(g), plan_weight_grad(g)
    y, dx, dw = (np.empty(e.shape, np.float32) for e in expected)
    forward.pack(weights, bias)
    input_grad.pack(weights)
    forward.run(x, y)
    input_grad.run(dy, dx)
    weight_grad.run(x, dy, dw, accumulate=False)
    for actual, right in zip((y, dx, dw), expected):
        assert np.abs(actual - right).max() < WITHIN / 2 * np.abs(right).max()


@pytest.mark.parametrize("kernel", LINES)
def test_errors_of_every_tile_along_one_axis_stay_below_their_bound(kernel):
    """The tiles of 8 outputs round most: 12 interpolation points."""
    g = ConvGeometry(2, 128, 24, 24, 64, *kernel, pad_h=kernel[0] // 2, pad_w=kernel[1] // 2)
    x, weights, bias, dy = operands(g)
    expected = naive_forward(g, x, weights, bias), *naive_gradients(g, x, weights, dy)[:2]
    y, dx, dw = (np.empty(e.shape, np.float32) for e in expected)
    for direction, actual, right in zip(Direction, (y, dx, dw), expected):
        candidate = candidate_of(direction, g, ALL_UNITS[0])
        widest = {max(tile.shape.m_h, tile.shape.m_w): tile for tile in candidate.tiles()}
        assert set(widest) == set(LINE_OUTPUTS[max(kernel)])
        for tile in widest.values():
            engine = candidate.loop(tile)
            if direction is Direction.WEIGHT_GRAD:
                WeightGradPlan(g, engine).run(x, dy, actual, accumulate=False)
            else:
                plan = ConvPlan(g, engine, backward=direction is Direction.INPUT_GRAD)
                plan.pack(weights, None if plan.target == "dx" else bias)
                plan.run(dy if plan.target == "dx" else x, actual)
            assert np.abs(actual - right).max() < WITHIN / 2 * np.abs(right).max(), tile.name


def test_plans_that_do_not_last_share_the_memory_of_their_weights():
    geometries = [ConvGeometry(8, 64, 16, 16, filters, 3, 3, pad_h=1, pad_w=1) for filters in (64, 96)]
    plans = [plan_input_grad(g, lasting=False) for g in geometries]
    for g, plan in zip(geometries * 2, plans * 2):
        x, weights, _, dy = operands(g)
        dx = np.empty(g.input_shape, np.float32)
        plan.pack(weights)
        plan.run(dy, dx)
        assert_close(dx, naive_gradients(g, x, weights, dy)[0], WITHIN)
    plans[0].pack(operands(geometries[0])[1])
    assert np.shares_memory(plans[0].loop.weights, plans[1].loop.weights)


def test_zero_filters_and_zero_channels_stay_exactly_zero():
    g = ConvGeometry(2, 20, 9, 9, 24, 3, 3, pad_h=1, pad_w=1)
    x, weights, _, dy = operands(g)
    weights[3], weights[:, 7], dy[:, 3], x[:, 7] = 0, 0, 0, 0
    candidates = [candidate_of(direction, g, ALL_UNITS[0]) for direction in Direction]
    forward, input_grad, weight_grad = (candidate.loop(next(candidate.tiles())) for candidate in candidates)
    y, dx, dw = (np.ones(shape, np.float32) for shape in (g.output_shape, g.input_shape, g.weight_shape))
    for plan, source, target in ((ConvPlan(g, forward), x, y), (ConvPlan(g, input_grad, backward=True), dy, dx)):
        plan.pack(weights)
        plan.run(source, target)
    WeightGradPlan(g, weight_grad).run(x, dy, dw, accumulate=False)
    assert not y[:, 3].any()
    assert not dx[:, 7].any()
    assert not dw[3].any()
    assert not dw[:, 7].any()


def test_repeated_runs_give_the_same_bits():
    g = ConvGeometry(3, 32, 12, 12, 32, 3, 3, pad_h=1, pad_w=1)
    x, weights, bias, dy = operands(g)
    results = []
    for _ in range(3):
        y, dx = (np.empty(shape, np.float32) for shape in (g.output_shape, g.input_shape))
        forward, input_grad = plan_forward(g), plan_input_grad(g)
        forward.pack(weights, bias)
        input_grad.pack(weights)
        forward.run(x, y)
        input_grad.run(dy, dx)
        results.append((y.tobytes(), dx.tobytes()))
    assert len(set(results)) == 1


def test_other_kernels_do_not_fit():
    one = {"batch": 1, "channels": 16, "height": 12, "width": 12, "filters": 16, "kernel_h": 3, "kernel_w": 3}
    assert all(candidate_of(direction, ConvGeometry(**one), ALL_UNITS[0]).suits() for direction in Direction)
    lines = [{"kernel_w": 1, "stride_h": 2}, {"kernel_h": 1, "pad_h": 1}, {"kernel_h": 7, "kernel_w": 1}]
    squares = [{"stride_w": 2}, {"dilation_h": 2}, {"kernel_w": 5}, {"kernel_h": 1, "kernel_w": 1}, {"pad_h": 3}]
    for change in (*squares, *lines):
        g = ConvGeometry(**(one | change))
        assert not any(candidate_of(direction, g, ALL_UNITS[0]).suits() for direction in Direction)


def test_it_can_be_switched_off(monkeypatch):
    g = ConvGeometry(8, 64, 28, 28, 64, 3, 3, pad_h=1, pad_w=1)
    assert plan_forward(g).kernel.startswith("winograd")
    assert not plan_forward(g, winograd=False).kernel.startswith("winograd")
    assert not plan_input_grad(g, winograd=False).kernel.startswith("winograd")
    assert not plan_weight_grad(g, winograd=False).kernel.startswith("winograd")
    monkeypatch.setenv(VARIABLE, "0")
    assert not plan_forward(g).kernel.startswith("winograd")
    monkeypatch.setenv(VARIABLE, "off")
    with pytest.raises(UsageError, match='SSLNET_WINOGRAD must be 0 or 1, not "off"'):
        plan_forward(g)
