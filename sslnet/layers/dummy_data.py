"""DummyData: tops filled by fillers: constants once, random values again in each forward pass.

One shape for all tops, or one for each; no filler (zeros), one for all, or one for each. The old fields num, channels,
height, width may replace shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, final

from sslnet import sslnet_pb2 as pb
from sslnet.layers.base import Blobs, Layer

OLD = ("num", "channels", "height", "width")


@final
class DummyData(Layer):
    TYPE: ClassVar[str] = "DummyData"
    BOTTOMS: ClassVar[tuple[int, int | None]] = (0, 0)
    TOPS: ClassVar[tuple[int, int | None]] = (1, None)
    KIND: ClassVar[str] = "source"
    IS_SOURCE: ClassVar[bool] = True

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        fillers = self._each("data_filler", len(top), none=True)
        self._fillers = (
            [fillers[i % len(fillers)] for i in range(len(top))] if fillers else [pb.FillerParameter()] * len(top)
        )
        self._filled = False
        for i, blob in enumerate(top):
            blob.reshape(self._shape(i, len(top)))

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        self._filled = False

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        from sslnet.fillers import fill

        for blob, filler in zip(top, self._fillers):
            if filler.type != "constant":
                fill(blob.data, filler, self.random(), error=self.error)
            elif not self._filled:  # constants need no random draw: a resumed run fills them again
                fill(blob.data, filler, self.filler_random(0), error=self.error)
        self._filled = True

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        pass

    def _shape(self, index: int, tops: int) -> list[int]:
        parameters = self.param.dummy_data_param
        old = [self._each(field, tops, none=True) for field in OLD]
        if any(old):
            if parameters.shape:
                raise self.error(
                    "shape and num, channels, height, width exclude each other", "dummy_data_param", "shape"
                )
            if not all(old):
                missing = OLD[[bool(sizes) for sizes in old].index(False)]
                raise self.error(
                    f"{missing} is missing: all of num, channels, height, width are needed", "dummy_data_param"
                )
            return [sizes[index % len(sizes)] for sizes in old]
        shapes = self._each("shape", tops)
        sizes = list(shapes[index % len(shapes)].dim)
        if any(size < 0 for size in sizes):
            raise self.error("a size is negative", "dummy_data_param", "shape", index % len(shapes))
        return sizes

    def _each(self, field: str, tops: int, *, none: bool = False) -> Any:
        """The values of a repeated field, one per top: given once for all tops, or once for each."""
        values = getattr(self.param.dummy_data_param, field)
        if len(values) not in (1, tops) and not (none and not values):
            raise self.error(
                f"there are {len(values)} {field} for {tops} tops: give one, or one a top", "dummy_data_param", field
            )
        return values
