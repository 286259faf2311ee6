"""Dead channels: those that provably emit one number, whatever the net's input.

Interval arithmetic (``Layer.bounds``) finds, from a box of the inputs, an interval for every channel of every blob. A channel
whose interval is a single number is constant. A filter or neuron is dead if its output reaches the outputs of the net only
through constant channels: behind a ReLU, one whose sum is never above 0. Its weights then become zero, and its bias a
number of its interval: the net computes the same function, for every input of the box. ``compact`` removes it.

    sum over channels of max(w, 0) high + min(w, 0) low + bias <= 0    a dead neuron before a ReLU
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sslnet.compress.compaction.channels import Channels, NetChannels, view_net
from sslnet.errors import UsageError
from sslnet.layers.base import Layer
from sslnet.layers.bounds import Box
from sslnet.layers.channels import channel_count
from sslnet.layers.convolution import Convolution
from sslnet.layers.deconvolution import Deconvolution
from sslnet.layers.inner_product import InnerProduct
from sslnet.net.net import Net


@dataclass(frozen=True)
class DeadChannels:
    """The dead outputs of one layer.

    layer     its name
    channels  number of its outputs
    dead      sorted indices of the dead ones
    values    what each of them is to emit instead: a number of its interval, 0 if that is allowed
    stuck     indices of further dead ones that stay: their number is not 0, and the layer has no bias to hold it
    """

    layer: str
    channels: int
    dead: np.ndarray
    values: np.ndarray
    stuck: np.ndarray


def find_dead_channels(net: Net, box: tuple[float, float] | None = None) -> list[DeadChannels]:
    """The dead outputs of each layer with weights (Convolution, Deconvolution, InnerProduct), in the order of the net.

    net   in phase TEST: in phase TRAIN, layers such as BatchNorm and Dropout have other functions
    box   the smallest and the largest number of the inputs; default: those that the data layers can give (bytes, their
          mean and scale; DummyData's fillers)

    raises UsageError when the inputs of the net have no bound
    """
    view = view_net(net)
    boxes = _sweep(view, box, {})
    _check_known(view, boxes)
    dead = _dead(view, boxes)
    # The same with boxes that include 0: where a channel is still dead, its output may become 0.
    zeros = _dead(view, _sweep(view, box, dead))
    result = []
    for i, flags in sorted(dead.items()):
        layer, own = net.layers[i], boxes[id(view.tops[i][0])]
        indices = np.flatnonzero(flags)
        may_be_zero = zeros.get(i, np.zeros_like(flags))
        values = np.where(may_be_zero, 0, np.clip(0, own.low, own.high))[indices].astype(layer.dtype)
        can = (values == 0) | (len(layer.blobs) > 1)
        if len(view.shares[i]) > 1:
            can &= values == 0
        result.append(DeadChannels(layer.name, flags.size, indices[can], values[can], indices[~can]))
    return result


def zero_dead_channels(net: Net, found: Sequence[DeadChannels]) -> None:
    """Sets the weights of dead channels to zero and their biases to the numbers that they emit.  [overwrites parameters]"""
    for each in found:
        blobs = net.params[each.layer]
        layer = net.layer_dict[each.layer]
        weights = blobs[0].data
        if isinstance(layer, Deconvolution):
            inside = weights.shape[1]
            by_group = weights.reshape(layer.group, -1, *weights.shape[1:])
            for channel in each.dead:
                by_group[channel // inside, :, channel % inside] = 0
        elif isinstance(layer, InnerProduct) and layer.transpose:
            weights[:, each.dead] = 0
        else:
            weights[each.dead] = 0
        if len(blobs) > 1:
            blobs[1].data[each.dead] = each.values


def blob_boxes(net: Net, box: tuple[float, float] | None = None) -> dict[str, Box]:
    """The interval of each channel of each blob, as the last layer that writes it leaves it.

    raises UsageError when the inputs of the net have no bound
    """
    view = view_net(net)
    boxes = _sweep(view, box, {})
    _check_known(view, boxes)
    return {name: boxes[id(c)] for names, tops in zip(net.top_names, view.tops) for name, c in zip(names, tops)}


def _sweep(view: NetChannels, given: tuple[float, float] | None, zeroed: Mapping[int, np.ndarray]) -> dict[int, Box]:
    """The box of every version of a blob, by the id of its channels.

    zeroed   for some layers (tops) bool: outputs that may be 0 as well
    """
    boxes: dict[int, Box] = {}
    for i, layer in enumerate(view.net.layers):
        tops = view.net.tops[i]
        if layer.IS_SOURCE and given is not None:
            found = [Box.of(*given, channel_count(blob.shape)) for blob in tops]
        else:
            found = layer.bounds([boxes[id(c)] for c in view.bottoms[i]], tops)
        if i in zeroed:
            flags, own = zeroed[i], found[0]
            wide = own.with_zero()
            found[0] = Box(np.where(flags, wide.low, own.low), np.where(flags, wide.high, own.high))
        for channels, each in zip(view.tops[i], found):
            boxes[id(channels)] = each
    return boxes


def _check_known(view: NetChannels, boxes: Mapping[int, Box]) -> None:
    """Raises UsageError if no source of the net has a bound in all channels."""
    sources = [
        (layer, tops[0]) for layer, tops in zip(view.net.layers, view.tops) if layer.IS_SOURCE and tops and tops[0].size
    ]
    for _, channels in sources:
        own = boxes[id(channels)]
        if np.isfinite(own.low).all() and np.isfinite(own.high).all():
            return
    names = ", ".join(f'"{layer.name}" ({layer.TYPE})' for layer, _ in sources)
    raise UsageError(
        f"the inputs of the net have no bounds: {names or 'it has no input layer'}",
        hint="give the smallest and the largest number of the inputs: --box LO,HI",
    )


def _dead(view: NetChannels, boxes: Mapping[int, Box]) -> dict[int, np.ndarray]:
    """For each layer with weights, (tops) bool: True where the output does not affect the outputs of the net."""
    net = view.net
    matters: dict[int, np.ndarray] = {id(c): np.zeros(c.size, np.bool_) for tops in view.tops for c in tops}
    ends = set(net.outputs) | set(net.loss_weights)
    last = {name: c for names, tops in zip(net.top_names, view.tops) for name, c in zip(names, tops)}
    for name in ends:
        matters[id(last[name])][:] = True
    result = {}
    for i in reversed(range(len(net.layers))):
        layer, tops = net.layers[i], view.tops[i]
        kept = [matters[id(c)] & ~boxes[id(c)].constant for c in tops]
        if isinstance(layer, Convolution | Deconvolution | InnerProduct) and len(tops) == 1 and layer.axis == 1:
            result[i] = ~kept[0]
        for channels, flags in zip(view.bottoms[i], _read(view, i, layer, kept, boxes)):
            matters[id(channels)] |= flags
    for i, flags in result.items():
        for k in view.shares[i]:
            flags &= result.get(k, np.zeros_like(flags))
    return {i: flags for i, flags in result.items() if flags.any()}


def _read(
    view: NetChannels, i: int, layer: Layer, kept: list[np.ndarray], boxes: Mapping[int, Box]
) -> list[np.ndarray]:
    """For each bottom of layer i, the channels that affect the channels ``kept`` of its tops."""
    bottoms: list[Channels] = view.bottoms[i]
    if kept and not any(flags.any() for flags in kept):
        return [np.zeros(c.size, np.bool_) for c in bottoms]
    if view.refuses[i]:
        # A layer without tops and channels that compaction may remove writes a file.
        return [np.ones(c.size, np.bool_) for c in bottoms]
    if not kept:
        return [np.zeros(c.size, np.bool_) for c in bottoms]
    answer = layer.needed_channels(kept, [boxes[id(c)].constant for c in bottoms])
    return [np.asarray(flags) for flags in answer] if len(answer) else [np.ones(c.size, np.bool_) for c in bottoms]
