"""Outputs and inputs of exported nets: Silence, layers in place on an input, data that are not here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import sslnet

X = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }\n'
CONV = (
    'layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"'
    ' convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }\n'
)
SLICE = 'layer { name: "cut" type: "Slice" bottom: "conv" top: "a" top: "b" slice_param { slice_point: 1 } }\n'


def exported(tmp_path: Path, text: str) -> tuple[list[str], sslnet.Net, object]:
    (tmp_path / "net.prototxt").write_text(text)
    net = sslnet.Net(str(tmp_path / "net.prototxt"), sslnet.TEST)
    random = np.random.default_rng(0)
    for blobs in net.params.values():
        for blob in blobs:
            blob.data[...] = random.standard_normal(blob.shape)
    net.save(str(tmp_path / "net.caffemodel"))
    result = sslnet.export_onnx(str(tmp_path / "net.prototxt"), str(tmp_path / "net.caffemodel"))
    return [output.name for output in result.model.graph.output], net, result


@pytest.mark.parametrize("order", ["ba", "ab"])
def test_blobs_that_a_silence_takes_are_no_outputs(tmp_path: Path, order: str) -> None:
    lines = {
        "a": 'layer { name: "rest" type: "Silence" bottom: "a" }\n',
        "b": 'layer { name: "relu" type: "ReLU" bottom: "b" top: "y" }\n',
    }
    names, net, result = exported(tmp_path, X + CONV + SLICE + "".join(lines[c] for c in order))
    assert names == net.outputs == ["y"]
    assert result.difference.relative < 1e-5


def test_outputs_have_the_names_and_the_order_of_the_net(tmp_path: Path) -> None:
    text = X + CONV + SLICE + 'layer { name: "r" type: "ReLU" bottom: "a" top: "a" }\n'
    names, net, _ = exported(tmp_path, text)
    assert names == net.outputs == ["b", "a"]


@pytest.mark.parametrize("follows", [CONV, ""])
def test_layer_in_place_on_the_input_is_exported(tmp_path: Path, follows: str) -> None:
    scale = 'layer { name: "s" type: "Scale" bottom: "data" top: "data" scale_param { bias_term: true } }\n'
    names, _, result = exported(tmp_path, X + scale + follows)
    assert names == (["conv"] if follows else ["data/output"])
    assert [each.name for each in result.model.graph.input] == ["data"]
    assert result.difference.relative < 1e-5


DATA = (
    'layer { name: "d" type: "Data" top: "data" top: "label" %s data_param { source: "gone" batch_size: 2 backend: LMDB } }\n'
    + CONV
    + 'layer { name: "i" type: "InnerProduct" bottom: "conv" top: "i" inner_product_param { num_output: 3 } }\n'
    + 'layer { name: "l" type: "SoftmaxWithLoss" bottom: "i" bottom: "label" top: "l" }\n'
)


def test_net_whose_database_is_gone_is_exported_run_and_compacted(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(DATA % "transform_param { crop_size: 8 }")
    made = tmp_path / "made.prototxt"
    made.write_text(X + DATA[DATA.index("layer", 5) : DATA.index('layer { name: "l"')])
    net = sslnet.Net(str(made), sslnet.TEST)
    random = np.random.default_rng(1)
    for blobs in net.params.values():
        for blob in blobs:
            blob.data[...] = random.standard_normal(blob.shape)
    net.params["conv"][0].data[1] = net.params["conv"][1].data[1] = 0
    weights = str(tmp_path / "w.caffemodel")
    net.save(weights)
    images = random.standard_normal((3, 3, 8, 8)).astype(np.float32)
    scores = net.forward(data=images[:1])["i"]
    found = sslnet.Predictor(str(tmp_path / "net.prototxt"), weights)(images)["prob"]
    np.testing.assert_allclose(found[:1], np.exp(scores) / np.exp(scores).sum(), rtol=1e-4)
    assert sslnet.export_onnx(str(tmp_path / "net.prototxt"), weights).difference.relative < 1e-4
    small = sslnet.compact(str(tmp_path / "net.prototxt"), weights)
    assert {layer.name: layer.blobs[0].shape.dim[0] for layer in small.weights.layer if layer.blobs}["conv"] == 3


def test_net_whose_database_is_gone_needs_a_size(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(DATA % "")
    with pytest.raises(sslnet.errors.DataError, match="gone"):
        sslnet.Predictor(str(tmp_path / "net.prototxt"), str(tmp_path / "w.caffemodel"))
