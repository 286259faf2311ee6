"""Streams: where the output of a layer is added to others, so that a fit can correct what the others have lost.

Behind a residual sum the target of a fit is the whole net's sum less the other terms as they are now, taken back through
the BatchNorm, Scale and Bias layers between the layer and the sum: it corrects the stream as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.compress.pruning.channels import CoupledChannels
from sslnet.compress.pruning.linear_layer import LinearLayer
from sslnet.layers.batch_norm import BatchNorm
from sslnet.layers.bias import Bias
from sslnet.layers.eltwise import Eltwise
from sslnet.layers.scale import Scale
from sslnet.net.net import Net

AFFINE = (BatchNorm, Scale, Bias)
"""Layers between a layer and a sum that a target can be taken back through."""
SMALLEST = 1e-3
"""A channel that is scaled by less than this part of the mean scale has no influence on the sum: it keeps its own target."""


@dataclass(frozen=True)
class Stream:
    """The sum that the output of a layer enters.

    sum     number of the Eltwise layer
    own     number of the bottom that the layer makes
    others  numbers of the other bottoms; all are made before the layer
    chain   numbers of the layers between
    """

    sum: int
    own: int
    others: tuple[int, ...]
    chain: tuple[int, ...]


def find_stream(channels: CoupledChannels, net: Net, i: int) -> Stream | None:
    """The sum that the output of layer i enters last of all its terms; None if there is none."""
    chain, at = [], i
    while True:
        following = channels.reader(at)
        if following is None or not isinstance(net.layers[following], AFFINE) or len(net.bottoms[following]) > 1:
            break
        if not _by_channel(net, following):
            return None
        at = following
        chain.append(at)
    if following is None:
        return None
    layer = net.layers[following]
    if not isinstance(layer, Eltwise):
        return None
    own = _index(net, following, at)
    others = tuple(j for j in range(len(net.bottoms[following])) if j != own)
    if own is None or layer.operation != pb.EltwiseParameter.SUM or not layer.coeffs[own]:
        return None
    if any(_maker(net, following, j) > i for j in others):
        return None
    return Stream(following, own, others, tuple(chain))


def target(
    net: Net, stream: Stream, layer: LinearLayer, total: np.ndarray, own: np.ndarray, places: np.ndarray
) -> np.ndarray:
    """Samples of what the layer should give so that the sum is as in the whole net: (groups, samples, outputs).

    total, own  samples of the sum, and of what the layer gave, in the whole net;  places: of the samples
    """
    layers: Sequence[Any] = net.layers
    coeffs = layers[stream.sum].coeffs
    wanted = total.astype(np.float64)
    for j in stream.others:
        wanted -= float(coeffs[j]) * layer.values(net.bottoms[stream.sum][j].data, places)
    wanted /= float(coeffs[stream.own])
    scale, shift = affine(net, stream.chain, layer.groups * layer.outputs)
    size = np.abs(scale)
    weak = (size <= SMALLEST * size.mean()).reshape(layer.groups, 1, layer.outputs)
    scale, shift = (values.reshape(layer.groups, 1, layer.outputs) for values in (scale, shift))
    wanted = (wanted - shift) / np.where(weak, 1.0, scale)
    result: np.ndarray = np.where(weak, own, wanted).astype(own.dtype)
    return result


def affine(net: Net, chain: tuple[int, ...], channels: int) -> tuple[np.ndarray, np.ndarray]:
    """The map of a chain of BatchNorm, Scale and Bias layers in phase TEST: (channels) scale and shift, float64."""
    scale, shift = np.ones(channels), np.zeros(channels)
    for i in chain:
        layer = net.layers[i]
        if isinstance(layer, BatchNorm):
            layer.read_moments()
            scale, shift = scale * layer.inverse, (shift - layer.mean) * layer.inverse
        elif isinstance(layer, Scale):
            scale, shift = scale * layer.blobs[0].data, shift * layer.blobs[0].data
            if layer.param.scale_param.bias_term:
                shift = shift + layer.blobs[1].data
        else:
            shift = shift + layer.blobs[0].data
    return scale, shift


def _by_channel(net: Net, i: int) -> bool:
    """Whether a BatchNorm, Scale or Bias layer maps each channel by numbers of its own that do not depend on the batch."""
    layer = net.layers[i]
    if isinstance(layer, BatchNorm):
        return bool(layer.use_global_stats)
    return bool(layer.blobs) and all(blob.shape == (net.tops[i][0].shape[1],) for blob in layer.blobs)


def _index(net: Net, following: int, at: int) -> int | None:
    """Number of the bottom of layer ``following`` that layer ``at`` makes, directly or through a Split."""
    for j, name in enumerate(net.bottom_names[following]):
        maker = _named(net, following, name)
        if maker >= 0 and net.layers[maker].TYPE == "Split":
            maker = _named(net, maker, net.bottom_names[maker][0])
        if maker == at:
            return j
    return None


def _maker(net: Net, i: int, j: int) -> int:
    """Number of the layer that writes bottom j of layer i last."""
    return _named(net, i, net.bottom_names[i][j])


def _named(net: Net, before: int, name: str) -> int:
    return max((k for k in range(before) if name in net.top_names[k]), default=-1)
