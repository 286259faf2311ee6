"""Puts fitted weights and biases into a layer; a layer without a bias shifts the mean of the BatchNorm behind it."""

from __future__ import annotations

import numpy as np

from sslnet.compress.pruning.channels import CoupledChannels
from sslnet.compress.pruning.linear_layer import LinearLayer
from sslnet.layers.batch_norm import BatchNorm
from sslnet.net.net import Net


def norm_behind(channels: CoupledChannels, net: Net, i: int) -> BatchNorm | None:
    """The BatchNorm that reads layer i directly and alone, whose mean can stand for a bias."""
    following = channels.reader(i)
    norm = net.layers[following] if following is not None else None
    if not isinstance(norm, BatchNorm) or not norm.use_global_stats or not norm.blobs[2].data[0]:
        return None
    return norm


def has_shift(channels: CoupledChannels, net: Net, layer: LinearLayer) -> bool:
    """Whether ``put_fit`` can change the bias."""
    return layer.has_bias or norm_behind(channels, net, layer.number) is not None


def put_fit(channels: CoupledChannels, net: Net, layer: LinearLayer, weights: np.ndarray, bias: np.ndarray) -> None:
    """Overwrites weights and bias.  weights: (groups, columns, outputs);  bias: (groups, outputs)"""
    layer.put_matrix(weights)
    if layer.has_bias:
        layer.put_bias(bias)
        return
    norm = norm_behind(channels, net, layer.number)
    if norm is not None:
        norm.blobs[0].data[...] -= bias.reshape(-1) * float(norm.blobs[2].data[0])
