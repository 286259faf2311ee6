"""Label smoothing and focal losses: values and gradients of PyTorch 2.13 (float64), and settings that cannot be."""

from __future__ import annotations

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import DefinitionError, ErrorList
from sslnet.net.net import Net

SCORES = np.array(
    [[-1.5, -0.5, 0.5, 1.5], [1.5, 0.5, -0.5, -1.5], [0, 0.5, 1, 1.5], [1, -0.5, 1.5, 0], [1, 1, 1, 1]], np.float64
)
LABELS = np.array([0, 3, 1, 2, 3], np.float64)
TARGETS = np.array([[(i + j) % 2 for j in range(4)] for i in range(5)], np.float64)
WEIGHTS = "weight_by_label_freqs: true class_weighting: 1 class_weighting: 0.5 class_weighting: 2 class_weighting: 3"


def loss_net(type_: str, fields: str, labels: tuple[int, ...] = (5,)) -> Net:
    dims = " ".join(f"dim: {dim}" for dim in labels)
    text = (
        "force_backward: true "
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 5 dim: 4 } } }'
        f'layer {{ name: "t" type: "Input" top: "t" input_param {{ shape {{ {dims} }} }} }}'
        f'layer {{ name: "l" type: "{type_}" bottom: "x" bottom: "t" top: "l" loss_param {{ {fields} }} }}'
    )
    return Net(prototxt.parse(text, pb.NetParameter), phase=pb.TRAIN, dtype=np.float64)


@pytest.mark.parametrize(
    "fields, loss, first, last",
    [
        (
            "label_smoothing: 0.1",
            2.100900538420694,
            [-0.178588279, 0.012428864, 0.042376564, 0.123782852],
            [0.045, 0.045, 0.045, -0.135],
        ),
        (
            "label_smoothing: 0.1 " + WEIGHTS,
            3.8932813502936434,
            [-0.178187547, 0.016018168, 0.040337599, 0.12183178],
            [0.138125, 0.140625, 0.133125, -0.411875],
        ),
        (
            "focal_gamma: 2",
            1.7256017875028902,
            [-0.222706776, 0.020050419, 0.054502689, 0.148153668],
            [0.054118019, 0.054118019, 0.054118019, -0.162354058],
        ),
    ],
)
def test_softmax_loss_equals_pytorch(fields: str, loss: float, first: list[float], last: list[float]) -> None:
    net = loss_net("SoftmaxWithLoss", fields)
    net.forward(x=SCORES, t=LABELS)
    net.backward()
    assert float(net.blobs["l"].data) == pytest.approx(loss, rel=1e-7)
    np.testing.assert_allclose(net.blobs["x"].diff[[0, -1]], [first, last], atol=1e-8)


def test_sigmoid_focal_loss_equals_pytorch() -> None:
    net = loss_net("SigmoidCrossEntropyLoss", "focal_gamma: 2 focal_alpha: 0.25", (5, 4))
    net.forward(x=SCORES, t=TARGETS)
    net.backward()
    assert float(net.blobs["l"].data) == pytest.approx(0.5390562456139417, rel=1e-7)
    first, last = net.blobs["x"].diff[[0, -1]]
    np.testing.assert_allclose(first, [0.002554666, -0.026307591, 0.078922773, -0.000851555], atol=1e-8)
    np.testing.assert_allclose(last, [0.115235208, -0.002629056, 0.115235208, -0.002629056], atol=1e-8)


@pytest.mark.parametrize("gamma", [0.5, 1, 2])
def test_certain_answers_have_finite_focal_gradients(gamma: float) -> None:
    scores = np.array([[1e4, 0, 0, 0], [-1e4, 0, 0, 0], [0, 0, 0, 0], [80, 0, 0, 0], [-80, 0, 0, 0]])
    for type_, labels in (("SoftmaxWithLoss", np.zeros(5)), ("SigmoidCrossEntropyLoss", np.zeros((5, 4)))):
        net = loss_net(type_, f"focal_gamma: {gamma}", labels.shape)
        net.forward(x=scores, t=labels)
        net.backward()
        assert np.isfinite(net.blobs["x"].diff).all()


@pytest.mark.parametrize(
    "type_, fields, message",
    [
        ("SoftmaxWithLoss", "label_smoothing: 1", "label_smoothing must be at least 0 and below 1, not 1"),
        ("SoftmaxWithLoss", "label_smoothing: -0.1", "label_smoothing must be at least 0"),
        ("SoftmaxWithLoss", "label_smoothing: nan", "label_smoothing"),
        ("SoftmaxWithLoss", "focal_gamma: -1", "focal_gamma must be a finite number, 0 or above, not -1"),
        ("SoftmaxWithLoss", "focal_gamma: 1 label_smoothing: 0.1", "exclude each other"),
        ("SoftmaxWithLoss", "focal_alpha: 0.5", "focal_alpha does nothing in a SoftmaxWithLoss layer"),
        ("SigmoidCrossEntropyLoss", "focal_alpha: 0.5", "focal_alpha needs a focal_gamma above 0"),
        ("SigmoidCrossEntropyLoss", "focal_alpha: 2 focal_gamma: 1", "focal_alpha must be from 0 to 1"),
        (
            "SigmoidCrossEntropyLoss",
            "label_smoothing: 0.1",
            "label_smoothing does nothing in a SigmoidCrossEntropyLoss",
        ),
        ("EuclideanLoss", "focal_gamma: 1", "focal_gamma does nothing in a EuclideanLoss layer"),
    ],
)
def test_options_that_cannot_be_are_errors(type_: str, fields: str, message: str) -> None:
    with pytest.raises((DefinitionError, ErrorList), match=message):
        loss_net(type_, fields, (5,) if type_ == "SoftmaxWithLoss" else (5, 4))
