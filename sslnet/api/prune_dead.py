"""``sslnet.prune_dead``: filters and neurons that provably emit a constant, set to zero."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sslnet import sslnet_pb2 as pb
from sslnet.api.inputs import Model, Weights, Word, as_argument, read_model, read_weights
from sslnet.api.net_result import NetResult
from sslnet.compress.pruning.dead_channels import (
    DeadChannels,
    DeadPruning,
    find_dead_channels,
    find_inactive_channels,
    input_boxes,
    zero_dead_channels,
)
from sslnet.compress.pruning.magnitude import keep_zeros
from sslnet.errors import UsageError
from sslnet.net.net import Net
from sslnet.net.weights import copy_all_weights


def prune_dead(
    model: Model,
    weights: Weights | None = None,
    *,
    box: tuple[float, float] | None = None,
    seen: int = 0,
    seed: int = 0,
    level: int = 0,
    stages: Sequence[str] = (),
) -> NetResult[DeadPruning]:
    """Sets filters and neurons to zero whose outputs provably are constant, as those of a ReLU that is never active.

        result = sslnet.prune_dead("models/thesis/fc_summation.prototxt", "fc.caffemodel")
        print([(layer.layer, len(layer.dead), layer.channels) for layer in result.details.layers])
        small = sslnet.compact(result)

    The net computes the same function for every input of the box: interval arithmetic bounds each channel, rounding
    included. A dead channel keeps its constant in the bias. With ``seen``, channels that were constant on these images
    become zero, too: exact on these images alone.

    model, weights  the net and its weights, as in ``sslnet.compact``; a Net that is given stays as it is
    box             the smallest and the largest number of the inputs; default: those that the data layers can give
    seen            number of images of the training data to look at; 0: only what is proven
    seed            of the draw of images
    level, stages   the rest of the state, beside phase TEST, that include and exclude rules are tried against

    returns  the net with its zeros; ``details``: the dead channels of each layer, and the box
    raises   UsageError for inputs without a bound, or an empty box
    """
    check_box(box, seen)
    definition = read_model(model)
    net = Net(definition, phase=pb.TEST, level=level, stages=stages)
    copy_all_weights(net.params, read_weights(weights, model))
    found = find_dead_channels(net, box)
    inputs = input_boxes(net, box)
    zero_dead_channels(net, found)
    idle: list[DeadChannels] = []
    data, count = "", 0
    if seen:
        idle, data, count = find_inactive_channels(net, seen, seed)
        zero_dead_channels(net, idle)
    message = pb.NetParameter()
    message.CopyFrom(definition.message)
    keep_zeros(message, [each.layer for each in (*found, *idle)])
    details = DeadPruning(found, inputs, count, data, idle)
    return NetResult(message, net.to_proto(), details, path=definition.path)


def check_box(box: tuple[float, float] | None, seen: int = 0, word: Word = as_argument) -> None:
    """raises UsageError for a box whose ends are not finite or in the wrong order, and for a negative number of images"""
    if box is not None and not (all(map(math.isfinite, box)) and box[0] <= box[1]):
        raise UsageError(f"{word('box')} must be two numbers, the smaller one first, not {box[0]:g}, {box[1]:g}")
    if seen < 0:
        raise UsageError(f"{word('seen')} must be 0 or more, not {seen}")
