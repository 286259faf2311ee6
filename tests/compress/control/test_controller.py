"""Runs with a target: it is met, what is zero then stays zero, and a resumed run is the same run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.cli import main
from sslnet.compress.compaction.compact import compact
from sslnet.compress.control.controller import StrengthController
from sslnet.compress.control.estimate import Remaining, estimate_remaining
from sslnet.compress.control.latency_model import LatencyModel
from sslnet.compress.control.targets import Targets
from sslnet.compress.pipeline.default_groups import add_groups
from sslnet.errors import RunError, UsageError, WeightsError
from sslnet.net.net import Net
from sslnet.solver.solver import Solver

DIGITS = Path(__file__).parents[3] / "solvers" / "digits_ssl.prototxt"


NET = """
layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TRAIN } transform_param { scale: 0.0625 }
        data_param { source: "digits/train" backend: BUILTIN batch_size: 32 } }
layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TEST } transform_param { scale: 0.0625 }
        data_param { source: "digits/test" backend: BUILTIN batch_size: 64 } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1" param { breadth_decay_mult: 1 }
        convolution_param { num_output: 8 kernel_size: 3 pad: 1 stride: 2 weight_filler { type: "msra" } } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "conv2" type: "Convolution" bottom: "conv1" top: "conv2"
        param { breadth_decay_mult: 1 kernel_shape_decay_mult: 1 }
        convolution_param { num_output: 16 kernel_size: 3 pad: 1 weight_filler { type: "msra" } } }
layer { name: "relu2" type: "ReLU" bottom: "conv2" top: "conv2" }
layer { name: "ip1" type: "InnerProduct" bottom: "conv2" top: "ip1" param { breadth_decay_mult: 1 }
        inner_product_param { num_output: 16 weight_filler { type: "msra" } } }
layer { name: "relu3" type: "ReLU" bottom: "ip1" top: "ip1" }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
        inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }
"""
SOLVER = """
base_lr: 0.02 lr_policy: "multistep" gamma: 0.1 stepvalue: 240 momentum: 0.9 average_loss: 5 max_iter: 300 random_seed: 1
breadth_decay: 0.01 kernel_shape_decay: 0.003 snapshot_prefix: "unused"
"""


def solver(steering: StrengthController, *overrides: str, net: str = NET) -> Solver:
    definition = prototxt.parse(SOLVER, pb.SolverParameter)
    definition.message.net_param.CopyFrom(prototxt.parse(net, pb.NetParameter).message)
    return Solver(prototxt.apply_overrides(definition, list(overrides)), steering=steering)


@pytest.mark.parametrize("of", ["flops", "params"])
def test_target_is_met_and_kept(of: str) -> None:
    told: list[str] = []
    steering = StrengthController(Targets(of, 0.3), told.append)
    one = solver(steering, "momentum=0.9")
    one.step(300)
    assert steering.met
    assert getattr(estimate_remaining(one.net), of) <= 0.3
    assert "the target is met" in told[0]
    assert one.penalty() == 0
    compaction = compact(one.net.definition, one.net.to_proto())
    sums = [
        sum(
            getattr(getattr(layer, side), {"flops": "flops", "params": "parameters"}[of]) for layer in compaction.layers
        )
        for side in ("before", "after")
    ]
    assert sums[1] <= 0.33 * sums[0]  # constants of dead filters may need a Bias


@pytest.mark.parametrize("targets", [Targets("flops", 0.2), Targets("params", None, {"conv2": 0.3, "ip1": 0.2})])
def test_what_the_penalty_leaves_too_long_is_cut(targets: Targets) -> None:
    weak = "breadth_decay=1e-5", "kernel_shape_decay=1e-5", "max_iter=30", "stepvalue=29"
    told: list[str] = []
    missed = StrengthController(targets)
    solver(missed, *weak).solve()
    assert not missed.met
    steering = StrengthController(replace(targets, cut=True), told.append)
    one = solver(steering, *weak)
    one.step(18)
    assert steering.met and sum("smallest groups are removed" in line for line in told) == len(steering.goals)
    zeros = {name: blobs[0].data == 0 for name, blobs in one.net.params.items()}
    one.step(12)
    for goal in steering.goals:
        assert 0 < goal.remaining <= goal.target
    for name, blobs in one.net.params.items():
        np.testing.assert_array_equal(blobs[0].data == 0, zeros[name])
    compaction = compact(one.net.definition, one.net.to_proto())
    assert compaction.difference.relative < 1e-5


def test_the_shortest_groups_are_cut() -> None:
    steering = StrengthController(Targets("params", None, {"ip1": 0.5}, cut=True))
    one = solver(steering, "breadth_decay=1e-5", "kernel_shape_decay=1e-5", "max_iter=50", "stepvalue=49")
    one.step(29)
    norms = np.linalg.norm(one.net.params["ip1"][0].data, axis=1)
    one.step(1)
    kept = one.net.params["ip1"][0].data.any(axis=1)
    assert kept.sum() == 8
    assert norms[kept].min() > 0.97 * norms[~kept].max()


def test_what_is_left_is_what_compaction_leaves() -> None:
    text = """
    layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }
    layer { name: "a" type: "Convolution" bottom: "x" top: "a" convolution_param { num_output: 4 kernel_size: 3 } }
    layer { name: "p" type: "Pooling" bottom: "a" top: "p" pooling_param { kernel_size: 2 stride: 2 } }
    layer { name: "b" type: "Convolution" bottom: "p" top: "b" convolution_param { num_output: 6 kernel_size: 3 } }
    layer { name: "c" type: "InnerProduct" bottom: "b" top: "c" inner_product_param { num_output: 5 } }
    """
    net = Net(prototxt.parse(text, pb.NetParameter), seed=0)
    random = np.random.default_rng(0)
    for param in net.learnable:
        param.blob.data[...] = random.standard_normal(param.blob.shape)
    assert estimate_remaining(net) == Remaining(1.0, 1.0)
    net.params["a"][0].data[1] = 0
    net.params["b"][0].data[[0, 5]] = 0
    net.params["c"][0].data[:, 4:8] = 0  # of b's filter 1: nobody reads it any more
    compaction = compact(net.definition, net.to_proto())
    before, after = (
        [(getattr(layer, side).flops, getattr(layer, side).parameters) for layer in compaction.layers]
        for side in ("before", "after")
    )
    assert not compaction.maps
    expected = [sum(column) / sum(whole) for column, whole in zip(zip(*after), zip(*before))]
    found = estimate_remaining(net)
    assert (found.flops, found.params) == pytest.approx(tuple(expected), rel=1e-6)


def test_net_cut_in_two_has_nothing_left() -> None:
    text = """
    layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 3 } } }
    layer { name: "a" type: "InnerProduct" bottom: "x" top: "a" inner_product_param { num_output: 4 } }
    layer { name: "b" type: "InnerProduct" bottom: "a" top: "b" inner_product_param { num_output: 2 } }
    """
    assert estimate_remaining(Net(prototxt.parse(text, pb.NetParameter))) == Remaining(0.0, 0.0)


TARGETS = [Targets("flops", 0.9), Targets("params", None, {"conv2": 0.8}), Targets("speedup", 1.2, batch=2)]


@pytest.mark.parametrize("targets", TARGETS, ids=lambda targets: targets.of)
@pytest.mark.parametrize("stop", [40, 200])
def test_resumed_run_is_the_same_run(
    stop: int, targets: Targets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped before the target is met, and after; a speedup steered by the table of the run that was stopped."""
    measured = iter([1.0, 7.0])

    def measure(solver: Solver, handles: Any, track: Any) -> LatencyModel:
        layers, slow = len(solver.net.layers), next(measured)
        left = np.array([[1.0] * layers + [1.0], [0.1] * layers + [1.0]])
        return LatencyModel(left, np.array([[slow] * layers + [1.0], [0.1] * layers + [1.0]]))

    monkeypatch.setattr(LatencyModel, "measure", staticmethod(measure))
    monkeypatch.setattr(LatencyModel, "verify", lambda *args: None)
    prefix = f"snapshot_prefix={tmp_path}/run"
    whole = solver(StrengthController(targets), prefix)
    whole.step(stop)
    _, state = whole.snapshot()
    whole.step(9)
    second = solver(StrengthController(targets), prefix)
    second.restore(state)
    second.step(9)
    for name, blobs in whole.net.params.items():
        for blob, other in zip(blobs, second.net.params[name]):
            np.testing.assert_array_equal(blob.data, other.data)
    assert whole.steering is not None and second.steering is not None
    for name, values in whole.steering.state().items():
        np.testing.assert_array_equal(values, second.steering.state()[name], name)


def test_snapshot_of_other_targets_is_one_clear_error(tmp_path: Path) -> None:
    one = solver(StrengthController(Targets("flops", 0.5)), f"snapshot_prefix={tmp_path}/run")
    one.step(1)
    _, state = one.snapshot()
    two = solver(StrengthController(Targets("flops", 0.5, {"conv2": 0.3})))
    with pytest.raises(WeightsError, match="written for other targets"):
        two.restore(state)


def test_layer_is_steered_by_itself() -> None:
    steering = StrengthController(Targets("flops", None, {"conv2": 0.3}))
    one = solver(steering, "breadth_decay=0.001")
    one.step(300)
    assert steering.met
    assert np.count_nonzero(one.net.params["conv2"][0].data) < 0.4 * one.net.params["conv2"][0].count
    assert one.net.params["conv1"][0].data.any(axis=(1, 2, 3)).all()
    left = {penalized.name: penalized.penalty.terms for penalized in one.penalties}
    np.testing.assert_allclose(left["ip1[0]"][0].strengths, 0.001)
    assert "conv2[0]" not in left


def test_strength_that_kills_everything_leaves_the_last_rows() -> None:
    """Far too strong at once: each layer keeps a row, what it was an iteration before, and the run goes on."""
    told: list[str] = []
    one = solver(StrengthController(Targets("flops", 0.05), told.append))
    one.scale_penalties(1e5)
    one.step(20)
    for name in ("conv1", "conv2", "ip1"):
        assert one.net.params[name][0].data.any(), name
    assert any("the last groups of" in line for line in told)
    assert estimate_remaining(one.net).flops > 0


def test_short_run_keeps_its_net() -> None:
    """20 iterations to a twentieth: not to be had, but nothing is destroyed, and it says what it would take."""
    told: list[str] = []
    steering = StrengthController(Targets("flops", 0.05), told.append)
    one = solver(steering, "max_iter=20", "stepvalue=19")
    one.step(20)
    assert not steering.met
    assert estimate_remaining(one.net).flops > 0.05
    assert one.smoothed_loss < 2.3
    assert "the run is too short; about" in told[-1]
    assert "remain, not 5 %" in steering.missed()


def test_residual_branch_may_go_but_not_the_way_through() -> None:
    text = """
    layer { name: "x" type: "DummyData" top: "x" top: "y" dummy_data_param { shape { dim: 4 dim: 2 dim: 5 dim: 5 }
      shape { dim: 4 } data_filler { type: "gaussian" std: 1 } data_filler { type: "constant" } } }
    layer { name: "a" type: "Convolution" bottom: "x" top: "a" param { breadth_decay_mult: 1 }
      convolution_param { num_output: 4 kernel_size: 1 weight_filler { type: "xavier" } } }
    layer { name: "b" type: "Convolution" bottom: "a" top: "b" param { breadth_decay_mult: 1 }
      convolution_param { num_output: 4 kernel_size: 1 weight_filler { type: "xavier" } } }
    layer { name: "s" type: "Eltwise" bottom: "a" bottom: "b" top: "s" }
    layer { name: "c" type: "InnerProduct" bottom: "s" top: "c"
      inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
    layer { name: "l" type: "SoftmaxWithLoss" bottom: "c" bottom: "y" top: "l" }
    """
    param = pb.SolverParameter(base_lr=0.1, lr_policy="fixed", max_iter=90, random_seed=0, breadth_decay=0.1)
    param.net_param.CopyFrom(prototxt.parse(text, pb.NetParameter).message)
    told: list[str] = []
    one = Solver(param, steering=StrengthController(Targets("flops", 0.3), told.append))
    one.scale_penalties(1e5)
    one.step(30)
    assert one.net.params["a"][0].data.any()
    assert not one.net.params["b"][0].data.any()
    assert any("the last groups of a are kept" in line for line in told)
    assert not any("groups of b" in line for line in told)


def test_coupled_groups_are_held_too() -> None:
    told: list[str] = []
    net = prototxt.parse(NET.replace("param { breadth_decay_mult: 1 }", ""), pb.NetParameter)
    net.message.layer[4].ClearField("param")
    add_groups(net, {"phase": pb.TRAIN, "level": 0, "stages": ()})
    strengths = "group_lasso_decay=0.01", "breadth_decay=0", "kernel_shape_decay=0"
    one = solver(StrengthController(Targets("flops", 0.05), told.append), *strengths, net=prototxt.write(net.message))
    one.scale_penalties(1e5)
    one.step(20)
    assert sum("the last groups of" in line for line in told) == 3
    assert estimate_remaining(one.net).flops > 0


@pytest.mark.parametrize(
    "targets, message",
    [
        (
            Targets("flops", None, {"Conv1": 0.5}),
            'the layer "Conv1", which the net does not have; did you mean "conv1"',
        ),
        (Targets("flops", None, {"ip2": 0.5}), 'the layer "ip2", which has no group lasso'),
        (Targets("flops", 0.0001), "0.01 % of the FLOPs cannot be reached: 0."),
        (Targets("params", None, {"conv1": 0.01}), '1 % of the parameters of "conv1" cannot be reached'),
        (Targets("speedup", 1e6, batch=2), "a speedup of 1e+06 cannot be reached: with one group left"),
    ],
)
def test_target_out_of_reach_is_an_error_before_the_run(targets: Targets, message: str) -> None:
    with pytest.raises(UsageError) as error:
        solver(StrengthController(targets))
    assert message in str(error.value).replace("\n  ", "; ")


def test_net_that_is_cut_in_two_ends_the_run() -> None:
    """By other hands than the penalties': no rows can be put back."""
    one = solver(StrengthController(Targets("flops", 0.5)))
    one.step(3)
    one.net.params["ip2"][0].data[...] = 0
    one.updates, one.penalties = [], []
    with pytest.raises(RunError, match="would lose every channel"):
        one.step(3)


def test_command_steers_and_says_when_it_could_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = ["--set", "max_iter=6", "--set", f"snapshot_prefix={tmp_path}/run", "--set", "test_interval=100"]
    assert main(["train", "--solver", str(DIGITS), *short, "--target-params", "0.1,conv1=0.5"]) == 1
    printed = capsys.readouterr().out
    assert 'not met: 100.0 % of the parameters of "conv1" remain, not 50 %; 100.0 % of the parameters remain' in printed


def test_command_measures_what_it_made_faster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = ["--set", "max_iter=6", "--set", f"snapshot_prefix={tmp_path}/run", "--set", "test_interval=100"]
    assert main(["train", "--solver", str(DIGITS), *short, "--target-speedup", "1.5", "--speedup-batch", "64"]) == 1
    printed = capsys.readouterr().out
    assert "the target was not met: the compacted net runs about" in printed
    assert "compacted, the net runs" in printed
    assert "forward, batch 64," in printed


@pytest.mark.parametrize(
    "options, message",
    [
        (["--target-flops", "1.5"], "--target-flops must lie between 0 and 1"),
        (["--target-flops", "0.5", "--target-params", "0.5"], "not both"),
        (["--target-flops", "conv1=0.5,conv1=0.2"], "two targets for conv1"),
        (["--target-flops", "0.5,0.2"], "two targets for the net"),
        (["--target-flops", "=0.5"], "=0.5 names no layer"),
        (["--target-flops", "conv1"], '"conv1" is not a number'),
        (["--target-speedup", "0.9"], "--target-speedup must be above 1, not 0.9"),
        (["--target-speedup", "2", "--speedup-batch", "0"], "--speedup-batch must be at least 1"),
        (["--target-flops", "0.5", "--speedup-batch", "1"], "--speedup-batch needs --target-speedup"),
        (["--cut"], "--cut needs a target"),
        (
            ["--target-flops", "0.5", "--set", "group_lasso_update=SUBGRADIENT"],
            "no parameter of the net has one",
        ),
    ],
)
def test_target_that_makes_no_sense_is_an_error(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--solver", str(DIGITS), *options]) == 2
    assert message in capsys.readouterr().err
