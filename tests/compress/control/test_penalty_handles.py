"""Handles of penalties on a net of two InnerProduct layers: groups in one parameter, and coupled ones."""

from __future__ import annotations

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.compress.control.penalty_handles import PenaltyHandle, find_handles, thinned
from sslnet.solver.solver import Solver

NET = """
layer { name: "x" type: "DummyData" top: "x" top: "t"
        dummy_data_param { shape { dim: 2 dim: 3 } shape { dim: 2 dim: 2 } data_filler { type: "constant" value: 1 } } }
layer { name: "a" type: "InnerProduct" bottom: "x" top: "a" param { %s } inner_product_param { num_output: 4 } }
layer { name: "b" type: "InnerProduct" bottom: "a" top: "b" inner_product_param { num_output: 2 } }
layer { name: "l" type: "EuclideanLoss" bottom: "b" bottom: "t" top: "l" }
"""
ROWS = "group_lasso { group: OUTPUT_NEURON }"
ROWS_AND_COLUMNS = f"{ROWS} group_lasso {{ group: INPUT_NEURON decay_mult: 3 }}"
COUPLED = "group_lasso { group: NEURON }"


def solver_of(asked: str) -> Solver:
    """Weights of a: rows of length 0, 5, 10, 15; of b: 1."""
    param = pb.SolverParameter(
        base_lr=0.5, lr_policy="fixed", momentum=0.75, max_iter=9, random_seed=0, group_lasso_decay=0.5
    )
    param.net_param.CopyFrom(prototxt.parse(NET % asked, pb.NetParameter).message)
    solver = Solver(param)
    a, b = (solver.net.params[name] for name in "ab")
    a[0].data[...] = np.outer([0, 1, 2, 3], [3, 4, 0])
    b[0].data[...] = 1
    return solver


def only(solver: Solver) -> PenaltyHandle:
    (handle,) = find_handles(solver)
    return handle


def test_norms_strengths_and_kinds_of_groups_in_one_parameter() -> None:
    handle = only(solver_of(ROWS_AND_COLUMNS))
    norms = dict(zip(handle.sizes, np.split(handle.norms(), np.cumsum(handle.sizes)[:-1])))
    np.testing.assert_allclose(norms[4], [0, 5, 10, 15], rtol=1e-6)
    np.testing.assert_allclose(norms[3], np.sqrt(14) * np.array([3, 4, 0]), rtol=1e-6)
    assert handle.count == 7 and sorted(set(handle.strengths())) == [0.5, 1.5]
    assert handle.layers == {"a"}


def test_coupled_group_has_what_makes_and_what_reads_the_neuron() -> None:
    """Row, bias and column: norms sqrt(25 k^2 + 0 + 2)."""
    handle = only(solver_of(COUPLED))
    np.testing.assert_allclose(handle.norms(), np.sqrt(25 * np.arange(4) ** 2 + 2), rtol=1e-6)
    assert handle.sizes == [4] and handle.layers == {"a"}
    assert [update.param.layer.name for update in handle.makers] == ["a"]


@pytest.mark.parametrize("asked", [ROWS, COUPLED])
def test_cleared_groups_are_zero_and_come_back(asked: str) -> None:
    solver = solver_of(asked)
    handle = only(solver)
    before = handle.norms()
    gone = np.array([False, True, False, True])
    with handle.without(gone):
        np.testing.assert_allclose(handle.norms(), np.where(gone, 0, before))
        if asked == COUPLED:
            assert solver.net.params["b"][0].data.any(axis=0).tolist() == [True, False, True, False]
    np.testing.assert_array_equal(handle.norms(), before)


def test_columns_are_cleared_where_their_kind_says_so() -> None:
    solver = solver_of(ROWS_AND_COLUMNS)
    handle = only(solver)
    flags = [np.zeros(size, np.bool_) for size in handle.sizes]
    flags[handle.sizes.index(3)][0] = True
    handle.clear(np.concatenate(flags))
    np.testing.assert_array_equal(solver.net.params["a"][0].data, np.outer([0, 1, 2, 3], [0, 4, 0]))


@pytest.mark.parametrize("asked", [ROWS, COUPLED])
def test_scale_multiplies_the_strengths_of_the_definition(asked: str) -> None:
    solver = solver_of(asked)
    value = solver.penalty()
    handle = only(solver)
    handle.scale(4.0)
    assert solver.penalty() == pytest.approx(4 * value)
    handle.scale(0.5)
    assert solver.penalty() == pytest.approx(0.5 * value)
    np.testing.assert_allclose(handle.strengths(), 0.5)


def test_ended_handle_has_no_penalty_and_scales_no_more() -> None:
    solver = solver_of(ROWS)
    handle = only(solver)
    handle.end(solver)
    handle.scale(4.0)
    assert handle.ended and solver.penalty() == 0


def test_first_groups_of_each_kind() -> None:
    handle = only(solver_of(ROWS_AND_COLUMNS))
    for part, counts in ((0.0, [1, 1]), (0.5, [2, 2]), (1.0, [4, 3])):
        found = [int(flags.sum()) for flags in np.split(handle.first(part), np.cumsum(handle.sizes)[:-1])]
        assert found == (counts if handle.sizes == [4, 3] else counts[::-1])


def test_speed_is_rate_times_strength_through_momentum() -> None:
    speeds = only(solver_of(ROWS)).speeds(0.5)
    assert speeds is not None
    np.testing.assert_allclose(speeds, 0.5 * 0.5 / (1 - 0.75))


def test_thinned_keeps_some_groups_of_each_handle() -> None:
    handle = only(solver_of(ROWS))
    with thinned([handle], [np.array([False, False, True, False])]):
        assert handle.norms().tolist() == [0, 0, 10, 0]
    assert handle.norms().tolist() == [0, 5, 10, 15]
