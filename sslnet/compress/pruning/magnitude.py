"""``prune``: magnitude pruning, sets the smallest weights or groups of weights to zero; a baseline for comparison.

Han's procedure: train, prune by a threshold, retrain with the zeros frozen (``connectivity_mode``), and repeat.

Ref: Han, Pool, Tran, Dally 2015, "Learning both Weights and Connections for Efficient Neural Networks" (threshold: a
quality factor times the standard deviation of a layer's weights); Li et al. 2017, "Pruning Filters" (groups by their norm)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.errors import UsageError, suggestion
from sslnet.net.net import Net
from sslnet.net.parameters import Param
from sslnet.sparsity.groups import WEIGHTS, as_tiles, tiles_of

GROUPS = ("ELEMENT", "FILTER", "CHANNEL", "SHAPE", "FILTER_2D", "INPUT_NEURON", "OUTPUT_NEURON")

MADE = ("FILTER", "OUTPUT_NEURON")
"""Groups that produce one output, which a bias belongs to."""


@dataclass(frozen=True)
class Pruned:
    """The result for one layer: number of groups, number of zero groups, and the threshold of their norms."""

    name: str
    groups: int
    zero: int
    threshold: float


def prune(
    net: Net,
    *,
    sparsity: float | None = None,
    quality: float | None = None,
    group: str = "ELEMENT",
    layers: Sequence[str] = (),
    whole_net: bool = False,
    take_bias: bool = False,
) -> list[Pruned]:
    """Sets the weights of the smallest groups to zero.  [overwrites the net's parameters]

    sparsity    fraction of the groups to set to zero, 0 to 1: of each layer, or with ``whole_net`` of all together
                (by root mean square then, so that large and small groups compare); or
    quality     prune groups whose root mean square is below quality * standard deviation of the layer's weights
    group       name of the groups as in ``group_lasso``
    layers      names of layers; default: all with such groups, but the last layer with weights, which makes the outputs
    take_bias   also set the biases of pruned filters or neurons to zero, so that they output no constant

    raises UsageError for layers that do not exist or have no such groups, and for take_bias with other groups
    """
    if take_bias and group not in MADE:
        raise UsageError(f"take_bias needs groups {' or '.join(MADE)}, not {group}")
    params = _params(net, group, layers)
    tiles = [_tiles(param, group) for param in params]
    sizes = [math.sqrt(math.prod(tiles_of(param)[group])) for param in params]
    norms = [np.sqrt(np.einsum("ahbw,ahbw->ab", t, t, dtype=np.float64)) / size for t, size in zip(tiles, sizes)]
    if quality is not None:
        thresholds = [quality * float(param.blob.data.std()) for param in params]
    elif whole_net:
        thresholds = [_cut(np.concatenate([n.ravel() for n in norms]), sparsity or 0.0)] * len(norms)
    else:
        thresholds = [_cut(n.ravel(), sparsity or 0.0) for n in norms]
    result = []
    for param, tile, norm, threshold in zip(params, tiles, norms, thresholds):
        gone = (norm < threshold) | (norm == 0)
        tile *= ~gone[:, None, :, None]
        if take_bias:
            for bias in net.params[param.layer.name][1:2]:
                bias.data[gone.ravel()] = 0
        result.append(Pruned(param.layer.name, norm.size, int(np.count_nonzero(gone)), threshold))
    return result


def keep_zeros(message: pb.NetParameter, layers: Sequence[str]) -> None:
    """Makes these layers of a definition keep their zeros in training.  [changes message]"""
    for layer in message.layer:
        if layer.name in layers:
            layer.connectivity_mode = pb.DISCONNECTED_ELTWISE


def _cut(norms: np.ndarray, sparsity: float) -> float:
    """The threshold below which the fraction ``sparsity`` of the norms lies."""
    count = round(sparsity * norms.size)
    return math.inf if count >= norms.size else float(np.partition(norms, count)[count])


def _params(net: Net, group: str, layers: Sequence[str]) -> list[Param]:
    for name in layers:
        if name not in net.params:
            raise UsageError(f'the net has no layer "{name}" with weights', hint=suggestion(name, net.params))
    weights = [p for p in net.learnable if p.index == 0 and p.layer.TYPE in WEIGHTS]
    found = [p for p in weights if group in tiles_of(p) and (p.layer.name in layers or not layers)]
    for name in layers:
        if name not in {param.layer.name for param in found}:
            raise UsageError(f'layer "{name}" has no groups {group}')
    if not layers and weights:
        found = [param for param in found if param is not weights[-1]]
    if not found:
        raise UsageError(f"no layer of the net has groups {group}")
    return found


def _tiles(param: Param, group: str) -> np.ndarray:
    return as_tiles(param.blob.data, *tiles_of(param)[group])
