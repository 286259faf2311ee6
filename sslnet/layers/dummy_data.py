"""DummyData: tops filled by fillers: constants once, random values again in each forward pass.

One shape for all tops, or one for each; no filler (zeros), one for all, or one for each. The old fields num, channels,
height, width may replace shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, final

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.blob import Blob
from sslnet.layers.base import Blobs, Layer
from sslnet.layers.bounds import ChannelBox
from sslnet.layers.channels import channel_count

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
                fill(blob.data, filler, self.random(self.context.place.number), error=self.error)
            elif not self._filled:  # constants need no random draw: a resumed run fills them again
                fill(blob.data, filler, self.filler_random(0), error=self.error)
        self._filled = True

    def draws_of_pass(self) -> int:
        return sum(filler.type != "constant" for filler in self._fillers)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        pass

    def bounds(self, bottom: Sequence[ChannelBox], top: Blobs) -> list[ChannelBox]:
        return [_box_of(filler, self.dtype, blob) for filler, blob in zip(self._fillers, top)]

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


def _box_of(filler: pb.FillerParameter, dtype: np.dtype, blob: Blob) -> ChannelBox:
    """The interval that a filler draws from, the same for all channels."""
    channels = channel_count(blob.shape)
    if filler.type == "constant":
        return ChannelBox.of(dtype.type(filler.value), dtype.type(filler.value), channels)
    if filler.type == "uniform":
        most = max(abs(filler.min), abs(filler.max))
        return ChannelBox.of(dtype.type(filler.min), filler.max + 4 * np.finfo(dtype).eps * most, channels)
    if filler.type == "truncated_normal":
        reach = 2 * filler.std
        box = ChannelBox.of(filler.mean - reach, filler.mean + reach, channels)
        return box.widened(np.full(channels, 4 * np.finfo(dtype).eps * (abs(filler.mean) + reach)))
    if filler.type == "positive_unitball":
        return ChannelBox.of(0, 1, channels).rounded(dtype, 4)
    return ChannelBox.unknown(channels)
