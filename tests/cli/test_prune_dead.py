"""sslnet prune --dead: what it proves, what it only has seen, and what is a wrong use of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import sslnet
from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.cli import main
from sslnet.net.net import Net

NET = """
layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TRAIN } transform_param { scale: 0.0625 } data_param { source: "digits/train" backend: BUILTIN batch_size: 8 } }
layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TEST } transform_param { scale: 0.0625 } data_param { source: "digits/test" backend: BUILTIN batch_size: 8 } }
layer { name: "ip1" type: "InnerProduct" bottom: "data" top: "ip1" inner_product_param { num_output: 6 weight_filler { type: "xavier" } } }
layer { name: "r" type: "ReLU" bottom: "ip1" top: "ip1" }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2" inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }
"""


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str, Net]:
    """A net in which neurons 0 and 3 are dead for all bytes, and neuron 5 for the digits, which are at most 16."""
    model, weights = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    model.write_text(NET)
    net = Net(prototxt.parse(NET, pb.NetParameter), phase=pb.TEST, seed=1)
    values, bias = (blob.data for blob in net.params["ip1"])
    values[...] = np.abs(values)
    values[[0, 3]] *= -1
    bias[3] = -1
    values[5] = 0.01
    bias[5] = -1
    net.save(str(weights))
    return str(model), str(weights), net


def test_command_zeroes_what_is_proven_and_says_for_which_inputs(files, tmp_path, capsys) -> None:
    model, weights, net = files
    out = str(tmp_path / "out")
    assert main(["prune", "--dead", "--model", model, "--weights", weights, "--output", out]) == 0
    text = capsys.readouterr().out
    assert "proven for every input with data in [0, 15.9375]: 2 filters and neurons emit a constant" in text
    assert "approximate" not in text
    small = Net(f"{out}.prototxt", f"{out}.caffemodel", pb.TEST)
    zero = ~small.params["ip1"][0].data.any(axis=1)
    assert np.flatnonzero(zero).tolist() == [0, 3]
    assert small.layer_dict["ip1"].param.connectivity_mode == pb.DISCONNECTED_ELTWISE
    net.forward()
    small.forward()
    np.testing.assert_array_equal(small.blobs["ip2"].data, net.blobs["ip2"].data)


def test_what_is_constant_on_images_alone_is_named_approximate_with_its_data(files, tmp_path, capsys) -> None:
    model, weights, _ = files
    out = str(tmp_path / "out")
    assert main(["prune", "--dead", "--seen", "200", "--model", model, "--weights", weights, "--output", out]) == 0
    text = capsys.readouterr().out
    assert "approximate, constant on 200 images of digits/train, not proven for others: 1 more" in text
    zero = ~Net(f"{out}.prototxt", f"{out}.caffemodel", pb.TEST).params["ip1"][0].data.any(axis=1)
    assert np.flatnonzero(zero).tolist() == [0, 3, 5]


def test_json_lists_the_dead(files, tmp_path, capsys) -> None:
    model, weights, _ = files
    out = str(tmp_path / "out")
    args = ["prune", "--dead", "--json", "--box", "0,1", "--model", model, "--weights", weights, "--output", out]
    assert main(args) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["box"] == {"data": [0, 1], "label": [0, 1]}
    assert found["dead"] == [{"layer": "ip1", "channels": 6, "dead": [0, 3, 5], "stuck": []}]
    assert found["images"] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--box", "0,1"], "--box and --seen need --dead"),
        (["--dead", "--sparsity", "0.5"], "--sparsity and --dead exclude each other"),
        (["--dead", "--group", "FILTER"], "--group and --dead exclude each other"),
        (["--dead", "--box", "1"], '--box takes two numbers, as --box 0,1, not "1"'),
        (["--dead", "--box", "1,0"], "--box must be two numbers, the smaller one first, not 1, 0"),
        (["--dead", "--seen", "-1"], "--seen must be 0 or more, not -1"),
    ],
)
def test_wrong_use_is_one_error(options, message, files, capsys) -> None:
    model, weights, _ = files
    assert main(["prune", *options, "--model", model, "--weights", weights]) == 2
    assert message in capsys.readouterr().err


def test_function_takes_a_net_and_leaves_it_as_it_is(files) -> None:
    _, _, net = files
    before = net.params["ip1"][0].data.copy()
    result = sslnet.prune_dead(net, box=(0, 1))
    assert [(each.layer, each.dead.tolist()) for each in result.details.layers] == [("ip1", [0, 3, 5])]
    np.testing.assert_array_equal(net.params["ip1"][0].data, before)
    assert not result.net().params["ip1"][0].data[[0, 3, 5]].any()
