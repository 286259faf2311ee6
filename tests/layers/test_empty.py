"""Blobs without values, over the registry: an empty batch, no channels, no pixels.

Each layer either computes what there is to compute, of the right shapes, forward and backward, plainly and by the plan's
faster steps, or raises one error about its shape.
"""

from __future__ import annotations

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import DefinitionError
from sslnet.net.net import Net

from .cases import CASES, IMAGES, SCORES, single
from .harness import Case, inputs

WAYS = [(np.float64, True), (np.float32, True), (np.float32, False)]
POOLS = ("MAX", "AVE", "STOCHASTIC")
MORE: dict[str, list[Case | str]] = {
    "Im2col": [
        single("Im2col", "convolution_param { kernel_size: 2 stride: 7 pad: 9 dilation: 2 }"),
        single("Im2col", "convolution_param { kernel_size: 2 pad: 3 }", x=inputs(x=(2, 3, 4))),
        single("Im2col", "convolution_param { kernel_size: 2 pad: 3 axis: 2 }", x=inputs(x=(2, 2, 3, 4))),
    ],
    "Convolution": [
        IMAGES + f'layer {{ name: "l" type: "Convolution" bottom: "x" top: "y" convolution_param {{ {param} }} }}'
        for param in (
            "num_output: 3 kernel_size: 3 pad: 4 stride: 2",
            "num_output: 8 kernel_size: 3 pad: 2 group: 4",
            "num_output: 16 kernel_size: 3 pad: 1",
            "num_output: 4 kernel_size: 5 pad: 5 group: 4",
        )
    ],
    "Pooling": [
        IMAGES + f'layer {{ name: "l" type: "Pooling" bottom: "x" top: "y" pooling_param {{ pool: {pool} {param} }} }}'
        for pool in POOLS
        for param in ("global_pooling: true round_mode: FLOOR", "kernel_size: 3 stride: 2")
    ],
    "Accuracy": [SCORES + 'layer { name: "l" type: "Accuracy" bottom: "x" bottom: "label" top: "y" }'],
    "ArgMax": [single("ArgMax"), single("ArgMax", "argmax_param { axis: 1 }")],
    "Threshold": [single("Threshold")],
}
EACH = [
    pytest.param(case if isinstance(case, Case) else Case(case), id=f"{type_}-{number}")
    for type_ in sorted(CASES.keys() | MORE.keys())
    for number, case in enumerate([*CASES.get(type_, []), *MORE.get(type_, [])])
]


def resized(case: Case, axis: int, size: int) -> pb.NetParameter | None:
    """The case's net with inputs of this size along an axis; None where no input has the axis."""
    message = prototxt.parse("force_backward: true\n" + case.text, pb.NetParameter).message
    shapes = [shape for layer in message.layer for shape in layer.input_param.shape if axis < len(shape.dim)]
    for shape in shapes:
        shape.dim[axis] = size
    return message if shapes else None


def run(case: Case, message: pb.NetParameter, dtype: type, plain: bool) -> dict[str, np.ndarray]:
    """All that a run forward and backward leaves: data and diffs."""
    net = Net(message, phase=case.phase, dtype=dtype, seed=1, plain=plain)
    for name in net.inputs:
        net.blobs[name].data[...] = 1
    net.clear_param_diffs()
    net.forward()
    outputs = [name for name in net.outputs if name not in net.loss_weights and name not in case.ignore]
    net.backward(**{name: np.ones(net.blobs[name].shape, dtype) for name in outputs})
    found = {name: net.blobs[name].data for name in net.outputs}
    found |= {f"{param.name} diff": param.blob.diff for param in net.learnable if param.lr_mult}
    found |= {f"{name} diff": net.blobs[name].diff for name in net.inputs if net.blobs[name].has_diff}
    return {name: np.array(array) for name, array in found.items()}


@pytest.mark.parametrize("case", EACH)
def test_layer_without_values_computes_or_says_that_shapes_do_not_fit(case: Case) -> None:
    for axis in range(4):
        message = resized(case, axis, 0)
        if message is None:
            continue
        results, errors = [], []
        for dtype, plain in WAYS:
            try:
                results.append(run(case, message, dtype, plain))
            except DefinitionError as error:  # mostly a ShapeError, which is one; a top_k of no classes
                errors.append(str(error))
        assert not (results and errors), f"axis {axis}: computed in one way, refused in another: {errors}"
        assert len(set(errors)) <= 1
        for result in results:
            assert result.keys() == results[0].keys()
            for name, values in result.items():
                assert np.isfinite(values).all(), f"axis {axis}: {name}"
                assert values.shape == results[0][name].shape
                np.testing.assert_allclose(values, results[0][name], rtol=1e-4, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("case", EACH)
def test_empty_batch_has_the_shapes_that_one_and_two_images_point_to(case: Case) -> None:
    """The size of each axis is a linear function of the number of images."""
    messages = [resized(case, 0, size) for size in (0, 1, 2)]
    if messages[0] is None:
        return
    try:
        none, one, two = (Net(message, phase=case.phase, dtype=np.float64, plain=True) for message in messages)
    except DefinitionError:  # a batch of one, or none, is not for this layer; a ShapeError is one
        return
    for name, blob in none.blobs.items():
        expected = tuple(2 * a - b for a, b in zip(one.blobs[name].shape, two.blobs[name].shape, strict=True))
        assert blob.shape == expected, name


def test_net_is_emptied_and_filled_again() -> None:
    """Batches of none in between leave a run as it is, with the plan's steps and without."""
    text = (
        inputs(x=(3, 4, 6, 6), label=(3,))
        + 'layer { name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param { num_output: 4 kernel_size: 3'
        ' weight_filler { type: "xavier" } } }'
        'layer { name: "r" type: "ReLU" bottom: "c" top: "c" }'
        'layer { name: "p" type: "Pooling" bottom: "c" top: "p" pooling_param { kernel_size: 2 stride: 2 } }'
        'layer { name: "i" type: "InnerProduct" bottom: "p" top: "i" inner_product_param { num_output: 3'
        ' weight_filler { type: "xavier" } } }'
        'layer { name: "s" type: "SoftmaxWithLoss" bottom: "i" bottom: "label" top: "loss" }'
    )
    for plain in (True, False):
        net = Net(prototxt.parse(text, pb.NetParameter), phase=pb.TRAIN, seed=1, plain=plain)
        x = np.random.default_rng(0).standard_normal((3, 4, 6, 6))
        losses, diffs = [], []
        for count in (3, 0, 3):
            net.blobs["x"].reshape(count, 4, 6, 6)
            net.blobs["label"].reshape(count)
            net.clear_param_diffs()
            net.forward(x=x[:count], label=np.arange(count))
            net.backward()
            losses.append(net.loss)
            diffs.append([param.blob.diff.copy() for param in net.learnable])
        assert losses[0] == losses[2] and losses[1] == 0
        for first, none, again in zip(*diffs):
            np.testing.assert_array_equal(first, again)
            assert not none.any()
