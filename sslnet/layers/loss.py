"""Loss: the base of loss layers, with their common normalisation and label handling."""

from __future__ import annotations

from abc import ABC
from typing import Any, ClassVar

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.errors import BatchError
from sslnet.kernels.runtime.jit import kernel
from sslnet.layers.base import Blobs, Layer

IGNORED = -1
OUT_OF_RANGE = -2


class Loss(Layer, ABC):
    """Base of layers whose top[0] is a loss: a scalar, computed from predictions (bottom 0) and labels (bottom 1)."""

    BOTTOMS: ClassVar[tuple[int, int | None]] = (2, 2)
    KIND: ClassVar[str] = "loss"
    IS_LOSS: ClassVar[bool] = True
    DEPLOYED: ClassVar[bool] = False
    OPTIONS: ClassVar[tuple[str, ...]] = ()
    """Fields of ``loss_param`` that only some losses have, and this one has."""

    def prepare(self, bottom: Blobs, top: Blobs) -> None:
        """Refuses options of other losses, which would have no effect, and prepares the layer."""
        for name in ("label_smoothing", "focal_gamma", "focal_alpha"):
            if self.param.loss_param.HasField(name) and name not in self.OPTIONS:
                raise self.error(f"{name} does nothing in a {self.TYPE} layer", "loss_param", name)
        super().prepare(bottom, top)

    def focal_gamma(self) -> float:
        """The exponent of the focal loss, 0 without one; raises DefinitionError for a negative one."""
        gamma = float(self.param.loss_param.focal_gamma)
        if not 0 <= gamma < np.inf:
            raise self.error(
                f"focal_gamma must be a finite number, 0 or above, not {gamma:g}",
                "loss_param",
                "focal_gamma",
                value=True,
            )
        return gamma

    def allow_force_backward(self, index: int) -> bool:
        return index != 1

    def check_same_batch(self, bottom: Blobs) -> None:
        """Checks that predictions and labels have the same number of images; raises ShapeError."""
        if bottom[0].num != bottom[1].num:
            raise self.shape_error(
                f"predictions and labels must have the same first axis: {bottom[0].shape} and {bottom[1].shape}"
            )

    def scores_and_labels(self, bottom: Blobs) -> tuple[int, int]:
        """(images, classes) of predictions with one label per image; raises ShapeError for other shapes."""
        self.check_same_batch(bottom)
        if bottom[1].count_of(1) != 1:
            raise self.shape_error(f"there must be one label an image: {bottom[0].shape} and {bottom[1].shape}")
        self.check_classes(bottom, bottom[0].count_of(1))
        return bottom[0].num, bottom[0].count_of(1)

    def check_classes(self, bottom: Blobs, classes: int) -> None:
        """Checks that the predictions have at least one class; raises ShapeError."""
        if classes < 1:
            raise self.shape_error(f'there are no classes: "{bottom[0].name}" has shape {bottom[0].shape}')

    def normalization(self, default: int = pb.LossParameter.VALID) -> int:
        """The normalisation mode: ``normalization``, else the older ``normalize``, else ``default``.

        raises DefinitionError for PRE_FIXED with a divisor that is not positive
        """
        loss = self.param.loss_param
        if loss.normalization == pb.LossParameter.PRE_FIXED and loss.pre_fixed_normalizer <= 0:
            raise self.error(
                f"pre_fixed_normalizer must be above 0, not {loss.pre_fixed_normalizer:g}",
                "loss_param",
                "pre_fixed_normalizer",
                value=True,
            )
        if loss.HasField("normalization"):
            return int(loss.normalization)
        if loss.HasField("normalize"):
            return pb.LossParameter.VALID if loss.normalize else pb.LossParameter.BATCH_SIZE
        return default

    @property
    def fixed_normalizer(self) -> float:
        """The divisor of PRE_FIXED."""
        return float(self.param.loss_param.pre_fixed_normalizer)

    @property
    def ignore_label(self) -> tuple[bool, int]:
        """(whether a label is ignored, that label)."""
        loss = self.param.loss_param
        return loss.HasField("ignore_label"), loss.ignore_label


def normalizer(mode: int, *, outer: int, inner: int, valid: int, fixed: float = 1) -> float:
    """The divisor of a loss, at least 1.

    outer   images; inner: predictions per image; valid: predictions that are not ignored
    fixed   the divisor of PRE_FIXED
    """
    divisors: dict[Any, float] = {
        pb.LossParameter.FULL: outer * inner,
        pb.LossParameter.VALID: valid,
        pb.LossParameter.BATCH_SIZE: outer,
        pb.LossParameter.NONE: 1,
        pb.LossParameter.PRE_FIXED: fixed,
    }
    return float(max(1, divisors[mode]))


@kernel
def class_of(label, classes, has_ignore, ignore):
    """The class that a label (a float) names: 0 .. classes - 1, IGNORED, or OUT_OF_RANGE (NaN too)."""
    if label >= 0 and label < classes:
        index = np.int64(label)
        return IGNORED if has_ignore and index == ignore else index
    return IGNORED if has_ignore and label == ignore else OUT_OF_RANGE


def bad_label(layer: Layer, labels: np.ndarray, classes: int, ignore: tuple[bool, int]) -> BatchError:
    """An error about the first label out of range.

    labels  (images, predictions of an image)
    """
    bad = ~((labels >= 0) & (labels < classes))
    if ignore[0]:
        bad &= labels != ignore[1]
    image, place = (int(i) for i in np.argwhere(bad)[0])
    where = f"image {image} of the batch" + (f", position {place}" if labels.shape[1] > 1 else "")
    return layer.batch_error(
        f"label {labels[image, place]:g} of {where} is out of range: the {classes} classes are 0 .. {classes - 1}",
        hint="is num_output the number of classes, and do the labels start at 0?",
    )
