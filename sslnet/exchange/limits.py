"""Limits for models of unknown origin: memory, nodes, axes, length of names.

A file of 200 bytes can request gigabytes: a constant can be a node that gives its size. Everything that is created from a
model before its net runs is first counted against one ``Room``, whose size follows from the size of the model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from sslnet.exchange.node import OnnxNode

LEAST_ROOM = 64 << 20
"""Number of bytes for constants of the smallest model."""
ROOM_PER_BYTE = 16
"""Additional bytes per byte of the model: a weight of 1 byte becomes a float, and is moved, joined and cut."""
WORK_PER_ROOM = 4
"""Number of bytes that all computations ahead of time may read and write together, per byte that they may keep."""
STEP = 1000
"""Number of bytes that are read and written in the time of one step in Python: some operators take one step for each
index."""
MOST_VALUES = 128 << 20
"""Maximum number of bytes of a net that is run and compared, besides ROOM_PER_BYTE; the run needs about four times as
many."""
MOST_WORK = 10**11
"""Maximum number of multiplications of a run for a comparison: about six times those of VGG-16, some seconds."""
MOST_NODES = 20_000
"""Maximum number of nodes of a model, with its functions inlined."""
MOST_DEPTH = 50
"""Maximum nesting of functions."""
MOST_AXES = 32
"""Maximum number of axes of a value, as of a blob."""
MOST_SHAPE = 1024
"""Maximum number of values of a constant that may determine shapes."""
MOST_NAME = 200
"""Maximum number of letters of a name."""
MOST_ERRORS = 20
"""Maximum number of nodes without a counterpart; reading stops after these."""


class Room:
    """The bytes left for arrays that are created from a model ahead of time, and for the work to compute them.

    spent   whether the work was too much once; nothing more is computed then
    """

    def __init__(self, model_bytes: int) -> None:
        self.model_bytes = model_bytes
        self.left = LEAST_ROOM + ROOM_PER_BYTE * model_bytes
        self.work_left = WORK_PER_ROOM * self.left
        self.spent = False

    def take(self, node: OnnxNode, shape: Sequence[int], item: int = 4) -> None:
        """Counts an array that the node is about to create. item: bytes of a value. raises DefinitionError if it is too
        large"""
        size = item * math.prod(shape)
        if size > self.left:
            raise node.error(
                f"would make {'x'.join(map(str, shape)) or 1} values ahead of time, more than a model of "
                f"{self.model_bytes:,} bytes may"
            )
        self.left -= size

    def work(self, node: OnnxNode, size: int) -> None:
        """Counts the bytes that the node is about to read and write. raises DefinitionError if they are too many

        A kept array is counted once, however often it is read; the time for reading it is not.
        """
        if size > self.work_left:
            self.spent = True
            raise node.error(
                f"computing it ahead of time would be too much work for a model of {self.model_bytes:,} bytes"
            )
        self.work_left -= size

    def holds_values(self, size: int) -> bool:
        """Whether a net of this many bytes is run to compare it with the model."""
        return size <= MOST_VALUES + ROOM_PER_BYTE * self.model_bytes


def tidy(name: str) -> str:
    """A name without characters that a terminal might interpret as a command, and not longer than MOST_NAME."""
    return "".join(letter if letter.isprintable() else "_" for letter in name[:MOST_NAME])
