"""MultiBoxLoss: SSD's loss of the locations and the classes of prior boxes, given the objects of each image.

Each object takes the box that overlaps it most (intersection over union; the largest overlap of all first), and with
PER_PREDICTION each further box takes the object that it overlaps most, where that is overlap_threshold or more. Locations of
boxes with an object are compared with the object's, encoded as DetectionOutput decodes them; classes with the object's, or
with the background: of boxes without an object all (mining_type NONE), for each image neg_pos_ratio as many as have one, those
with the largest loss and an overlap below neg_overlap (MAX_NEGATIVE), or of all boxes of an image the sample_size with the
largest loss (HARD_EXAMPLE). Images without objects count only with NONE.

    loss = (loc_weight loc + conf) / normaliser

loc   sum of s(difference), s(d) = d^2 / 2 where |d| < 1, else |d| - 1 / 2 (SMOOTH_L1), or d^2 / 2 (L2)
conf  sum of -log softmax (SOFTMAX), or of the logistic losses of the classes (LOGISTIC)
The normaliser is the number of boxes with an object (VALID), of images (BATCH_SIZE), of all boxes (FULL), or 1 (NONE).

bottom  locations (N, 4 P, or 4 P classes), scores (N, P classes), priors (1, 2, 4 P), objects (1, 1, M, 8): image, class,
        instance, xmin, ymin, xmax, ymax, difficult; rows with image -1 are empty
top     the loss

Ref: Liu et al. 2016, SSD; Shrivastava, Gupta, Girshick 2016 (hard examples)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.kernels.runtime.jit import kernel, spread
from sslnet.layers.base import Blobs
from sslnet.layers.boxes import Objects, decode, encode, label_rows, read_objects
from sslnet.layers.loss import Loss, normalizer
from sslnet.layers.multibox_matching import NONE, match_boxes, mine, mining_type

BLOCK = "multibox_loss_param"
NAMES = pb.MultiBoxLossParameter


@kernel
def _class_losses(i0, i1, thread, scores, targets, softmax, losses):
    """The loss of each row of scores (n, classes), given targets (n, classes)."""
    for i in range(i0, i1):
        row, target, total, top = scores[i], targets[i], 0.0, -np.inf
        if softmax:
            for c in range(len(row)):
                top = max(top, float(row[c]))
                total -= float(row[c]) * target[c]
            sum_ = 0.0
            for c in range(len(row)):
                sum_ += np.exp(float(row[c]) - top)
            losses[i] = total + np.log(sum_) + top
        else:
            for c in range(len(row)):
                value = float(row[c])
                total += max(value, 0.0) + np.log1p(np.exp(-abs(value))) - value * target[c]
            losses[i] = total


def class_losses(scores: np.ndarray, targets: np.ndarray, softmax: bool) -> np.ndarray:
    """The loss of each prediction (n) float64: scores and targets (n, classes)."""
    losses = np.zeros(len(scores))
    spread(_class_losses, len(scores), 4 * scores.shape[1], scores, targets, softmax, losses)
    return losses


def class_slopes(scores: np.ndarray, targets: np.ndarray, softmax: bool) -> np.ndarray:
    """The derivatives of the losses by the scores: (n, classes)."""
    with np.errstate(over="ignore", invalid="ignore"):  # scores that are not finite give a loss that is not
        if softmax:
            part = np.exp(scores - scores.max(axis=1, keepdims=True))
            part /= part.sum(axis=1, keepdims=True)
        else:
            part = 1 / (1 + np.exp(-scores))
    return np.asarray(part - targets)


@final
class MultiBoxLoss(Loss):
    TYPE: ClassVar[str] = "MultiBoxLoss"
    BOTTOMS: ClassVar[tuple[int, int | None]] = (4, 4)

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.param.multibox_loss_param
        if param.num_classes < 1:
            raise self.error("num_classes must be at least 1", BLOCK, "num_classes")
        if param.background_label_id >= param.num_classes:
            raise self.error("background_label_id must be below num_classes", BLOCK, "background_label_id")
        self.mining = mining_type(param)
        if self.mining != NAMES.NONE and not param.share_location:
            raise self.error("mining_type must be NONE without share_location", BLOCK, "share_location")
        for name in ("neg_pos_ratio", "sample_size"):
            if getattr(param, name) <= 0:
                raise self.error(f"{name} must be above 0", BLOCK, name)
        if param.map_object_to_agnostic and param.num_classes != 2:
            raise self.error("map_object_to_agnostic is for two classes", BLOCK, "map_object_to_agnostic")
        self.background = int(param.background_label_id)
        self.softmax = param.conf_loss_type == NAMES.SOFTMAX
        self.mode = self.normalization(pb.LossParameter.VALID)

    def allow_force_backward(self, index: int) -> bool:
        return index < 2

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        param, (locations, scores, priors, objects) = self.param.multibox_loss_param, bottom
        if priors.shape[:2] != (1, 2) or priors.count % 8:
            raise self.shape_error(f'priors must be (1, 2, 4 P): "{priors.name}" has shape {priors.shape}')
        self.priors = priors.count // 8
        self.sets = 1 if param.share_location else int(param.num_classes)
        wanted = ((locations, 4 * self.priors * self.sets), (scores, self.priors * int(param.num_classes)))
        for blob, count in wanted:
            if blob.num != locations.num or blob.count_of(1) != count:
                raise self.shape_error(
                    f'"{blob.name}" must have {count} values an image for {self.priors} priors and '
                    f"{param.num_classes} classes: {blob.shape}"
                )
        label_rows(self, objects)
        top[0].reshape(())

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        param, images = self.param.multibox_loss_param, bottom[0].num
        classes = int(param.num_classes)
        locations = bottom[0].data.reshape(images, self.priors, self.sets, 4)
        scores = bottom[1].data.reshape(images, self.priors, classes)
        priors, variances = bottom[2].data.reshape(2, self.priors, 4).astype(np.float64)
        rows = bottom[3].data.reshape(-1, 8)
        agnostic = param.map_object_to_agnostic
        found = read_objects(
            self, rows, images, 1 << 24 if agnostic else classes, self.background, param.use_difficult_gt
        )
        if agnostic:
            found = {
                i: Objects(o.boxes, np.full_like(o.labels, self.background + 1), o.difficult) for i, o in found.items()
            }
        self._matched: list[tuple[int, np.ndarray, int, np.ndarray, np.ndarray]] = []
        """Image, boxes, set of locations, what these are compared with, and a factor of the differences."""
        self._counted: list[tuple[int, np.ndarray, np.ndarray]] = []
        """Image, boxes, and the targets of their classes."""
        for image in range(images):
            if image in found:
                self._choose(image, found[image], locations[image], scores[image], priors, variances)
            elif self.mining == NAMES.NONE:
                self._counted.append((image, np.arange(self.priors), self._targets(None, [])))
        matches = sum(len(boxes) for _, boxes, _, _, _ in self._matched)
        self._divisor = normalizer(
            self.mode, outer=images, inner=self.priors, valid=matches, fixed=self.fixed_normalizer
        )
        loss = 0.0
        for image, boxes, each, target, factor in self._matched:
            loss += float(param.loc_weight) * self._distances((locations[image, boxes, each] - target) * factor).sum()
        for image, boxes, targets in self._counted:
            loss += class_losses(scores[image][boxes], targets, self.softmax).sum()
        top[0].data[...] = loss / self._divisor

    def _distances(self, difference: np.ndarray) -> np.ndarray:
        """s of each difference."""
        size = np.abs(difference)
        if self.param.multibox_loss_param.loc_loss_type == NAMES.L2:
            return np.asarray(size**2 / 2)
        return np.asarray(np.where(size < 1, size**2 / 2, size - 0.5))

    def _targets(self, negative: np.ndarray | None, positive: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        """The targets (P, classes) of an image's classes: 1 at the class of each box.

        negative  (P) bool: boxes that are of the background, where boxes are mined; None: all others
        positive  boxes and the classes of their objects
        """
        targets = np.zeros((self.priors, int(self.param.multibox_loss_param.num_classes)))
        if negative is not None:
            targets[negative, self.background] = 1
        elif self.softmax:
            targets[:, self.background] = 1
        for boxes, labels in positive:
            if self.softmax:
                targets[boxes] = 0
            targets[boxes, labels] = 1
        return targets

    def _choose(
        self,
        image: int,
        objects: Objects,
        locations: np.ndarray,
        scores: np.ndarray,
        priors: np.ndarray,
        variances: np.ndarray,
    ) -> None:
        """Notes which boxes of an image count, and what they are compared with."""
        param, code = self.param.multibox_loss_param, self.param.multibox_loss_param.code_type
        outside = param.encode_variance_in_target  # the variances: in the loss instead of in the target
        inner, outer = (np.ones_like(variances), 1 / variances) if outside else (variances, np.ones_like(variances))
        positive: list[tuple[np.ndarray, np.ndarray]] = []
        negative = None
        for each in range(self.sets):
            if self.sets > 1 and each == self.background:
                continue
            predicted = decode(locations[:, each].astype(np.float64), priors, inner, code)
            candidates = priors if param.use_prior_for_matching else predicted
            match, best = self._match(each, objects, candidates)
            if self.mining != NAMES.NONE:
                labels = np.where(match >= 0, objects.labels[np.maximum(match, 0)], self.background)
                losses = class_losses(scores, np.eye(scores.shape[1])[labels], self.softmax)
                if self.mining == NAMES.HARD_EXAMPLE:
                    boxes = np.flatnonzero(match >= 0)
                    target = encode(objects.boxes[match[boxes]], priors[boxes], inner[boxes], code)
                    losses[boxes] += self._distances((locations[boxes, 0] - target) * outer[boxes]).sum(axis=1)
                match, negative = mine(match, best, losses, priors if param.use_prior_for_nms else predicted, param)
            boxes = np.flatnonzero(match >= 0)
            target = encode(objects.boxes[match[boxes]], priors[boxes], inner[boxes], code)
            factor = outer[boxes]
            if param.bp_inside:
                factor = factor * ((candidates[boxes] >= 0) & (candidates[boxes] <= 1))
            self._matched.append((image, boxes, each, target, factor))
            positive.append((boxes, objects.labels[match[boxes]]))
        targets = self._targets(negative, positive)
        if negative is None:
            counted = np.arange(self.priors)
        else:
            counted = np.flatnonzero(negative | np.isin(np.arange(self.priors), positive[0][0]))
        self._counted.append((image, counted, targets[counted]))

    def _match(self, each: int, objects: Objects, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``match_boxes`` for one set of locations: of all classes, or of one."""
        param = self.param.multibox_loss_param
        if self.sets == 1:
            return match_boxes(boxes, objects.boxes, param)
        own = np.flatnonzero(objects.labels == each)
        if param.use_prior_for_matching:  # matched to the objects of all classes, then divided by class
            match, best = match_boxes(boxes, objects.boxes, param)
            return np.where((match >= 0) & ~np.isin(match, own), NONE, match), best
        match, best = match_boxes(boxes, objects.boxes[own], param)
        return np.where(match >= 0, own[np.maximum(match, 0)] if len(own) else match, match), best

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return index < 2

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if any(propagate_down[2:]):
            raise self.run_error("MultiBoxLoss has no gradient for priors and objects", hint="propagate_down: false")
        param, images = self.param.multibox_loss_param, bottom[0].num
        factor = float(top[0].diff) / self._divisor
        if propagate_down[0]:
            bottom[0].diff[...] = 0
            slopes = bottom[0].diff.reshape(images, self.priors, self.sets, 4)
            locations = bottom[0].data.reshape(slopes.shape)
            for image, boxes, each, target, outer in self._matched:
                difference = (locations[image, boxes, each] - target) * outer
                slope = difference if param.loc_loss_type == NAMES.L2 else np.clip(difference, -1, 1)
                slopes[image, boxes, each] = factor * float(param.loc_weight) * outer * slope
        if propagate_down[1]:
            bottom[1].diff[...] = 0
            by_score = bottom[1].diff.reshape(images, self.priors, -1)
            scores = bottom[1].data.reshape(by_score.shape)
            for image, boxes, targets in self._counted:
                by_score[image, boxes] = factor * class_slopes(
                    scores[image, boxes].astype(np.float64), targets, self.softmax
                )
