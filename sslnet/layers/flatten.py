"""Flatten: joins the axes from ``axis`` to ``end_axis`` into one; top and bottom share their data."""

from __future__ import annotations

from math import prod
from typing import ClassVar, final

from sslnet.blob import Blob
from sslnet.layers.axes import axis_of
from sslnet.layers.regroup import Regroup


@final
class Flatten(Regroup):
    TYPE: ClassVar[str] = "Flatten"

    def top_shape(self, bottom: Blob) -> list[int]:
        param = self.param.flatten_param
        first = axis_of(self, bottom, param.axis, "flatten_param", "axis")
        last = axis_of(self, bottom, param.end_axis, "flatten_param", "end_axis")
        if last < first:
            raise self.shape_error(f"axis {first} comes after end_axis {last}", "flatten_param", "end_axis")
        shape = bottom.shape
        return [*shape[:first], prod(shape[first : last + 1]), *shape[last + 1 :]]
