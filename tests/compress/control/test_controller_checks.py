"""Single checks of the controller, its net set by hand: what it finds, how far strengths move, when it ends."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.compress.control import schedule
from sslnet.compress.control.controller import StrengthController
from sslnet.compress.control.goals import GIVEN_UP, MET, ON_THE_WAY
from sslnet.compress.control.targets import Targets
from sslnet.solver.solver import Solver

NET = """
layer { name: "x" type: "DummyData" top: "x" top: "t"
        dummy_data_param { shape { dim: 2 dim: 3 } shape { dim: 2 dim: 2 } data_filler { type: "constant" value: 1 } } }
layer { name: "a" type: "InnerProduct" bottom: "x" top: "a" param { group_lasso { group: OUTPUT_NEURON } }
        inner_product_param { num_output: 10 weight_filler { type: "constant" value: 1 } } }
layer { name: "b" type: "InnerProduct" bottom: "a" top: "b"
        inner_product_param { num_output: 2 weight_filler { type: "constant" value: 1 } } }
layer { name: "l" type: "EuclideanLoss" bottom: "b" bottom: "t" top: "l" }
"""
MAX_ITER = 1000
STRENGTH = 1e-4
"""So weak that the penalty alone would take far longer than the run."""


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def controller(told: list[str]) -> StrengthController:
    return StrengthController(Targets("params", 0.5), told.append)


@pytest.fixture
def solver(controller: StrengthController) -> Solver:
    """30 + 10 parameters of layer a, 20 + 2 of b; the loss is 1 throughout, of the collapsed net 3."""
    param = pb.SolverParameter(
        base_lr=0.1, lr_policy="fixed", max_iter=MAX_ITER, random_seed=0, group_lasso_decay=STRENGTH
    )
    param.net_param.CopyFrom(prototxt.parse(NET, pb.NetParameter).message)
    made = Solver(param, steering=controller)
    controller._collapsed_loss = lambda solver: 3.0  # type: ignore[method-assign]
    made.net.loss = 1.0
    return made


def strength(solver: Solver) -> float:
    """The strength in use, as a multiple of the definition's."""
    rows = np.linalg.norm(solver.net.params["a"][0].data, axis=1).sum()
    return solver.penalty() / (STRENGTH * float(rows))


def test_weak_penalty_starts_at_the_strength_that_meets_the_target(
    solver: Solver, controller: StrengthController
) -> None:
    """Rows of length sqrt(3) shrink by 0.1 * 1e-4 an iteration; they are to be zero within 600 iterations."""
    factor = math.sqrt(3) / 1e-5 / 600
    assert math.exp(controller.goals[0].log_factor) == pytest.approx(factor, rel=1e-5)
    assert strength(solver) == pytest.approx(factor, rel=1e-4)


def test_check_compares_what_remains_with_the_schedule(solver: Solver, controller: StrengthController) -> None:
    goal = controller.goals[0]
    before = goal.log_factor
    solver.net.params["a"][0].data[8:] = 0
    solver.iter = 30
    controller.after_iteration(solver)
    # Two rows are zero: 24 + 8 + 16 + 2 of 62; they were not at the start, so their rates say that they shrink.
    assert goal.remaining == pytest.approx(50 / 62)
    wanted = schedule.log_factor_change(0.5, 0.03, 50 / 62, 50 / 62)
    most = schedule.largest_change(MAX_ITER)
    assert goal.log_factor - before == pytest.approx(min(most, max(-2 * most, wanted)))
    assert strength(solver) == pytest.approx(math.exp(goal.log_factor), rel=1e-4)


def test_nothing_moves_between_checks(solver: Solver, controller: StrengthController) -> None:
    before = controller.goals[0].log_factor
    solver.iter = 31
    controller.after_iteration(solver)
    assert controller.goals[0].log_factor == before


def test_strengths_fall_while_the_loss_has_risen(solver: Solver, controller: StrengthController) -> None:
    goal = controller.goals[0]
    controller.after_iteration(solver)
    before, solver.iter, solver.net.loss = goal.log_factor, 300, 40.0
    controller.after_iteration(solver)
    assert goal.log_factor - before == pytest.approx(-2 * schedule.largest_change(MAX_ITER))


def test_target_is_met(solver: Solver, controller: StrengthController, told: list[str]) -> None:
    solver.net.params["a"][0].data[4:] = 0  # 12 + 4 + 8 + 2 of 62 remain
    solver.iter = 30
    controller.after_iteration(solver)
    assert controller.met and controller.goals[0].status == MET and controller.missed() == ""
    assert told == [
        "iteration 30: 41.9 % of the parameters remain, the target is met: zeros are kept from here on, and the remaining "
        "weights are fine-tuned"
    ]
    assert solver.penalty() == 0


def test_target_is_given_up(solver: Solver, controller: StrengthController, told: list[str]) -> None:
    goal = controller.goals[0]
    solver.iter = 798
    controller.after_iteration(solver)
    assert goal.status == ON_THE_WAY
    solver.iter = 801
    controller.after_iteration(solver)
    assert goal.status == GIVEN_UP and not controller.met
    needed = schedule.iterations_needed(801, 0.5, 1.0)
    assert f"the run is too short; about {needed:,} iterations or --cut may reach it" in told[-1]
    assert controller.missed() == "100.0 % of the parameters remain, not 50 %"


def test_smallest_groups_are_cut(told: list[str]) -> None:
    controller = StrengthController(Targets("params", 0.5, cut=True), told.append)
    param = pb.SolverParameter(
        base_lr=0.1, lr_policy="fixed", max_iter=MAX_ITER, random_seed=0, group_lasso_decay=STRENGTH
    )
    param.net_param.CopyFrom(prototxt.parse(NET, pb.NetParameter).message)
    solver = Solver(param, steering=controller)
    controller._collapsed_loss = lambda solver: 3.0  # type: ignore[method-assign]
    rows = solver.net.params["a"][0].data
    rows *= np.array([7, 3, 9, 1, 10, 5, 2, 8, 4, 6])[:, None]
    solver.net.loss, solver.iter = 1.0, 600
    controller.after_iteration(solver)
    # A row has 3 + 1 + 2 parameters; 2 are always there: 4 rows remain, 26 of 62.
    assert np.flatnonzero(rows.any(axis=1)).tolist() == [0, 2, 4, 7]
    assert controller.met and "100.0 % of the parameters remain, not 50 %: the 6 smallest groups are removed" in told[0]


def test_state_comes_back(solver: Solver, controller: StrengthController) -> None:
    solver.net.params["a"][0].data[9] = 0
    solver.iter = 30
    controller.after_iteration(solver)
    state = controller.state()
    other = StrengthController(Targets("params", 0.5))
    other.set_state(state)
    other.start(solver)
    for name, values in other.state().items():
        np.testing.assert_array_equal(values, state[name], name)
