"""Each file errors/CASE.prototxt has a layer that cannot be; errors/CASE.txt is what is said about it, to the letter.

Adding a case is adding the two files. What only shows while a net runs is below.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import DefinitionError, RunError, ShapeError
from sslnet.net.net import Net

from .harness import inputs

FOLDER = Path(__file__).parent / "errors"
CASES = sorted(path.stem for path in FOLDER.glob("*.prototxt"))


@pytest.mark.parametrize("case", CASES)
def test_layer_error_text_is_exact(case, monkeypatch):
    monkeypatch.chdir(FOLDER)
    with pytest.raises(DefinitionError) as caught:
        Net(f"{case}.prototxt", phase=pb.TRAIN)
    assert str(caught.value) + "\n" == (FOLDER / f"{case}.txt").read_text(encoding="utf-8")


def test_layer_error_texts_all_have_their_prototxt():
    assert sorted(path.stem for path in FOLDER.glob("*.txt")) == CASES


def net_of(text: str) -> Net:
    return Net(prototxt.parse(text, pb.NetParameter), phase=pb.TRAIN, seed=1)


SCORES = inputs(x=(4, 10), label=(4,))
MAPS = inputs(x=(2, 10, 3, 3), label=(2, 1, 3, 3))


@pytest.mark.parametrize("type_", ["SoftmaxWithLoss", "Accuracy"])
@pytest.mark.parametrize("label", [10, -1, 1e9, -0.5])
def test_label_out_of_range_says_which_and_where(type_, label):
    net = net_of(SCORES + f'layer {{ name: "out" type: "{type_}" bottom: "x" bottom: "label" top: "y" }}')
    with pytest.raises(RunError) as caught:
        net.forward(label=np.array([1, 9, label, 10]))
    assert str(caught.value) == (
        f"<text>:3:1: error: label {label:g} of image 2 of the batch is out of range: the 10 classes are 0 .. 9\n"
        f'      layer {{ name: "out" type: "{type_}" bottom: "x" bottom: "label" top: "y" }}\n'
        "      ^^^^^\n"
        '  layer "out"; is num_output the number of classes, and do the labels start at 0?'
    )


@pytest.mark.parametrize("type_", ["SoftmaxWithLoss", "Accuracy"])
def test_label_out_of_range_in_an_image_says_at_which_position(type_):
    net = net_of(MAPS + f'layer {{ name: "out" type: "{type_}" bottom: "x" bottom: "label" top: "y" }}')
    labels = np.zeros((2, 1, 3, 3))
    labels[1, 0, 1, 2] = np.nan
    with pytest.raises(RunError, match="label nan of image 1 of the batch, position 5 is out of range"):
        net.forward(label=labels)


@pytest.mark.parametrize(("type_", "field"), [("SoftmaxWithLoss", "loss_param"), ("Accuracy", "accuracy_param")])
@pytest.mark.parametrize("ignored", [-1, 255])
def test_ignored_label_may_be_out_of_range(type_, field, ignored):
    net = net_of(
        SCORES + f'layer {{ name: "out" type: "{type_}" bottom: "x" bottom: "label" top: "y"'
        f" {field} {{ ignore_label: {ignored} }} }}"
    )
    net.forward(label=np.array([1, 9, ignored, 0]))
    with pytest.raises(RunError, match="label 10 of image 3"):
        net.forward(label=np.array([1, 9, ignored, 10]))


RESHAPED = [
    (
        'type: "InnerProduct" inner_product_param { num_output: 3 }',
        'the weights take 12 values an image, "x" of shape (2, 3, 5) has 15 from axis 1 on',
    ),
    (
        'type: "Convolution" convolution_param { num_output: 3 kernel_size: 2 axis: 0 }',
        'the weights take 2 channels and 2 spatial axes, "x" has shape (3, 3, 4)',
    ),
]


@pytest.mark.parametrize(("layer", "message"), RESHAPED)
def test_reshaped_input_that_does_not_fit_the_weights_is_told(layer, message):
    net = net_of(inputs(x=(2, 3, 4)) + f'layer {{ name: "l" bottom: "x" top: "y" {layer} }}')
    net.blobs["x"].reshape(*(int(n) for n in message[message.rindex("(") + 1 : message.rindex(")")].split(",")))
    with pytest.raises(ShapeError) as caught:
        net.reshape()
    assert caught.value.message == message
