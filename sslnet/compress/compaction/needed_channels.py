"""Finds the channels of every blob that must be kept, as a fixed point over the graph, from declarations of the layers.

    constant   the channel cannot depend on the net's input; found in one forward sweep
    zero       the channel is constant and 0 everywhere; found in the same sweep, if the net may run
    needed     the smallest sets such that: in outputs of the net and blobs of layers that refuse, all channels are needed;
               in a bottom, those that its layer needs for the needed channels of the tops; in a top, those that follow
               from the needed channels of the bottoms

A channel that is not needed is removed: no layer reads it, or every layer that does can absorb it as a constant. A layer
without needed top channels is removed as a whole. Layers that add or multiply their bottoms drop a bottom that is
constant in all needed channels; Concat and Silence drop bottoms without channels.

The phases of a net are processed together, so that a layer that runs in both keeps the same channels in both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from sslnet.blob import Blob
from sslnet.compress.compaction.channels import Channels, NetChannels, phase_ties, sharing_ties, view_net
from sslnet.errors import RunError
from sslnet.layers.base import Layer
from sslnet.layers.channels import channel_axis
from sslnet.net.net import Net


def find_channels(nets: Sequence[Net], *, absorb_shared: bool = True, run: bool = False) -> list[NetChannels]:
    """Finds the needed channels of one definition's nets in several phases; constants are those of the first net.

    absorb_shared  whether layers that share parameters may absorb constants
    run            whether the first net may run forward once to find which constants are zero

    raises RunError when a layer would lose every channel
    """
    views = [view_net(net) for net in nets]
    if not absorb_shared:
        for view in views:
            view.absorbs = [absorbs and not view.shares[i] for i, absorbs in enumerate(view.absorbs)]
    ties = [tie for other in views[1:] for tie in phase_ties(views[0], other)]
    tied = {id(b): a for a, b in ties}
    for view in views:
        _sweep_constants(view, tied, run and view is views[0] and _heeds_zeros(view))
    for view in views:
        _need_seeds(view)
    propagate(views)
    return views


def propagate(views: Sequence[NetChannels]) -> None:
    """Adds channels that other needed channels require, until nothing changes. Call it again after adding any.

    raises RunError when a kept layer would lose every channel of a bottom or top
    """
    ties = [tie for other in views[1:] for tie in phase_ties(views[0], other)]
    ties += [tie for view in views for tie in sharing_ties(view)]
    _fixed_point(views, ties)
    while _agree(views) | _need_any(views) | _equalize(views):
        _fixed_point(views, ties)
    for view in views:
        _check_whole(view)


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
    """Whether any layer of the net benefits from knowing which bottom channels are zero."""
    for layer, bottoms in zip(view.net.layers, view.bottoms):
        ones = [np.ones(c.size, np.bool_) for c in bottoms]
        if layer.IGNORES_ZEROS or any(flags.any() for flags in layer.zeroed_channels(ones, ones)):
            return True
    return False


def _holds_something(blob: Blob) -> np.ndarray:
    """(channels) bool: whether the channel has a non-zero value."""
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
    if not view.is_needed(i):
        return False
    if view.refuses[i]:
        return _need((c, np.ones(c.size, np.bool_)) for c in (*bottoms, *view.tops[i]))
    changed = any(view.dropped[i]) and _keep_terms(view, i)
    constant = [_negligible(view, i, c) for c in bottoms]
    answer = layer.needed_channels([c.needed for c in view.tops[i]], constant)
    flags = _checked(layer, answer, bottoms, default=True)
    return changed | _need((c, f) for c, f, gone in zip(bottoms, flags, view.dropped[i]) if not gone)


def _negligible(view: NetChannels, i: int, bottom: Channels) -> np.ndarray:
    """(channels) bool: channels that layer i reads but that may be removed."""
    if view.absorbs[i]:
        return bottom.constant
    return bottom.zero if view.net.layers[i].IGNORES_ZEROS else np.zeros(bottom.size, np.bool_)


def _keep_terms(view: NetChannels, i: int) -> bool:
    """Keeps terms or factors that are not constant in some needed channel of the top, and at least one. Returns whether
    anything changed."""
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
    if view.refuses[i] or not view.is_needed(i):
        return False
    bottoms = [c.needed & (not gone) for c, gone in zip(view.bottoms[i], view.dropped[i])]
    flags = _checked(layer, layer.followed_channels(bottoms), tops, default=False)
    return _need(zip(tops, flags))


def _need(pairs: Iterable[tuple[Channels, np.ndarray]]) -> bool:
    """Marks channels as needed in each pair; returns whether anything changed."""
    changed = [channels.need(flags) for channels, flags in pairs]
    return any(changed)


def _agree(views: Sequence[NetChannels]) -> bool:
    """Makes all phases keep the same blobs, and the same terms and factors; returns whether anything changed."""
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
                if one.is_needed != two.is_needed:
                    one.needed[:] = two.needed[:] = True
                    changed = True
    return changed


def _need_any(views: Sequence[NetChannels]) -> bool:
    """Keeps one channel for layers that need any channel but have none left; returns whether anything changed."""
    changed = False
    for view in views:
        for i, layer in enumerate(view.net.layers):
            if layer.reads_any_channel() and view.is_needed(i) and not view.bottoms[i][0].is_needed:
                view.bottoms[i][0].needed[0] = changed = True
    return changed


def _equalize(views: Sequence[NetChannels]) -> bool:
    """Keeps further channels of layers whose parts must have equal sizes; returns whether anything changed."""
    changed = False
    for view in views:
        for i, layer in enumerate(view.net.layers):
            if not view.refuses[i] and view.is_needed(i):
                bottoms, tops = view.bottoms[i], view.tops[i]
                wanted = layer.equalized_channels([c.needed for c in bottoms], [c.needed for c in tops])
                changed |= _need(zip([*bottoms, *tops], [*wanted[0], *wanted[1]]))
    return changed


def _checked(
    layer: Layer, answer: list[np.ndarray], channels: Sequence[Channels], *, default: bool
) -> list[np.ndarray]:
    """A layer's answer as one bool array per blob, filled with the default if it is empty. raises RunError for a wrong size"""
    if not len(answer):
        return [np.full(c.size, default) for c in channels]
    if [len(flags) for flags in answer] != [c.size for c in channels]:
        raise layer.run_error(
            f"{layer.TYPE} answers for {[len(f) for f in answer]} channels, its blobs have {[c.size for c in channels]}"
        )
    return [np.asarray(flags, np.bool_) for flags in answer]


def _check_whole(view: NetChannels) -> None:
    """Raises RunError if a kept layer would have a bottom or top, not removed, without channels."""
    makers = {id(c): i for i, tops in enumerate(view.tops) for c in tops}
    for i in filter(view.is_needed, range(len(view.net.layers))):
        missing = [c for c, lost in zip(view.bottoms[i], view.removed_bottoms(i)) if not lost and not c.is_needed]
        stuck = [c for c, lost in zip(view.tops[i], view.removed_tops(i)) if not lost and not c.is_needed]
        if missing or stuck:
            raise _empty_error(view, min(_first_empty(view, makers, makers[id(c)]) for c in missing + stuck))


def _first_empty(view: NetChannels, makers: dict[int, int], i: int) -> int:
    """The first layer among i and the layers before it that lose all channels with it."""
    found, waiting = {i}, [i]
    while waiting:
        before = {makers[id(c)] for c in view.bottoms[waiting.pop()] if not c.is_needed} - found
        found |= before
        waiting += before
    return min(found)


def _empty_error(view: NetChannels, i: int) -> RunError:
    layer = view.net.layers[i]
    name, channels = next(pair for pair in zip(view.net.top_names[i], view.tops[i]) if not pair[1].is_needed)
    zero = channels.constant.all() and layer.blobs
    reason = "all its filters are zero" if zero else f'no remaining layer reads its top "{name}"'
    return layer.run_error(
        f"the layer would lose every channel: {reason}",
        hint="use a weaker penalty on it, or keep one filter: the net would be cut in two",
    )
