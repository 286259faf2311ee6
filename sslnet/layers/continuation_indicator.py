"""ContinuationIndicator: 0 at the first time step, 1 at all others: cont of an LSTM whose sequences begin with each pass.

top  (time_step, batch_size)

Ref: yalecyu's crnn.caffe
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

from sslnet.layers.base import Blobs, Layer


@final
class ContinuationIndicator(Layer):
    TYPE: ClassVar[str] = "ContinuationIndicator"
    KIND: ClassVar[str] = "result"
    BOTTOMS: ClassVar[tuple[int, int | None]] = (0, 0)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        param = self.param.continuation_indicator_param
        for name in ("time_step", "batch_size"):
            if getattr(param, name) < 1:
                raise self.error(f"{name} must be at least 1", "continuation_indicator_param", name)
        top[0].reshape(param.time_step, param.batch_size)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        top[0].data[0] = 0
        top[0].data[1:] = 1

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        pass
