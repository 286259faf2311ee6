"""Reconstruction: what the layers that read a channel lose, once least squares has made the best of the other channels.

The channels of a family are removed one after the other, each time the one whose loss is the smallest after the optimal
change of the weights on all others (Optimal Brain Surgeon, for the columns of one channel): for a layer with inputs X,
weights W, H = (X^T X)^-1 and columns c, the loss is tr(W_c^T (H_cc)^-1 W_c). Losses are parts of the energy of each
reader's output, summed over the readers.

Ref: Hassibi, Stork 1993, "Second Order Derivatives for Network Pruning"; He, Zhang, Sun 2017; Frantar, Alistarh 2022, "OBC"
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from sslnet.compress.pruning.channels import CoupledChannels, Family
from sslnet.compress.pruning.importance.base import Importance, Needs
from sslnet.compress.pruning.linear_layer import LinearLayer, is_linear
from sslnet.net.net import Net

RIDGE = 1e-3
"""Added to the diagonal of X^T X, as a part of its mean: more inputs than samples have no inverse."""
LEVELS = (0.35, 0.7)
"""Parts of a family after whose removal the weights of the readers are kept, for ``sensitivity``."""
STEPS = 128
"""Largest number of steps in which a family is ranked; wider ones lose several channels in one step."""


@dataclass(frozen=True)
class GreedyRemoval:
    """The removal of the units of a family, one after the other.

    order    the units as they went
    losses   (units) sum of the losses up to each
    weights  weights of the readers after some numbers of units, as (groups, columns, outputs), by layer number
    """

    order: np.ndarray
    losses: np.ndarray
    weights: dict[int, dict[int, np.ndarray]]


@final
class Reconstruction(Importance):
    """The loss of the readers up to the removal of the channel, removed greedily."""

    NAME: ClassVar[str] = "reconstruction"
    NEEDS: ClassVar[Needs] = Needs.INPUTS

    def start(self, channels: CoupledChannels) -> None:
        super().start(channels)
        self._moments: dict[int, np.ndarray] = {}
        self._shifts: dict[int, np.ndarray] = {}
        self._sums: dict[int, np.ndarray] = {}
        self._samples: dict[int, int] = {}
        self._layers: dict[int, LinearLayer] = {}
        self._removals: dict[str, list[GreedyRemoval]] = {}

    def see(self, net: Net, images: int) -> None:
        for i in self.channels.readers:
            if not is_linear(net, i):
                continue
            layer = self._layers.get(i) or LinearLayer(net, i)
            random = np.random.default_rng((self.seed, i, self._samples.get(i, 0)))
            rows = layer.inputs(net.bottoms[i][0].data[:images], layer.draw_places(images, random))
            if i not in self._layers:
                self._layers[i], self._samples[i] = layer, 0
                self._moments[i] = np.zeros((layer.groups, layer.columns, layer.columns), np.float32)
                self._sums[i] = np.zeros((layer.groups, layer.columns))
                self._shifts[i] = rows.mean(axis=1, dtype=np.float64, keepdims=True).astype(rows.dtype)
            rows -= self._shifts[i]  # so that nothing cancels when the mean is taken off
            self._moments[i] += np.matmul(rows.transpose(0, 2, 1), rows)
            self._sums[i] += rows.sum(axis=1, dtype=np.float64)
            self._samples[i] += rows.shape[1]

    def scores(self) -> np.ndarray:
        result = np.zeros(self.channels.count)
        for family in self.channels.families:
            found = self.remove(family, keep=levels_of(family))
            result[found.order] = found.losses + np.arange(len(family)) * 1e-12 * max(1e-30, float(found.losses[-1]))
        return result

    def remove(self, family: Family, order: np.ndarray | None = None, *, keep: Sequence[int] = ()) -> GreedyRemoval:
        """Removes the units of a family one after the other.

        order  the units in this order; None: each time the one with the smallest loss
        keep   numbers of removed units after which the weights of the readers are kept
        """
        for known in self._removals.get(family.name, []):
            if order is not None and np.array_equal(known.order, order) and set(keep) <= known.weights.keys():
                return known
        readers = {i: self._readers(i, family) for i in self.channels.readers_of(family) if i in self._layers}
        every = [reader for groups in readers.values() for reader in groups]
        count = len(family)
        given = None if order is None else np.searchsorted(family.units, order)
        present, total = np.ones(count, np.bool_), 0.0
        taken: list[int] = []
        losses: list[float] = []
        weights: dict[int, dict[int, np.ndarray]] = {}
        step = max(1, count // STEPS)
        while present.any():
            if len(taken) in keep:
                weights[len(taken)] = {i: np.array([r.weights for r in groups]) for i, groups in readers.items()}
            loss = sum((reader.losses() for reader in every), np.zeros(count))
            loss[~present] = np.inf
            due = [*keep, count]
            number = min(step, int(present.sum()), min(n for n in due if n > len(taken)) - len(taken))
            if given is None:
                chosen = np.argsort(loss, kind="stable")[:number]
            else:
                chosen = given[len(taken) : len(taken) + number]
            for unit in chosen.tolist():
                total += max(0.0, float(loss[unit]))
                taken.append(unit)
                losses.append(total)
                for reader in every:
                    reader.remove(unit)
            present[chosen] = False
        if len(taken) in keep:
            weights[len(taken)] = {i: np.array([r.weights for r in groups]) for i, groups in readers.items()}
        found = GreedyRemoval(family.units[taken], np.array(losses), weights)
        self._removals.setdefault(family.name, []).append(found)
        return found

    def layer(self, i: int) -> LinearLayer:
        return self._layers[i]

    def mean_inputs(self, i: int) -> np.ndarray:
        """(groups, columns) mean of what layer i reads, over all samples."""
        mean: np.ndarray = self._shifts[i][:, 0] + self._sums[i] / max(1, self._samples[i])
        return mean

    def _readers(self, i: int, family: Family) -> list[_Reader]:
        """The groups of layer i, each with the columns of every unit of the family."""
        layer = self._layers[i]
        found = []
        for g in range(layer.groups):
            units = self.channels.bottoms[i][layer.channel[g]]
            columns = [np.flatnonzero(units == unit) for unit in family.units]
            moments = (self._moments[i][g], self._sums[i][g], self._samples[i])
            found.append(_Reader(layer.matrix()[g], *moments, columns))
        return found


def levels_of(family: Family) -> list[int]:
    """Numbers of removed units after which the weights of the readers are kept."""
    return sorted({max(1, round(level * len(family))) for level in LEVELS})


class _Reader:
    """One layer that reads a family: H, the inverse of X^T X, and the weights as they are after each removal."""

    def __init__(
        self, weights: np.ndarray, moments: np.ndarray, sums: np.ndarray, samples: int, columns: list[np.ndarray]
    ) -> None:
        self.columns = columns
        mean = sums / max(1, samples)
        xx = moments.astype(np.float64) - samples * np.outer(mean, mean)
        size = len(xx)
        xx[np.diag_indices(size)] += max(RIDGE * float(np.trace(xx)) / size, 1e-30)
        self.weights = weights
        self.energy = max(float(np.einsum("co,co->", self.weights, xx @ self.weights)), 1e-30)
        self.inverse = np.linalg.inv(xx)
        widths = {len(own) for own in columns}
        self.even = np.array(columns) if len(widths) == 1 else None
        """(units, columns of a unit) where all units have as many."""

    def losses(self) -> np.ndarray:
        """Loss by the removal of each unit now, as a part of the energy of the output: (units)."""
        if self.even is not None and self.even.shape[1] == 1:
            own = self.even[:, 0]
            diagonal = np.maximum(self.inverse[own, own], 1e-30)
            losses: np.ndarray = np.square(self.weights[own]).sum(axis=1) / diagonal
            return losses / self.energy
        if self.even is not None:
            blocks = self.inverse[self.even[:, :, None], self.even[:, None, :]]
            own_weights = self.weights[self.even]
            solved = np.linalg.solve(blocks + _least(blocks), own_weights)
            found: np.ndarray = np.einsum("uko,uko->u", own_weights, solved) / self.energy
            return found
        return np.array([self._loss(own) for own in self.columns]) / self.energy

    def _loss(self, own: np.ndarray) -> float:
        if not len(own):
            return 0.0
        block = self.inverse[np.ix_(own, own)]
        return float((self.weights[own] * np.linalg.solve(block + _least(block), self.weights[own])).sum())

    def remove(self, unit: int) -> None:
        """Removes a unit: the weights of the others change so that the output changes least."""
        own = self.columns[unit]
        if not len(own):
            return
        block = self.inverse[np.ix_(own, own)]
        across = self.inverse[:, own]
        factor = np.linalg.solve(block + _least(block), across.T)
        self.weights -= factor.T @ self.weights[own]
        self.inverse -= across @ factor
        self.weights[own] = 0
        self.inverse[own] = 0
        self.inverse[:, own] = 0


def _least(blocks: np.ndarray) -> np.ndarray:
    """A multiple of the identity that keeps blocks of an inverse regular, also those of units that are gone."""
    size = blocks.shape[-1]
    traces = np.trace(blocks, axis1=-2, axis2=-1)
    least: np.ndarray = np.asarray(1e-10 * traces / size + 1e-30)[..., None, None] * np.eye(size)
    return least
