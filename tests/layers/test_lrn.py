"""LRN against its formula, one value at a time."""

from __future__ import annotations

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.net.net import Net

from .harness import inputs


def naive(x, region, n, alpha, beta, k):
    y, half = np.zeros_like(x), n // 2
    _, channels, height, width = x.shape
    for i, c, h, w in np.ndindex(x.shape):
        if region == "ACROSS_CHANNELS":
            near = x[i, max(c - half, 0) : min(c + half + 1, channels), h, w]
            scale = k + alpha / n * (near**2).sum()
        else:
            rows, columns = (
                slice(max(h - half, 0), min(h + half + 1, height)),
                slice(max(w - half, 0), min(w + half + 1, width)),
            )
            scale = 1 + alpha / n**2 * (x[i, c, rows, columns] ** 2).sum()
        y[i, c, h, w] = x[i, c, h, w] * scale**-beta
    return y


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("region", ["ACROSS_CHANNELS", "WITHIN_CHANNEL"])
@pytest.mark.parametrize(
    ("shape", "n", "beta"),
    [((2, 6, 3, 4), 3, 0.75), ((1, 3, 13, 11), 5, 0.5), ((1, 2, 4, 4), 9, 1.25), ((1, 5, 1, 1), 1, 0.75)],
)
def test_lrn_is_its_formula(region, shape, n, beta, dtype):
    text = (
        f'layer {{ name: "lrn" type: "LRN" bottom: "x" top: "y" lrn_param {{ local_size: {n} alpha: 1.5 beta: {beta} k: 2 '
        f"norm_region: {region} }} }}"
    )
    net = Net(prototxt.parse(inputs(x=shape) + text, pb.NetParameter), dtype=dtype)
    x = np.random.default_rng(1).standard_normal(shape)
    np.testing.assert_allclose(net.forward(x=x)["y"], naive(x, region, n, 1.5, beta, 2), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("region", ["ACROSS_CHANNELS", "WITHIN_CHANNEL"])
def test_a_window_wider_than_the_data_ends_with_them(region):
    """Neither time nor memory grow with a local_size beyond the data; the sum is that of all neighbours there are."""
    shape, n = (2, 3, 4, 5), 2**32 - 1
    text = (
        f'layer {{ name: "lrn" type: "LRN" bottom: "x" top: "y" lrn_param {{ local_size: {n} alpha: 1e9 k: 2 '
        f"norm_region: {region} }} }}"
    )
    net = Net(prototxt.parse("force_backward: true " + inputs(x=shape) + text, pb.NetParameter))
    x = np.random.default_rng(1).standard_normal(shape)
    np.testing.assert_allclose(net.forward(x=x)["y"], naive(x, region, n, 1e9, 0.75, 2), rtol=1e-5)
    net.backward()
    assert net.layers[1].half <= 5
