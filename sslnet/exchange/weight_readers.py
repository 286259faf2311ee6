"""Reads operators with weights: products, normalisation, slopes."""

from __future__ import annotations

import numpy as np

from sslnet.exchange.builder import DefinitionBuilder
from sslnet.exchange.node import OnnxNode


def gemm(builder: DefinitionBuilder, node: OnnxNode) -> None:
    weights = builder.weights(node, 1, 2, 2) * np.float32(node.number("alpha", 1.0))
    if node.flag("transA"):
        raise node.error("transA is for matrices that are no batch of images")
    weights = weights if node.flag("transB") else weights.T
    weights = builder.skip_flatten(node, weights)
    bias = [b * np.float32(node.number("beta", 1.0)) for b in builder.optional_weights(node, 2, len(weights))]
    _inner_product(builder, node, weights, bias, axis=1)


def mat_mul(builder: DefinitionBuilder, node: OnnxNode) -> None:
    weights = builder.weights(node, 1, 2, 2)
    axis = len(builder.shape(node, 0)) - 1
    weights = builder.skip_flatten(node, weights.T) if axis == 1 else weights.T
    _inner_product(builder, node, weights, [], axis=axis)


def _inner_product(
    builder: DefinitionBuilder, node: OnnxNode, weights: np.ndarray, bias: list[np.ndarray], axis: int
) -> None:
    layer = builder.layer(node, "InnerProduct", blobs=[weights, *bias])
    layer.inner_product_param.num_output = weights.shape[0]
    layer.inner_product_param.bias_term = bool(bias)
    if axis != 1:
        layer.inner_product_param.axis = axis


def batch_normalization(builder: DefinitionBuilder, node: OnnxNode) -> None:
    scale, bias, mean, variance = (builder.weights(node, j, 1, 1) for j in (1, 2, 3, 4))
    plain = bool((scale == 1).all() and (bias == 0).all())
    norm = builder.layer(node, "BatchNorm", blobs=[mean, variance, np.ones(1, np.float32)], last=plain)
    norm.batch_norm_param.eps = node.number("epsilon", 1e-5)
    norm.batch_norm_param.moving_average_fraction = node.number("momentum", 0.9)
    if not plain:
        layer = builder.layer(node, "Scale", bottom=list(norm.top), blobs=[scale, bias], suffix="scale")
        layer.scale_param.bias_term = True


def p_relu(builder: DefinitionBuilder, node: OnnxNode) -> None:
    slopes, shape = builder.weights(node, 1), builder.shape(node, 0, 2)
    layer = builder.layer(node, "PReLU")
    if slopes.size == 1:
        layer.prelu_param.channel_shared = True
        builder.add_blob(node, layer, slopes.reshape(()))
    elif slopes.shape[-(len(shape) - 1) :] == (shape[1], *(1,) * (len(shape) - 2)) and slopes.size == shape[1]:
        builder.add_blob(node, layer, slopes.reshape(-1))
    else:
        raise node.error(f"slopes of shape {slopes.shape} for values of shape {shape}")
