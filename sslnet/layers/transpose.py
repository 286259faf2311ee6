"""Transpose: the axes in another order: axis k of the top is axis dim[k] of the bottom (CRNN)."""

from __future__ import annotations

from typing import ClassVar, final

from sslnet.layers.base import Blobs
from sslnet.layers.reordered_axes import ReorderedAxes


@final
class Transpose(ReorderedAxes):
    TYPE: ClassVar[str] = "Transpose"

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        x, order = bottom[0], list(self.param.transpose_param.dim)
        if sorted(order) != list(range(x.num_axes)):
            raise self.shape_error(
                f'dim must name each axis of "{x.name}", {x.shape}, once: 0 to {x.num_axes - 1}, not {order}',
                "transpose_param",
            )
        self.reorder(bottom, top, order, order[:2] == [0, 1])
