"""Pruning by magnitude: what goes is the smallest, as much as was asked for, and training keeps it zero."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.cli import main
from sslnet.compress.pruning.magnitude import prune
from sslnet.errors import UsageError
from sslnet.net.net import Net
from sslnet.solver.solver import Solver

MODEL = """
layer { name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {
        shape { dim: 3 dim: 4 dim: 8 dim: 8 } shape { dim: 3 } data_filler { type: "gaussian" }
        data_filler { type: "constant" value: 1 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 10 kernel_size: 3 weight_filler { type: "gaussian" std: 0.2 } } }
layer { name: "ip1" type: "InnerProduct" bottom: "conv" top: "ip1"
        inner_product_param { num_output: 20 weight_filler { type: "xavier" } } }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
        inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }
"""


@pytest.fixture
def net() -> Net:
    return Net(prototxt.parse(MODEL, pb.NetParameter), seed=0)


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.95])
def test_smallest_weights_of_each_layer_go(sparsity: float, net: Net) -> None:
    before = {name: blobs[0].data.copy() for name, blobs in net.params.items()}
    pruned = {layer.name: layer for layer in prune(net, sparsity=sparsity)}
    assert set(pruned) == {"conv", "ip1"}  # the last layer is left alone
    for name in pruned:
        after = net.params[name][0].data
        zero = after == 0
        assert zero.sum() == pruned[name].zero == round(sparsity * after.size)
        assert np.abs(before[name][zero]).max() <= np.abs(after[~zero]).min()
        np.testing.assert_array_equal(after[~zero], before[name][~zero])
    np.testing.assert_array_equal(net.params["ip2"][0].data, before["ip2"])


@pytest.mark.parametrize("group, axes", [("FILTER", (1, 2, 3)), ("CHANNEL", (0, 2, 3)), ("SHAPE", (0,))])
def test_groups_go_by_their_norm(group: str, axes: tuple[int, ...], net: Net) -> None:
    before = net.params["conv"][0].data.copy()
    prune(net, sparsity=0.5, group=group, layers=["conv"])
    norms, left = np.sqrt((before**2).sum(axis=axes)), net.params["conv"][0].data.any(axis=axes)
    assert (~left).sum() == round(0.5 * left.size)
    assert norms[~left].max() < norms[left].min()


@pytest.mark.parametrize("layer, group", [("conv", "FILTER"), ("ip1", "OUTPUT_NEURON"), ("deconv", "FILTER")])
def test_biases_go_with_what_they_belong_to(layer: str, group: str) -> None:
    deconv = """layer { name: "deconv" type: "Deconvolution" bottom: "conv" top: "deconv"
        convolution_param { num_output: 6 group: 2 kernel_size: 2 weight_filler { type: "gaussian" std: 0.2 } } }"""
    net = Net(prototxt.parse(MODEL + deconv, pb.NetParameter), seed=0)
    weights, bias = (blob.data for blob in net.params[layer])
    bias[:] = 1
    made = (
        weights.reshape(2, 5, 3, 4).swapaxes(1, 2).reshape(6, 20)
        if layer == "deconv"
        else weights.reshape(len(weights), -1)
    )
    norms = np.linalg.norm(made, axis=1)
    prune(net, sparsity=0.5, group=group, layers=[layer], take_bias=True)
    np.testing.assert_array_equal(bias == 0, norms < np.sort(norms)[len(norms) // 2])
    prune(net, sparsity=0.6, group=group, layers=[layer])
    assert np.count_nonzero(bias == 0) == len(bias) // 2


def test_quality_is_a_part_of_the_standard_deviation(net: Net) -> None:
    before = net.params["conv"][0].data.copy()
    prune(net, quality=0.8, layers=["conv"])
    np.testing.assert_array_equal(net.params["conv"][0].data == 0, np.abs(before) < 0.8 * before.std())


def test_whole_net_takes_the_smallest_of_all(net: Net) -> None:
    weights = [net.params[name][0].data for name in ("conv", "ip1")]
    order = np.sort(np.abs(np.concatenate([w.ravel() for w in weights])))
    pruned = prune(net, sparsity=0.3, whole_net=True)
    assert sum(layer.zero for layer in pruned) == round(0.3 * order.size)
    assert pruned[0].threshold == pruned[1].threshold == pytest.approx(order[round(0.3 * order.size)])
    assert pruned[0].zero / pruned[0].groups != pruned[1].zero / pruned[1].groups


@pytest.mark.parametrize(
    "options, message",
    [
        ({"layers": ["cnov"]}, 'the net has no layer "cnov" with weights'),
        ({"layers": ["ip1"], "group": "FILTER"}, 'layer "ip1" has no groups FILTER'),
        ({"group": "SHAPE", "take_bias": True}, "take_bias needs groups FILTER or OUTPUT_NEURON, not SHAPE"),
    ],
)
def test_layers_that_cannot_be_pruned_are_an_error(options: dict[str, Any], message: str, net: Net) -> None:
    with pytest.raises(UsageError, match=message):
        prune(net, sparsity=0.5, **options)


@pytest.fixture
def files(tmp_path: Path, net: Net) -> tuple[Path, Path]:
    model, weights = tmp_path / "net.prototxt", tmp_path / "w.caffemodel"
    model.write_text(MODEL)
    net.save(weights)
    return model, weights


def test_command_writes_a_net_that_keeps_its_zeros(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["prune", "--model", str(files[0]), "--weights", str(files[1]), "--sparsity", "0.6"]
    assert main([*arguments, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    solver = Solver(
        prototxt.parse(
            f'net: "{record["model"]}" base_lr: 0.1 lr_policy: "fixed" momentum: 0.9 snapshot_prefix: "x"',
            pb.SolverParameter,
        ),
        weights=[record["weights"]],
    )
    zero = {name: solver.net.params[name][0].data == 0 for name in ("conv", "ip1")}
    assert zero["conv"].mean() == pytest.approx(0.6, abs=0.01)
    before = solver.net.params["conv"][0].data.copy()
    solver.step(5)
    for name, flags in zero.items():
        np.testing.assert_array_equal(solver.net.params[name][0].data == 0, flags)
    assert (solver.net.params["conv"][0].data != before).any()
    assert main(arguments) == 0
    assert "sslnet train --solver SOLVER" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options", [[], ["--sparsity", "1"], ["--quality", "-1"], ["--sparsity", "0.5", "--quality", "1"]]
)
def test_option_out_of_range_is_an_error(options: list[str], files: tuple[Path, Path]) -> None:
    assert main(["prune", "--model", str(files[0]), "--weights", str(files[1]), *options]) == 2
