"""Channel dependencies: finds the channels of a net that can only be removed together, from its layer graph.

Each channel of every blob gets the number of its class; dependent channels are in one class. An Eltwise joins the
channels that it adds; ReLU, BatchNorm, Scale, Pooling and depthwise convolutions join output channels to their input
channels, and so do Concat and Slice, at other positions. Layers that mix their channels (convolutions, InnerProduct)
start new classes; layers that share their weights have the same classes. A convolution with several groups, which must
stay equal in size, joins equal places of all groups, of its input and of its output.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sslnet.layers.base import Layer
from sslnet.layers.channels import channel_count
from sslnet.net.net import Net
from sslnet.sparsity.groups import WEIGHTS


@dataclass(frozen=True)
class ChannelClasses:
    """Classes of the channels of layer i's blobs, in ``bottoms[i][j]`` and ``tops[i][j]``, one number per channel."""

    bottoms: list[list[np.ndarray]]
    tops: list[list[np.ndarray]]


def find_channel_classes(net: Net) -> ChannelClasses:
    """Finds the classes of all channels of a net, numbered from 0 in order of first appearance."""
    joined = _Classes()
    current: dict[str, np.ndarray] = {}
    bottoms: list[list[np.ndarray]] = []
    tops: list[list[np.ndarray]] = []
    for i, layer in enumerate(net.layers):
        bottoms.append([current[name] for name in net.bottom_names[i]])
        tops.append([joined.new(channel_count(blob.shape)) for blob in net.tops[i]])
        current.update(zip(net.top_names[i], tops[i]))
        if mixes(layer) and getattr(layer, "group", 1) > 1:
            _join_places(joined, [*bottoms[i], *tops[i]], layer.group)  # type: ignore[attr-defined]
        for j, below in enumerate(bottoms[i]):
            for above, sources in zip(
                tops[i], _sources(layer, [len(b) for b in bottoms[i]], j, [len(t) for t in tops[i]])
            ):
                there = sources >= 0
                joined.join(above[there], below[sources[there]])
    for some, others in _sharing(net):
        for around in (bottoms, tops):
            for a, b in zip(around[some], around[others]):
                if len(a) == len(b):
                    joined.join(a, b)
    numbers = joined.numbers()
    return ChannelClasses(*([[numbers[ids] for ids in blobs] for blobs in around] for around in (bottoms, tops)))


def _join_places(joined: _Classes, blobs: list[np.ndarray], group: int) -> None:
    """Joins equal places of all groups of a layer's channels."""
    for ids in blobs:
        if len(ids) % group == 0:  # of a convolution along another axis, channels are something else
            places = ids.reshape(group, -1)
            joined.join(places[1:].reshape(-1), np.tile(places[0], group - 1))


def _sharing(net: Net) -> Iterator[tuple[int, int]]:
    """Pairs of layer numbers whose layers share one weight parameter."""
    first: dict[str, int] = {}
    for i, layer in enumerate(net.layers):
        name = layer.param.param[0].name if layer.param.param and layer.blobs else ""
        if name and first.setdefault(name, i) != i:
            yield first[name], i


def mixes(layer: Layer) -> bool:
    """Whether the layer combines its input channels by weights; a depthwise convolution does not."""
    return layer.TYPE in WEIGHTS and not is_depthwise(layer)


def is_depthwise(layer: Layer) -> bool:
    """Whether the layer is a convolution with one input channel per group, and more than one group."""
    return bool(layer.blobs) and layer.param.HasField("convolution_param") and 1 < getattr(layer, "group", 1) == getattr(
        layer, "channels", 0
    )  # fmt: skip


def _sources(layer: Layer, sizes: list[int], index: int, tops: list[int]) -> list[np.ndarray]:
    """For each top and each of its channels, the channel of bottom ``index`` that it depends on; -1 for none or several.

    Found bit by bit: queries the layer with the channels whose number has the bit set, then with the others.
    """
    if mixes(layer):
        return []
    if is_depthwise(layer):
        return [np.arange(top) // (top // sizes[index]) for top in tops]
    found = [np.zeros(top, np.int64) for top in tops]
    certain = [np.ones(top, np.bool_) for top in tops]
    number = np.arange(sizes[index])
    for bit in range(max(1, math.ceil(math.log2(max(2, sizes[index]))))):
        has = (number >> bit & 1).astype(np.bool_)
        answers = [_followed(layer, sizes, index, flags, tops) for flags in (has, ~has)]
        for k, (one, zero) in enumerate(zip(*answers)):
            certain[k] &= one != zero
            found[k] |= one.astype(np.int64) << bit
    return [np.where(sure & (f < sizes[index]), f, -1) for f, sure in zip(found, certain)]


def _followed(layer: Layer, sizes: list[int], index: int, flags: np.ndarray, tops: list[int]) -> list[np.ndarray]:
    bottoms = [np.zeros(size, np.bool_) for size in sizes]
    bottoms[index] = flags
    answer = layer.followed_channels(bottoms)
    return (
        [np.asarray(found, np.bool_) for found in answer] if len(answer) else [np.zeros(top, np.bool_) for top in tops]
    )


class _Classes:
    """Disjoint sets of numbers: union-find over arrays."""

    def __init__(self) -> None:
        self._parent = np.zeros(0, np.int64)

    def new(self, count: int) -> np.ndarray:
        ids = np.arange(len(self._parent), len(self._parent) + count)
        self._parent = np.append(self._parent, ids)
        return ids

    def join(self, some: np.ndarray, others: np.ndarray) -> None:
        for a, b in zip(some.tolist(), others.tolist()):
            a, b = self._root(a), self._root(b)
            self._parent[max(a, b)] = min(a, b)

    def numbers(self) -> np.ndarray:
        """The class of each number."""
        roots = np.array([self._root(i) for i in range(len(self._parent))], np.int64)
        return np.unique(roots, return_inverse=True)[1].reshape(-1)

    def _root(self, i: int) -> int:
        parent = self._parent
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = int(parent[i])
        return i
