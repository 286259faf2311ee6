"""Dead channels: those that provably emit one number, whatever the net's input.

Interval arithmetic (``Layer.bounds``) finds, from a box of the inputs, an interval for every channel of every blob. A channel
whose interval is a single number is constant. A filter or neuron is dead if its output reaches the outputs of the net only
through constant channels: behind a ReLU, one whose sum is never above 0. Its weights then become zero, and its bias a
number of its interval: the net computes the same function, for every input of the box. ``compact`` removes it.

    sum over channels of max(w, 0) high + min(w, 0) low + bias <= 0    a dead neuron before a ReLU
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.blob import Blob
from sslnet.compress.compaction.channels import Channels, NetChannels, view_net
from sslnet.compress.pruning.calibration import batches, calibration_net, draw_images
from sslnet.errors import UsageError
from sslnet.layers.base import Layer
from sslnet.layers.bounds import ChannelBox
from sslnet.layers.channels import channel_axis, channel_count
from sslnet.layers.convolution import Convolution
from sslnet.layers.deconvolution import Deconvolution
from sslnet.layers.inner_product import InnerProduct
from sslnet.net.net import Net

BATCH = 100
"""Images that are looked at together."""


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
        result.append(_listed(net, view, i, flags, boxes, zeros.get(i, np.zeros_like(flags))))
    return result


def _listed(
    net: Net, view: NetChannels, i: int, flags: np.ndarray, boxes: Mapping[int, ChannelBox], may_be_zero: np.ndarray
) -> DeadChannels:
    layer, own = net.layers[i], boxes[id(view.tops[i][0])]
    indices = np.flatnonzero(flags)
    values = np.where(may_be_zero, 0, np.clip(0, own.low, own.high))[indices].astype(layer.dtype)
    can = (values == 0) | (len(layer.blobs) > 1)
    if len(view.shares[i]) > 1:
        can &= values == 0
    return DeadChannels(layer.name, flags.size, indices[can], values[can], indices[~can])


@dataclass(frozen=True)
class InputBox:
    """The smallest and the largest number, over all channels, that an input blob of the net may hold."""

    blob: str
    low: float
    high: float


@dataclass(frozen=True)
class DeadPruning:
    """What ``prune_dead`` found.

    layers  the dead channels of each layer that has any; proven for every input of the box
    inputs  the box: for each input blob, the smallest and the largest number that it may hold
    images  number of images that further channels were looked at on; 0: none
    data    what these images are
    idle    of each layer, further channels that were constant on these images; other images may differ
    """

    layers: list[DeadChannels]
    inputs: list[InputBox]
    images: int
    data: str
    idle: list[DeadChannels]


def input_boxes(net: Net, box: tuple[float, float] | None = None) -> list[InputBox]:
    """The bounded input blobs of a net, and their bounds."""
    view = view_net(net)
    boxes = _sweep(view, box, {})
    result = []
    for i, layer in enumerate(net.layers):
        for name, channels in zip(net.top_names[i], view.tops[i]) if layer.IS_SOURCE else ():
            own = boxes[id(channels)]
            if own.size and np.isfinite(own.low).all() and np.isfinite(own.high).all():
                result.append(InputBox(name, float(own.low.min()), float(own.high.max())))
    return result


def find_inactive_channels(net: Net, images: int, seed: int = 0) -> tuple[list[DeadChannels], str, int]:
    """Outputs of layers with weights that are constant on some images, as ``find_dead_channels`` would find them if these
    were all inputs: an observation, no proof. Returns them, the name of the data, and the number of images.

    images  number of images, drawn from the data of phase TRAIN and prepared as in phase TEST
    raises  UsageError where phase TRAIN has no data
    """
    drawn = draw_images(net, images, seed)
    batch = min(drawn.count, BATCH)
    measured = calibration_net(net, drawn, batch)
    plain = Net(
        measured.definition, phase=net.phase, share=net, plain=True, level=net.state.level, stages=net.state.stages
    )
    view = view_net(plain)
    boxes: dict[int, ChannelBox] = {}
    for _ in batches(plain, drawn):
        for i, layer in enumerate(plain.layers):
            if not layer.IS_SOURCE:
                layer.forward(plain.bottoms[i], plain.tops[i])
            for channels, blob in zip(view.tops[i], plain.tops[i]):
                seen = _range(blob)
                before = boxes.get(id(channels))
                boxes[id(channels)] = seen if before is None else before.hull(seen)
    dead = _dead(view, boxes)
    result = [_listed(plain, view, i, flags, boxes, np.zeros_like(flags)) for i, flags in sorted(dead.items())]
    known = {each.layer: each.dead for each in result}
    zero = {name: indices[~_has_weights(net, name)[indices]] for name, indices in known.items()}
    fresh = [_without(each, zero[each.layer]) for each in result]
    return [each for each in fresh if len(each.dead)], _data_name(net), drawn.count // batch * batch


def _has_weights(net: Net, name: str) -> np.ndarray:
    """(outputs) bool: whether a filter or neuron has a weight that is not zero."""
    layer, weights = net.layer_dict[name], net.params[name][0].data
    if isinstance(layer, Deconvolution):
        by_group = weights.reshape(layer.group, -1, *weights.shape[1:])
        flags = (by_group != 0).any(axis=1).reshape(layer.num_output, -1).any(axis=1)
    elif isinstance(layer, InnerProduct) and layer.transpose:
        flags = (weights != 0).any(axis=0)
    else:
        flags = (weights != 0).reshape(len(weights), -1).any(axis=1)
    return np.asarray(flags, np.bool_)


def _without(each: DeadChannels, indices: np.ndarray) -> DeadChannels:
    kept = ~np.isin(each.dead, indices)
    return replace(each, dead=each.dead[kept], values=each.values[kept])


def _range(blob: Blob) -> ChannelBox:
    axis = channel_axis(blob)
    data = blob.data.astype(np.float64)
    if not blob.count or not blob.num_axes:
        return ChannelBox.unknown(channel_count(blob.shape))
    others = tuple(n for n in range(blob.num_axes) if n != axis)
    return ChannelBox(np.atleast_1d(data.min(axis=others)), np.atleast_1d(data.max(axis=others)))


def _data_name(net: Net) -> str:
    """What phase TRAIN of the net's definition reads."""
    names = []
    for layer in net.definition.message.layer:
        for _, value in layer.ListFields():
            source = getattr(value, "source", "")
            if isinstance(source, str) and source and not any(rule.phase == pb.TEST for rule in layer.include):
                names.append(source)
    return ", ".join(dict.fromkeys(names)) or "the data of phase TRAIN"


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


def blob_boxes(net: Net, box: tuple[float, float] | None = None) -> dict[str, ChannelBox]:
    """The interval of each channel of each blob, as the last layer that writes it leaves it.

    raises UsageError when the inputs of the net have no bound
    """
    view = view_net(net)
    boxes = _sweep(view, box, {})
    _check_known(view, boxes)
    return {name: boxes[id(c)] for names, tops in zip(net.top_names, view.tops) for name, c in zip(names, tops)}


def _sweep(
    view: NetChannels, given: tuple[float, float] | None, zeroed: Mapping[int, np.ndarray]
) -> dict[int, ChannelBox]:
    """The box of every version of a blob, by the id of its channels.

    zeroed   for some layers (tops) bool: outputs that may be 0 as well
    """
    boxes: dict[int, ChannelBox] = {}
    for i, layer in enumerate(view.net.layers):
        tops = view.net.tops[i]
        if layer.IS_SOURCE and given is not None:
            found = [ChannelBox.of(*given, channel_count(blob.shape)) for blob in tops]
        else:
            found = layer.bounds([boxes[id(c)] for c in view.bottoms[i]], tops)
        if i in zeroed:
            flags, own = zeroed[i], found[0]
            wide = own.with_zero()
            found[0] = ChannelBox(np.where(flags, wide.low, own.low), np.where(flags, wide.high, own.high))
        for channels, each in zip(view.tops[i], found):
            boxes[id(channels)] = each
    return boxes


def _check_known(view: NetChannels, boxes: Mapping[int, ChannelBox]) -> None:
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


def _dead(view: NetChannels, boxes: Mapping[int, ChannelBox]) -> dict[int, np.ndarray]:
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
    view: NetChannels, i: int, layer: Layer, kept: list[np.ndarray], boxes: Mapping[int, ChannelBox]
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
