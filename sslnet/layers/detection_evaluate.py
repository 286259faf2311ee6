"""DetectionEvaluate: which detections are right: what the average precision of each class is computed from.

The detections of a class in an image, the best first, are compared with its objects of this class. A detection whose largest
intersection over union is overlap_threshold or more is right where it is the first for that object, wrong where it is not,
and neither where the object is difficult and evaluate_difficult_gt is false; all others are wrong. With name_size_file
overlaps are measured in pixels of the images, whose sizes it lists, a side counted as one pixel longer.

bottom  detections (1, 1, K, 7): image, class, score, xmin, ymin, xmax, ymax; objects (1, 1, M, 8), as MultiBoxLoss has them
top     (1, 1, C + D, 5): for each of the C classes but the background -1, the class, the number of its objects, -1, -1; for
        each of the D detections image, class, score, 1 if it is right, 1 if it is wrong

``sslnet test`` and the tests of ``sslnet train`` print the mean average precision of all batches in place of the top.

Ref: Everingham et al. 2010, the PASCAL visual object classes challenge
"""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.errors import DataError
from sslnet.files import MOST_LIST, read_text, resolve
from sslnet.layers.base import Blobs
from sslnet.layers.boxes import Objects, label_rows, overlaps, read_objects
from sslnet.layers.no_gradient import NoInputGradient

BLOCK = "detection_evaluate_param"


@final
class DetectionEvaluate(NoInputGradient):
    TYPE: ClassVar[str] = "DetectionEvaluate"
    KIND: ClassVar[str] = "result"
    BOTTOMS: ClassVar[tuple[int, int | None]] = (2, 2)
    DEPLOYED: ClassVar[bool] = False
    DYNAMIC: ClassVar[bool] = True

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.param.detection_evaluate_param
        if param.num_classes < 1:
            raise self.error("num_classes must be at least 1", BLOCK, "num_classes")
        if not param.overlap_threshold > 0:
            raise self.error("overlap_threshold must be above 0", BLOCK, "overlap_threshold")
        if param.resize_param.resize_mode != pb.ResizeParameter.WARP:
            raise self.error("resize_mode must be WARP", BLOCK, "resize_param", "resize_mode")
        self.sizes: np.ndarray | None = None
        """(images, 2): width and height of each, from name_size_file; read at the first forward pass."""
        self._image = 0
        self.classes = [c for c in range(param.num_classes) if c != param.background_label_id]

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        if bottom[0].count % 7 or bottom[0].shape[-1:] not in ((7,), ()):
            raise self.shape_error(f'detections are seven numbers each: "{bottom[0].name}" has shape {bottom[0].shape}')
        label_rows(self, bottom[1])
        top[0].reshape(1, 1, len(self.classes), 5)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        param = self.param.detection_evaluate_param
        found = bottom[0].data.reshape(-1, 7).astype(np.float64)
        found = found[found[:, 1] != -1]
        self._check(found)
        rows = bottom[1].data.reshape(-1, 8)
        classes, background = int(param.num_classes), int(param.background_label_id)
        objects = read_objects(self, rows, 1 << 24, classes, background, True)
        counted = [~each.difficult | param.evaluate_difficult_gt for each in objects.values()]
        labels = np.concatenate([np.empty(0, int), *(o.labels[use] for o, use in zip(objects.values(), counted))])
        totals = np.bincount(labels, minlength=classes)
        result = [np.array([-1, c, totals[c], -1, -1], np.float64) for c in self.classes]
        sizes = self._next_sizes(found, objects) if param.name_size_file else {}
        for image in np.unique(found[:, 0]):
            for label in np.unique(found[found[:, 0] == image, 1]):
                own = found[(found[:, 0] == image) & (found[:, 1] == label)]
                own = own[np.argsort(-own[:, 2], kind="stable")]
                result += self._judge(own, objects.get(int(image)), sizes.get(int(image)))
        top[0].reshape(1, 1, len(result), 5)
        if result:
            top[0].data[0, 0] = np.stack(result)

    def _check(self, found: np.ndarray) -> None:
        """Raises BatchError for detections of no class, or whose score is no number."""
        wrong = ~np.isin(found[:, 1], self.classes) | np.isnan(found[:, 2]) | ~(found[:, 0] >= 0)
        if wrong.any():
            row = found[int(np.argmax(wrong))]
            raise self.batch_error(
                f"a detection is {', '.join(f'{value:g}' for value in row)}: an image, one of the classes "
                f"{', '.join(map(str, self.classes))} and a score are needed"
            )

    def _judge(self, found: np.ndarray, objects: Objects | None, size: np.ndarray | None) -> list[np.ndarray]:
        """The rows of the detections of one class in one image, the best first."""
        param = self.param.detection_evaluate_param
        right, wrong = np.zeros(len(found)), np.ones(len(found))
        own = np.flatnonzero(objects.labels == found[0, 1]) if objects is not None else np.empty(0, int)
        if objects is not None and len(own):
            table = _overlaps(found[:, 3:7], objects.boxes[own], size)
            taken = np.zeros(len(own), np.bool_)
            for i, row in enumerate(table):
                best = int(np.argmax(row))
                if not row[best] >= param.overlap_threshold:
                    continue
                if objects.difficult[own[best]] and not param.evaluate_difficult_gt:
                    wrong[i] = 0
                elif not taken[best]:
                    right[i], wrong[i], taken[best] = 1, 0, True
        return list(np.column_stack([found[:, :3], right, wrong]))

    def _next_sizes(self, found: np.ndarray, objects: dict[int, Objects]) -> dict[int, np.ndarray]:
        """Width and height of the images of this batch, which are the next ones of the file; over and over."""
        if self.sizes is None:
            self.sizes = self._read_sizes()
        images = int(max([-1, *found[:, 0], *objects])) + 1
        sizes = {i: self.sizes[(self._image + i) % len(self.sizes)] for i in range(images)}
        self._image = (self._image + images) % len(self.sizes)
        return sizes

    def _read_sizes(self) -> np.ndarray:
        name, span = self.param.detection_evaluate_param.name_size_file, self.definition.span(BLOCK, "name_size_file")
        beside = None if self.context.beside is None else f"{self.context.beside}/net"
        path = resolve(name, beside, error=DataError, span=span, layer=self.name)
        lines = [line.split() for line in read_text(path, limit=MOST_LIST).splitlines() if line.strip()]
        try:
            sizes = np.array([[int(line[-1]), int(line[-2])] for line in lines])
            if not len(sizes) or (sizes < 1).any():
                raise ValueError
        except (ValueError, IndexError):
            raise DataError(
                f"{path}: each line must be a name, a height and a width in pixels", span=span, layer=self.name
            ) from None
        return sizes

    def reseed(self, seed: int, top: Blobs) -> None:
        super().reseed(seed, top)
        self._image = 0


def _overlaps(boxes: np.ndarray, others: np.ndarray, size: np.ndarray | None) -> np.ndarray:
    """Intersection over union of boxes (n, 4) and others (m, 4): (n, m).

    size  width and height of the image in pixels; sides then count as one pixel longer
    """
    if size is None:
        return overlaps(np.ascontiguousarray(boxes), np.ascontiguousarray(others))
    longer = np.array([0, 0, 1, 1])
    scaled = [each * np.tile(size, 2) + longer for each in (boxes, others)]
    return overlaps(*scaled)
