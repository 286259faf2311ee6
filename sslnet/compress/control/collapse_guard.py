"""Guards against collapse: keeps the last rows of a layer that the net cannot do without.

A penalty that is too strong for the moment may zero the last filter of a layer and cut the net in two, and nothing brings
that back: at zero a group has no gradient. So the largest row of each layer is remembered as it was an iteration ago, and
written back where it is needed. A layer that a shortcut bypasses may become zero as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sslnet.compress.control.estimate import remaining_parts
from sslnet.compress.control.penalty_handles import Lever
from sslnet.errors import RunError
from sslnet.net.net import Net
from sslnet.solver.parameter_update import Update

if TYPE_CHECKING:
    from sslnet.solver.solver import Solver

FEWEST = 0.02
"""Part of its rows, one at least, that a layer keeps without which the net would be cut in two."""


@dataclass
class LargestRow:
    """The row of a weight matrix with the largest norm, when it was chosen.

    index   -1 once the whole layer is zero
    values  of the last iteration at which it was not zero
    """

    update: Update
    index: int
    values: np.ndarray

    @property
    def row(self) -> np.ndarray:
        """The row as it is now, a view."""
        row: np.ndarray = _matrix(self.update)[self.index]
        return row

    def choose(self) -> None:
        """Takes the largest row of the layer as it is now."""
        matrix = _matrix(self.update)
        squares = np.einsum("rc,rc->r", matrix, matrix)
        self.index = int(squares.argmax()) if squares.any() else -1
        self.values = matrix[self.index].copy()


class CollapseGuard:
    """The largest rows of all weights whose groups penalties can zero."""

    def __init__(self, handles: Sequence[Lever]) -> None:
        self.handles = handles
        updates = {id(u): u for handle in handles for u in handle.updates if u.param.index == 0}
        self.rows = [LargestRow(update, -1, np.empty(0)) for update in updates.values()]

    def choose(self) -> None:
        for row in self.rows:
            row.choose()

    def zeroed(self) -> list[LargestRow]:
        """Rows that have become zero, the one with the largest value first; remembers the others as they are now."""
        found = []
        for row in self.rows:
            if row.index < 0:
                continue
            if row.row.any():
                row.values[...] = row.row
            else:
                found.append(row)
        return sorted(found, key=lambda row: -float(np.abs(row.values).max()))

    def restore(self, solver: Solver, zeroed: Sequence[LargestRow]) -> list[Lever]:
        """Writes rows back until the net is whole again, and ends the penalties that zeroed them: returns their handles.

        raises RunError when that does not help
        """
        held: list[Lever] = []
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

    def collapsing(self, net: Net) -> list[Lever]:
        """Handles, not ended, that are about to zero the last rows of a layer which the net cannot do without."""
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
        """(rows) float64: the index of each."""
        return np.array([row.index for row in self.rows], np.float64)

    def set_state(self, indices: np.ndarray) -> None:
        for row, index in zip(self.rows, indices):
            row.index = int(index)
            row.values = row.row.copy()


def is_whole(net: Net) -> bool:
    """Whether something of the net would remain."""
    try:
        remaining_parts(net)
    except RunError:
        return False
    return True


def _matrix(update: Update) -> np.ndarray:
    """The weights with one row an output, a view."""
    data = update.param.blob.data
    matrix: np.ndarray = data.reshape(len(data), -1)
    return matrix


def _has_few_rows(update: Update) -> bool:
    """Whether no more rows are left than a layer should keep."""
    matrix = _matrix(update)
    return int(matrix.any(axis=1).sum()) <= max(1, int(FEWEST * len(matrix)))
