"""Layers that come from ONNX models, against NumPy, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest

from sslnet.errors import DefinitionError, ShapeError

from .harness import Case, assert_near, inputs, make_net

RANDOM = np.random.default_rng(0)


def test_constant_is_its_parameter_for_each_image():
    text = (
        inputs(x=(3, 2))
        + """layer { name: "l" type: "Constant" bottom: "x" top: "y"
        constant_param { shape { dim: 2 dim: 4 } filler { type: "gaussian" } } }"""
    )
    net = make_net(Case(text))
    y = net.forward()["y"]
    assert y.shape == (3, 2, 4) and y.std() > 0.1
    assert all((image == net.params["l"][0].data).all() for image in y)


@pytest.mark.parametrize("turned", [(False, False), (True, False), (False, True), (True, True)])
def test_matmul_is_the_product_of_matrices(turned):
    a, b = RANDOM.standard_normal((2, 3, 4, 5)), RANDOM.standard_normal((2, 3, 5, 6))
    given = [m.swapaxes(-1, -2) if t else m for m, t in zip((a, b), turned)]
    param = f"transpose_a: {str(turned[0]).lower()} transpose_b: {str(turned[1]).lower()}"
    text = (
        inputs(a=given[0].shape, b=given[1].shape)
        + f'layer {{ name: "l" type: "MatMul" bottom: "a" bottom: "b" top: "y" mat_mul_param {{ {param} }} }}'
    )
    net = make_net(Case(text, values={"a": given[0], "b": given[1]}))
    assert_near(net.forward()["y"], np.einsum("nhij,nhjk->nhik", a, b), "y")


@pytest.mark.parametrize(
    ("type_", "param", "message"),
    [
        ("Resize", "resize_param { height: 3 }", "height and width go together"),
        ("Resize", "", "either height and width, or scale_h and scale_w"),
        ("Resize", "resize_param { scale_h: 0.1 scale_w: 0.1 }", "nothing is left of images of 4 x 5"),
        ("Resize", "resize_param { scale_h: -1 scale_w: 1 }", "scale_h must be above 0, not -1"),
        ("Resize", "resize_param { height: 2 width: 2 mode: NEAREST antialias: true }", "antialias is for LINEAR"),
        ("Pad", "pad_param { top: -4 }", "nothing is left of 4 pixels"),
        ("Pad", "pad_param { left: 5 mode: REFLECT }", "REFLECT adds at most 4 pixels to 5, not 5"),
        ("Pad", "pad_param { right: 6 mode: WRAP }", "WRAP adds at most 5 pixels to 5, not 6"),
        ("GroupNorm", "group_norm_param { group: 2 }", "group must divide the channels: 3 channels, group 2"),
        ("GroupNorm", "group_norm_param { eps: -1 }", "eps must not be negative, not -1"),
        ("LayerNorm", "layer_norm_param { axis: 3 num_axes: 2 }", "2 axes from axis 3 on are not in"),
        ("LayerNorm", "layer_norm_param { axis: 7 }", "axis 7 is not an axis"),
        ("Constant", "constant_param { shape { dim: 0 } }", "dim must be at least 1, not 0"),
        ("Deconvolution", "convolution_param { num_output: 2 kernel_size: 3 stride: 2 output_pad: 2 }", "output_pad must be below the stride, 2, not 2"),
        ("Deconvolution", "convolution_param { num_output: 2 kernel_size: 3 stride: 2 output_pad: 1 pad_type: SAME }", "with pad_type SAME there is no output_pad"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_an_error(type_, param, message):
    text = inputs(x=(2, 3, 4, 5)) + f'layer {{ name: "l" type: "{type_}" bottom: "x" top: "y" {param} }}'
    with pytest.raises((DefinitionError, ShapeError), match=message):
        make_net(Case(text))


def test_matrices_that_do_not_fit_are_an_error():
    text = inputs(a=(2, 3, 4), b=(2, 5, 4)) + 'layer { name: "l" type: "MatMul" bottom: "a" bottom: "b" top: "y" }'
    with pytest.raises(ShapeError, match="inner sizes differ"):
        make_net(Case(text))
