"""Units: which channels of a net may be removed, numbered by the layers that make them."""

from __future__ import annotations

import numpy as np

from sslnet.compress.compaction.channels import view_net
from sslnet.net.net import Net
from sslnet.sparsity.channel_dependencies import mixes
from sslnet.sparsity.channel_parts import ChannelParts, Role


def find_units(net: Net, account: ChannelParts) -> np.ndarray:
    """For each class of channels the number of its unit, -1 if it must be kept; numbered by the layers that make them."""
    ties = account.ties
    count = 1 + max((int(ids.max()) for blobs in (*ties.tops, *ties.bottoms) for ids in blobs if len(ids)), default=-1)
    keep = np.ones(count, np.bool_)
    for part in account.of(Role.MAKER):
        keep[part.classes] = False
    keep[_fixed(net, account)] = True
    while (needed := _needed_with(net, account, keep) & ~keep).any():
        keep |= needed
    unit_of = np.full(count, -1, np.int64)
    numbers: dict[int, int] = {}
    for part in account.of(Role.MAKER):
        for number in part.classes.tolist():
            if not keep[number]:
                numbers.setdefault(number, len(numbers))
    for number, unit in numbers.items():
        unit_of[number] = unit
    return unit_of


def _needed_with(net: Net, account: ChannelParts, keep: np.ndarray) -> np.ndarray:
    """Classes that compaction keeps because layers without weights couple them to kept ones: (classes) bool.

    Such layers move channels in groups (ShuffleChannel), so that no channel of the top stands for one of the bottom.
    """
    view, needed = view_net(net), np.zeros(len(keep), np.bool_)
    for i, layer in enumerate(net.layers):
        bottoms, tops = account.ties.bottoms[i], account.ties.tops[i]
        if view.refuses[i] or mixes(layer):
            continue
        ignores = [np.full(len(ids), view.absorbs[i] or layer.IGNORES_ZEROS) for ids in bottoms]
        for blobs, flags in (
            (bottoms, layer.needed_channels([keep[ids] for ids in tops], ignores)),
            (tops, layer.followed_channels([keep[ids] for ids in bottoms])),
        ):
            for ids, found in zip(blobs, flags):
                needed[ids[np.asarray(found, np.bool_)]] = True
    return needed


def _fixed(net: Net, account: ChannelParts) -> list[int]:
    """Classes with a channel that compaction keeps whatever the weights are."""
    view, ties = view_net(net), account.ties
    ends = set(net.outputs) | set(net.loss_weights)
    fixed: set[int] = set()
    for i, layer in enumerate(net.layers):
        bottoms, tops = ties.bottoms[i], ties.tops[i]
        if view.refuses[i]:
            needed = [np.ones(len(ids), np.bool_) for ids in (*bottoms, *tops)]
        else:
            ignores = view.absorbs[i] or layer.IGNORES_ZEROS
            none = [np.zeros(len(ids), np.bool_) for ids in tops]
            below = layer.needed_channels(none, [np.full(len(ids), ignores) for ids in bottoms])
            above = layer.followed_channels([np.zeros(len(ids), np.bool_) for ids in bottoms])
            needed = [*(below if len(below) else [np.ones(len(ids), np.bool_) for ids in bottoms])]
            needed += above if len(above) else none
        for ids, flags in zip((*bottoms, *tops), needed):
            fixed.update(ids[np.asarray(flags, np.bool_)].tolist())
        for name, ids in zip(net.top_names[i], tops):
            if name in ends:
                fixed.update(ids.tolist())
    return sorted(fixed)
