"""AnnotatedData: batches of images with boxes from a database of SSD (AnnotatedDatum), transformed together.

    top[0]  (batch_size, C, H, W)   see sslnet.sources.box_transform
    top[1]  (1, 1, M, 8)            the objects of all images, a row each: image of the batch, class, instance, xmin, ymin,
                                    xmax, ymax in units of the image's width and height, difficult; M = batch_size *
                                    max_objects, the remaining rows are -1
            (batch_size, 1, 300, 5) with yolo_data_type 1: class - 1, centre x, y, width, height; the remaining rows are 0
            (batch_size)            labels, of records without a kind of annotations

The random numbers of an image depend only on the seed, the layer and the place of the image in the run.

Ref: Liu et al. 2016, SSD, and its implementation
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, final

import numpy as np

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import DataError
from sslnet.layers.base import Blobs
from sslnet.layers.prefetched import PrefetchedLayer
from sslnet.sources.annotated import COLUMNS, AnnotatedImage, AnnotatedSource, ValueSource
from sslnet.sources.box_sampler import check_samplers
from sslnet.sources.box_transform import BoxTransformer
from sslnet.sources.order import Order, generator
from sslnet.sources.prefetch import Reader
from sslnet.sources.transformer import DataTransformer

BLOCK = "annotated_data_param"
YOLO_ROWS = 300
"""Objects of an image in labels of YOLO."""
OBJECTS, YOLO, LABELS = "objects", "yolo", "labels"
"""The forms of the second top."""


class AnnotatedReader(Reader):
    """Makes batches of a source of images with boxes.

    form    form of the second array, None: none
    rows    objects of a batch, of the form OBJECTS
    random  (seed, layer) of the random numbers
    """

    def __init__(
        self,
        source: AnnotatedSource,
        order: Order,
        transformer: BoxTransformer,
        batch_size: int,
        form: str | None,
        rows: int,
        difficult: bool,
        random: tuple[int, str],
    ) -> None:
        self.batch_size = batch_size
        self.records = len(source)
        labels = {OBJECTS: (1, 1, rows, COLUMNS + 1), YOLO: (batch_size, 1, YOLO_ROWS, 5), LABELS: (batch_size,)}
        self.shapes = [(batch_size, *transformer.shape)] + ([labels[form]] if form else [])
        self._source, self._order, self._random = source, order, random
        self._form, self._difficult = form, difficult
        self.transformer = transformer
        """The transformation of the records."""

    def bounds(self) -> tuple[np.ndarray, np.ndarray] | None:
        return self.transformer.rest.bounds(0, 255)

    def fill(self, position: int, batch: int, arrays: Sequence[np.ndarray]) -> None:
        indices = self._order.indices(position, self.batch_size)
        found: list[np.ndarray] = []
        for i, image in enumerate(self._source.read(indices)):
            random = generator(*self._random, "annotated", position + i)
            try:
                found.append(self.transformer(image, random, arrays[0][i]))
                if self._form == LABELS:
                    arrays[1][i] = _label(image)
                elif self._form is not None and not image.typed and image.label is not None and not len(image.objects):
                    raise DataError("does not say the kind of its annotations, unlike the first one")
            except DataError as error:
                raise DataError(f"record {indices[i]}: {error.message}", path=self._source.path) from error
        if self._form == OBJECTS:
            self._put_objects(found, arrays[1][0, 0])
        elif self._form == YOLO:
            self._put_yolo(found, arrays[1])

    def _put_objects(self, found: list[np.ndarray], rows: np.ndarray) -> None:
        count = sum(map(len, found))
        if count > len(rows):
            raise DataError(
                f"a batch has {count} objects, more than the {len(rows)} rows of the labels",
                path=self._source.path,
                hint=f"{BLOCK} {{ max_objects: {-(-count // self.batch_size)} }} or more",
            )
        rows[...] = -1
        first = 0
        for image, objects in enumerate(found):
            own = rows[first : first + len(objects)]
            own[:, 0], own[:, 1:] = image, objects
            first += len(objects)

    def _put_yolo(self, found: list[np.ndarray], labels: np.ndarray) -> None:
        labels[...] = 0
        for image, objects in enumerate(found):
            used = objects if self._difficult else objects[objects[:, 6] == 0]
            if len(used) > YOLO_ROWS:
                raise DataError(
                    f"an image has {len(used)} objects; labels of YOLO have {YOLO_ROWS}", path=self._source.path
                )
            own = labels[image, 0, : len(used)]
            own[:, 0] = used[:, 0] - 1
            own[:, 1:3] = (used[:, 2:4] + used[:, 4:6]) / 2
            own[:, 3:5] = used[:, 4:6] - used[:, 2:4]


def _label(image: AnnotatedImage) -> int:
    if image.label is None:
        raise DataError("has no label")
    return image.label


@final
class AnnotatedData(PrefetchedLayer):
    TYPE: ClassVar[str] = "AnnotatedData"
    SOURCE_FIELD: ClassVar[tuple[str, str]] = ("data_param", "source")

    @classmethod
    def assumed_shapes(cls, param: Any) -> tuple[list[tuple[int, ...]], str]:
        shapes, reason = super().assumed_shapes(param)
        batch = shapes[0][0]
        resize = param.transform_param.resize_param
        if resize and not param.transform_param.crop_size and resize[0].height and resize[0].width:
            shapes[0] = (*shapes[0][:2], int(resize[0].height), int(resize[0].width))
            reason = "from resize_param"
        if len(shapes) > 1:
            own = param.annotated_data_param
            yolo = (batch, 1, YOLO_ROWS, 5)
            shapes[1] = yolo if own.yolo_data_type == 1 else (1, 1, batch * max(1, own.max_objects), COLUMNS + 1)
        return shapes, reason

    def prefetch(self) -> int:
        return int(self.param.data_param.prefetch)

    def make_reader(self, top: Blobs) -> AnnotatedReader:
        param = self.param.annotated_data_param
        self._check()
        batch_size = self.batch_size()
        source = self._open()
        form = None
        if len(top) > 1:
            typed = source.first.typed or param.HasField("anno_type") or bool(len(source.first.objects))
            form = (YOLO if param.yolo_data_type else OBJECTS) if typed else LABELS
        shuffle = self.param.data_param.shuffle
        order = Order(len(source), shuffle=shuffle, seed=self.context.seed, layer=self.name)
        jitter = float(param.yolo_data_jitter) if param.yolo_data_type else 0.0
        transformer = BoxTransformer(
            self.param.transform_param,
            param.batch_sampler,
            jitter,
            source.first.pixels.shape,
            train=self.phase == pb.TRAIN,
            finish=self._finish,
            fail=lambda message, *field: self.error(message, "transform_param", *field),
        )
        rows = batch_size * int(param.max_objects)
        named = (self.context.seed, self.name)
        return AnnotatedReader(source, order, transformer, batch_size, form, rows, bool(param.train_diffcult), named)

    def _finish(self, param: pb.TransformationParameter, shape: Sequence[int]) -> DataTransformer:
        return self.transformer(shape, param=param)

    def _check(self) -> None:
        """Checks the layer's own fields, and the label map."""
        param = self.param.annotated_data_param
        check_samplers(param.batch_sampler, lambda message, *field: self.error(message, BLOCK, *field))
        if not 1 <= param.max_objects <= 1 << 20:
            raise self.error(f"max_objects must be from 1 to {1 << 20}, not {param.max_objects}", BLOCK, "max_objects")
        if param.yolo_data_type not in (0, 1):
            raise self.error("yolo_data_type must be 0 or 1", BLOCK, "yolo_data_type")
        if not 0 <= param.yolo_data_jitter < 1:
            raise self.error("yolo_data_jitter must be 0 or more and below 1", BLOCK, "yolo_data_jitter")
        self.classes: dict[int, str] = {}
        """Names of the classes, where there is a label map."""
        if param.label_map_file:
            try:
                path = self.find(param.label_map_file, BLOCK, "label_map_file")
            except DataError:
                return  # names are for people: a net trains without them, as in SSD
            items = prototxt.read(path, pb.LabelMap).message.item
            self.classes = {item.label: item.display_name or item.name for item in items}

    def _open(self) -> AnnotatedSource:
        color = self._color()
        database: ValueSource
        if self.param.data_param.backend == pb.DataParameter.LMDB:
            from sslnet.sources.lmdb import LmdbRecords

            database = LmdbRecords(self.source_path())
        elif self.param.data_param.backend == pb.DataParameter.LEVELDB:
            from sslnet.sources.leveldb import LeveldbRecords

            database = LeveldbRecords(self.source_path())
        else:
            raise self.error("backend must be LMDB or LEVELDB", "data_param", "backend")
        return AnnotatedSource(database, color)

    def source_path(self) -> str:
        try:
            return super().source_path()
        except DataError as error:
            if "shapes" not in self.param.data_param.source:
                raise
            hint = "`sslnet data shapes` makes it"
            raise DataError(error.message, span=error.span, layer=error.layer, hint=hint) from error

    def _color(self) -> bool | None:
        """How encoded images are decoded: to 3 channels (True), to 1 (False)."""
        transform = self.param.transform_param
        if transform.force_color and transform.force_gray:
            raise self.error("force_color and force_gray exclude each other", "transform_param", "force_gray")
        return not transform.force_gray
