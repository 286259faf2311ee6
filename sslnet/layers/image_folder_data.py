"""ImageFolderData: batches of transformed image files and labels, a folder per class, or the files that a table lists.

    top[0]  (batch_size, C, H, W)   see sslnet.sources.transformer; planes blue, green, red, or one with is_color: false
    top[1]  (batch_size)            labels, if it is given: the number of the class in the sorted names of the folders

`split` reads a part by the phase: folders (train and val), or a share of each class. `new_height` and `new_width` resize
as ImageData does; `shuffle` draws a new order each epoch.
"""

from __future__ import annotations

import os
from typing import ClassVar, final

from sslnet import sslnet_pb2 as pb
from sslnet.layers.base import Blobs
from sslnet.layers.prefetched import PrefetchedLayer
from sslnet.sources.order import Order
from sslnet.sources.record_reader import RecordReader
from sslnet.sources.split import part_of

BLOCK = "image_folder_data_param"
MOST_TOLD = 20
"""Number of class names that the note of a layer lists."""


@final
class ImageFolderData(PrefetchedLayer):
    TYPE: ClassVar[str] = "ImageFolderData"
    SOURCE_FIELD: ClassVar[tuple[str, str]] = (BLOCK, "source")

    classes: list[str]
    """Class names in the order of the labels; empty if a table has numbers as labels."""

    def make_reader(self, top: Blobs) -> RecordReader:
        from sslnet.sources.image_folder import ImageSetSource, find_images

        param, batch_size = self.param.image_folder_data_param, self.batch_size()
        if bool(param.new_height) != bool(param.new_width):
            given, missing = ("new_height", "new_width") if param.new_height else ("new_width", "new_height")
            raise self.error(f"{given} is given, {missing} is not: give both or neither", BLOCK, given)
        path = self.source_path()
        self._check_split(path)
        class_file = self.find(param.classes, BLOCK, "classes") if param.classes else None
        images = find_images(path, param.split, part_of(param.split, self.phase), class_file)
        self.classes = images.classes
        source = ImageSetSource(path, images, height=param.new_height, width=param.new_width, color=param.is_color)
        transformer = self.transformer(source.shape)
        self.notes.append(self._summary(len(source), images.ignored))
        return RecordReader(
            source,
            Order(len(source), shuffle=param.shuffle, seed=self.context.seed, layer=self.name),
            transformer,
            batch_size,
            len(top) > 1,
            (self.context.seed, self.name),
        )

    def _summary(self, count: int, ignored: int) -> str:
        """What was found, in one sentence."""
        param = self.param.image_folder_data_param
        phase = pb.Phase.Name(self.phase)
        text = f"{param.source}: {count} images in phase {phase}"
        if self.classes:
            told = [f"{label} {name}" for label, name in enumerate(self.classes[:MOST_TOLD])]
            more = ", ..." if len(self.classes) > MOST_TOLD else ""
            text += f"; {len(self.classes)} classes: {', '.join(told)}{more}"
        return text + (f"; other files: {ignored}" if ignored else "")

    def _check_split(self, path: str) -> None:
        """Checks that the fields of `split` fit each other and the source."""
        from sslnet.sources.image_folder import has_parts

        split = self.param.image_folder_data_param.split
        share = self.val_share(split, BLOCK)
        folders = split.HasField("train") or split.HasField("val")
        if folders and not (split.train and split.val):
            given, missing = ("train", "val") if split.train else ("val", "train")
            raise self.error(f"{given} is given, {missing} is not: give both or neither", BLOCK, "split")
        if folders and share:
            raise self.error("val_share and folders exclude each other", BLOCK, "split", "val_share")
        if folders and not os.path.isdir(path):
            raise self.error("train and val are folders, but the source is a file", BLOCK, "split", "train")
        if split.HasField("part") and not (share or folders or has_parts(path)):
            hint = "give val_share, or train and val"
            raise self.error("part has no effect: nothing divides the images", BLOCK, "split", "part", hint=hint)
