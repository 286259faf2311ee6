"""Which channels of every blob must stay: a fixed point over the graph, from what each layer says of itself.

    constant   the channel cannot depend on the net's input; found in one sweep forward
    zero       it is constant, and 0 everywhere: found in the same sweep, where the net may run
    needed     the least sets with: outputs of the net and blobs at layers that refuse need all; a bottom needs what
               its layer needs for the needed channels of the tops, a top needs what follows from the bottoms' needed ones

A channel that is not needed goes: nobody reads it, or everybody who does can take it in as a constant. A layer none of
whose tops has a needed channel goes as a whole. Layers that add or multiply their bottoms lose one that is constant wherever
they are needed; Concat and Silence lose those without channels.

The phases of a net are looked at together, so that a layer that runs in both is left with the same channels in both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sslnet.blob import Blob
from sslnet.errors import RunError
from sslnet.layers.base import Layer
from sslnet.layers.channels import channel_axis, channel_count
from sslnet.net.net import Net


@dataclass
class Channels:
    """The channels of one version of a blob: as one layer wrote it, before another changes it in place.

    constant  (channels) bool
    zero      (channels) bool, of those that are constant
    needed    (channels) bool
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
        """Sorted indices of the channels that stay."""
        return np.flatnonzero(self.needed)

    @property
    def absorbed(self) -> np.ndarray:
        """Sorted indices of the constant channels that go."""
        return np.flatnonzero(self.constant & ~self.needed)

    @property
    def size(self) -> int:
        return self.needed.size

    @property
    def is_alive(self) -> bool:
        return not self.size or bool(self.needed.any())

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
    shares: list[list[int]] = field(default_factory=list)
    """For each layer, those with a parameter of the same name, itself among them; empty where nothing is shared."""
    dropped: list[list[bool]] = field(default_factory=list)
    """For each bottom of a layer: a term of a sum, or a factor, that goes, for it is constant in all channels needed of it."""

    def is_alive(self, i: int) -> bool:
        """Whether layer i stays."""
        if self.tops[i]:
            return any(c.is_alive for c in self.tops[i])
        return self.refuses[i] or any(c.is_alive for c in self.bottoms[i])

    def lost_bottoms(self, i: int) -> list[bool]:
        """For each bottom of layer i, which stays: whether the layer does without."""
        may = self.net.layers[i].LOSES_BOTTOMS
        return [gone or (may and not c.is_alive) for c, gone in zip(self.bottoms[i], self.dropped[i])]

    def lost_tops(self, i: int) -> list[bool]:
        return [self.net.layers[i].LOSES_TOPS and not c.is_alive for c in self.tops[i]]


def find_channels(nets: Sequence[Net], *, absorb_shared: bool = True, run: bool = False) -> list[NetChannels]:
    """The channels of nets that are one definition in several phases; constants are those of the first.

    absorb_shared  whether layers that share parameters may take in constants
    run            whether the first net may run forward, once, to see which constants are zero

    raises RunError when a layer would lose every channel
    """
    views = [_view(net) for net in nets]
    if not absorb_shared:
        for view in views:
            view.absorbs = [absorbs and not view.shares[i] for i, absorbs in enumerate(view.absorbs)]
    ties = [tie for other in views[1:] for tie in _ties(views[0], other)]
    tied = {id(b): a for a, b in ties}
    for view in views:
        _sweep_constants(view, tied, run and view is views[0] and _heeds_zeros(view))
    for view in views:
        _need_seeds(view)
    settle(views)
    return views


def settle(views: Sequence[NetChannels]) -> None:
    """Adds what follows from the needed channels, until nothing does. To be called again after adding any.

    raises RunError when a layer that stays would lose every channel of what it reads
    """
    ties = [tie for other in views[1:] for tie in _ties(views[0], other)]
    ties += [tie for view in views for tie in _sharing_ties(view)]
    _fixed_point(views, ties)
    while _agree(views) | _need_any(views):
        _fixed_point(views, ties)
    for view in views:
        _check_alive(view)


def _view(net: Net) -> NetChannels:
    """Versions of blobs: a layer that works in place writes a new one."""
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
    """Finds layers with parameters of one name: alike, they are to keep the same channels; else all refuse."""
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


def _kind(view: NetChannels, i: int) -> tuple[Any, ...]:
    """What layers must have in common for the same channels to mean the same weights."""
    layer = view.net.layers[i]
    sizes = tuple(c.size for c in (*view.bottoms[i], *view.tops[i]))
    return layer.TYPE, _param_names(layer), tuple(blob.shape for blob in layer.blobs), sizes


def _sharing_ties(view: NetChannels) -> list[tuple[Channels, Channels]]:
    ties = []
    for i, layers in enumerate(view.shares):
        for k in layers if not view.refuses[i] else ():
            if i < k:
                ties += list(zip(view.bottoms[i] + view.tops[i], view.bottoms[k] + view.tops[k]))
    return ties


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


def _sweep_constants(view: NetChannels, tied: dict[int, Channels], run: bool) -> None:
    for i, layer in enumerate(view.net.layers):
        constant, zero = [c.constant for c in view.bottoms[i]], [c.zero for c in view.bottoms[i]]
        answers = (layer.constant_channels(constant), layer.zeroed_channels(zero, constant))
        found = [_checked(layer, answer, view.tops[i], default=False) for answer in answers]
        if run:
            layer.forward(view.net.bottoms[i], view.net.tops[i])
        for channels, blob, flags, zeroed in zip(view.tops[i], view.net.tops[i], *found):
            if id(channels) in tied:
                channels.constant, channels.zero = tied[id(channels)].constant, tied[id(channels)].zero
                continue
            channels.constant = flags | zeroed
            if run and channels.constant.any():
                channels.zero = channels.constant & ~_holds_something(blob)


def _heeds_zeros(view: NetChannels) -> bool:
    """Whether a layer can make something of bottom channels that are zero."""
    for layer, bottoms in zip(view.net.layers, view.bottoms):
        ones = [np.ones(c.size, np.bool_) for c in bottoms]
        if layer.IGNORES_ZEROS or any(flags.any() for flags in layer.zeroed_channels(ones, ones)):
            return True
    return False


def _holds_something(blob: Blob) -> np.ndarray:
    """(channels) bool: whether a value of the channel is not 0."""
    axis = channel_axis(blob)
    others = tuple(n for n in range(blob.num_axes) if n != axis)
    return np.atleast_1d((blob.data != 0).any(axis=others))


def _need_seeds(view: NetChannels) -> None:
    net = view.net
    ends = set(net.outputs) | set(net.loss_weights)
    for i in range(len(net.layers)):
        whole = [c for name, c in zip(net.top_names[i], view.tops[i]) if name in ends]
        if view.refuses[i] and (net.layers[i].IS_SOURCE or not view.tops[i]):
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
    if not view.is_alive(i):
        return False
    if view.refuses[i]:
        return _need((c, np.ones(c.size, np.bool_)) for c in (*bottoms, *view.tops[i]))
    changed = any(view.dropped[i]) and _keep_terms(view, i)
    constant = [_negligible(view, i, c) for c in bottoms]
    answer = layer.needed_channels([c.needed for c in view.tops[i]], constant)
    flags = _checked(layer, answer, bottoms, default=True)
    return changed | _need((c, f) for c, f, gone in zip(bottoms, flags, view.dropped[i]) if not gone)


def _negligible(view: NetChannels, i: int, bottom: Channels) -> np.ndarray:
    """(channels) bool: those that layer i can do without although it reads them."""
    if view.absorbs[i]:
        return bottom.constant
    return bottom.zero if view.net.layers[i].IGNORES_ZEROS else np.zeros(bottom.size, np.bool_)


def _keep_terms(view: NetChannels, i: int) -> bool:
    """Keeps terms, or factors, that are not constant in a channel needed of the top, one if all are; whether that changed
    anything."""
    needed, dropped = view.tops[i][0].needed, view.dropped[i]
    coefficients = view.net.layers[i].coefficients()
    before = list(dropped)
    for j, c in enumerate(view.bottoms[i]):
        nothing = bool(coefficients) and not coefficients[j]
        dropped[j] &= nothing or not (needed & ~c.constant).any()
    if all(dropped):
        dropped[int(np.argmin([c.constant.sum() for c in view.bottoms[i]]))] = False
    return dropped != before


def _need_of_tops(view: NetChannels, i: int) -> bool:
    layer, tops = view.net.layers[i], view.tops[i]
    if view.refuses[i] or not view.is_alive(i):
        return False
    bottoms = [c.needed & (not gone) for c, gone in zip(view.bottoms[i], view.dropped[i])]
    flags = _checked(layer, layer.followed_channels(bottoms), tops, default=False)
    return _need(zip(tops, flags))


def _need(pairs: Iterable[tuple[Channels, np.ndarray]]) -> bool:
    """Adds to the needed channels of each; whether that changed anything."""
    changed = [channels.need(flags) for channels, flags in pairs]
    return any(changed)


def _agree(views: Sequence[NetChannels]) -> bool:
    """Keeps in every phase what lives, or is kept of a sum, in another; whether that changed anything."""
    changed = False
    for other in views[1:]:
        places = {layer.definition.index: j for j, layer in enumerate(other.net.layers)}
        for i, layer in enumerate(views[0].net.layers):
            j = places.get(layer.definition.index, -1)
            if layer.definition.index < 0 or j < 0:
                continue
            ours, theirs = views[0].dropped[i], other.dropped[j]
            if ours != theirs:
                ours[:] = theirs[:] = [a and b for a, b in zip(ours, theirs)]
                changed = True
            pairs = zip(views[0].bottoms[i] + views[0].tops[i], other.bottoms[j] + other.tops[j])
            for one, two in pairs:
                if one.is_alive != two.is_alive:
                    one.needed[:] = two.needed[:] = True
                    changed = True
    return changed


def _need_any(views: Sequence[NetChannels]) -> bool:
    """Gives a channel to layers that read no particular one, but have none left; whether that changed anything."""
    changed = False
    for view in views:
        for i, layer in enumerate(view.net.layers):
            if layer.reads_any_channel() and view.is_alive(i) and not view.bottoms[i][0].is_alive:
                view.bottoms[i][0].needed[0] = changed = True
    return changed


def _checked(
    layer: Layer, answer: list[np.ndarray], channels: Sequence[Channels], *, default: bool
) -> list[np.ndarray]:
    """A layer's answer, one flag for each channel; the default where it gave none."""
    if not len(answer):
        return [np.full(c.size, default) for c in channels]
    if [len(flags) for flags in answer] != [c.size for c in channels]:
        raise layer.run_error(
            f"{layer.TYPE} answers for {[len(f) for f in answer]} channels, its blobs have {[c.size for c in channels]}"
        )
    return [np.asarray(flags, np.bool_) for flags in answer]


def _check_alive(view: NetChannels) -> None:
    """raises RunError when a layer that stays reads, or makes, a blob without channels that it cannot do without"""
    makers = {id(c): i for i, tops in enumerate(view.tops) for c in tops}
    for i in filter(view.is_alive, range(len(view.net.layers))):
        missing = [c for c, lost in zip(view.bottoms[i], view.lost_bottoms(i)) if not lost and not c.is_alive]
        stuck = [c for c, lost in zip(view.tops[i], view.lost_tops(i)) if not lost and not c.is_alive]
        if missing or stuck:
            raise _dead_error(view, min(_first_dead(view, makers, makers[id(c)]) for c in missing + stuck))


def _first_dead(view: NetChannels, makers: dict[int, int], i: int) -> int:
    """The first layer among i and the layers before it that go with it."""
    found, waiting = {i}, [i]
    while waiting:
        before = {makers[id(c)] for c in view.bottoms[waiting.pop()] if not c.is_alive} - found
        found |= before
        waiting += before
    return min(found)


def _dead_error(view: NetChannels, i: int) -> RunError:
    layer = view.net.layers[i]
    name, channels = next(pair for pair in zip(view.net.top_names[i], view.tops[i]) if not pair[1].is_alive)
    zero = channels.constant.all() and layer.blobs
    reason = "all its filters are zero" if zero else f'no remaining layer reads its top "{name}"'
    return layer.run_error(
        f"the layer would lose every channel: {reason}",
        hint="use a weaker penalty on it, or keep one filter: the net would be cut in two",
    )
