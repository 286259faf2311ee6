"""What a model from elsewhere may ask for, in one place: memory, nodes, axes, letters.

A file of 200 bytes can ask for gigabytes: a constant is a node that says how large it is. All that is made of a model
before its net runs is counted against one ``Room``, before it is made, and the room follows from the size of the model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from sslnet.exchange.node import OnnxNode

LEAST_ROOM = 64 << 20
"""Bytes for constants of even the smallest model."""
ROOM_PER_BYTE = 16
"""More of them for each byte of the model: a weight of 1 byte becomes a float, and is moved, joined and cut."""
WORK_PER_ROOM = 4
"""Bytes that all that is computed ahead of time may read and write together, for each that it may keep."""
STEP = 1000
"""Bytes that are read and written in the time of a step in Python: some operators take one for each index."""
MOST_VALUES = 128 << 20
"""Bytes that a net may take to be run and compared, besides ROOM_PER_BYTE; about four times as many are taken."""
MOST_WORK = 10**11
"""Multiplications of a run that compares: about six times those of VGG-16, some seconds."""
MOST_NODES = 20_000
"""Maximum number of nodes of a model, with its functions inlined."""
MOST_DEPTH = 50
"""Maximum nesting of functions."""
MOST_AXES = 32
"""Maximum number of axes of a value, as of a blob."""
MOST_SHAPE = 1024
"""Values of a constant that may say something about shapes."""
MOST_NAME = 200
"""Letters of a name that are taken over."""
MOST_ERRORS = 20
"""Nodes that have no counterpart, after which no more are looked for."""


class Room:
    """Bytes that are left for arrays which are made of a model ahead of time, and for the work of making them.

    spent   whether the work was too much once: nothing more is computed
    """

    def __init__(self, model_bytes: int) -> None:
        self.model_bytes = model_bytes
        self.left = LEAST_ROOM + ROOM_PER_BYTE * model_bytes
        self.work_left = WORK_PER_ROOM * self.left
        self.spent = False

    def take(self, node: OnnxNode, shape: Sequence[int], item: int = 4) -> None:
        """Counts an array that the node is about to make. item: bytes of a value. raises DefinitionError when it is too large"""
        size = item * math.prod(shape)
        if size > self.left:
            raise node.error(
                f"would make {'x'.join(map(str, shape)) or 1} values ahead of time, more than a model of "
                f"{self.model_bytes:,} bytes may"
            )
        self.left -= size

    def work(self, node: OnnxNode, size: int) -> None:
        """Counts what the node is about to read and write, in bytes. raises DefinitionError when it is too much

        A kept array is counted once, however often it is read; the time for reading it is not.
        """
        if size > self.work_left:
            self.spent = True
            raise node.error(
                f"computing it ahead of time would be too much work for a model of {self.model_bytes:,} bytes"
            )
        self.work_left -= size

    def holds_values(self, size: int) -> bool:
        """Whether a net of so many bytes is run to compare it with the model."""
        return size <= MOST_VALUES + ROOM_PER_BYTE * self.model_bytes


def tidy(name: str) -> str:
    """A name as it is taken over: what a terminal might take for a command replaced, and not longer than MOST_NAME."""
    return "".join(letter if letter.isprintable() else "_" for letter in name[:MOST_NAME])
