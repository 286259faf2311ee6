"""Permute: reorders the axes: axis i of the top is axis order[i] of the bottom.

Axes that ``order`` does not name follow in ascending order.  dx = dy with the inverse permutation.
"""

from __future__ import annotations

from typing import ClassVar, final

from sslnet.layers.base import Blobs
from sslnet.layers.reordered_axes import ReorderedAxes


@final
class Permute(ReorderedAxes):
    TYPE: ClassVar[str] = "Permute"

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        x, order = bottom[0], list(self.param.permute_param.order)
        for index, axis in enumerate(order):
            if axis >= x.num_axes or axis in order[:index]:
                why = "is given twice" if axis in order[:index] else f"is not an axis of {x.shape}"
                raise self.shape_error(f"order: {axis} {why}", "permute_param", "order", index)
        order += [axis for axis in range(x.num_axes) if axis not in order]
        self.reorder(bottom, top, order, order[1:2] == [1])
