"""Settling: minimisers stay as they are, groups that nothing but noise keeps alive become zero, with their momentum."""

from __future__ import annotations

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.solver.parameter_update import Update
from sslnet.solver.solver import Solver
from sslnet.solver.updates import UPDATES
from sslnet.solver.zero_group_test import settle
from sslnet.sparsity.penalty import Penalty

NET = """
layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ dim: 8 dim: 6 dim: 2 dim: 2 }} }} }}
layer {{ name: "y" type: "Input" top: "y" input_param {{ shape {{ dim: 8 dim: 5 }} }} }}
layer {{ name: "ip" type: "InnerProduct" bottom: "x" top: "p" param {{ {spec} }} param {{ lr_mult: 2 }}
        inner_product_param {{ num_output: 5 weight_filler {{ type: "gaussian" std: 1 }} }} }}
layer {{ name: "loss" type: "EuclideanLoss" bottom: "p" bottom: "y" top: "loss" }}
"""
GROUPS = {
    "rows": "group_lasso { group: OUTPUT_NEURON }",
    "channels": "group_lasso { group: CHANNEL }",
    "elements": "group_lasso { group: ELEMENT }",
    "blocks": "group_lasso { group: BLOCK xdimen: 4 }",
    "nested": "group_lasso { group: CHANNEL } group_lasso { group: INPUT_NEURON }",
    "overlapping": "group_lasso { group: OUTPUT_NEURON } group_lasso { group: INPUT_NEURON }",
    "with biases": "group_lasso { group: OUTPUT_NEURON take_bias: true }",
    "overlapping, with biases": "group_lasso { group: OUTPUT_NEURON take_bias: true } group_lasso { group: CHANNEL }",
    "coupled": "group_lasso { group: NEURON } group_lasso { group: CHANNEL }",
    "sparse": "group_lasso { group: OUTPUT_NEURON take_bias: true penalty: SPARSE_GROUP_LASSO l1_ratio: 0.3 }",
    "MCP": "group_lasso { group: OUTPUT_NEURON penalty: MCP gamma: 3 }",
    "MCP, coupled": "group_lasso { group: NEURON penalty: MCP gamma: 3 }",
}
RATE = 0.01


def solver(rule: str, groups: str, strength: float = 1.0) -> Solver:
    """After some steps, so that the rules have their step sizes."""
    momentum = "momentum: 0.5" if UPDATES[rule].TAKES_MOMENTUM else ""
    text = (
        f'type: "{rule}" {momentum} base_lr: {RATE} lr_policy: "fixed" random_seed: 1 group_lasso_decay: {strength} '
        f"net_param {{ {NET.format(spec=GROUPS[groups])} }}"
    )
    run = Solver(prototxt.parse(text, pb.SolverParameter))
    random = np.random.default_rng(0)
    for name in ("x", "y"):
        run.net.blobs[name].data[...] = random.standard_normal(run.net.blobs[name].shape)
    run.step(3)
    return run


def penalised(run: Solver) -> tuple[list[Update], Penalty]:
    """The updates under the one penalty, and it."""
    (penalized,) = run.penalties
    return penalized.members, penalized.penalty


def set_means(run: Solver, gradients: list[np.ndarray]) -> None:
    """As if every gradient so far had been this one."""
    for update, gradient in zip(penalised(run)[0], gradients):
        assert update.mean is not None
        update.mean[...] = gradient * (1 - update.solver.group_lasso_memory**run.iter)


def look(run: Solver) -> list[np.ndarray]:
    """The weights before."""
    members, _ = penalised(run)
    before = [update.param.blob.data.copy() for update in members]
    settle(run.penalties, run.iter - 1, RATE, 1.0)
    return before


@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("rule", UPDATES)
def test_minimisers_stay_as_they_are(rule: str, groups: str) -> None:
    """z = prox(x) is the minimiser where the gradient is z - x; the look must find it so in the metric of the rule."""
    run = solver(rule, groups)
    members, penalty = penalised(run)
    random = np.random.default_rng(1)
    found = [random.standard_normal(update.param.blob.shape).astype(np.float32) for update in members]
    for x in found:  # two rows and a third of the columns are short
        x[:2] *= 0.01
        x.reshape(5, -1)[:, 16:] *= 0.01
    aims = [x.copy() for x in found]
    penalty.prox(found, [1.0] * len(found))
    zeros = sum(int((z == 0).sum()) for z in found)
    assert zeros and any(z.any() for z in found), "the case must have both"
    for update, z in zip(members, found):
        update.param.blob.data[...] = z
    set_means(run, [z - x for z, x in zip(found, aims)])
    for before, update in zip(look(run), members):
        np.testing.assert_array_equal(update.param.blob.data, before)


@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("rule", UPDATES)
def test_short_groups_that_no_gradient_holds_become_zero_with_their_momentum(rule: str, groups: str) -> None:
    run = solver(rule, groups)
    members, penalty = penalised(run)
    for update in members:
        update.param.blob.data[...] = 1e-6
        update.history[0][...] = 1
    if run.penalties[0].coupled:  # its duals are those of other weights, within TOLERANCE
        penalty.set_state([])
    duals = [array.copy() for array in penalty.state()]
    set_means(run, [np.zeros(update.param.blob.shape, np.float32) for update in members])
    look(run)
    for update in members:
        assert not update.param.blob.data.any()
        assert update.history[0].any() == (update.MOMENTA == 0)
    for before, after in zip(duals, penalty.state(), strict=True):
        np.testing.assert_array_equal(after, before)


def test_weights_of_groups_that_live_are_not_moved() -> None:
    run = solver("SGD", "rows")
    (update,), _ = penalised(run)
    w = update.param.blob.data
    w[...] = 1
    w[2] = 1e-6
    set_means(run, [np.zeros(w.shape, np.float32)])
    look(run)
    assert not w[2].any()
    assert (np.delete(w, 2, axis=0) == 1).all()


def test_looks_come_when_the_iterations_are_a_multiple(monkeypatch: pytest.MonkeyPatch) -> None:
    run, seen = solver("SGD", "rows"), []
    monkeypatch.setattr("sslnet.solver.solver.settle", lambda penalties, iteration, rate, scale: seen.append(iteration))
    run.step(4)
    assert seen == []
    run.param.group_lasso_settle = 5
    run.step(9)
    assert seen == [9, 14]
