"""Reads normalisations: of a batch, of groups of channels, of layers, of vectors."""

from __future__ import annotations

from typing import Any

import numpy as np

from sslnet.exchange.builder import DefinitionBuilder
from sslnet.exchange.chain import Chain
from sslnet.exchange.node import OnnxNode


def batch_normalization(builder: DefinitionBuilder, node: OnnxNode) -> None:
    """Reads BatchNormalization as BatchNorm and Scale, also where the factors are 1, so that training finds them."""
    scale, bias, mean, variance = (builder.weights(node, j, 1, 1) for j in (1, 2, 3, 4))
    norm = builder.layer(node, "BatchNorm", blobs=[mean, variance, np.ones(1, np.float32)], last=False)
    norm.batch_norm_param.eps = node.number("epsilon", 1e-5)
    norm.batch_norm_param.moving_average_fraction = node.number("momentum", 0.9)
    layer = builder.layer(node, "Scale", bottom=list(norm.top), blobs=[scale, bias], suffix="scale")
    layer.scale_param.bias_term = True


def instance_normalization(builder: DefinitionBuilder, node: OnnxNode) -> None:
    _grouped(builder, node, 0)


def group_normalization(builder: DefinitionBuilder, node: OnnxNode) -> None:
    _grouped(builder, node, node.integer("num_groups", least=1))


def _grouped(builder: DefinitionBuilder, node: OnnxNode, groups: int) -> None:
    channels = builder.shape(node, 0, 2)[1]
    scale, bias = (builder.weights(node, index, 1, 1) for index in (1, 2))
    if groups and len(scale) == groups != channels:  # before operator set 21: one number for each group
        scale, bias = (np.repeat(values, channels // groups) for values in (scale, bias))
    if len(scale) != channels or len(bias) != channels:
        raise node.error(f"{len(scale)} factors for {channels} channels")
    chain = Chain(builder, node)
    group_norm(chain, groups, node.number("epsilon", 1e-5))
    if (scale != 1).any() or (bias != 0).any():
        _affine(chain, scale, bias, axis=1)
    chain.end()


def group_norm(chain: Chain, groups: int, eps: float) -> None:
    """Adds a GroupNorm. groups: their number; 0: each channel by itself"""
    param = chain.add("GroupNorm").group_norm_param
    param.eps = eps
    if groups:
        param.group = groups


def _affine(chain: Chain, scale: np.ndarray, bias: np.ndarray | None, axis: int) -> None:
    """Adds a Scale along the axes from ``axis`` on."""
    layer = chain.add("Scale", "scale", blobs=[scale, *([] if bias is None else [bias])])
    layer.scale_param.bias_term = bias is not None
    if axis != 1:
        layer.scale_param.axis = axis
    if scale.ndim != 1:
        layer.scale_param.num_axes = scale.ndim


def layer_normalization(builder: DefinitionBuilder, node: OnnxNode) -> None:
    shape = builder.shape(node, 0)
    axis = node.axis(-1, len(shape))
    if node.integer("stash_type", 1) != 1:
        raise node.error("stash_type other than 1")
    chain = Chain(builder, node)
    param: Any = chain.add("LayerNorm").layer_norm_param
    param.axis, param.eps = axis, node.number("epsilon", 1e-5)
    affine = [builder.weights(node, index) for index in (1, 2) if node.has_input(index)]
    affine = [np.broadcast_to(values, shape[axis:]) for values in affine]
    if len(affine) > 1 or (affine[0] != 1).any():
        _affine(chain, affine[0], affine[1] if len(affine) > 1 else None, axis)
    chain.end()


def lp_normalization(builder: DefinitionBuilder, node: OnnxNode) -> None:
    if node.axis(-1, len(builder.shape(node, 0))) != 1 or node.integer("p", 2) != 2:
        raise node.error("only the L2 norm of the channels")
    chain = Chain(builder, node)
    unit_length(chain)
    chain.end()


def unit_length(chain: Chain, least: float = 0.0) -> None:
    """Adds a Normalize: the channels of each pixel divided by their L2 norm, or by ``least`` if the norm is smaller."""
    layer = chain.add("Normalize", "norm", blobs=[np.ones(())])
    layer.norm_param.across_spatial, layer.norm_param.channel_shared = False, True
    layer.norm_param.eps = max(least**2, 1e-30)
    layer.param.add(lr_mult=0, decay_mult=0)
