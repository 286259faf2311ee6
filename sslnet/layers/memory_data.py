"""MemoryData: batches of arrays given from Python, row by row, over and over.

    top[0]  (batch_size, channels, height, width)
    top[1]  (batch_size)   labels

``set_input_arrays`` uses arrays unchanged; ``add_images`` applies transform_param first.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from typing import Any, ClassVar, final

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.errors import UsageError
from sslnet.layers.base import Blobs, Layer
from sslnet.sources.base import size_text
from sslnet.sources.transformer import DataTransformer


@final
class MemoryData(Layer):
    TYPE: ClassVar[str] = "MemoryData"
    BOTTOMS: ClassVar[tuple[int, int | None]] = (0, 0)
    TOPS: ClassVar[tuple[int, int | None]] = (2, 2)
    KIND: ClassVar[str] = "source"
    IS_SOURCE: ClassVar[bool] = True
    NEW_DATA: ClassVar[bool] = True
    UNDIVIDED: ClassVar[str] = "its rows are given to one process, from Python"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        parameters = self.param.memory_data_param
        for field in ("batch_size", "channels", "height", "width"):
            if getattr(parameters, field) < 1:
                raise self.error(f"{field} must be at least 1", "memory_data_param", field)
        self._batch_size = int(parameters.batch_size)
        self._shape = (int(parameters.channels), int(parameters.height), int(parameters.width))
        self._data: np.ndarray | None = None
        self._labels: np.ndarray | None = None
        self._position = 0

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        top[0].reshape(self._batch_size, *self._shape)
        top[1].reshape(self._batch_size)

    def set_input_arrays(self, data: Any, labels: Any) -> None:
        """Sets the rows of the next batches and starts with the first; the arrays are not copied.

        data    (n, channels, height, width), n a multiple of batch_size
        labels  (n), optionally with further axes of size 1
        """
        if self.param.HasField("transform_param"):
            warnings.warn(
                "transform_param is not applied to arrays given to set_input_arrays; add_images does", stacklevel=2
            )
        self._set(np.asarray(data), np.asarray(labels))

    def add_images(self, images: Any, labels: Any) -> None:
        """Sets the rows of the next batches after transform_param is applied; images (n, C, H, W), uint8 or float."""
        pixels = np.asarray(images)
        if pixels.ndim != 4 or not len(pixels):
            raise UsageError(f"images must have the shape (n, C, H, W), not {pixels.shape}", layer=self.name)
        if pixels.dtype != np.uint8:
            pixels = pixels.astype(np.float32)

        def error(message: str, *field: str) -> Any:
            return self.error(message, "transform_param", *field, value=True)

        train = self.phase == pb.TRAIN
        transformer = DataTransformer(
            self.param.transform_param, pixels.shape[1:], train=train, dtype=self.dtype, error=error
        )
        data = np.empty((len(pixels), *transformer.shape), self.dtype)
        transformer(pixels, data, transformer.draw(self.random(), len(pixels)))
        self._set(data, np.asarray(labels))

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        if self._data is None or self._labels is None:
            raise self.run_error("there is no data", hint="call set_input_arrays(data, labels) of the layer first")
        rows = slice(self._position, self._position + self._batch_size)
        top[0].data[...] = self._data[rows]
        top[1].data[...] = self._labels[rows]
        self._position = rows.stop % len(self._data)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        pass

    def state(self) -> bytes:
        return json.dumps({"position": self._position, "draws": self.draws}).encode()

    def set_state(self, state: bytes) -> None:
        saved = json.loads(state) if state else {"position": 0, "draws": 0}
        self._position, self.draws = int(saved["position"]), int(saved["draws"])

    def _set(self, data: np.ndarray, labels: np.ndarray) -> None:
        if data.shape[1:] != self._shape or data.ndim != 4:
            expected = size_text(self._shape)
            raise UsageError(f"data must have the shape n x {expected}, not {size_text(data.shape)}", layer=self.name)
        if not len(data) or len(data) % self._batch_size:
            raise UsageError(
                f"there are {len(data)} rows; it must be a multiple of batch_size {self._batch_size}", layer=self.name
            )
        if labels.size != len(data):
            raise UsageError(f"there are {len(data)} rows of data, but {labels.size} labels", layer=self.name)
        self._data, self._labels = data, labels.reshape(-1)
        self._position = 0
