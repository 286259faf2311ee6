"""Cycles of training and pruning: what goes is what the scores say, it stays zero, and a resumed run has the same bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.compress.compaction.compact import compact
from sslnet.compress.pruning.activity import measure_activity
from sslnet.compress.pruning.calibration import CalibrationSet
from sslnet.compress.pruning.channels import find_channels_to_prune
from sslnet.compress.pruning.cycles import PruningCycles, pruning_cycles
from sslnet.errors import DefinitionError, UsageError
from sslnet.net.net import Net
from sslnet.solver.solver import Solver

FC = """
layer { name: "data" type: "DummyData" top: "data" dummy_data_param { shape { dim: 100 dim: 2 } data_filler { type: "uniform" min: 0 max: 1 } } }
layer { name: "target" type: "Reduction" bottom: "data" top: "target" reduction_param { operation: SUM axis: 1 } }
layer { name: "ip1" type: "InnerProduct" bottom: "data" top: "ip1" inner_product_param { num_output: 60 weight_filler { type: "gaussian" std: 1 } } }
layer { name: "relu1" type: "ReLU" bottom: "ip1" top: "ip1" }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2" inner_product_param { num_output: 1 weight_filler { type: "gaussian" std: 1 } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip2" bottom: "target" top: "loss" loss_weight: 2 }
"""

DIGITS = """
layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TRAIN } transform_param { scale: 0.0625 } data_param { source: "digits/train" backend: BUILTIN batch_size: 32 } }
layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TEST } transform_param { scale: 0.0625 } data_param { source: "digits/test" backend: BUILTIN batch_size: 32 } }
layer { name: "c1" type: "Convolution" bottom: "data" top: "c1" convolution_param { num_output: 8 kernel_size: 3 weight_filler { type: "msra" } } }
layer { name: "b1" type: "BatchNorm" bottom: "c1" top: "c1" }
layer { name: "s1" type: "Scale" bottom: "c1" top: "c1" scale_param { bias_term: true } }
layer { name: "r1" type: "ReLU" bottom: "c1" top: "c1" }
layer { name: "c2" type: "Convolution" bottom: "c1" top: "c2" convolution_param { num_output: 12 kernel_size: 3 weight_filler { type: "msra" } } }
layer { name: "r2" type: "ReLU" bottom: "c2" top: "c2" }
layer { name: "ip" type: "InnerProduct" bottom: "c2" top: "ip" inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


def definition(net: str, prune: str, more: str = "", folder: Path | None = None) -> prototxt.Definition:
    prefix = f'snapshot_prefix: "{folder}/run"' if folder is not None else ""
    text = (
        f'net_param {{ {net} }} base_lr: 0.01 lr_policy: "fixed" momentum: 0.3 max_iter: 60 random_seed: 3 snapshot_after_train: false '
        f"{prefix} {more} prune_param {{ {prune} }}"
    )
    return prototxt.parse(text, pb.SolverParameter)


def solver_of(net: str, prune: str, more: str = "", folder: Path | None = None, **options) -> Solver:
    solver = definition(net, prune, more, folder)
    lines: list[str] = []
    cycles = pruning_cycles(solver, lines.append)
    made = Solver(solver, steering=cycles, **options)
    made.lines = lines
    return made


def zero_units(solver: Solver) -> np.ndarray:
    return ~solver.net.params["ip1"][0].data.any(axis=1)


def test_neurons_that_are_never_active_go_and_nothing_else_changes():
    solver = solver_of(FC, "interval: 20 threshold: 0 images: 500")
    solver.step(19)
    alone = definition(FC, "")
    alone.message.ClearField("prune_param")
    twin = Solver(alone)
    twin.step(20)
    solver.step(1)
    weights, bias = (blob.data.astype(float) for blob in twin.net.params["ip1"])
    x = np.random.default_rng(0).random((20000, 2))
    never = (x @ weights.T + bias <= 0).all(axis=0)
    found = zero_units(solver)
    assert 5 < found.sum() < 60
    assert found[np.maximum(weights, 0).sum(axis=1) + bias <= 0].all(), "those that are provably dead"
    # 500 images may miss the rare corner where a neuron is active.
    assert (never <= found).all() and found.sum() - never.sum() <= 3
    np.testing.assert_array_equal(solver.net.params["ip1"][0].data[~found], twin.net.params["ip1"][0].data[~found])
    assert solver.lines[0].startswith(
        f"iteration 20, cycle 1: {found.sum()} channels pruned; left: ip1 {60 - found.sum()} of 60"
    )


def test_pruned_neurons_stay_zero_and_the_run_ends_when_nothing_goes():
    solver = solver_of(FC, "interval: 20 threshold: 0 images: 500")
    solver.step(20)
    first = zero_units(solver)
    solver.step(40)
    assert (zero_units(solver) >= first).all()
    gone = zero_units(solver)
    assert not solver.net.params["ip2"][0].data[:, gone].any() and not solver.net.params["ip1"][1].data[gone].any()
    assert solver.steering.finished
    message = prototxt.parse(FC, pb.NetParameter)
    small = compact(message, solver.net.to_proto())
    assert small.message.layer[2].inner_product_param.num_output == 60 - gone.sum()


@pytest.mark.parametrize(
    ("net", "prune"),
    [
        (FC, "interval: 10 threshold: 0 images: 200 distort: 0.1"),
        (FC, "interval: 10 outliers: 1 images: 200 distort: 0.1"),
        (DIGITS, "interval: 10 part: 0.2 images: 100 until: 40"),
        (DIGITS, 'by: "magnitude" interval: 10 target_flops: 0.5 repair: LEAST_SQUARES images: 64'),
    ],
)
@pytest.mark.parametrize("more", ["", 'type: "Adam" momentum2: 0.99'])
def test_interrupted_and_resumed_run_has_the_same_bits(net, prune, more, tmp_path):
    whole = solver_of(net, prune, more, tmp_path)
    whole.step(45)
    half = solver_of(net, prune, more, tmp_path)
    half.step(25)
    _, state = half.snapshot()
    resumed = solver_of(net, prune, more, tmp_path, snapshot=state)
    assert resumed.iter == 25
    resumed.step(20)
    assert whole.steering.gone.any()
    np.testing.assert_array_equal(resumed.steering.gone, whole.steering.gone)
    for ours, theirs in zip(whole.net.learnable, resumed.net.learnable):
        np.testing.assert_array_equal(ours.blob.data, theirs.blob.data, err_msg=ours.name)
    assert resumed.lines == whole.lines[len(half.lines) :]


def test_part_goes_of_each_layer_in_each_cycle():
    solver = solver_of(DIGITS, "interval: 5 part: 0.25 images: 100 until: 10")
    solver.step(30)
    assert solver.steering.channels.widths(solver.steering.gone) == {"c1": (8, 5), "c2": (12, 7)}  # 8-2-1, 12-3-2
    assert solver.steering.cycles == 2
    assert solver.steering.finished


def test_target_is_met_at_until_with_the_flops_of_the_compacted_net():
    solver = solver_of(DIGITS, "interval: 10 target_flops: 0.4 images: 100 until: 40")
    before = []
    for _ in range(4):
        solver.step(10)
        before.append(solver.steering.remaining)
    assert before == sorted(before, reverse=True)
    assert before[-1] <= 0.4 and before[0] > 0.6 and solver.steering.met
    small = compact(prototxt.parse(DIGITS, pb.NetParameter), solver.net.to_proto())
    flops = [sum(getattr(layer, side).flops for layer in small.layers) for side in ("before", "after")]
    assert flops[1] / flops[0] == pytest.approx(before[-1], abs=0.02)


def test_activity_is_the_part_of_places_behind_the_relu_that_are_not_zero():
    net = Net(prototxt.parse(DIGITS, pb.NetParameter), phase=pb.TEST, seed=1)
    random = np.random.default_rng(0)
    net.params["b1"][2].data[...] = 1
    net.params["b1"][1].data[...] = 1
    net.params["s1"][1].data[...] = random.standard_normal(8) * 3
    images = random.random((200, 1, 8, 8)).astype(np.float32)
    channels = find_channels_to_prune(net)
    found = measure_activity(channels, CalibrationSet({"data": images, "label": np.zeros(200, np.float32)}))
    weights, bias = (blob.data.astype(float) for blob in net.params["c1"])
    windows = np.lib.stride_tricks.sliding_window_view(images[:, 0].astype(float), (3, 3), axis=(1, 2))
    sums = np.einsum("nhwij,fij->nfhw", windows, weights[:, 0]) + bias[:, None, None]
    before = sums / np.sqrt(1 + 1e-5) + net.params["s1"][1].data[:, None, None]
    expected = (before > 0).mean(axis=(0, 2, 3))
    np.testing.assert_allclose(found[channels.tops[net.layer_names.index("c1")]], expected, atol=2e-4)


ERRORS = [
    ("interval: 10", "prune_param does not say how many channels to prune"),
    ("interval: 10 threshold: 0 part: 0.1", "threshold and part exclude each other"),
    ("threshold: 0", "interval is missing"),
    ("interval: 0 threshold: 0", "interval must be at least 1, not 0"),
    ('interval: 10 part: 0.1 by: "activaton"', 'unknown criterion "activaton"\n.*did you mean "activation"'),
    ('interval: 10 threshold: 0.1 by: "magnitude"', "threshold is for by: .activation."),
    ("interval: 10 threshold: 1", "threshold must be at least 0 and below 1, not 1"),
    ("interval: 10 outliers: -1", "outliers must be above 0"),
    ("interval: 10 part: 1.5", "part must lie between 0 and 1, not 1.5"),
    ("interval: 10 target_flops: 0", "target_flops must lie between 0 and 1, not 0"),
    ("interval: 10 part: 0.1 images: 0", "images must be at least 1"),
    ("interval: 10 part: 0.1 until: 5", "until must be at least interval, 10, not 5"),
    ("interval: 10 part: 0.1 until: 100", "until is beyond max_iter, 60: 100"),
    ("interval: 10 part: 0.1 distort: -1", "distort must be 0 or more"),
    ("interval: 10 part: 0.1 repair: STATISTICS", "repair STATISTICS is for nets that are not trained on"),
]


@pytest.mark.parametrize(("prune", "message"), ERRORS, ids=[prune for prune, _ in ERRORS])
def test_settings_that_mean_nothing_are_errors(prune, message):
    with pytest.raises(DefinitionError, match=f"(?s){message}"):
        pruning_cycles(definition(FC, prune))


def test_prune_param_that_nobody_acts_on_is_an_error():
    with pytest.raises(DefinitionError, match="prune_param has no effect here") as caught:
        Solver(definition(FC, "interval: 10 threshold: 0"))
    assert "sslnet.pruning_cycles" in str(caught.value)


def test_net_without_channels_to_prune_is_an_error():
    text = FC.replace(FC[FC.index('layer { name: "ip1"') : FC.index('layer { name: "ip2"')], "")
    text = text.replace('bottom: "ip1" top: "ip2"', 'bottom: "data" top: "ip2"')
    with pytest.raises(UsageError, match="no channels that could be removed"):
        solver_of(text, "interval: 10 threshold: 0")


def test_solver_without_prune_param_has_no_cycles():
    assert pruning_cycles(prototxt.parse("max_iter: 1", pb.SolverParameter)) is None
    assert PruningCycles(pb.PruneParameter(interval=1, part=0.5)).met
