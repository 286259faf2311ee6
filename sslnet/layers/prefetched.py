"""PrefetchedLayer: the base of the layers that read batches in the background (Data, ImageData, ArrayData, ...).

A subclass supplies the reader of its batches; this class counts the used ones. The state is the position after the last
*used* batch, however many were read ahead: a resumed run continues there.
"""

from __future__ import annotations

import json
import os
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from sslnet import files
from sslnet import sslnet_pb2 as pb
from sslnet.errors import DataError, WeightsError
from sslnet.layers.base import Blobs, Layer
from sslnet.layers.bounds import ChannelBox
from sslnet.sources.base import located
from sslnet.sources.order import generator
from sslnet.sources.prefetch import Prefetcher, Reader
from sslnet.sources.presets import crop_of
from sslnet.sources.transformer import DataTransformer


class PrefetchedLayer(Layer):
    """Abstract base of such layers. Tops use the arrays of a batch without a copy; a later batch overwrites them."""

    BOTTOMS: ClassVar[tuple[int, int | None]] = (0, 0)
    TOPS: ClassVar[tuple[int, int | None]] = (1, 2)
    KIND: ClassVar[str] = "source"
    IS_SOURCE: ClassVar[bool] = True
    NEW_DATA: ClassVar[bool] = True
    READS_FILES: ClassVar[bool] = True
    SOURCE_FIELD: ClassVar[tuple[str, str]]
    """(message, field) that names the file or database; errors about data refer to it."""

    @classmethod
    def describe(cls, param: Any) -> str:
        message, source = cls.SOURCE_FIELD
        return str(getattr(getattr(param, message), source).rstrip("/").rpartition("/")[2])

    @classmethod
    def assumed_shapes(cls, param: Any) -> tuple[list[tuple[int, ...]], str]:
        own = getattr(param, cls.SOURCE_FIELD[0])
        fields = {field.name for field, _ in own.ListFields()}
        batch, transform = max(1, int(own.batch_size)), param.transform_param
        height, width, reason = 224, 224, "no size is given"
        crop = crop_of(transform) or ((int(own.crop_size),) * 2 if "crop_size" in fields else None)
        if crop:
            height, width = crop
            reason = "from crop_size" if height == width else "from the size of the crop"
        elif transform.resize_param and transform.resize_param[0].height and transform.resize_param[0].width:
            height, width = int(transform.resize_param[0].height), int(transform.resize_param[0].width)
            reason = "from resize_param"
        elif {"new_height", "new_width"} <= fields and own.new_height and own.new_width:
            height, width, reason = int(own.new_height), int(own.new_width), "from new_height and new_width"
        gray = transform.force_gray or ("is_color" in fields and not own.is_color)
        return [(batch, 1 if gray else 3, height, width), *[(batch,)] * (len(param.top) - 1)], reason

    @abstractmethod
    def make_reader(self, top: Blobs) -> Reader:
        """Opens the data and reads the first record. The result must not refer to the layer."""

    def prefetch(self) -> int:
        """Number of batches that are read ahead."""
        return 4

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self._refuse_old_fields()
        self._prefetcher: Prefetcher | None = None
        self.notes: list[str] = []
        """Sentences about what was recognised in the data."""
        self._begin(top)

    def _begin(self, top: Blobs) -> None:
        self.notes.clear()
        try:
            self._reader = self.make_reader(top)
        except DataError as error:
            raise self.located(error) from error
        self._batch = 0
        self._position = self._skip()

    def reseed(self, seed: int, top: Blobs) -> None:
        super().reseed(seed, top)
        self._stop_reading()
        self._begin(top)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        for blob, shape in zip(top, self._reader.shapes):
            blob.reshape(shape)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        if self._prefetcher is None:
            self._prefetcher = Prefetcher(self._reader, self.dtype, self._position, self._batch, self.prefetch())
        try:
            arrays = self._prefetcher.get()
        except DataError as error:
            raise self.located(error) from error
        self._batch += 1
        self._position += self._reader.batch_size
        for blob, array in zip(top, arrays):
            blob.adopt_data(array)

    def bounds(self, bottom: Sequence[ChannelBox], top: Blobs) -> list[ChannelBox]:
        boxes, found = super().bounds(bottom, top), self._reader.bounds()
        return boxes if found is None else [ChannelBox(*found), *boxes[1:]]

    def read(self, position: int) -> list[np.ndarray]:
        """The arrays of the batch that begins at this record; the next batch of ``forward`` stays the same."""
        arrays = [np.zeros(shape, self.dtype) for shape in self._reader.shapes]
        try:
            self._reader.fill(position, position, arrays)
        except DataError as error:
            raise self.located(error) from error
        return arrays

    @property
    def reader(self) -> Reader:
        """What makes the batches."""
        return self._reader

    @property
    def batches(self) -> int:
        """Number of used batches, including skipped ones."""
        return self._batch

    def skip_batch(self) -> None:
        """Skips the next batch without reading it."""
        self._stop_reading()
        self._batch += 1
        self._position += self._reader.batch_size

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        pass

    def epoch_records(self) -> int | None:
        """Number of records; None where they have no order."""
        return self._reader.records

    def epoch_batches(self) -> int | None:
        """Number of full batches in one pass over the records, at least 1; None where the records have no order."""
        records = self.epoch_records()
        return None if records is None else max(1, records // self._reader.batch_size)

    def state(self) -> bytes:
        return json.dumps({"position": self._position, "batch": self._batch}).encode()

    def set_state(self, state: bytes) -> None:
        try:
            saved = json.loads(state) if state else {"position": self._skip(), "batch": 0}
            position, batch = int(saved["position"]), int(saved["batch"])
            if min(position, batch) < 0 or max(position, batch) >= 1 << 62:
                raise ValueError
        except (ValueError, KeyError, TypeError) as error:
            raise WeightsError("the saved position in the data cannot be read", layer=self.name) from error
        self._stop_reading()
        self._position, self._batch = position, batch

    def _stop_reading(self) -> None:
        """Stops reading and discards the batches that were read ahead."""
        if self._prefetcher is not None:
            self._prefetcher.close()
            self._prefetcher = None

    # -- for subclasses ------------------------------------------------------------------------------------------------

    def batch_size(self) -> int:
        parameters = self._parameters()
        if parameters.batch_size < 1:
            raise self.error("batch_size must be at least 1", self.SOURCE_FIELD[0], "batch_size")
        return int(parameters.batch_size)

    def source_path(self) -> str:
        """The path at which the file or database of the prototxt is found."""
        name = self._parameters().source
        if not name:
            raise self.error("there is no source", *self.SOURCE_FIELD)
        return self.find(name, *self.SOURCE_FIELD)

    def find(self, name: str, *field: str) -> str:
        beside = None if self.context.beside is None else os.path.join(self.context.beside, "net")
        span = self.definition.span(*field, value=True)
        return str(files.resolve(name, beside, error=DataError, span=span, layer=self.name))

    def located(self, error: DataError) -> DataError:
        return located(error, self.definition.span(*self.SOURCE_FIELD, value=True), self.name)

    def transformer(
        self,
        shape: Sequence[int],
        order: int = pb.TransformationParameter.BGR,
        param: pb.TransformationParameter | None = None,
    ) -> DataTransformer:
        """The transformation of records (C, H, W) with this order of the channels, by ``param``, or transform_param."""

        def error(message: str, *field: str) -> Any:
            return self.error(message, "transform_param", *field, value=True)

        def locate(name: str) -> Path:
            return Path(self.find(name, "transform_param", "mean_file"))

        parameters = self.param.transform_param if param is None else param
        return DataTransformer(
            parameters, shape, train=self.phase == pb.TRAIN, dtype=self.dtype, error=error, locate=locate, order=order
        )

    def val_share(self, split: Any, block: str) -> float:
        """The share of `split { val_share }`, checked; 0 where the data are not divided."""
        share = float(split.val_share)
        if split.HasField("val_share") and not 0 < share < 1:
            raise self.error(f"val_share must be between 0 and 1, not {share:g}", block, "split", "val_share")
        if split.HasField("seed") and not share:
            raise self.error("seed has no effect without val_share", block, "split", "seed")
        return share

    def _refuse_old_fields(self) -> None:
        """Refuses fields that Caffe ignores in favour of transform_param: a field without effect is an error."""
        for field in ("scale", "mean_file", "crop_size", "mirror"):
            parameters = self._parameters()
            if field in parameters.DESCRIPTOR.fields_by_name and parameters.HasField(field):
                raise self.error(
                    f"{field} has no effect here", self.SOURCE_FIELD[0], field, hint="write it in transform_param { }"
                )

    def _parameters(self) -> Any:
        return getattr(self.param, self.SOURCE_FIELD[0])

    def _skip(self) -> int:
        """Index of the first record: 0, or with rand_skip a random number below it."""
        limit = getattr(self._parameters(), "rand_skip", 0)
        return int(generator(self.context.seed, self.name, "rand_skip", 0).integers(limit)) if limit else 0
