"""Filter: selects the images of each bottom whose value in the last bottom (the selector) is not 0.

The tops hold the selected images: their shape changes from pass to pass and may have no image.
dx = dy for the selected images, 0 for the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

import numpy as np

from sslnet.layers.base import Blobs, Layer


@final
class Filter(Layer):
    TYPE: ClassVar[str] = "Filter"
    KIND: ClassVar[str] = "join"
    DYNAMIC: ClassVar[bool] = True
    BOTTOMS: ClassVar[tuple[int, int | None]] = (2, None)
    TOPS: ClassVar[tuple[int, int | None]] = (1, None)

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        if len(top) != len(bottom) - 1:
            raise self.error(
                f"{len(bottom)} bottoms, the last of them the selector, make {len(bottom) - 1} tops, not {len(top)}"
            )
        self._selected = np.empty(0, np.int64)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        selector = bottom[-1]
        if selector.count_of(1) != 1:
            raise self.shape_error(
                f'the selector must be one value an image: "{selector.name}" has shape {selector.shape}'
            )
        for blob in bottom[:-1]:
            if blob.num != selector.num:
                raise self.shape_error(
                    f'"{blob.name}" must have as many images as the selector: {blob.shape} and {selector.shape}'
                )
        for x, y in zip(bottom, top):
            y.reshape_like(x)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        self._selected = np.flatnonzero(bottom[-1].data)
        for x, y in zip(bottom, top):
            y.reshape(len(self._selected), *x.shape[1:])
            np.take(x.data, self._selected, axis=0, out=y.data)

    def allow_force_backward(self, index: int) -> bool:
        return index < len(self.param.bottom) - 1

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[len(bottom) - 1]:
            raise self.run_error("Filter has no gradient for its selector")
        for x, y, wanted in zip(bottom, top, propagate_down):
            if wanted:
                x.diff[...] = 0
                x.diff[self._selected] = y.diff
