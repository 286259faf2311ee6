"""Convolutions that leave out zeros equal plain dense ones in float64, for patterns and geometries of every kind."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sslnet.errors import ShapeError
from sslnet.kernels.conv.im2col import output_extent
from sslnet.kernels.conv.pattern import SparsityPattern, find_kept, keep_all
from sslnet.kernels.conv.plan import (
    ConvGeometry,
    ConvPlan,
    plan_forward,
    plan_input_grad,
    plan_unstructured,
    plan_weight_grad,
)
from sslnet.kernels.conv.problem import ConvProblem, Direction
from sslnet.kernels.conv.sparse import structured_filters as conv_sparse_filters
from sslnet.kernels.conv.sparse.candidates import KeptFilterCandidate, KeptPixelCandidate
from sslnet.kernels.runtime.threads import set_num_threads
from sslnet.kernels.simd.vector import vector_unit

from ...conv_oracle import (
    ALL_UNITS,
    assert_close,
    assert_guards_untouched,
    guarded,
    inside_guards,
    naive_forward,
    naive_gradients,
)


@pytest.fixture(autouse=True, params=[1, 3])
def threads(request):
    set_num_threads(request.param)
    yield
    set_num_threads(None)


def naive_weight_grad(g, x, dy):
    return naive_gradients(g, x, np.zeros(g.weight_shape), dy)[1]


def naive_input_grad(g, weights, dy):
    return naive_gradients(g, np.zeros(g.input_shape), weights, dy)[0]


@st.composite
def geometries(draw):
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    height, width = draw(st.integers(1, 9)), draw(st.one_of(st.integers(1, 9), st.integers(10, 40)))
    kernel_h, kernel_w = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    stride_h, stride_w = (draw(st.sampled_from([1, 1, 1, 2, 3])) for _ in "hw")
    dilation_h, dilation_w = (draw(st.sampled_from([1, 1, 2])) for _ in "hw")
    if draw(st.booleans()):
        # An output as large as the input is lowered in a way of its own.
        pad_h, pad_w = (kernel_h - 1) * dilation_h // 2, (kernel_w - 1) * dilation_w // 2
    else:
        pad_h, pad_w = (draw(st.integers(0, 5)) for _ in "hw")
    ends = tuple(draw(st.sampled_from([-1, -1, 0, 1, 2, 5])) for _ in "hw")
    behind = [pad if end < 0 else end for pad, end in zip((pad_h, pad_w), ends)]
    assume(output_extent(height, kernel_h, stride_h, pad_h, dilation_h, behind[0]) >= 1)
    assume(output_extent(width, kernel_w, stride_w, pad_w, dilation_w, behind[1]) >= 1)
    channels, filters = draw(st.integers(1, 4)) * groups, draw(st.integers(1, 20)) * groups
    numbers = (kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, groups, *ends)
    return ConvGeometry(draw(st.integers(1, 4)), channels, height, width, filters, *numbers)


def operands(g, seed, zero_rows=0.3, zero_columns=0.5, zero_weights=0.0):
    """x, weights with zeros, bias, dy."""
    rng = np.random.default_rng(seed)
    shapes = (g.input_shape, g.weight_shape, (g.filters,), g.output_shape)
    x, weights, bias, dy = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    matrices = weights.reshape(g.groups, g.group_filters, g.columns)
    matrices[rng.random(matrices.shape[:2]) < zero_rows] = 0
    matrices.transpose(0, 2, 1)[rng.random((g.groups, g.columns)) < zero_columns] = 0
    weights[rng.random(weights.shape) < zero_weights] = 0
    return [inside_guards(array) for array in (x, weights, bias, dy)]


def kept_plan(kind, g, kept, unit, **options):
    """The plan with this loop nest, or None where it does not take the geometry."""
    candidate = kind(ConvProblem(Direction.FORWARD, g, unit, kept, **options))
    return ConvPlan(g, candidate.loop(min(candidate.tiles(), key=candidate.cycles))) if candidate.suits() else None


KEPT = [KeptFilterCandidate, KeptPixelCandidate]
PATTERNS = st.sampled_from([(0, 0), (0.3, 0.5), (0.9, 0.9), (1, 1), (0, 1), (0.5, 0)])


@pytest.mark.parametrize("kind", KEPT)
@settings(max_examples=60, deadline=None)
@given(geometries(), st.integers(0, 99), PATTERNS, st.sampled_from(ALL_UNITS))
def test_kept_forward_equals_dense(kind, g, seed, zeros, unit):
    x, weights, bias, _ = operands(g, seed, *zeros)
    expected = naive_forward(g, x, weights, bias)
    for relu in (False, True):
        plan = kept_plan(kind, g, find_kept(weights, g.groups), unit, relu=relu)
        assume(plan is not None)
        y, whole = guarded(g.output_shape)
        plan.pack(weights, bias)
        plan.run(x, y)
        assert_close(y, np.maximum(expected, 0) if relu else expected)
        plan.pack(weights, None)
        plan.run(x, y)
        without = expected - bias[:, None, None]
        assert_close(y, np.maximum(without, 0) if relu else without)
        assert_guards_untouched(whole)


@settings(max_examples=60, deadline=None)
@given(geometries(), st.integers(0, 99), PATTERNS, st.sampled_from(ALL_UNITS))
def test_kept_gradients_equal_dense(g, seed, zeros, unit):
    x, weights, _, dy = operands(g, seed, *zeros)
    kept = find_kept(weights, g.groups)
    dx, dx_whole = guarded(g.input_shape)
    plan = plan_input_grad(g, kept=kept, unit=unit)
    plan.pack(weights)
    plan.run(dy, dx)
    assert_close(dx, naive_input_grad(g, weights, dy))
    dw, dw_whole = guarded(g.weight_shape, 1)
    db, db_whole = guarded((g.filters,), 2)
    plan_weight_grad(g, kept=kept, unit=unit).run(x, dy, dw, db)
    there = np.zeros((g.groups, g.group_filters, g.columns), bool)
    for mask, f, c in zip(there, kept.filters, kept.columns, strict=True):
        mask[np.ix_(f, c)] = True
    expected = np.where(there.reshape(g.weight_shape), naive_weight_grad(g, x, dy), 0)
    assert_close(dw, expected + 1)
    assert_close(db, dy.astype(np.float64).sum((0, 2, 3)) + 2)
    plan_weight_grad(g, kept=kept, unit=unit).run(x, dy, dw, db, accumulate=False)
    assert_close(dw, expected)
    assert_guards_untouched(dx_whole, dw_whole, db_whole)


@settings(max_examples=60, deadline=None)
@given(geometries(), st.integers(0, 99), st.sampled_from([0, 0.5, 0.95, 1]), st.booleans(), st.sampled_from(ALL_UNITS))
def test_unstructured_forward_equals_dense(g, seed, zeros, direct, unit):
    x, weights, bias, _ = operands(g, seed, 0.1, 0.1, zeros)
    expected = naive_forward(g, x, weights, bias)
    for relu in (False, True):
        plan = plan_unstructured(g, direct=direct, relu=relu, unit=unit)
        y, whole = guarded(g.output_shape)
        plan.pack(weights, bias)
        plan.run(x, y)
        assert_close(y, np.maximum(expected, 0) if relu else expected)
        plan.pack(weights, None)
        plan.run(x, y)
        without = expected - bias[:, None, None]
        assert_close(y, np.maximum(without, 0) if relu else without)
        assert_guards_untouched(whole)


def test_find_kept_finds_rows_and_columns_by_group():
    weights = np.zeros((4, 2, 1, 2), np.float32)
    weights[0, 1, 0, 0] = 1
    weights[3, 0, 0, 1] = np.nan
    kept = find_kept(weights, 2)
    assert [f.tolist() for f in kept.filters] == [[0], [1]]
    assert [c.tolist() for c in kept.columns] == [[2], [1]]
    assert kept.weights == 2
    assert kept.share == 2 / 16


def test_a_pattern_covers_what_it_keeps():
    g = ConvGeometry(1, 4, 5, 5, 6, 3, 3, groups=2)
    some = find_kept(operands(g, 1)[1], 2)
    assert keep_all(g).covers(some)
    assert some.covers(some)
    assert not some.covers(keep_all(g))


def test_a_pattern_of_other_weights_is_an_error():
    g = ConvGeometry(1, 4, 5, 5, 6, 3, 3, groups=2)
    pattern = SparsityPattern((np.arange(6),), (np.arange(36),), (1, 6, 36))
    for plan in (plan_forward, plan_input_grad, plan_weight_grad):
        with pytest.raises(ShapeError, match=r"the pattern is of weights \(groups, filters, columns\) \(1, 6, 36\)"):
            plan(g, kept=pattern)


def test_a_layer_larger_than_a_chunk_is_computed_whole(monkeypatch):
    monkeypatch.setattr(conv_sparse_filters, "WINDOW_BYTES", 1 << 16)
    g = ConvGeometry(2, 40, 40, 40, 24, 3, 3, pad_h=1, pad_w=1)
    strided = ConvGeometry(2, 40, 40, 40, 24, 3, 3, 2, 2)
    for geometry in (g, strided):
        x, weights, bias, dy = operands(geometry, 3, 0.2, 0.2, 0.8)
        kept = find_kept(weights)
        expected = naive_forward(geometry, x, weights, bias)
        kept_plans = [kept_plan(kind, geometry, kept, vector_unit()) for kind in KEPT]
        for plan in (*kept_plans, *(plan_unstructured(geometry, direct=d) for d in (False, True))):
            y, whole = guarded(geometry.output_shape)
            plan.pack(weights, bias)
            plan.run(x, y)
            assert_close(y, expected)
            assert_guards_untouched(whole)
        dx, dw = guarded(geometry.input_shape)[0], np.zeros(geometry.weight_shape, np.float32)
        plan = plan_input_grad(geometry, kept=kept)
        plan.pack(weights)
        plan.run(dy, dx)
        assert_close(dx, naive_input_grad(geometry, weights, dy))
        plan_weight_grad(geometry, kept=kept).run(x, dy, dw)
        alive = np.abs(weights) > 0
        assert_close(dw[alive], naive_weight_grad(geometry, x, dy)[alive])


def test_a_kernel_of_many_columns_that_reaches_into_padding_is_computed_whichever_way():
    for pad in (0, 9):
        g = ConvGeometry(2, 3, 5, 40, 20, 2, 20, pad_h=1, pad_w=pad)
        x, weights, bias, _ = operands(g, 8)
        over_filters = kept_plan(KeptFilterCandidate, g, find_kept(weights), vector_unit())
        assert (over_filters is not None) == (pad == 0)
        plan = plan_forward(g, kept=find_kept(weights))
        plan.pack(weights, bias)
        y, whole = guarded(g.output_shape)
        plan.run(x, y)
        assert_close(y, naive_forward(g, x, weights, bias))
        assert_guards_untouched(whole)


def test_weights_are_read_when_they_are_packed():
    g = ConvGeometry(2, 3, 8, 8, 5, 3, 3, pad_h=1, pad_w=1)
    x, weights, bias, _ = operands(g, 5)
    _, others, _, _ = operands(g, 6, 0, 0, 0.7)
    for direct in (False, True):
        plan = plan_unstructured(g, direct=direct)
        for these in (weights, others, weights):
            plan.pack(these, bias)
            y, _ = guarded(g.output_shape)
            plan.run(x, y)
            assert_close(y, naive_forward(g, x, these, bias))


def test_repeated_runs_give_the_same_bits():
    g = ConvGeometry(3, 8, 9, 9, 20, 3, 3, pad_h=1, pad_w=1, groups=2)
    x, weights, bias, dy = operands(g, 7)
    kept = find_kept(weights, 2)
    results = []
    for _ in range(2):
        y, dx, dw, db = (np.zeros(s, np.float32) for s in (g.output_shape, g.input_shape, g.weight_shape, (g.filters,)))
        forward, input_grad = plan_forward(g, kept=kept), plan_input_grad(g, kept=kept)
        forward.pack(weights, bias)
        forward.run(x, y)
        input_grad.pack(weights)
        input_grad.run(dy, dx)
        plan_weight_grad(g, kept=kept).run(x, dy, dw, db)
        results.append([a.tobytes() for a in (y, dx, dw, db)])
    assert results[0] == results[1]
