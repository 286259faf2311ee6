"""ImageData: batches of transformed images and labels; a text file lists an image file and a label per line.

    top[0]  (batch_size, C, H, W)   see sslnet.sources.transformer; planes blue, green, red, or one with is_color: false
    top[1]  (batch_size)            labels

`new_height` and `new_width` resize (bilinear, see resize_image; `bicubic: true` with 4 x 4 pixels), `new_dim` so that the
shorter side has this size; `root_folder` is prepended to each name; names are
relative to the working directory, then to the folder of the list. `shuffle` draws a new order each epoch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, final

import numpy as np

from sslnet.layers.base import Blobs
from sslnet.layers.prefetched import PrefetchedLayer
from sslnet.sources.order import Order
from sslnet.sources.record_reader import RecordReader


@final
class ImageData(PrefetchedLayer):
    TYPE: ClassVar[str] = "ImageData"
    TOPS: ClassVar[tuple[int, int | None]] = (2, 2)
    SOURCE_FIELD: ClassVar[tuple[str, str]] = ("image_data_param", "source")

    def make_reader(self, top: Blobs) -> RecordReader:
        from sslnet.sources.images import ImageListSource

        parameters = self.param.image_data_param
        if bool(parameters.new_height) != bool(parameters.new_width):
            given, missing = ("new_height", "new_width") if parameters.new_height else ("new_width", "new_height")
            raise self.error(f"{given} is given, {missing} is not: give both or neither", "image_data_param", given)
        if parameters.new_dim and parameters.new_height:
            raise self.error("new_dim and new_height exclude each other", "image_data_param", "new_dim")
        source = ImageListSource(
            self.source_path(),
            root=parameters.root_folder,
            height=parameters.new_height,
            width=parameters.new_width,
            color=parameters.is_color,
            resize=self._resize(),
        )
        order = Order(len(source), shuffle=parameters.shuffle, seed=self.context.seed, layer=self.name)
        random = (self.context.seed, self.name)
        return RecordReader(source, order, self.transformer(source.shape), self.batch_size(), True, random)

    def _resize(self) -> Callable[[np.ndarray], np.ndarray] | None:
        """What resizes by new_dim and bicubic, the fields of channel pruning's fork; None without them."""
        from sslnet.sources.resizing import CUBIC, LINEAR, MOST_SIDE, interpolate, resize_shorter_side

        parameters = self.param.image_data_param
        size, height, width = int(parameters.new_dim), int(parameters.new_height), int(parameters.new_width)
        mode = CUBIC if parameters.bicubic else LINEAR
        if size > MOST_SIDE:
            raise self.error(f"new_dim must be at most {MOST_SIDE}, not {size}", "image_data_param", "new_dim")
        if size:
            return lambda image: resize_shorter_side(image, size, mode)
        if parameters.bicubic and not height:
            raise self.error("bicubic has no effect without a size", "image_data_param", "bicubic")
        return (lambda image: interpolate(image, height, width, mode)) if parameters.bicubic else None
