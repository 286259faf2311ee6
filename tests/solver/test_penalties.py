"""Penalties in a run: what a prototxt may ask for, resumed runs, targets, settling, what is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.compress.control.controller import StrengthController
from sslnet.compress.control.estimate import estimate_remaining
from sslnet.compress.control.targets import Targets
from sslnet.errors import DefinitionError
from sslnet.prototxt import Diagnostic
from sslnet.solver.callbacks import Monitor
from sslnet.solver.measure_training import measure_training
from sslnet.solver.solver import Solver
from sslnet.sparsity.group_lasso import GroupLasso
from sslnet.sparsity.sparse_group_lasso import SparseGroupLasso

NET = """
layer { name: "d" type: "Data" top: "data" top: "label" transform_param { scale: 0.0625 }
        data_param { source: "digits/train" backend: BUILTIN batch_size: 32 } }
layer { name: "first" type: "Convolution" bottom: "data" top: "first" param { group_lasso { FIRST } }
        convolution_param { num_output: 8 kernel_size: 3 pad: 1 stride: 2 weight_filler { type: "msra" } } }
layer { name: "relu" type: "ReLU" bottom: "first" top: "relu" }
layer { name: "second" type: "Convolution" bottom: "relu" top: "second"
        convolution_param { num_output: 8 kernel_size: 3 pad: 1 weight_filler { type: "msra" } } }
layer { name: "sum" type: "Eltwise" bottom: "first" bottom: "second" top: "sum" }
layer { name: "ip1" type: "InnerProduct" bottom: "sum" top: "ip1" param { group_lasso { IP } }
        inner_product_param { num_output: 16 weight_filler { type: "msra" } } }
layer { name: "relu1" type: "ReLU" bottom: "ip1" top: "ip1" }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2" inner_product_param { num_output: 10
        weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }
"""
SPARSE, MCP = "penalty: SPARSE_GROUP_LASSO l1_ratio: 0.2", "penalty: MCP gamma: 100"
PENALTIES = {
    "sparse": (f"{SPARSE} take_bias: true", f"group: OUTPUT_NEURON {SPARSE}"),
    "sparse, overlapping": (SPARSE, f"group: OUTPUT_NEURON {SPARSE} }} group_lasso {{ group: INPUT_NEURON"),
    "sparse, coupled": (f"couple: true take_bias: true {SPARSE}", f"group: OUTPUT_NEURON {SPARSE}"),
    "MCP": (f"{MCP} take_bias: true", f"group: OUTPUT_NEURON {MCP}"),
    "MCP, coupled": (f"couple: true {MCP}", f"group: OUTPUT_NEURON take_bias: true {MCP}"),
    "both": (f"couple: true {MCP}", f"group: OUTPUT_NEURON {SPARSE}"),
}


def solver(first: str, ip: str, settings: str = "", **given: Any) -> Solver:
    text = 'base_lr: 0.02 lr_policy: "fixed" momentum: 0.9 max_iter: 300 random_seed: 1 group_lasso_decay: 0.01 '
    net = NET.replace("FIRST", first).replace("IP", ip)
    definition = prototxt.parse(f"{text} net_param {{ {net} }}", pb.SolverParameter)
    definition.message.MergeFrom(prototxt.parse(settings, pb.SolverParameter).message)
    return Solver(definition, **given)


@pytest.mark.parametrize("rule", ["SGD", "Adam"])
@pytest.mark.parametrize("case", PENALTIES)
def test_resumed_run_is_the_same_run(case: str, rule: str, tmp_path: Path) -> None:
    settings = (
        f'type: "{rule}" base_lr: {0.02 if rule == "SGD" else 0.002} group_lasso_decay: 0.05 group_lasso_settle: 3'
    )
    settings += f' snapshot_prefix: "{tmp_path}/run"'
    whole, first = (solver(*PENALTIES[case], settings) for _ in range(2))
    whole.step(12)
    first.step(7)
    _, state = first.snapshot()
    second = solver(*PENALTIES[case], settings, snapshot=state)
    second.step(5)
    for one, other in zip(whole.net.learnable, second.net.learnable):
        np.testing.assert_array_equal(one.blob.data, other.blob.data)
    for update, same in zip(whole.updates, second.updates):
        np.testing.assert_array_equal(update.history, same.history)


@pytest.mark.parametrize("case", PENALTIES)
def test_what_is_measured_is_the_penalty(case: str) -> None:
    one = solver(*PENALTIES[case])
    one.step(3)
    found = measure_training(one)
    told = sum(layer.group_lasso or 0.0 for layer in found.layers) + sum(c.group_lasso for c in found.coupled)
    assert told == pytest.approx(one.penalty(), rel=1e-6)
    assert len(found.coupled) == ("coupled" in case or case == "both")


@pytest.mark.parametrize(
    "case, target", [("sparse", 0.4), ("sparse, coupled", 0.4), ("MCP", 0.6), ("MCP, coupled", 0.4)]
)
def test_target_is_met_and_kept(case: str, target: float) -> None:
    told: list[str] = []
    steering = StrengthController(Targets("params", target), told.append)
    one = solver(*PENALTIES[case], steering=steering)
    one.step(300)
    assert steering.met and any("the target is met" in line for line in told)
    assert estimate_remaining(one.net).params <= target
    assert one.penalty() == 0
    if "sparse" in case:  # there are zeros inside the groups that are left
        kept = [row for row in one.net.params["ip1"][0].data if row.any()]
        assert np.count_nonzero(kept) < 0.99 * np.size(kept)


@pytest.mark.parametrize("case", ["sparse, coupled", "MCP, coupled"])
def test_what_the_penalty_leaves_too_long_is_cut(case: str) -> None:
    steering = StrengthController(Targets("params", None, {"first": 0.5}, cut=True))
    one = solver(*PENALTIES[case], "group_lasso_decay: 1e-5 max_iter: 30", steering=steering)
    one.step(18)
    assert steering.met
    zeros = [one.net.params[name][0].data == 0 for name in ("first", "second")]
    assert 0 < zeros[0].sum() < zeros[0].size
    one.step(12)  # the coupled groups have ended, those of ip1 go on
    for before, name in zip(zeros, ("first", "second")):
        np.testing.assert_array_equal(one.net.params[name][0].data == 0, before)


def test_mcp_that_pulls_on_nothing_is_told() -> None:
    class Heard(Monitor):
        def __init__(self) -> None:
            self.notes: list[str] = []

        def on_warning(self, note: Diagnostic) -> None:
            self.notes.append(note.message)

    heard = Heard()
    idle = "penalty: MCP gamma: 3"  # 0.03 is shorter than any filter
    solver(idle, f"group: OUTPUT_NEURON {SPARSE}", "max_iter: 1 snapshot_after_train: false", monitor=heard).solve()
    assert [note.partition(",")[0] for note in heard.notes] == ["first[0]: MCP pulls on no group: all norms"]


@pytest.mark.parametrize(
    "spec, settings, message",
    [
        ("penalty: MCP", "", "penalty MCP needs gamma"),
        ("penalty: SPARSE_GROUP_LASSO", "", "penalty SPARSE_GROUP_LASSO needs l1_ratio"),
        ("penalty: MCP gamma: 1", "", "gamma must be above 1, not 1"),
        ("penalty: MCP gamma: -2", "", "gamma must be above 1, not -2"),
        ("penalty: SPARSE_GROUP_LASSO l1_ratio: 0", "", "l1_ratio must be above 0 and below 1, not 0"),
        ("penalty: SPARSE_GROUP_LASSO l1_ratio: 1", "", "l1_ratio must be above 0 and below 1, not 1"),
        ("gamma: 3", "", "gamma is of MCP, not of GROUP_LASSO"),
        ("couple: true gamma: 3", "", "gamma is of MCP, not of GROUP_LASSO"),
        ("penalty: MCP gamma: 3 l1_ratio: 0.5", "", "l1_ratio is of SPARSE_GROUP_LASSO, not of MCP"),
        ("penalty: MCP gamma: 3", "group_lasso_update: SUBGRADIENT", "penalty MCP needs proximal updates"),
        (
            "penalty: MCP gamma: 3 } group_lasso { group: SHAPE",
            "",
            "first.0. has groups under MCP, and groups of another kind share its weights",
        ),
        (
            "penalty: MCP gamma: 3 group: NEURON } group_lasso { group: SHAPE",
            "",
            "groups of another kind share its weights",
        ),
    ],
)
def test_penalty_that_cannot_be_is_an_error_at_its_place(spec: str, settings: str, message: str) -> None:
    with pytest.raises(DefinitionError, match=message) as caught:
        solver(spec, "group: OUTPUT_NEURON", settings)
    assert caught.value.layer == "first"


def test_penalties_may_share_a_field_with_ranges_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SparseGroupLasso, "SETTINGS", {"gamma": (0.0, 0.5)})
    monkeypatch.setattr(GroupLasso, "SETTINGS", {"gamma": (5.0, 9.0)})
    for spec, message, hint in (
        ("penalty: SPARSE_GROUP_LASSO gamma: 3", "gamma must be above 0 and below 0.5, not 3", ""),
        (
            "penalty: SPARSE_GROUP_LASSO",
            "penalty SPARSE_GROUP_LASSO needs gamma",
            "gamma must be above 0 and below 0.5",
        ),
        ("gamma: 3", "gamma must be above 5 and below 9, not 3", ""),
        ("penalty: MCP", "penalty MCP needs gamma", "gamma must be above 1"),
    ):
        with pytest.raises(DefinitionError) as caught:
            solver(spec, "group: OUTPUT_NEURON penalty: MCP gamma: 3")
        assert (caught.value.message, caught.value.hint) == (message, hint)
    solver("penalty: MCP gamma: 3", "group: OUTPUT_NEURON penalty: SPARSE_GROUP_LASSO gamma: 0.3")
    monkeypatch.setattr(GroupLasso, "SETTINGS", {})
    with pytest.raises(DefinitionError, match="gamma is of SPARSE_GROUP_LASSO and MCP, not of GROUP_LASSO") as caught:
        solver("gamma: 3", "group: OUTPUT_NEURON")
    assert caught.value.hint == "penalty: SPARSE_GROUP_LASSO or penalty: MCP"


def test_layers_that_share_groups_must_agree_on_the_penalty() -> None:
    net = NET.replace(
        'bottom: "relu" top: "second"', 'bottom: "relu" top: "second" param { group_lasso { couple: true } }'
    )
    text = 'base_lr: 0.02 lr_policy: "fixed" group_lasso_decay: 0.01'
    net = net.replace("FIRST", f"couple: true {MCP}").replace("IP", "group: OUTPUT_NEURON")
    with pytest.raises(DefinitionError, match='"second" ask for groups of the same channels under different penalties'):
        Solver(prototxt.parse(f"{text} net_param {{ {net} }}", pb.SolverParameter))
