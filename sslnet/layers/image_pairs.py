"""ImagePairData: the base of the layers that read images with a class for each pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from sslnet import sslnet_pb2 as pb
from sslnet.layers.base import Blobs
from sslnet.layers.prefetched import PrefetchedLayer
from sslnet.sources.image_pairs import PairOptions, PairReader
from sslnet.sources.presets import crop_of
from sslnet.sources.transformer import DataTransformer

MOVES = (
    "pad",
    "pad_mode",
    "resize_param",
    "resize_shorter",
    "random_resize_param",
    "random_aspect_ratio_param",
    "random_resized_crop",
    "rotation",
    "erasing",
)
"""Fields of transform_param that would move the image alone."""


class ImagePairData(PrefetchedLayer):
    """Image and labels are cropped at the same place and mirrored together: a random place in TRAIN, the centre in TEST.

    With batch_size 1, without a crop and a size, each image may have a size of its own, and the tops follow.
    """

    TOPS: ClassVar[tuple[int, int | None]] = (2, 2)

    def transform_param(self) -> pb.TransformationParameter:
        """transform_param, with what the layer's own message adds to it."""
        param: pb.TransformationParameter = self.param.transform_param
        return param

    def options(self) -> PairOptions:
        """How the pairs are read; raises DefinitionError."""
        param = self._parameters()
        if bool(param.new_height) != bool(param.new_width):
            given, missing = ("new_height", "new_width") if param.new_height else ("new_width", "new_height")
            raise self.error(f"{given} is given, {missing} is not: give both or neither", self.SOURCE_FIELD[0], given)
        return PairOptions(param.root_folder, param.new_height, param.new_width, param.is_color)

    def make_reader(self, top: Blobs) -> PairReader:
        param, transform = self._parameters(), self.transform_param()
        for name in MOVES:
            if transform.HasField(name) if name != "resize_param" else transform.resize_param:
                message = f"{name} has no effect here: image and labels must stay together"
                raise self.error(message, "transform_param", name)
        options, crop = self.options(), crop_of(transform)
        self.varies = self.batch_size() == 1 and crop is None and not options.height
        if self.varies:
            self.__dict__["DYNAMIC"] = True
        return PairReader(
            self.source_path(),
            options,
            self._transformer_of,
            self.batch_size(),
            shuffle=param.shuffle,
            crop=crop,
            mean=list(transform.mean_value),
            sizes=len(top) > 2,
            random=(self.context.seed, self.name),
        )

    def _transformer_of(self, shape: Sequence[int]) -> DataTransformer:
        return self.transformer(shape, param=self.transform_param())

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        if not self.varies:
            super().forward(bottom, top)
            return
        reader = self._reader
        assert isinstance(reader, PairReader)
        for blob, shape in zip(top, reader.next_shapes(self._position)):
            if blob.shape != shape:
                blob.reshape(shape)
        for blob, array in zip(top, self.read(self._position)):
            blob.data[...] = array
        self._batch += 1
        self._position += 1

    @classmethod
    def assumed_shapes(cls, param: Any) -> tuple[list[tuple[int, ...]], str]:
        shapes, reason = super().assumed_shapes(param)
        (batch, _, height, width), count = shapes[0], len(param.top)
        return [shapes[0], (batch, 1, height, width), (batch, 1, 1, 2)][:count], reason
