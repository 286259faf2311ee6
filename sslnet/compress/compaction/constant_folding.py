"""Constant folding: computes the contribution of removed constant channels to the layers that read them.

The constants are taken from one forward pass of the pruned net; they cannot depend on its input. An absorbing layer f is
affine in its bottom, so the contribution is f(constants, zeros elsewhere) - f(zeros), in float64. There are three cases:

* The contribution is the same at all positions of a top: it is added to the layer's bias.
* The contribution varies, as near padding: it becomes a map of C x H x W in a Bias layer after the layer.
* That map would be larger than a few channels: a linearly independent subset of the constant channels, the carriers, is
  kept, and the layer's weights on them are adjusted to replace the others. If every channel is the same at all its
  positions, one carrier is enough.

A dropped term of a sum becomes a Bias layer after the sum, with one number per channel or a map; a dropped factor of a
product becomes a Scale layer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy.linalg

from sslnet.blob import Blob
from sslnet.compress.compaction.channels import NetChannels
from sslnet.layers.base import Layer

UNIFORM = 1e-6
"""Relative tolerance within which values at all positions count as equal: constants are computed in float32, in an order
that differs between positions."""
VARIES = 1e-4
"""Relative difference between images of a batch above which a channel is not constant."""
SAME = 1e-5
"""Relative tolerance within which two responses count as equal; larger than ``UNIFORM``, as they sum over channels."""
CARRIER_COST = 2
"""Cost of a carrier relative to its weights in the layer that reads it; the layer that produces it has about as many."""
LARGEST_FACTOR = 16
"""The largest factor on a carrier that replaces another constant; a larger one would amplify its rounding errors."""

Values = dict[int, np.ndarray]
"""Constants by layer index. For an absorbing layer: first image of its bottom (channels, ...) in float64, 0 where not
constant. For a sum or product: values of its dropped bottoms in the first image (bottoms, channels, ...), else 0 or 1."""


@dataclass(frozen=True)
class Contribution:
    """The contribution of removed constant channels to a layer, in one of four forms; all None: no contribution.

    shift  (kept top channels) float64, for the layer's bias
    map    (kept top channels) or (kept top channels, ...) float64, for a Bias layer
    factor like map, for a Scale layer
    layer  copy of the layer with adjusted weights on its carriers, to be shrunk instead of the layer
    """

    shift: np.ndarray | None = None
    map: np.ndarray | None = None
    factor: np.ndarray | None = None
    layer: Layer | None = None


def constant_values(view: NetChannels) -> Values:
    """Runs the net forward once, layer by layer, and returns the constants that absorbing layers read.

    raises RunError when a channel that a layer declared constant is not
    """
    result = {}
    for i, layer in enumerate(view.net.layers):
        if not view.is_needed(i) or view.refuses[i]:
            pass
        elif view.absorbs[i] and view.bottoms[i][0].absorbed.size:
            result[i] = _values(layer, view.net.bottoms[i][0].data, view.bottoms[i][0].constant)
        elif any(view.dropped[i]):
            result[i] = _terms(view, i)
        layer.forward(view.net.bottoms[i], view.net.tops[i])
    return result


def choose_carriers(view: NetChannels, values: Values, *, maps: bool = True) -> dict[int, np.ndarray]:
    """Chooses the constant channels to keep as carriers, by layer, where they are cheaper. Does not change ``view``.

    maps   whether maps are allowed; otherwise carriers are used wherever possible
    """
    result = {}
    for i in values:
        if not view.absorbs[i]:
            continue
        layer, removed = view.net.layers[i], view.bottoms[i][0].absorbed
        contribution = _Response(view, i).to(values[i], removed)
        if _is_uniform(contribution):
            continue
        carriers = _independent(values[i], removed)
        weights = layer.blobs[0].count * len(contribution) // (view.bottoms[i][0].size * view.tops[i][0].size)
        cheaper = not maps or CARRIER_COST * weights * len(carriers) < contribution.size
        if cheaper and _merged(view, i, values[i], removed, carriers) is not None:
            result[i] = carriers
    return result


def find_contributions(
    view: NetChannels, values: Values, carriers: Mapping[int, np.ndarray]
) -> dict[int, Contribution]:
    """Computes the non-zero contributions, by layer index. The carriers must already be marked as needed in ``view``."""
    result = {}
    for i in values:
        if not view.absorbs[i]:
            gone, keep = values[i][view.dropped[i]], view.tops[i][0].keep
            factor, added = gone.prod(axis=0)[keep], gone.sum(axis=0)[keep]
            if view.net.layers[i].factors():
                result[i] = Contribution(factor=_per_channel(factor)) if (factor != 1).any() else Contribution()
            elif added.any():
                result[i] = Contribution(map=_per_channel(added))
            continue
        removed = view.bottoms[i][0].absorbed
        merged = _merged(view, i, values[i], removed, carriers[i]) if i in carriers else None
        if merged is not None:
            result[i] = Contribution(layer=merged)
        elif values[i][removed].any():
            contribution = _Response(view, i).to(values[i], removed)
            uniform = _is_uniform(contribution)
            shift = contribution.reshape(len(contribution), -1).mean(axis=1)
            result[i] = Contribution(shift=shift) if uniform else Contribution(map=contribution)
    return result


def _values(layer: Layer, data: np.ndarray, constant: np.ndarray) -> np.ndarray:
    """The constant channels of the first image. raises RunError if they are not finite or differ between images"""
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
    """Terms of a sum from each dropped bottom, 0 elsewhere; or factors of a product, 1 elsewhere: (bottoms, channels, ...)."""
    layer = view.net.layers[i]
    blobs, bottoms = view.net.bottoms[i], view.bottoms[i]
    coefficients = layer.coefficients() or [1.0] * len(blobs)
    result = np.full((len(blobs), *blobs[0].shape[1:]), 1.0 if layer.factors() else 0.0)
    for j, coefficient in enumerate(coefficients):
        if view.dropped[i][j] and coefficient:
            values = coefficient * _values(layer, blobs[j].data, bottoms[j].constant)
            result[j] = values.reshape(*values.shape, *(1,) * (result[j].ndim - values.ndim))
    return result


def _per_channel(values: np.ndarray) -> np.ndarray:
    """Reduces values (channels, ...) to one number per channel if they are the same at all positions."""
    uniform = values.ndim < 2 or _is_uniform(values)
    return values.reshape(len(values), -1).mean(axis=1) if uniform else values


def _independent(values: np.ndarray, channels: np.ndarray) -> np.ndarray:
    """A subset of the channels of which all are linear combinations, the strongest first.

    Found by QR decomposition with column pivoting; a residual below ``UNIFORM`` of the strongest counts as rounding.
    """
    r, order = scipy.linalg.qr(values[channels].reshape(len(channels), -1).T, mode="r", pivoting=True)
    size = np.abs(np.diagonal(r))
    strong: np.ndarray = channels[order[: int(np.count_nonzero(size > UNIFORM * size[0]))]]
    return strong


def _merged(view: NetChannels, i: int, values: np.ndarray, removed: np.ndarray, carriers: np.ndarray) -> Layer | None:
    """A copy of the layer whose weights on the carriers replace all removed channels; None if its response differs.

    The channels are along axis 1 or axis 0 of the weights, whichever gives the right response.
    """
    others, every = np.setdiff1d(removed, carriers), np.union1d(removed, carriers)
    flat = values.reshape(len(values), -1)
    factors = np.linalg.lstsq(flat[carriers].T, flat[others].T, rcond=None)[0]
    if np.abs(factors).max(initial=0) > LARGEST_FACTOR:
        return None
    wanted = _Response(view, i).to(values, every)
    layer = view.net.layers[i]
    for axis in (1, 0):
        if axis >= layer.blobs[0].num_axes or layer.blobs[0].shape[axis] != len(values):
            continue
        response = _Response(view, i)
        weights = np.moveaxis(response.layer.blobs[0].data, axis, 0)
        weights[carriers] += np.tensordot(factors, weights[others], axes=1)
        if np.abs(response.to(values, carriers) - wanted).max() <= SAME * np.abs(wanted).max():
            return response.layer
    return None


def _is_uniform(array: np.ndarray) -> bool:
    """Whether each channel (axis 0) has the same value at all positions."""
    flat = array.reshape(len(array), -1)
    return bool(np.ptp(flat, axis=1).max(initial=0) <= UNIFORM * np.abs(flat).max(initial=0))


class _Response:
    """Runs a copy of one layer in float64 on one image; the weights of the copy, ``layer``, may be changed."""

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
        """Contribution of channels with these values to the top: (kept top channels, ...)."""
        self.bottom.data[...] = 0
        nothing = self._run()
        self.bottom.data[0, channels] = values[channels]
        added: np.ndarray = (self._run() - nothing)[self.keep]
        return added

    def _run(self) -> np.ndarray:
        self.layer.forward([self.bottom], [self.top])
        return np.array(self.top.data[0])
