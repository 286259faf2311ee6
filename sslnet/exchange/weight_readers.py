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
    """Reads MatMul with weights as a fully connected layer over the last axis; of two values, as MatMul."""
    known = [builder.source.is_constant(node.input(index)) for index in (0, 1)]
    if known[0] or not known[1] or builder.known(node, 1).ndim != 2:
        _of_two(builder, node)
        return
    weights = builder.weights(node, 1, 2, 2)
    axis = len(builder.shape(node, 0)) - 1
    weights = builder.skip_flatten(node, weights.T) if axis == 1 else weights.T
    _inner_product(builder, node, weights, [], axis=axis)


def _of_two(builder: DefinitionBuilder, node: OnnxNode) -> None:
    """Reads the product of two values; a constant one is repeated for each image."""
    shapes, after = [builder.shape(node, index) for index in (0, 1)], builder.output_shape(node)
    if min(map(len, shapes)) < 2 or len(after) < 3:
        raise node.error(f"values of shapes {shapes[0]} and {shapes[1]}: matrices of each image, or weights")
    blobs = []
    for index, shape in enumerate(shapes):
        whole = (*after[:-2], *shape[-2:])
        if builder.source.is_constant(node.input(index)):
            values = builder.known(node, index)
            builder.source.room.take(node, (1, *whole[1:]))
            name = f"{node.result}:{index}"
            builder.source.constants[name] = np.broadcast_to(values, (1, *whole[1:])).astype(np.float32)
            blobs.append(builder.constant_blob(node, name))
        else:
            blobs.append(builder.broadcast(node, builder.blob(node, index), shape, whole, f"{index}_"))
    builder.layer(node, "MatMul", bottom=blobs)


def _inner_product(
    builder: DefinitionBuilder, node: OnnxNode, weights: np.ndarray, bias: list[np.ndarray], axis: int
) -> None:
    layer = builder.layer(node, "InnerProduct", blobs=[weights, *bias])
    layer.inner_product_param.num_output = weights.shape[0]
    layer.inner_product_param.bias_term = bool(bias)
    if axis != 1:
        layer.inner_product_param.axis = axis


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
