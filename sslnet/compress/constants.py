"""What removed constant channels contributed to the layers that read them: the layer's own response to them alone.

Their values come from one forward pass of the pruned net; they cannot depend on its input. A layer that absorbs is
affine in its bottom, so its contribution is f(constants, zeros elsewhere) - f(zeros), in float64. One of three takes it:

* it is the same at all positions of a top: a shift, which the layer's own bias takes;
* near padding it is not: a map of C x H x W for a Bias layer behind it;
* where that map would be larger than another channel: one of the constant channels stays, the carrier, and the layer's
  weights on it count for all the others too.

What a dropped term of a sum added goes into a Bias layer behind the sum, one number a channel or a map.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sslnet.blob import Blob
from sslnet.compress.channels import NetChannels
from sslnet.layers.base import Layer

UNIFORM = 1e-6
"""What varies over positions by less than this part of its largest value is the same everywhere: constants were
computed in float32, and not in the same order at every position."""
VARIES = 1e-4
"""Images of a batch whose constant channels differ by more than this part of their largest value: not constant."""
EXACT = 1e-9
"""Two responses in float64 that differ by less than this part of the larger are the same."""
CARRIER_COST = 2
"""A carrier costs its weights in the layer that reads it, and about as much in the layer that makes it."""

Values = dict[int, np.ndarray]
"""For each absorbing layer, by index: its bottom's first image (channels, ...) in float64, zero where not constant. For
each sum that drops terms: the terms' first images (bottoms, channels, ...), likewise."""


@dataclass(frozen=True)
class Contribution:
    """Where a contribution went.

    shift  (kept top channels) float64
    map    (kept top channels) or (kept top channels, ...) float64, for a Bias layer
    layer  the layer with the weights on its carrier changed, to be shrunk in its place
    """

    shift: np.ndarray | None = None
    map: np.ndarray | None = None
    layer: Layer | None = None


def constant_values(view: NetChannels) -> Values:
    """Runs the net forward once, layer by layer, and keeps the constants that absorbing layers read.

    raises RunError when a channel that a layer called constant is not
    """
    result = {}
    for i, layer in enumerate(view.net.layers):
        if not view.is_alive(i) or view.refuses[i]:
            pass
        elif view.absorbs[i] and view.bottoms[i][0].absorbed.size:
            result[i] = _values(layer, view.net.bottoms[i][0].data, view.bottoms[i][0].constant)
        elif any(view.dropped[i]):
            result[i] = _terms(view, i)
        layer.forward(view.net.bottoms[i], view.net.tops[i])
    return result


def choose_carriers(view: NetChannels, values: Values) -> dict[int, int]:
    """For each layer that is better off with one: the constant channel to keep, its index. ``view`` stays as it is."""
    result = {}
    for i in values:
        if not view.absorbs[i]:
            continue
        layer, removed = view.net.layers[i], view.bottoms[i][0].absorbed
        contribution = _Response(view, i).to(values[i], removed)
        if _is_uniform(contribution):
            continue
        carrier = _strongest(values[i], removed)
        weights = layer.blobs[0].count * len(contribution) // (view.bottoms[i][0].size * view.tops[i][0].size)
        cheaper = CARRIER_COST * weights < contribution.size
        if cheaper and _merged(view, i, values[i], removed, carrier) is not None:
            result[i] = carrier
    return result


def find_contributions(view: NetChannels, values: Values, carriers: Mapping[int, int]) -> dict[int, Contribution]:
    """What each layer that absorbs something but zeros gets, by its index. ``view`` keeps the carriers by now."""
    result = {}
    for i in values:
        if not view.absorbs[i]:
            added = values[i][view.dropped[i]].sum(axis=0)[view.tops[i][0].keep]
            if added.any():
                uniform = added.ndim < 2 or _is_uniform(added)
                result[i] = Contribution(map=added.reshape(len(added), -1).mean(axis=1) if uniform else added)
            continue
        removed = view.bottoms[i][0].absorbed
        if not values[i][removed].any():
            continue
        contribution = _Response(view, i).to(values[i], removed)
        merged = None
        if _is_uniform(contribution):
            result[i] = Contribution(shift=contribution.reshape(len(contribution), -1).mean(axis=1))
            continue
        if i in carriers:
            merged = _merged(view, i, values[i], removed, carriers[i])
        result[i] = Contribution(layer=merged) if merged is not None else Contribution(map=contribution)
    return result


def _values(layer: Layer, data: np.ndarray, constant: np.ndarray) -> np.ndarray:
    """The constant channels of the first image, after a look at the others."""
    values = data[:, constant]
    if not np.isfinite(values).all():
        raise layer.run_error("a constant channel that it reads is not finite", hint="the weights hold NaN or infinity")
    if np.abs(values - values[0]).max(initial=0) > VARIES * np.abs(values).max(initial=0):
        raise layer.run_error(
            "a channel of zero filters that it reads is not the same for all images",
            hint="layers such as Dropout draw random numbers in phase TRAIN: compare in phase TEST",
        )
    result = np.zeros(data.shape[1:])
    result[constant] = values[0]
    return result


def _terms(view: NetChannels, i: int) -> np.ndarray:
    """(bottoms, channels, ...): what each dropped bottom of a sum adds to it, zero elsewhere."""
    layer = view.net.layers[i]
    blobs, bottoms = view.net.bottoms[i], view.bottoms[i]
    result = np.zeros((len(blobs), *blobs[0].shape[1:]))
    for j, factor in enumerate(layer.coefficients()):
        if view.dropped[i][j] and factor:
            result[j] = factor * _values(layer, blobs[j].data, bottoms[j].constant)
    return result


def _strongest(values: np.ndarray, removed: np.ndarray) -> int:
    """The removed channel of the largest magnitude: the others are its multiples by no more than 1."""
    return int(removed[np.abs(values[removed].reshape(len(removed), -1)).max(axis=1).argmax()])


def _merged(view: NetChannels, i: int, values: np.ndarray, removed: np.ndarray, carrier: int) -> Layer | None:
    """The layer whose weights on the carrier count for all removed channels; None where that is not the same.

    The channels lie along axis 1 of the weights, or along axis 0: whichever gives the right response.
    """
    if not _is_uniform(values[removed]) or not _is_uniform(values[[carrier]]):
        return None
    levels = values.reshape(len(values), -1).mean(axis=1)
    others = removed[removed != carrier]
    every = np.union1d(removed, [carrier])
    wanted = _Response(view, i).to(values, every)
    layer = view.net.layers[i]
    for axis in (1, 0):
        if axis >= layer.blobs[0].num_axes or layer.blobs[0].shape[axis] != len(values):
            continue
        response = _Response(view, i)
        weights = np.moveaxis(response.layer.blobs[0].data, axis, 0)
        weights[carrier] += np.tensordot(levels[others] / levels[carrier], weights[others], axes=1)
        if np.abs(response.to(values, np.array([carrier])) - wanted).max() <= EXACT * np.abs(wanted).max():
            return response.layer
    return None


def _is_uniform(array: np.ndarray) -> bool:
    """Whether each channel (axis 0) is the same at all positions."""
    flat = array.reshape(len(array), -1)
    return bool(np.ptp(flat, axis=1).max(initial=0) <= UNIFORM * np.abs(flat).max(initial=0))


class _Response:
    """A layer alone, plainly, in float64, on one image: ``layer`` is the copy that runs, its weights free to be changed."""

    def __init__(self, view: NetChannels, i: int) -> None:
        original, shape = view.net.layers[i], view.net.bottoms[i][0].shape
        self.keep = view.tops[i][0].keep
        self.bottom = Blob((1, *shape[1:]), name="alone", dtype=np.float64)
        self.top = Blob(name="response", dtype=np.float64)
        self.layer = type(original)(original.definition, dataclasses.replace(original.context, dtype=np.float64))
        self.layer.setup([self.bottom], [self.top])
        for theirs, ours in zip(self.layer.blobs, original.blobs):
            theirs.data[...] = ours.data
        self.layer.reshape([self.bottom], [self.top])

    def to(self, values: np.ndarray, channels: np.ndarray) -> np.ndarray:
        """(kept top channels, ...): what the channels with these values add to the top."""
        self.bottom.data[...] = 0
        nothing = self._run()
        self.bottom.data[0, channels] = values[channels]
        return (self._run() - nothing)[self.keep]

    def _run(self) -> np.ndarray:
        self.layer.forward([self.bottom], [self.top])
        return self.top.data[0].copy()
