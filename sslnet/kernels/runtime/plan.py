"""The base of the plans of all operations: it checks arrays, so that loop nests need no checks."""

from __future__ import annotations

from typing import Any

import numpy as np

from sslnet.errors import ShapeError

Shape = tuple[int, ...]


def check_array(name: str, array: np.ndarray, shape: Shape) -> None:
    """Raises ShapeError unless ``array`` is C-contiguous float32 of this shape."""
    if array.shape != shape:
        raise ShapeError(f"{name} must have shape {shape}, not {array.shape}")
    if array.dtype != np.float32 or not array.flags.c_contiguous:
        order = "C-contiguous" if array.flags.c_contiguous else "strided"
        raise ShapeError(f"{name} must be C-contiguous float32, not {order} {array.dtype}")


class KernelPlan:
    """A loop nest for one problem size, and the shapes of its arrays.

    shapes   the shapes of the arrays, by the names that errors use
    """

    def __init__(self, loop: Any, **shapes: Shape) -> None:
        self.loop = loop
        self.shapes = shapes

    @property
    def kernel(self) -> str:
        """The loop nest and its tile, for reports."""
        return str(self.loop.kernel)

    def check(self, **arrays: np.ndarray | None) -> None:
        """Raises ShapeError unless every given array is C-contiguous float32 of its shape."""
        for name, array in arrays.items():
            if array is not None:
                check_array(name, array, self.shapes[name])
