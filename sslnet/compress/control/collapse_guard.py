"""Spares: of each layer with groups the strongest row, as it was an iteration ago, so that no layer is lost for good.

A penalty that is too strong for the moment may take the last filter of a layer and with it the whole net, and nothing
brings that back: at zero a group has no gradient. A layer which a shortcut carries may go as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sslnet.compress.control.estimate import parts
from sslnet.compress.control.penalty_handles import Lever
from sslnet.errors import RunError
from sslnet.net.net import Net
from sslnet.solver.parameter_update import Update

FEWEST = 0.02
"""Part of its rows, one at least, that a layer keeps without which the net would be cut in two."""


@dataclass
class Spare:
    """A row of a weight matrix. index: -1 once the whole layer is zero."""

    update: Update
    index: int
    values: np.ndarray

    @property
    def row(self) -> np.ndarray:
        data = self.update.param.blob.data
        return data.reshape(len(data), -1)[self.index]

    def choose(self) -> None:
        """The longest row of the layer as it is now."""
        data = self.update.param.blob.data
        matrix = data.reshape(len(data), -1)
        lengths = np.einsum("rc,rc->r", matrix, matrix)
        self.index = int(lengths.argmax()) if lengths.any() else -1
        self.values = matrix[self.index].copy()


class Spares:
    """Those of all weights under levers."""

    def __init__(self, levers: Sequence[Lever]) -> None:
        self.levers = levers
        updates = {id(u): u for lever in levers for u in lever.updates if u.param.index == 0}
        self.all = [Spare(update, -1, np.empty(0)) for update in updates.values()]

    def choose(self) -> None:
        for spare in self.all:
            spare.choose()

    def lost(self) -> list[Spare]:
        """Those whose row has become zero, the strongest first; remembers the others as they are now."""
        found = []
        for spare in self.all:
            if spare.index < 0:
                continue
            if spare.row.any():
                spare.values[...] = spare.row
            else:
                found.append(spare)
        return sorted(found, key=lambda spare: -float(np.abs(spare.values).max()))

    def rescue(self, solver: Any, lost: Sequence[Spare]) -> list[Lever]:
        """Puts rows back until the net is whole again; returns the levers that took them, which have ended.

        raises RunError when that does not help
        """
        held: list[Lever] = []
        for spare in lost:
            if is_whole(solver.net):
                break
            spare.row[...] = spare.values
            for array in spare.update.history:
                array.reshape(len(spare.update.param.blob.data), -1)[spare.index] = 0
            held += [lever for lever in self.levers if spare.update in lever.updates and lever not in held]
        for lever in held:
            lever.end(solver)
        parts(solver.net)
        for spare in lost:
            spare.choose()
        return held

    def last(self, net: Net) -> list[Lever]:
        """Levers that have come to the last rows of a layer which the net cannot do without, and have not ended."""
        found = []
        for lever in self.levers:
            if lever.ended or not any(_is_short(update) for update in lever.makers):
                continue
            with lever.without(np.ones(lever.count, np.bool_)):
                cut = not is_whole(net)
            if cut:
                found.append(lever)
        return found

    def state(self) -> np.ndarray:
        return np.array([spare.index for spare in self.all], np.float64)

    def set_state(self, indices: np.ndarray) -> None:
        for spare, index in zip(self.all, indices):
            spare.index = int(index)
            spare.values = spare.row.copy()


def is_whole(net: Net) -> bool:
    """Whether something of the net would be left."""
    try:
        parts(net)
    except RunError:
        return False
    return True


def _is_short(update: Update) -> bool:
    """Whether no more rows are left than a layer should keep."""
    data = update.param.blob.data
    rows = int(data.reshape(len(data), -1).any(axis=1).sum())
    return rows <= max(1, int(FEWEST * len(data)))
