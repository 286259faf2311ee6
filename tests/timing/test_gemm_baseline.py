"""The matrix products of a layer: what is multiplied is what the layer computes, in every form, images lowered in part."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.kernels.conv.pattern import find_kept
from sslnet.net.input_layers import fill_inputs
from sslnet.net.net import Net
from sslnet.timing import gemm_baseline as products
from sslnet.timing.gemm_baseline import Products, lowered, transposed

NET = """
layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ dim: 3 dim: 4 {sizes} }} }} }}
layer {{ name: "layer" bottom: "data" top: "y" {layer} }}
"""
CONVOLUTIONS = {
    "plain": "kernel_size: 3 pad: 1",
    "groups": "kernel_size: 3 group: 2 stride: 2",
    "dilation": "kernel_h: 2 kernel_w: 3 dilation: 2",
}


def run(layer: str, sizes: str = "dim: 7 dim: 8") -> Net:
    net = Net(prototxt.parse(NET.format(layer=layer, sizes=sizes), pb.NetParameter), seed=0, plain=True)
    fill_inputs(net)
    weights = net.layers[1].blobs[0].data
    random = np.random.default_rng(1)
    weights[...] = random.standard_normal(weights.shape) * (random.random(weights.shape) < 0.5)
    weights[1] = 0
    net.forward()
    return net


def convolution(settings: str, sizes: str = "dim: 7 dim: 8") -> Net:
    return run(f'type: "Convolution" convolution_param {{ num_output: 6 bias_term: false {settings} }}', sizes)


def products_of(layer: Any, net: Net, form: str) -> Products:
    weights = layer.blobs[0].data
    matrices = weights.reshape(layer.group, 6 // layer.group, -1)
    own = Products(matrices, find_kept(weights, layer.group), [form], lowered(layer, net.bottoms[1]))
    own.load()
    return own


def product(products: Products, form: str) -> np.ndarray:
    """(images, groups, filters, pixels) of what the form multiplies, by NumPy; rows that it leaves out are zero."""
    groups, filters, _ = products.shape
    images, pixels = products.lowering.images, products.lowering.pixels
    out = np.zeros((images, groups, filters, pixels))
    for image, right in zip(out, products.right[form]):
        for group, b in enumerate(right):
            rows = products.kept.filters[group] if form == "kept" else np.arange(filters)
            a = products.csr[group].toarray() if form == "csr" else products.weights[form][group]
            image[group, rows] = a.astype(np.float64) @ b
    return out


@pytest.mark.parametrize("settings", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
@pytest.mark.parametrize("form", products.PRODUCTS)
def test_product_of_a_convolution_is_its_output(settings: str, form: str) -> None:
    net = convolution(settings)
    layer = net.layers[1]
    own = products_of(layer, net, form)
    expected = net.blobs["y"].data.reshape(3, layer.group, 6 // layer.group, -1)
    np.testing.assert_allclose(product(own, form), expected, rtol=1e-4, atol=1e-5)


def test_product_of_one_axis_is_the_output() -> None:
    net = convolution("kernel_size: 3", sizes="dim: 9")
    own = products_of(net.layers[1], net, "dense")
    np.testing.assert_allclose(product(own, "dense")[:, 0], net.blobs["y"].data, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", products.PRODUCTS)
def test_product_of_inner_product_is_its_output(form: str) -> None:
    net = run('type: "InnerProduct" inner_product_param { num_output: 5 bias_term: false }')
    weights = net.layers[1].blobs[0].data
    own = Products(weights[None], find_kept(weights), [form], transposed(net.blobs["data"], weights.shape[1]))
    own.load()
    np.testing.assert_allclose(product(own, form)[0, 0].T, net.blobs["y"].data, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("threads", [1, 40])
@pytest.mark.parametrize("form", products.PRODUCTS)
def test_blas_and_scipy_are_given_the_same_product_on_any_threads(
    form: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "num_threads", lambda: threads)
    monkeypatch.setattr(products, "SMALL", 0)
    net = convolution(CONVOLUTIONS["groups"])
    layer = net.layers[1]
    own = products_of(layer, net, form)
    own.seconds(form, time.perf_counter)
    expected = product(own, form)
    if form == "kept":
        expected = np.concatenate([image[g, rows] for image in expected for g, rows in enumerate(own.kept.filters)])
    found = np.concatenate([result.ravel() for result in own.results])
    np.testing.assert_allclose(found, expected.reshape(-1), rtol=1e-4, atol=1e-5)


def test_large_batch_is_lowered_in_part_and_the_time_multiplied_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "LOWERED_BYTES", 1)
    net = convolution(CONVOLUTIONS["plain"])
    own = products_of(net.layers[1], net, "dense")
    assert (own.lowering.images, own.lowering.all, own.pixels) == (1, 3, 3 * 56)
    ticks = iter((10.0, 12.0))
    assert own.seconds("dense", lambda: next(ticks)) == 6


def test_layer_without_a_weight_left_can_be_multiplied() -> None:
    net = convolution(CONVOLUTIONS["groups"])
    net.layers[1].blobs[0].data[...] = 0
    for form in products.PRODUCTS:
        own = products_of(net.layers[1], net, form)
        assert own.seconds(form, time.perf_counter) >= 0
        assert not any(result.any() for result in own.results)
