"""The channels of every blob of a net: which are constant, which are needed, and which must be kept or removed together.

A blob that layers change in place has one version for each writer. Channels must be kept or removed together where layers
share a parameter, and where a layer runs in two phases of a net.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from sslnet.blob import Blob
from sslnet.layers.base import Layer
from sslnet.layers.channels import channel_count
from sslnet.net.net import Net


@dataclass
class Channels:
    """The channels of one version of a blob: as written by one layer, before another changes it in place.

    constant  (channels) bool: does not depend on the input
    zero      (channels) bool: constant and zero everywhere
    needed    (channels) bool: must be kept
    """

    constant: np.ndarray
    zero: np.ndarray
    needed: np.ndarray

    @classmethod
    def of(cls, blob: Blob) -> Channels:
        size = channel_count(blob.shape)
        return cls(*(np.zeros(size, np.bool_) for _ in range(3)))

    @property
    def keep(self) -> np.ndarray:
        """Sorted indices of the needed channels."""
        return np.flatnonzero(self.needed)

    @property
    def absorbed(self) -> np.ndarray:
        """Sorted indices of the constant channels that are removed."""
        return np.flatnonzero(self.constant & ~self.needed)

    @property
    def size(self) -> int:
        return self.needed.size

    @property
    def is_needed(self) -> bool:
        """Whether any channel is needed; True for a blob without channels."""
        return not self.size or bool(self.needed.any())

    def need(self, flags: np.ndarray) -> bool:
        """Marks further channels as needed; returns whether anything changed."""
        if not (flags & ~self.needed).any():
            return False
        self.needed |= flags
        return True


@dataclass
class NetChannels:
    """Channels of the blobs of each layer i of a net, in ``bottoms[i][j]`` and ``tops[i][j]``."""

    net: Net
    bottoms: list[list[Channels]] = field(default_factory=list)
    tops: list[list[Channels]] = field(default_factory=list)
    refuses: list[bool] = field(default_factory=list)
    """For each layer, whether all channels of its blobs must be kept."""
    absorbs: list[bool] = field(default_factory=list)
    """For each layer, whether it can absorb the contribution of removed constant channels of its bottom."""
    shares: list[list[int]] = field(default_factory=list)
    """For each layer, the layers with a parameter of the same name, including itself; empty if none is shared."""
    dropped: list[list[bool]] = field(default_factory=list)
    """For each bottom of a layer, whether it is a removed term of a sum or factor of a product: constant in all needed
    channels."""

    def is_needed(self, i: int) -> bool:
        """Whether layer i is kept."""
        if self.tops[i]:
            return any(c.is_needed for c in self.tops[i])
        return self.refuses[i] or any(c.is_needed for c in self.bottoms[i])

    def removed_bottoms(self, i: int) -> list[bool]:
        """Whether each bottom of layer i, which is kept, is removed from the layer."""
        may = self.net.layers[i].LOSES_BOTTOMS
        return [gone or (may and not c.is_needed) for c, gone in zip(self.bottoms[i], self.dropped[i])]

    def removed_tops(self, i: int) -> list[bool]:
        """Whether each top of layer i is removed from the layer."""
        return [self.net.layers[i].LOSES_TOPS and not c.is_needed for c in self.tops[i]]


def view_net(net: Net) -> NetChannels:
    """Makes the view of a net; a layer that works in place writes a new version of its blob."""
    view = NetChannels(net)
    current: dict[str, Channels] = {}
    for i, layer in enumerate(net.layers):
        view.bottoms.append([current[name] for name in net.bottom_names[i]])
        view.tops.append([Channels.of(blob) for blob in net.tops[i]])
        current.update(zip(net.top_names[i], view.tops[i]))
        single = len(net.bottoms[i]) == 1 and net.bottoms[i][0].num_axes > 1
        view.absorbs.append(layer.ABSORBS and single)
        several = layer.EQUAL_BOTTOMS_TOPS and len(net.bottoms[i]) > 1
        view.refuses.append(not layer.SHRINKS or several)
        terms = [True] * len(layer.coefficients())
        view.dropped.append(terms or layer.factors() or [False] * len(net.bottoms[i]))
    _share_parameters(view)
    return view


def _share_parameters(view: NetChannels) -> None:
    """Finds layers that share parameters by name: layers of equal kind keep the same channels; otherwise all refuse."""
    users: dict[str, list[int]] = {}
    for i, layer in enumerate(view.net.layers):
        for name in filter(None, _param_names(layer)):
            users.setdefault(name, []).append(i)
    view.shares = [[] for _ in view.net.layers]
    for layers in users.values():
        if len(layers) == 1:
            continue
        kinds = {_kind(view, i) for i in layers}
        for i in layers:
            view.shares[i] += layers
            view.refuses[i] |= len(kinds) > 1
    for i, layers in enumerate(view.shares):
        view.refuses[i] |= any(view.refuses[k] for k in layers)


def _param_names(layer: Layer) -> tuple[str, ...]:
    return tuple(spec.name for spec in layer.param.param)


def _kind(view: NetChannels, i: int) -> tuple[object, ...]:
    """A key that is equal for layers whose weights belong to the same channels."""
    layer = view.net.layers[i]
    sizes = tuple(c.size for c in (*view.bottoms[i], *view.tops[i]))
    return layer.TYPE, _param_names(layer), tuple(blob.shape for blob in layer.blobs), sizes


def sharing_ties(view: NetChannels) -> list[tuple[Channels, Channels]]:
    ties = []
    for i, layers in enumerate(view.shares):
        for k in layers if not view.refuses[i] else ():
            if i < k:
                ties += list(zip(view.bottoms[i] + view.tops[i], view.bottoms[k] + view.tops[k]))
    return ties


def phase_ties(first: NetChannels, other: NetChannels) -> list[tuple[Channels, Channels]]:
    """Pairs of blobs that must keep the same channels because they belong to the same layer in two phases.

    A layer with parameters whose blobs differ in the two phases refuses in both. A layer that only the other phase has
    absorbs no constants, because their values are known in the first phase only.
    """
    places = {name: i for i, name in enumerate(first.net.layer_names)}
    ties = []
    for j, layer in enumerate(other.net.layers):
        i = places.get(layer.name)
        if i is None:
            other.absorbs[j] = False
            other.dropped[j] = [False] * len(other.dropped[j])
            continue
        ours, theirs = first.bottoms[i] + first.tops[i], other.bottoms[j] + other.tops[j]
        same_kind = first.net.layers[i].TYPE == layer.TYPE
        if same_kind and [c.size for c in ours] == [c.size for c in theirs]:
            ties += list(zip(ours, theirs))
            continue
        other.dropped[j] = [False] * len(other.dropped[j])
        if layer.blobs or first.net.layers[i].blobs:
            first.refuses[i] = other.refuses[j] = True
    return ties
