"""Reshape: gives the bottom's values another shape; top and bottom share their data.

``shape`` replaces ``num_axes`` axes from ``axis`` on (-1: all of them); a negative ``axis`` counts from the end,
where -1 is after the last axis. dim 0 keeps the size of the bottom's axis at that position; one dim may be -1 and is
inferred.
"""

from __future__ import annotations

from math import prod
from typing import Any, ClassVar, final

import numpy as np

from sslnet.blob import Blob
from sslnet.layers.base import Blobs
from sslnet.layers.regroup import Regroup


@final
class Reshape(Regroup):
    TYPE: ClassVar[str] = "Reshape"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        dims = list(self.param.reshape_param.shape.dim)
        for index, dim in enumerate(dims):
            if dim < -1 or (dim == -1 and -1 in dims[:index]):
                why = "at most one dim may be -1" if dim == -1 else f"dim must be -1 or more, not {dim}"
                raise self.error(why, "reshape_param", "shape", "dim", index)

    def top_shape(self, bottom: Blob) -> list[int]:
        param = self.param.reshape_param
        axis = param.axis if param.axis >= 0 else bottom.num_axes + param.axis + 1
        end = bottom.num_axes if param.num_axes == -1 else axis + param.num_axes
        if param.num_axes < -1 or not 0 <= axis <= end <= bottom.num_axes:
            field, value = ("num_axes", param.num_axes) if 0 <= axis <= bottom.num_axes else ("axis", param.axis)
            raise self.shape_error(f"{field} {value} leaves the bottom's shape {bottom.shape}", "reshape_param", field)
        dims = list(param.shape.dim)
        taken = list(bottom.shape[axis:end])
        given = list(dims)
        for index, dim in enumerate(dims):
            if dim == 0:
                if axis + index >= bottom.num_axes:
                    raise self.shape_error(
                        f"dim 0 keeps axis {axis + index}, which the bottom of shape {bottom.shape} does not have",
                        "reshape_param",
                        "shape",
                        "dim",
                        index,
                    )
                dims[index] = bottom.shape[axis + index]
                if index < len(taken):  # a kept axis does not affect dim -1, and may be empty
                    taken[index] = given[index] = 1
        if -1 in dims:
            values, known = prod(taken), -prod(size or dims[index] for index, size in enumerate(given))
            if not known or values % known:
                raise self.shape_error(
                    f"dim -1 has no size: {values} values of shape {bottom.shape} in parts of {known}",
                    "reshape_param",
                )
            dims[dims.index(-1)] = values // known
        shape = [*bottom.shape[:axis], *dims, *bottom.shape[end:]]
        self._top = shape
        return shape

    def shrink(
        self, bottom_keep: list[np.ndarray], top_keep: list[np.ndarray], shift: np.ndarray | None
    ) -> tuple[Any, list[np.ndarray]]:
        param, blobs = super().shrink(bottom_keep, top_keep, shift)
        if self.block:
            # dim 0 takes the number of channels from the bottom; nothing else changes.
            param.reshape_param.Clear()
            rest = self._top[2:] if len(self._top) > 2 else []
            param.reshape_param.shape.dim[:] = [0, 0, *rest] if self.block == 1 else [0, -1]
        return param, blobs
