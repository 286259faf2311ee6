"""Which channels of every blob must stay: a fixed point over the graph, from what each layer says of itself.

    constant   the channel cannot depend on the net's input; found in one sweep forward
    needed     the least sets with: outputs of the net and blobs at layers that refuse need all; a bottom needs what
               its layer needs for the needed channels of the tops, a top needs what follows from the bottoms' needed ones

A channel that is not needed goes: nobody reads it, or everybody who does can take it in as a constant.

The phases of a net are looked at together, so that a layer that runs in both is left with the same channels in both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from sslnet.blob import Blob
from sslnet.layers.base import Layer
from sslnet.net import Net


@dataclass
class Channels:
    """The channels of one version of a blob: as one layer wrote it, before another changes it in place.

    constant  (channels) bool
    needed    (channels) bool
    """

    constant: np.ndarray
    needed: np.ndarray

    @classmethod
    def of(cls, blob: Blob) -> Channels:
        size = channel_count(blob.shape)
        return cls(np.zeros(size, np.bool_), np.zeros(size, np.bool_))

    @property
    def keep(self) -> np.ndarray:
        """Sorted indices of the channels that stay."""
        return np.flatnonzero(self.needed)

    @property
    def absorbed(self) -> np.ndarray:
        """Sorted indices of the constant channels that go."""
        return np.flatnonzero(self.constant & ~self.needed)

    @property
    def size(self) -> int:
        return self.needed.size

    def need(self, flags: np.ndarray) -> bool:
        """Adds to the needed channels; whether that changed anything."""
        if not (flags & ~self.needed).any():
            return False
        self.needed |= flags
        return True


@dataclass
class NetChannels:
    """The channels around each layer of a net: ``bottoms[i][j]`` and ``tops[i][j]`` belong to layer i."""

    net: Net
    bottoms: list[list[Channels]] = field(default_factory=list)
    tops: list[list[Channels]] = field(default_factory=list)
    refuses: list[bool] = field(default_factory=list)
    """Layers around which everything stays."""
    absorbs: list[bool] = field(default_factory=list)
    """Layers that can take in what removed constant channels of their bottom contributed."""


def channel_count(shape: Sequence[int]) -> int:
    """Channels of a blob: the size of axis 1, of axis 0 where there is no other, 1 for a scalar."""
    return shape[1] if len(shape) > 1 else shape[0] if shape else 1


def find_channels(nets: Sequence[Net]) -> list[NetChannels]:
    """The channels of nets that are one definition in several phases; constants are those of the first.

    raises RunError when a layer would lose every channel
    """
    views = [_view(net) for net in nets]
    ties = [tie for other in views[1:] for tie in _ties(views[0], other)]
    tied = {id(b): a for a, b in ties}
    for view in views:
        _sweep_constants(view, tied)
    for view in views:
        _need_seeds(view)
    settle(views)
    return views


def settle(views: Sequence[NetChannels]) -> None:
    """Adds what follows from the needed channels, until nothing does. To be called again after adding any.

    raises RunError when a layer would lose every channel
    """
    ties = [tie for other in views[1:] for tie in _ties(views[0], other)]
    _fixed_point(views, ties)
    for view in views:
        _check_alive(view)


def _view(net: Net) -> NetChannels:
    """Versions of blobs: a layer that works in place writes a new one."""
    view = NetChannels(net)
    current: dict[str, Channels] = {}
    shared = _sharing_layers(net)
    for i, layer in enumerate(net.layers):
        view.bottoms.append([current[name] for name in net.bottom_names[i]])
        view.tops.append([Channels.of(blob) for blob in net.tops[i]])
        current.update(zip(net.top_names[i], view.tops[i]))
        single = len(net.bottoms[i]) == 1 and net.bottoms[i][0].num_axes > 1
        view.absorbs.append(layer.ABSORBS and single)
        several = layer.EQUAL_BOTTOMS_TOPS and len(net.bottoms[i]) > 1
        ends = not net.tops[i]  # Silence: what it reads cannot lose every channel
        view.refuses.append(not layer.SHRINKS or several or ends or layer.name in shared)
    return view


def _sharing_layers(net: Net) -> set[str]:
    """Layers with a parameter that another layer has as well: their channels would have to go together."""
    users = Counter(spec.name for layer in net.layers for spec in layer.param.param if spec.name)
    return {layer.name for layer in net.layers if any(users[spec.name] > 1 for spec in layer.param.param)}


def _ties(first: NetChannels, other: NetChannels) -> list[tuple[Channels, Channels]]:
    """Blobs that must keep the same channels because layers of one name, in two phases, have them.

    A layer with parameters whose blobs differ in the two phases refuses in both. One that only the other phase has
    absorbs no constants: what they are is known in the first alone.
    """
    places = {name: i for i, name in enumerate(first.net.layer_names)}
    ties = []
    for j, layer in enumerate(other.net.layers):
        i = places.get(layer.name)
        if i is None:
            other.absorbs[j] = False
            continue
        ours, theirs = first.bottoms[i] + first.tops[i], other.bottoms[j] + other.tops[j]
        same_kind = first.net.layers[i].TYPE == layer.TYPE
        if same_kind and [c.size for c in ours] == [c.size for c in theirs]:
            ties += list(zip(ours, theirs))
        elif layer.blobs or first.net.layers[i].blobs:
            first.refuses[i] = other.refuses[j] = True
    return ties


def _sweep_constants(view: NetChannels, tied: dict[int, Channels]) -> None:
    for i, layer in enumerate(view.net.layers):
        answer = layer.constant_channels([c.constant for c in view.bottoms[i]])
        for channels, flags in zip(view.tops[i], _checked(layer, answer, view.tops[i], default=False)):
            channels.constant = tied[id(channels)].constant if id(channels) in tied else flags.copy()


def _need_seeds(view: NetChannels) -> None:
    net = view.net
    ends = set(net.outputs) | set(net.loss_weights)
    for i in range(len(net.layers)):
        whole = [c for name, c in zip(net.top_names[i], view.tops[i]) if name in ends]
        if view.refuses[i]:
            whole += view.bottoms[i] + view.tops[i]
        for channels in whole:
            channels.needed[:] = True


def _fixed_point(views: Sequence[NetChannels], ties: Sequence[tuple[Channels, Channels]]) -> None:
    changed = True
    while changed:
        changed = False
        for view in views:
            count = len(view.net.layers)
            for i in reversed(range(count)):
                changed |= _need_of_bottoms(view, i)
            for i in range(count):
                changed |= _need_of_tops(view, i)
        for ours, theirs in ties:
            changed |= theirs.need(ours.needed)
            changed |= ours.need(theirs.needed)


def _need_of_bottoms(view: NetChannels, i: int) -> bool:
    layer, bottoms = view.net.layers[i], view.bottoms[i]
    if view.refuses[i]:
        return False
    constant = [c.constant if view.absorbs[i] else np.zeros(c.size, np.bool_) for c in bottoms]
    answer = layer.needed_channels([c.needed for c in view.tops[i]], constant)
    return _need(layer, answer, bottoms, default=True)


def _need_of_tops(view: NetChannels, i: int) -> bool:
    layer, tops = view.net.layers[i], view.tops[i]
    if view.refuses[i]:
        return False
    answer = layer.followed_channels([c.needed for c in view.bottoms[i]])
    return _need(layer, answer, tops, default=False)


def _need(layer: Layer, answer: list[np.ndarray], channels: Sequence[Channels], *, default: bool) -> bool:
    flags = _checked(layer, answer, channels, default=default)
    changed = [c.need(f) for c, f in zip(channels, flags)]
    return any(changed)


def _checked(
    layer: Layer, answer: list[np.ndarray], channels: Sequence[Channels], *, default: bool
) -> list[np.ndarray]:
    """A layer's answer, one flag for each channel; the default where it gave none."""
    if not len(answer):
        return [np.full(c.size, default) for c in channels]
    if [len(flags) for flags in answer] != [c.size for c in channels]:
        raise layer.run_error(
            f"{layer.TYPE} says something of {[len(f) for f in answer]} channels, its blobs have {[c.size for c in channels]}"
        )
    return [np.asarray(flags, np.bool_) for flags in answer]


def _check_alive(view: NetChannels) -> None:
    for i, layer in enumerate(view.net.layers):
        for name, channels in zip(view.net.top_names[i], view.tops[i]):
            if channels.size and not channels.needed.any():
                zero = channels.constant.all() and layer.blobs
                reason = (
                    "all its filters are zero" if zero else f'nothing that is left of the net reads its top "{name}"'
                )
                raise layer.run_error(
                    f"the layer would lose every channel: {reason}",
                    hint="train with a weaker penalty on it, or keep one filter; a net is not cut in two",
                )
