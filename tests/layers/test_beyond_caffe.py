"""Layers that Caffe 1.0 does not have, against their definitions written out in NumPy, value by value."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sslnet.errors import RunError, ShapeError

from .harness import Case, assert_near, inputs, make_net


def run(text: str, **values: np.ndarray) -> dict[str, np.ndarray]:
    """Every blob of the net after a forward pass; parameters and what is not given are drawn."""
    net = make_net(Case(text, values=values))
    net.forward()
    return {
        **{name: blob.data for name, blob in net.blobs.items()},
        **{param.name: param.blob.data for param in net.learnable},
    }


def layer(type_: str, param: str = "", bottoms: str = 'bottom: "x"', **shapes: tuple[int, ...]) -> str:
    return inputs(**shapes) + f'layer {{ name: "l" type: "{type_}" {bottoms} top: "y" {param} }}'


def test_relu6_ends_at_six():
    x = np.array([[-7.0, -1, 0, 2, 6, 9]])
    assert_near(run(layer("ReLU6", x=(1, 6)), x=x)["y"], np.array([[0.0, 0, 0, 2, 6, 6]]), "y")
    leaky = run(layer("ReLU6", "relu6_param { negative_slope: 0.5 }", x=(1, 6)), x=x)["y"]
    assert_near(leaky, np.array([[-3.5, -0.5, 0, 2, 6, 6]]), "y with a slope")


@pytest.mark.parametrize("param", ["", "gelu_param { approximate: TANH }"])
@pytest.mark.parametrize("type_", ["GELU", "HardSwish", "Mish", "SiLU"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_smooth_rectifiers_are_rectifiers_far_from_zero(type_, param, dtype):
    x = np.array([[-1e4, -100, 100, 1e4]], dtype)
    net = make_net(Case(layer(type_, param if type_ == "GELU" else "", x=(1, 4)), values={"x": x}), dtype=dtype)
    y = net.forward()["y"]
    np.testing.assert_allclose(y, np.maximum(x, 0), rtol=1e-6, atol=1e-30)
    net.backward(y=np.ones_like(y))
    np.testing.assert_allclose(net.blobs["x"].diff, [[0, 0, 1, 1]], rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gelu_is_exact_in_its_lower_tail(dtype):
    """Where 1 + erf has no digits left: erfc is what the value is made of."""
    x = np.linspace(-9, 0, 40, dtype=dtype).reshape(1, 40)
    y = make_net(Case(layer("GELU", x=(1, 40)), values={"x": x}), dtype=dtype).forward()["y"]
    expected = [v * 0.5 * math.erfc(-v / math.sqrt(2)) for v in x[0].astype(float)]
    np.testing.assert_allclose(y[0], expected, rtol=2e-5 if dtype == np.float32 else 1e-13)


def test_curves_end_where_they_are_flat():
    x = np.array([[-30.0, -4, 0, 4, 30]])
    assert_near(run(layer("HardSigmoid", x=(1, 5)), x=x)["y"], np.array([[0, 0, 0.5, 1, 1]]), "y")
    depth = -1.050700987 * 1.67326324
    assert_near(run(layer("SELU", x=(1, 5)), x=x)["y"][:, [0, 2]], np.array([[depth, 0]]), "y")


@pytest.mark.parametrize("type_", ["DepthwiseConvolution", "ConvolutionDepthwise"])
def test_depthwise_convolution_keeps_channels_apart(type_):
    blobs = run(layer(type_, "convolution_param { num_output: 6 kernel_size: 2 }", x=(2, 3, 4, 5)))
    x, y, weights, bias = (blobs[name] for name in ("x", "y", "l[0]", "l[1]"))
    assert weights.shape == (6, 1, 2, 2)
    for n, f, h, w in np.ndindex(y.shape):
        expected = (x[n, f // 2, h : h + 2, w : w + 2] * weights[f, 0]).sum() + bias[f]
        assert y[n, f, h, w] == pytest.approx(expected)


def test_permute_moves_axes_and_appends_the_others():
    blobs = run(layer("Permute", "permute_param { order: 2 order: 0 }", x=(2, 3, 4, 5)))
    x, y = blobs["x"], blobs["y"]
    assert y.shape == (4, 2, 3, 5)
    for i, j, k, m in np.ndindex(y.shape):
        assert y[i, j, k, m] == x[j, k, i, m]


def test_permute_refuses_an_axis_twice():
    with pytest.raises(ShapeError, match="twice"):
        run(layer("Permute", "permute_param { order: 1 order: 1 }", x=(2, 3)))


def test_shuffle_channel_reads_the_matrix_by_columns():
    x = np.arange(6.0).reshape(1, 6)
    y = run(layer("ShuffleChannel", "shuffle_channel_param { group: 2 }", x=(1, 6)), x=x)["y"]
    assert_near(y, np.array([[0.0, 3, 1, 4, 2, 5]]), "y")


@pytest.mark.parametrize("across", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_normalize_gives_vectors_of_length_scale(across, shared):
    param = f"norm_param {{ across_spatial: {str(across).lower()} channel_shared: {str(shared).lower()} }}"
    blobs = run(layer("Normalize", param, x=(2, 3, 4, 5)))
    unit = blobs["y"] / (blobs["l[0]"] if shared else blobs["l[0]"].reshape(1, 3, 1, 1))
    length = np.sqrt((unit**2).sum(axis=(1, 2, 3) if across else 1))
    assert_near(length, np.ones_like(length), "length")
    ratio = unit / blobs["x"]
    assert_near(ratio, np.broadcast_to(ratio[:, :1, :1, :1] if across else ratio[:, :1], ratio.shape).copy(), "ratio")


def test_normalize_of_zeros_is_zero():
    y = run(layer("Normalize", "norm_param { across_spatial: false }", x=(1, 2, 3)), x=np.zeros((1, 2, 3)))["y"]
    assert not y.any()


def test_axpy_scales_channels_and_adds():
    bottoms = 'bottom: "a" bottom: "x" bottom: "b"'
    blobs = run(layer("Axpy", bottoms=bottoms, a=(2, 3, 1, 1), x=(2, 3, 4, 5), b=(2, 3, 4, 5)))
    assert_near(blobs["y"], blobs["a"] * blobs["x"] + blobs["b"], "y")


def test_interp_of_a_plane_is_exact_and_keeps_the_corners():
    row, column = np.mgrid[0:4, 0:5].astype(float)
    x = (2 * row - 3 * column + 1)[None, None]
    y = run(layer("Interp", "interp_param { height: 7 width: 9 }", x=(1, 1, 4, 5)), x=x)["y"]
    row, column = np.mgrid[0:3:7j, 0:4:9j]
    assert_near(y, (2 * row - 3 * column + 1)[None, None], "y")


@pytest.mark.parametrize(
    ("param", "size"),
    [
        ("zoom_factor: 2", (9, 13)),
        ("shrink_factor: 2", (3, 4)),
        ("zoom_factor: 3 shrink_factor: 2", (7, 10)),
        ("pad_beg: -1 pad_end: -1", (3, 5)),
        ("height: 1 width: 1", (1, 1)),
    ],
)
def test_interp_size_follows_the_factors(param, size):
    blobs = run(layer("Interp", f"interp_param {{ {param} }}", x=(1, 2, 5, 7)))
    assert blobs["y"].shape == (1, 2, *size)
    first = 1 if "pad" in param else 0
    assert_near(blobs["y"][..., 0, 0], blobs["x"][..., first, first], "first corner")


def test_interp_without_a_change_of_size_copies():
    for kind in ("bilinear", "nearest_neighbor"):
        blobs = run(layer("Interp", f'interp_param {{ interp_type: "{kind}" }}', x=(2, 1, 3, 4)))
        np.testing.assert_array_equal(blobs["y"], blobs["x"])


def test_upsample_repeats_pixels():
    blobs = run(layer("Upsample", "upsample_param { scale: 3 }", x=(2, 2, 2, 3)))
    np.testing.assert_array_equal(blobs["y"], blobs["x"].repeat(3, axis=2).repeat(3, axis=3))


def test_upsample_puts_maxima_back_where_pooling_found_them():
    text = inputs(x=(2, 3, 5, 6)) + (
        'layer { name: "p" type: "Pooling" bottom: "x" top: "m" top: "place"'
        " pooling_param { kernel_size: 2 stride: 2 } }"
        'layer { name: "l" type: "Upsample" bottom: "m" bottom: "place" top: "y"'
        " upsample_param { pad_out_h: true } }"
    )
    blobs = run(text)
    x, y = blobs["x"], blobs["y"]
    assert y.shape == x.shape
    assert (y != 0).sum() == blobs["m"].size
    np.testing.assert_array_equal(y[y != 0], x[y != 0])


def test_upsample_refuses_a_place_outside_the_image():
    text = layer("Upsample", bottoms='bottom: "x" bottom: "place"', x=(1, 1, 2, 2), place=(1, 1, 2, 2))
    with pytest.raises(RunError, match="place 16 is not in an image of 16 pixels"):
        run(text, place=np.array([[[[0, 5], [10, 16]]]]))


@pytest.mark.parametrize(
    ("param", "axes"),
    [
        ("", (3,)),
        ("flip_width: false flip_height: true", (2,)),
        ("flip_height: true", (2, 3)),
        ("flip_width: false", ()),
    ],
)
def test_flip_mirrors_images(param, axes):
    x = np.arange(120.0).reshape(2, 3, 4, 5)
    np.testing.assert_array_equal(
        run(layer("Flip", f"flip_param {{ {param} }}", x=x.shape), x=x)["y"], np.flip(x, axes)
    )


def test_transpose_orders_all_axes():
    x = np.arange(120.0).reshape(2, 3, 4, 5)
    found = run(layer("Transpose", "transpose_param { dim: 3 dim: 1 dim: 0 dim: 2 }", x=x.shape), x=x)["y"]
    np.testing.assert_array_equal(found, x.transpose(3, 1, 0, 2))
