"""``sslnet.prune``: sets the smallest weights, or groups of weights, to zero."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sslnet import sslnet_pb2 as pb
from sslnet.api.inputs import Model, Weights, Word, as_argument, check_part, read_model, read_weights
from sslnet.api.net_result import NetResult
from sslnet.compress.pruning import magnitude
from sslnet.compress.pruning.magnitude import Pruned, keep_zeros
from sslnet.errors import UsageError
from sslnet.net.net import Net
from sslnet.net.weights import copy_all_weights
from sslnet.sparsity.measure import LayerSparsity, measure


@dataclass(frozen=True)
class Pruning:
    """The result of ``prune`` for each layer, and the sparsity of the net."""

    layers: list[Pruned]
    sparsity: list[LayerSparsity]


def prune(
    model: Model,
    weights: Weights | None = None,
    *,
    sparsity: float | None = None,
    quality: float | None = None,
    group: str = "ELEMENT",
    layers: Sequence[str] = (),
    whole_net: bool = False,
    take_bias: bool = False,
    level: int = 0,
    stages: Sequence[str] = (),
) -> NetResult[Pruning]:
    """Sets the smallest weights, or groups of weights, to zero by magnitude, and lets the net keep them while it is trained on.

        pruned = sslnet.prune("models/digits/train_test.prototxt", "digits.caffemodel", sparsity=0.5, group="FILTER")
        print([(layer.name, layer.zero, layer.groups) for layer in pruned.details.layers])
        pruned.save("pruned/digits")

    model, weights  the net and its weights, as in ``sslnet.compact``; a Net is not changed
    sparsity        fraction of the groups to set to zero, 0 to 1: of each layer, or with ``whole_net`` of all together; or
    quality         zero groups whose root mean square is below quality * standard deviation of the layer's weights
    group           "ELEMENT" (single weights), "FILTER", "CHANNEL", "SHAPE", "FILTER_2D", "INPUT_NEURON", "OUTPUT_NEURON"
    layers          names of the layers to prune; default: all with such groups but the last layer with weights
    take_bias       with FILTER or OUTPUT_NEURON: also set the biases of zero groups to zero
    level, stages   level and stages for the net's include and exclude rules

    returns  the net with its zeros; ``details``: groups and zeros of each layer, and the sparsity of the whole net
    raises   UsageError for numbers out of range, and for layers or groups that do not exist

    Ref: Han, Pool, Tran, Dally 2015, "Learning both Weights and Connections for Efficient Neural Networks"; Li et al. 2017
    """
    check_amount(sparsity, quality, whole_net)
    definition = read_model(model)
    net = Net(definition, phase=pb.TEST, level=level, stages=stages)
    copy_all_weights(net.params, read_weights(weights, model))
    pruned = magnitude.prune(
        net,
        sparsity=sparsity,
        quality=quality,
        group=group,
        layers=layers,
        whole_net=whole_net,
        take_bias=take_bias,
    )
    message = pb.NetParameter()
    message.CopyFrom(definition.message)
    keep_zeros(message, [layer.name for layer in pruned])
    return NetResult(message, net.to_proto(), Pruning(pruned, measure(net)), path=definition.path)


def check_amount(sparsity: float | None, quality: float | None, whole_net: bool, word: Word = as_argument) -> None:
    """Checks the amount. raises UsageError unless exactly one of sparsity and quality is given, in its range"""
    if (sparsity is None) == (quality is None):
        raise UsageError(f"give {word('sparsity')} X or {word('quality')} Q")
    check_part(sparsity, "sparsity", word)
    if quality is not None and not 0 < quality < math.inf:
        raise UsageError(f"{word('quality')} must be a finite number above 0, not {quality:g}")
    if whole_net and quality is not None:
        raise UsageError(f"{word('whole_net')} needs {word('sparsity')}")
