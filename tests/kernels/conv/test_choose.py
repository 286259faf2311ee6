"""The heuristic: estimates are numbers that can be compared, the least one is chosen, and depthwise and kept loops compete."""

from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sslnet.errors import ShapeError
from sslnet.kernels.conv.choose import CANDIDATES, choose, estimates
from sslnet.kernels.conv.cost import COSTS
from sslnet.kernels.conv.geometry import ConvGeometry
from sslnet.kernels.conv.pattern import SparsityPattern, keep_all
from sslnet.kernels.conv.problem import ConvProblem, Direction
from sslnet.kernels.runtime.threads import set_num_threads
from sslnet.kernels.simd.vector import GENERIC, UNITS

from ..conv_oracle import ALL_UNITS
from .test_conv import geometries


@pytest.fixture(autouse=True)
def two_threads():
    set_num_threads(2)
    yield
    set_num_threads(None)


def some_of(g, share, seed=0):
    """A pattern of about so large a part of the filters and columns, one of each at least."""
    rng = np.random.default_rng(seed)

    def kept(count):
        return np.sort(rng.permutation(count)[: max(1, round(count * share))])

    filters, columns = (tuple(kept(n) for _ in range(g.groups)) for n in (g.group_filters, g.columns))
    return SparsityPattern(filters, columns, (g.groups, g.group_filters, g.columns))


def kinds(*problems):
    return {type(choice.candidate).__name__ for choice in estimates(*problems)}


@settings(max_examples=150, deadline=None)
@given(geometries(), st.sampled_from(ALL_UNITS), st.sampled_from(Direction), st.sampled_from([None, 0.1, 0.5, 1.0]))
def test_every_estimate_is_positive_and_finite_and_the_least_is_chosen(g, unit, direction, share):
    kept = None if share is None else some_of(g, share)
    problem = ConvProblem(direction, g, unit, kept)
    found = [*estimates(problem)]
    assert all(math.isfinite(choice.cycles) and choice.cycles > 0 for choice in found)
    chosen = choose(problem)
    assert chosen.cycles == min(choice.cycles for choice in found)
    assert chosen.problem is problem


def test_every_candidate_is_chosen_from_somewhere():
    plain = ConvGeometry(8, 64, 28, 28, 64, 3, 3, pad_h=1, pad_w=1)
    depthwise = ConvGeometry(8, 64, 28, 28, 64, 3, 3, pad_h=1, pad_w=1, groups=64)
    found = set()
    for g in (plain, depthwise):
        for kept in (None, keep_all(g)):
            found |= kinds(*(ConvProblem(direction, g, kept=kept) for direction in Direction))
    assert found == {kind.__name__ for kind in CANDIDATES}


def test_loop_nests_that_do_not_suit_are_not_estimated():
    strided = ConvGeometry(8, 64, 28, 28, 64, 3, 3, 2, 2)
    assert kinds(ConvProblem(Direction.FORWARD, strided)) == {"FilterCandidate", "PixelCandidate"}
    plain = ConvGeometry(8, 64, 28, 28, 64, 3, 3)
    assert kinds(ConvProblem(Direction.FORWARD, plain, winograd=False)) == {"FilterCandidate", "PixelCandidate"}
    kept = kinds(ConvProblem(Direction.FORWARD, plain, kept=keep_all(plain)))
    assert kept == {"KeptFilterCandidate", "KeptPixelCandidate"}


@pytest.mark.parametrize("direction", Direction)
def test_of_two_problems_the_cheaper_one_is_solved(direction):
    """All weights, or those of a pattern: the pattern when it is small."""
    g = ConvGeometry(1, 96, 13, 13, 96, 3, 3, pad_h=1, pad_w=1)
    dense = ConvProblem(direction, g)
    for share, worth in ((0.2, True), (1.0, False)):
        kept = ConvProblem(direction, g, kept=some_of(g, share))
        assert choose(kept, dense).problem is (kept if worth else dense)
        assert choose(kept, dense).cycles == min(choose(kept).cycles, choose(dense).cycles)


def test_a_depthwise_geometry_goes_to_the_depthwise_loops_because_they_are_cheaper():
    for size, stride in ((112, 1), (56, 2), (14, 1), (7, 1)):
        g = ConvGeometry(8, 64, size, size, 64, 3, 3, stride, stride, 1, 1, 1, 1, 64)
        for unit in ALL_UNITS:
            for direction in Direction:
                problem = ConvProblem(direction, g, unit)
                others = [c.cycles for c in estimates(problem) if "Depthwise" not in type(c.candidate).__name__]
                assert choose(problem).cycles < min(others)


def test_the_table_has_a_row_for_each_unit_and_no_cost_that_is_not_positive():
    assert set(COSTS) == {*UNITS.values(), GENERIC}
    for costs in COSTS.values():
        assert all(getattr(costs, field.name) > 0 for field in fields(costs) if field.type != "bool")


def test_a_pattern_of_other_weights_is_an_error():
    g, other = ConvGeometry(1, 4, 5, 5, 6, 3, 3), ConvGeometry(1, 4, 5, 5, 6, 2, 2)
    with pytest.raises(ShapeError, match="the pattern is of weights"):
        ConvProblem(Direction.FORWARD, g, kept=keep_all(other))


# Layers of the models: batch, channels, height = width, filters, kernel, stride, pad, groups; what they get with two threads
# on AVX2 and on AVX-512, for the three directions.
GOLDEN = {
    (64, 1, 28, 20, 5, 1, 0, 1): (
        ("pixels 4x3", "pixels 1x7", "pixels 2x5"),
        ("pixels 4x6", "pixels 1x8", "pixels 4x5"),
    ),
    (64, 20, 12, 50, 5, 1, 0, 1): (
        ("winograd 4x4 1x14", "winograd 4x4 3x4", "winograd 4x4 3x4"),
        ("winograd 4x4 2x14", "winograd 4x4 2x14", "winograd 4x4 4x4"),
    ),
    (100, 3, 32, 32, 5, 1, 2, 1): (
        ("pixels 4x3", "pixels 3x3", "filters 2x1"),
        ("filters 1x1x16", "pixels 3x4", "filters 1x3"),
    ),
    (100, 32, 16, 32, 5, 1, 2, 1): (
        ("winograd 4x4 2x6", "winograd 4x4 2x6", "winograd 4x4 2x4"),
        ("winograd 4x4 2x14", "winograd 4x4 2x14", "winograd 4x4 2x8"),
    ),
    (100, 32, 8, 64, 5, 1, 2, 1): (
        ("winograd 4x4 2x6", "winograd 4x4 2x6", "winograd 4x4 3x4"),
        ("winograd 4x4 4x6", "winograd 4x4 2x14", "winograd 4x4 2x8"),
    ),
    (128, 16, 32, 16, 3, 1, 1, 1): (
        ("winograd 4x4 2x6", "winograd 4x4 2x6", "winograd 4x4 2x4"),
        ("winograd 4x4 1x30", "winograd 4x4 1x30", "winograd 4x4 1x16"),
    ),
    (128, 32, 16, 32, 3, 1, 1, 1): (
        ("winograd 4x4 2x6", "winograd 4x4 2x6", "winograd 4x4 2x4"),
        ("winograd 4x4 2x14", "winograd 4x4 2x14", "winograd 4x4 2x8"),
    ),
    (128, 64, 8, 64, 3, 1, 1, 1): (
        ("winograd 4x4 2x6", "winograd 4x4 2x6", "winograd 4x4 3x4"),
        ("winograd 4x4 4x6", "winograd 4x4 4x6", "winograd 4x4 2x8"),
    ),
    (128, 16, 32, 32, 3, 2, 1, 1): (
        ("filters 1x1x8", "pixels 4x3", "filters 2x2"),
        ("filters 1x1x16", "filters 1x1x16", "filters 2x4"),
    ),
    (16, 3, 227, 96, 11, 4, 0, 1): (
        ("filters 3x1x4", "pixels 3x3", "filters 1x1"),
        ("filters 2x1x14", "pixels 3x4", "filters 2x1"),
    ),
    (16, 96, 27, 256, 5, 1, 2, 2): (
        ("winograd 4x4 2x6", "winograd 4x4 3x4", "winograd 4x4 3x4"),
        ("winograd 4x4 2x14", "winograd 4x4 1x30", "winograd 4x4 2x8"),
    ),
    (16, 256, 13, 384, 3, 1, 1, 1): (
        ("winograd 4x4 3x4", "winograd 4x4 2x6", "winograd 4x4 3x4"),
        ("winograd 4x4 4x6", "winograd 4x4 4x6", "winograd 4x4 3x8"),
    ),
    (16, 384, 13, 384, 3, 1, 1, 2): (
        ("winograd 4x4 3x4", "winograd 4x4 3x4", "winograd 4x4 3x4"),
        ("winograd 4x4 4x6", "winograd 4x4 4x6", "winograd 4x4 3x8"),
    ),
    (16, 384, 13, 256, 3, 1, 1, 2): (
        ("winograd 4x4 2x6", "winograd 4x4 3x4", "winograd 4x4 3x4"),
        ("winograd 4x4 4x6", "winograd 4x4 4x6", "winograd 4x4 2x8"),
    ),
    (8, 64, 56, 64, 3, 1, 1, 1): (
        ("winograd 4x4 2x6", "winograd 4x4 2x6", "winograd 4x4 3x4"),
        ("winograd 4x4 2x14", "winograd 4x4 2x14", "winograd 4x4 2x8"),
    ),
    (64, 1, 8, 16, 3, 1, 1, 1): (
        ("pixels 6x2", "pixels 1x4", "filters 1x3"),
        ("filters 1x1x8", "pixels 1x8", "filters 1x3"),
    ),
    (64, 16, 8, 64, 5, 1, 2, 1): (
        ("winograd 4x4 2x6", "winograd 4x4 2x6", "winograd 4x4 3x4"),
        ("winograd 4x4 2x14", "winograd 4x4 1x30", "winograd 4x4 2x8"),
    ),
    (8, 192, 28, 64, 1, 1, 0, 1): (
        ("pixels 4x3", "pixels 6x2", "filters 2x6"),
        ("filters 2x1x14", "filters 2x1x14", "filters 4x6"),
    ),
    (1, 128, 28, 256, 1, 1, 0, 1): (
        ("pixels 6x2", "filters 2x1x6", "filters 2x6"),
        ("filters 2x1x14", "filters 2x1x14", "filters 2x13"),
    ),
    (1, 512, 14, 512, 1, 1, 0, 1): (
        ("filters 2x1x6", "filters 2x1x6", "filters 2x6"),
        ("filters 2x1x14", "filters 2x1x14", "filters 4x6"),
    ),
    (8, 1024, 7, 1024, 1, 1, 0, 1): (
        ("filters 3x1x4", "filters 3x1x4", "filters 2x6"),
        ("filters 2x1x7", "filters 2x1x7", "filters 4x6"),
    ),
    (8, 64, 56, 64, 3, 1, 1, 64): (
        ("depthwise 5", "depthwise 5", "depthwise 4"),
        ("depthwise 8", "depthwise 8", "depthwise 4"),
    ),
    (8, 64, 112, 64, 3, 2, 1, 64): (
        ("depthwise 5", "depthwise 2", "depthwise 4"),
        ("depthwise 8", "depthwise 8", "depthwise 4"),
    ),
    (8, 64, 56, 128, 1, 1, 0, 1): (
        ("pixels 4x3", "pixels 4x3", "filters 2x6"),
        ("filters 2x1x14", "filters 2x1x14", "filters 2x13"),
    ),
}


@pytest.mark.parametrize("numbers", GOLDEN)
def test_layers_of_the_models_get_what_was_decided(numbers):
    """Another choice is other rounding and another speed: it is made by hand, after ``tools/bench convs``."""
    batch, channels, size, filters, kernel, stride, pad, groups = numbers
    g = ConvGeometry(batch, channels, size, size, filters, kernel, kernel, stride, stride, pad, pad, 1, 1, groups)
    for name, expected in zip(("avx2", "avx512f"), GOLDEN[numbers]):
        assert tuple(choose(ConvProblem(d, g, UNITS[name])).tile.name for d in Direction) == expected


# Pairs of one-dimensional convolutions: batch, channels, height = width, filters, kernel, pads.
GOLDEN_LINES = {
    (100, 32, 16, 32, (5, 1), (2, 0)): (
        ("winograd 8x1 2x6", "winograd 8x1 2x6", "winograd 8x1 2x4"),
        ("winograd 8x1 2x14", "winograd 8x1 2x14", "winograd 8x1 2x8"),
    ),
    (100, 32, 16, 32, (1, 5), (0, 2)): (
        ("winograd 1x8 2x6", "winograd 1x8 2x6", "winograd 1x8 2x4"),
        ("winograd 1x8 2x14", "winograd 1x8 2x14", "winograd 1x8 2x8"),
    ),
    (100, 32, 8, 48, (5, 1), (2, 0)): (
        ("winograd 8x1 3x4", "winograd 8x1 2x6", "winograd 8x1 3x4"),
        ("winograd 8x1 3x9", "winograd 8x1 2x14", "winograd 8x1 3x8"),
    ),
    (100, 48, 8, 64, (1, 5), (0, 2)): (
        ("winograd 1x8 2x6", "winograd 1x8 3x4", "winograd 1x8 3x4"),
        ("winograd 1x8 2x14", "winograd 1x8 3x9", "winograd 1x8 2x8"),
    ),
    (8, 64, 56, 64, (1, 3), (0, 1)): (
        ("winograd 1x8 2x6", "winograd 1x8 2x6", "winograd 1x8 3x4"),
        ("winograd 1x8 2x14", "winograd 1x8 2x14", "winograd 1x8 2x8"),
    ),
    (64, 1, 28, 20, (5, 1), (2, 0)): (
        ("pixels 4x3", "pixels 1x7", "pixels 2x5"),
        ("pixels 10x2", "pixels 1x8", "pixels 4x5"),
    ),
}


@pytest.mark.parametrize("numbers", GOLDEN_LINES)
def test_one_dimensional_layers_get_what_was_decided(numbers):
    batch, channels, size, filters, kernel, pads = numbers
    g = ConvGeometry(batch, channels, size, size, filters, *kernel, pad_h=pads[0], pad_w=pads[1])
    for name, expected in zip(("avx2", "avx512f"), GOLDEN_LINES[numbers]):
        assert tuple(choose(ConvProblem(d, g, UNITS[name])).tile.name for d in Direction) == expected
