"""Filter: selects the images of each bottom whose value in the last bottom (the selector) is not 0.

The tops hold the selected images: their shape changes from pass to pass and may have no image.
dx = dy for the selected images, 0 for the others.

With one bottom (``filter_param``, of the fork for channel pruning) the layer selects channels: those whose number in its blob
(C), 1 at first, is not 0. There must be num_output of them; while all are 1, the first num_output are taken.
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
    BOTTOMS: ClassVar[tuple[int, int | None]] = (1, None)
    TOPS: ClassVar[tuple[int, int | None]] = (1, None)

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.by_channel = self.param.HasField("filter_param")
        if self.by_channel:
            self._setup_channels(bottom, top)
            return
        if len(bottom) < 2:
            raise self.error("Filter takes 2 or more bottoms, the last of them the selector; or 1, with filter_param")
        if len(top) != len(bottom) - 1:
            raise self.error(
                f"{len(bottom)} bottoms, the last of them the selector, make {len(bottom) - 1} tops, not {len(top)}"
            )
        self._selected = np.empty(0, np.int64)

    def _setup_channels(self, bottom: Blobs, top: Blobs) -> None:
        param = self.param.filter_param
        self.__dict__["DYNAMIC"] = False
        if len(bottom) != 1 or len(top) != 1:
            raise self.error("filter_param is for a Filter with one bottom and one top", "filter_param")
        if param.axis != 1:
            raise self.error("only axis 1 is supported", "filter_param", "axis", value=True)
        if bottom[0].num_axes < 2 or not 1 <= param.num_output <= bottom[0].shape[1]:
            message = f"num_output must be from 1 to the channels of {bottom[0].shape}, not {param.num_output}"
            raise self.error(message, "filter_param", "num_output")
        self.new_param((bottom[0].shape[1],), default=1)

    def _channels(self) -> np.ndarray:
        """Indices of the selected channels."""
        numbers, count = self.blobs[0].data, self.param.filter_param.num_output
        chosen = np.flatnonzero(numbers)
        if len(chosen) != count and not (numbers == 1).all():
            raise self.run_error(f"{len(chosen)} numbers of the blob are not 0, but num_output is {count}")
        return chosen[:count]

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        if self.by_channel:
            shape = bottom[0].shape
            if shape[1] != self.blobs[0].shape[0]:
                raise self.shape_error(f"the blob has {self.blobs[0].shape[0]} numbers for the channels of {shape}")
            top[0].reshape(shape[0], self.param.filter_param.num_output, *shape[2:])
            return
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
        if self.by_channel:
            np.take(bottom[0].data, self._channels(), axis=1, out=top[0].data)
            return
        self._selected = np.flatnonzero(bottom[-1].data)
        for x, y in zip(bottom, top):
            y.reshape(len(self._selected), *x.shape[1:])
            np.take(x.data, self._selected, axis=0, out=y.data)

    def allow_force_backward(self, index: int) -> bool:
        return self.by_channel or index < len(self.param.bottom) - 1

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if self.by_channel:
            if propagate_down[0]:
                bottom[0].diff[...] = 0
                bottom[0].diff[:, self._channels()] = top[0].diff
            return
        if propagate_down[len(bottom) - 1]:
            raise self.run_error("Filter has no gradient for its selector")
        for x, y, wanted in zip(bottom, top, propagate_down):
            if wanted:
                x.diff[...] = 0
                x.diff[self._selected] = y.diff
