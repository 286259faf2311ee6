"""Guards against collapse: keeps the last rows of essential layers.

A penalty that is temporarily too strong may zero the last filter of a layer and disconnect the net, permanently, because
a zero group then gets no gradient. So the guard saves the largest row of each layer at each iteration, and writes it back
if the net would be disconnected. A layer that a shortcut bypasses may become zero as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sslnet.compress.control.estimate import remaining_parts
from sslnet.compress.control.penalty_handles import PenaltyHandle
from sslnet.errors import RunError
from sslnet.net.net import Net
from sslnet.solver.parameter_update import Update

if TYPE_CHECKING:
    from sslnet.solver.solver import Solver

FEWEST = 0.02
"""Fraction of the rows, at least one row, that an essential layer keeps."""


@dataclass
class LargestRow:
    """The row of a weight matrix that had the largest norm when it was chosen.

    index   row number, -1 if the whole layer was zero
    values  copy of the row at the last iteration at which it was not zero
    """

    update: Update
    index: int
    values: np.ndarray

    @property
    def row(self) -> np.ndarray:
        """View of the current row."""
        row: np.ndarray = _matrix(self.update)[self.index]
        return row

    def choose(self) -> None:
        """Chooses and copies the row with the currently largest norm."""
        matrix = _matrix(self.update)
        squares = np.einsum("rc,rc->r", matrix, matrix)
        self.index = int(squares.argmax()) if squares.any() else -1
        self.values = matrix[self.index].copy()


class CollapseGuard:
    """Keeps the largest row of each weight matrix that a penalty can zero, and restores it if the net needs it."""

    def __init__(self, handles: Sequence[PenaltyHandle]) -> None:
        self.handles = handles
        updates = {id(u): u for handle in handles for u in handle.updates if u.param.index == 0}
        self.rows = [LargestRow(update, -1, np.empty(0)) for update in updates.values()]

    def choose(self) -> None:
        for row in self.rows:
            row.choose()

    def zeroed(self) -> list[LargestRow]:
        """Returns the rows that have become zero, the one with the largest value first; saves copies of the others."""
        found = []
        for row in self.rows:
            if row.index < 0:
                continue
            if row.row.any():
                row.values[...] = row.row
            else:
                found.append(row)
        return sorted(found, key=lambda row: -float(np.abs(row.values).max()))

    def restore(self, solver: Solver, zeroed: Sequence[LargestRow]) -> list[PenaltyHandle]:
        """Restores rows until the net is connected again, and ends the penalties on them. Returns their handles.

        raises RunError if the net is still disconnected
        """
        held: list[PenaltyHandle] = []
        for row in zeroed:
            if is_whole(solver.net):
                break
            row.row[...] = row.values
            for array in row.update.history:
                array.reshape(len(row.update.param.blob.data), -1)[row.index] = 0
            held += [handle for handle in self.handles if row.update in handle.updates and handle not in held]
        for handle in held:
            handle.end(solver)
        remaining_parts(solver.net)
        for row in zeroed:
            row.choose()
        return held

    def collapsing(self, net: Net) -> list[PenaltyHandle]:
        """Active handles about to zero the last rows of an essential layer."""
        found = []
        for handle in self.handles:
            if handle.ended or not any(_has_few_rows(update) for update in handle.makers):
                continue
            with handle.without(np.ones(handle.count, np.bool_)):
                cut = not is_whole(net)
            if cut:
                found.append(handle)
        return found

    def state(self) -> np.ndarray:
        """Indices of the saved rows, float64."""
        return np.array([row.index for row in self.rows], np.float64)

    def set_state(self, indices: np.ndarray) -> None:
        for row, index in zip(self.rows, indices):
            row.index = int(index)
            row.values = row.row.copy()


def is_whole(net: Net) -> bool:
    """Whether the net without its zero groups is still connected."""
    try:
        remaining_parts(net)
    except RunError:
        return False
    return True


def _matrix(update: Update) -> np.ndarray:
    """View of the weights as a matrix with one row per element of the first axis."""
    data = update.param.blob.data
    matrix: np.ndarray = data.reshape(len(data), -1)
    return matrix


def _has_few_rows(update: Update) -> bool:
    """Whether no more rows are non-zero than a layer should keep (FEWEST)."""
    matrix = _matrix(update)
    return int(matrix.any(axis=1).sum()) <= max(1, int(FEWEST * len(matrix)))
