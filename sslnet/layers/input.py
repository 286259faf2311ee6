"""Input: tops whose values the caller sets (``net.forward(data=...)``, ``net.blobs["data"].data[...]``).

One shape for all tops, or one for each. The caller may reshape the tops.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

from sslnet.layers.base import Blobs, Layer


@final
class Input(Layer):
    TYPE: ClassVar[str] = "Input"
    BOTTOMS: ClassVar[tuple[int, int | None]] = (0, 0)
    TOPS: ClassVar[tuple[int, int | None]] = (1, None)
    KIND: ClassVar[str] = "source"
    IS_SOURCE: ClassVar[bool] = True

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        shapes = self.param.input_param.shape
        if len(shapes) not in (1, len(top)):
            raise self.error(
                f"there are {len(shapes)} shapes for {len(top)} tops: give one, or one a top", "input_param", "shape"
            )
        for i, blob in enumerate(top):
            index = i if len(shapes) > 1 else 0
            if any(size < 0 for size in shapes[index].dim):
                raise self.error("a size is negative", "input_param", "shape", index)
            blob.reshape(list(shapes[index].dim))

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        pass

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        pass

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        pass
