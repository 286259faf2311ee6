"""Images with boxes: the records of SSD's databases (AnnotatedDatum), and what becomes of the boxes of a part of an image.

A box is xmin, ymin, xmax, ymax in units of the image's width and height.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from google.protobuf.message import DecodeError

from sslnet import sslnet_pb2 as pb
from sslnet.errors import DataError
from sslnet.sources.datum import DatumDecoder, Values

COLUMNS = 7
"""Numbers of an object: class, instance, xmin, ymin, xmax, ymax, difficult."""
CORNERS = slice(2, 6)


@dataclass(frozen=True)
class AnnotatedImage:
    """An image (C, H, W) uint8 and its objects (n, COLUMNS) float64; or its label, where it has no objects' kind."""

    pixels: np.ndarray
    objects: np.ndarray
    label: int | None = None
    typed: bool = False
    """Whether the record says what kind its annotations are."""


class ValueSource(Protocol):
    """A database: the bytes of its records."""

    path: str

    def __len__(self) -> int: ...

    def values(self, indices: np.ndarray) -> Values: ...


class AnnotatedSource:
    """The images and boxes of a database of AnnotatedDatum.

    database  its records
    color     color mode of encoded images, as in ``decode_image``
    """

    def __init__(self, database: ValueSource, color: bool | None = None) -> None:
        self.path = database.path
        self._database = database
        self._images = DatumDecoder(self.path, color)
        self.first = self.read(np.zeros(1, np.int64))[0]
        """The first record."""

    def __len__(self) -> int:
        return len(self._database)

    def read(self, indices: np.ndarray) -> list[AnnotatedImage]:
        """Reads records. raises DataError for a record that cannot be read, or whose boxes are no boxes"""
        values = self._database.values(indices)
        return [self._decode(value, int(index)) for value, index in zip(values, indices)]

    def _decode(self, value: bytes, index: int) -> AnnotatedImage:
        record = pb.AnnotatedDatum()
        try:
            record.ParseFromString(value)
        except DecodeError as error:
            raise DataError(
                f"record {index} ({len(value)} bytes) is cut off or damaged: it is no AnnotatedDatum", path=self.path
            ) from error
        if not record.HasField("datum"):
            hint = "a database of Datum records is for a layer of type Data"
            raise DataError(f"record {index} has no image: it is no AnnotatedDatum", path=self.path, hint=hint)
        pixels = self._images.array(record.datum, index)
        if pixels.dtype != np.uint8:
            raise DataError(f"record {index} has numbers instead of bytes as pixels", path=self.path)
        objects = np.array(
            [
                (
                    group.group_label,
                    each.instance_id,
                    each.bbox.xmin,
                    each.bbox.ymin,
                    each.bbox.xmax,
                    each.bbox.ymax,
                    each.bbox.difficult,
                )
                for group in record.annotation_group
                for each in group.annotation
            ],
            np.float64,
        ).reshape(-1, COLUMNS)
        if not np.isfinite(objects).all():
            raise DataError(f"record {index} has a box whose corners are not finite", path=self.path)
        label = record.datum.label if record.datum.HasField("label") else None
        return AnnotatedImage(pixels, objects, label, record.HasField("type"))


def annotated_datum(image: bytes, objects: np.ndarray, label: int = 0) -> bytes:
    """The record of an image file and its objects (n, COLUMNS), as SSD's create_annoset writes it."""
    record = pb.AnnotatedDatum(type=pb.AnnotatedDatum.BBOX)
    record.datum.data, record.datum.encoded, record.datum.label = image, True, label
    for group_label in np.unique(objects[:, 0]):
        group = record.annotation_group.add(group_label=int(group_label))
        for _, instance, *corners, difficult in objects[objects[:, 0] == group_label].tolist():
            box = group.annotation.add(instance_id=int(instance)).bbox
            box.xmin, box.ymin, box.xmax, box.ymax = corners
            box.difficult = bool(difficult)
    return record.SerializeToString()


def project(objects: np.ndarray, part: np.ndarray, emit: Any | None = None) -> np.ndarray:
    """The objects that a part of an image shows, their boxes in units of the part, cut at its border.

    objects  (n, COLUMNS)
    part     (4) the part, as a box of the image
    emit     EmitConstraint; None: all objects that it shows at all
    """
    boxes = objects[:, CORNERS]
    if emit is not None:
        if emit.emit_type == pb.EmitConstraint.CENTER:
            centers = (boxes[:, :2] + boxes[:, 2:]) / 2
            kept = ((centers >= part[:2]) & (centers <= part[2:])).all(axis=1)
        else:
            kept = coverage(boxes, part) > emit.emit_overlap
        objects, boxes = objects[kept], boxes[kept]
    moved = (boxes - np.tile(part[:2], 2)) / np.tile(part[2:] - part[:2], 2)
    moved = np.clip(moved, 0, 1)
    result = objects.copy()
    result[:, CORNERS] = moved
    return np.asarray(result[((moved[:, 2:] - moved[:, :2]) > 0).all(axis=1)])


def mirrored(objects: np.ndarray) -> np.ndarray:
    """The objects of the image flipped left to right."""
    result = objects.copy()
    result[:, 2], result[:, 4] = 1 - objects[:, 4], 1 - objects[:, 2]
    return result


def areas(boxes: np.ndarray) -> np.ndarray:
    """(n) areas of boxes (n, 4); 0 where xmax < xmin or ymax < ymin."""
    return np.asarray(np.prod(np.maximum(boxes[..., 2:] - boxes[..., :2], 0), axis=-1))


def intersections(boxes: np.ndarray, part: np.ndarray) -> np.ndarray:
    """(n) areas that boxes (n, 4) have in common with a part (4)."""
    both = np.concatenate([np.maximum(boxes[:, :2], part[:2]), np.minimum(boxes[:, 2:], part[2:])], axis=1)
    return areas(both)


def coverage(boxes: np.ndarray, part: np.ndarray) -> np.ndarray:
    """(n) share of each box that a part shows; 0 for a box without an area."""
    own = areas(boxes)
    return np.asarray(intersections(boxes, part) / np.where(own > 0, own, np.inf))
