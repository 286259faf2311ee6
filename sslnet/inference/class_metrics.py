"""Measures of a classifier on labelled data: accuracy, top k, confusion matrix, precision, recall, F1, intersection over union,
area under the ROC curve, average precision; and of nets with several labels an image, or a label for every pixel.

    metrics = ClassMetrics(scored_labels(net))
    for _ in range(batches):
        outputs = net.forward(metrics.blobs)
        metrics.add(outputs)
    result = metrics.result()

With TP, FP, FN the numbers of right, wrong and missed predictions of a class: precision = TP / (TP + FP),
recall = TP / (TP + FN), F1 = 2 TP / (2 TP + FP + FN), IoU = TP / (TP + FP + FN). A measure without a value (0 / 0) is NaN, and
means over classes leave it out.

Ref: Fawcett 2006, "An introduction to ROC analysis"; average precision as in scikit-learn, the sum of precision times the rise
of the recall over all thresholds, without interpolation
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sslnet.errors import UsageError, suggestion
from sslnet.layers.accuracy import Accuracy
from sslnet.layers.sigmoid_cross_entropy_loss import SigmoidCrossEntropyLoss
from sslnet.layers.softmax_loss import SoftmaxLoss
from sslnet.net.net import Net

MOST_SCORES = 1 << 27
"""Scores that are kept, in all, for measures that rank them; with more of them these measures are left out."""


@dataclass(frozen=True)
class ScoredLabels:
    """Where a net compares scores with labels."""

    layer: str
    scores: str
    """Name of the blob of scores."""
    labels: str
    axis: int
    """Axis of the classes."""
    ignore: int | None
    """Label that does not count."""
    several: bool
    """Whether each image has a target for every class (0 or 1) instead of one label."""


def scored_labels(net: Net, layer: str | None = None) -> ScoredLabels:
    """Finds the layer that compares scores with labels: the last Accuracy layer, else the last loss of class labels.

    layer   its name, if there are several
    raises  UsageError if there is none of that name, or none at all
    """
    found: dict[str, ScoredLabels] = {}
    accuracies = []
    for each, names in zip(net.layers, net.bottom_names):
        if not isinstance(each, Accuracy | SoftmaxLoss | SigmoidCrossEntropyLoss):
            continue
        accuracy = isinstance(each, Accuracy)
        param = each.param.accuracy_param if accuracy else each.param.loss_param
        axis = (
            1
            if isinstance(each, SigmoidCrossEntropyLoss)
            else (param.axis if accuracy else each.param.softmax_param.axis)
        )
        ignore = param.ignore_label if param.HasField("ignore_label") else None
        several = isinstance(each, SigmoidCrossEntropyLoss)
        found[each.name] = ScoredLabels(each.name, names[0], names[1], axis, ignore, several)
        accuracies += [each.name] if accuracy else []
    if layer is not None and layer not in found:
        hint = suggestion(layer, found) or (f"these do: {', '.join(found)}" if found else "no layer does")
        raise UsageError(f'no layer "{layer}" compares scores with labels', path=net.definition.path, hint=hint)
    if not found:
        raise UsageError(
            "the net does not compare scores with labels in this phase",
            path=net.definition.path,
            hint="Accuracy, SoftmaxWithLoss and SigmoidCrossEntropyLoss do",
        )
    return found[layer or (accuracies or list(found))[-1]]


@dataclass(frozen=True)
class ClassResult:
    """Measures over all predictions, and of each class (arrays of shape (classes,)). NaN: no value."""

    layer: str
    predictions: int
    """Number of labels that count; with several labels an image, of images."""
    classes: int
    accuracy: float
    """Share of right predictions; with several labels an image, of right targets at a score of 0."""
    top: int
    top_accuracy: float
    """Share of labels among the ``top`` best scores; NaN with several labels an image or with fewer classes."""
    support: np.ndarray
    """Number of labels of each class."""
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    iou: np.ndarray
    auc: np.ndarray
    """Area under the ROC curve of each class against all others, by its probability; NaN where too many scores would have
    to be kept, or for dense predictions."""
    average_precision: np.ndarray
    confusion: np.ndarray | None
    """(classes, classes): number of predictions by label (row) and predicted class (column); None with several labels."""
    dense: bool
    """Whether there are several predictions an image, as one for each pixel."""

    def mean(self, name: str) -> float:
        """Mean of a measure over the classes that have a value; NaN if none has."""
        values = getattr(self, name)[self.support > 0]
        values = values[~np.isnan(values)]
        return float(values.mean()) if values.size else float("nan")


class ClassMetrics:
    """Collects the predictions of a net, batch by batch.

    place  where the net compares scores with labels;  top: the k of the top-k accuracy
    """

    def __init__(self, place: ScoredLabels, top: int = 5) -> None:
        self.place, self.top = place, top
        self._confusion: np.ndarray | None = None
        self._counts: np.ndarray | None = None
        self._right = self._top_right = self._predictions = self._targets = 0
        self._scores: list[np.ndarray] = []
        self._labels: list[np.ndarray] = []
        self._kept, self._ranks, self._dense = 0, True, False

    @property
    def blobs(self) -> list[str]:
        """Names of the blobs that ``add`` reads."""
        return [self.place.scores, self.place.labels]

    def add(self, blobs: Mapping[str, np.ndarray]) -> None:
        """Takes in a batch: the arrays of the scores and of the labels, by name."""
        scores, labels = blobs[self.place.scores], blobs[self.place.labels]
        axis = self.place.axis % scores.ndim if scores.ndim else 0
        outer, classes = int(np.prod(scores.shape[:axis])), scores.shape[axis]
        folded = scores.reshape(outer, classes, -1)
        if self._counts is not None and classes != self._counts.shape[1]:
            raise UsageError("the number of classes changes between batches, so they have no common measures")
        if self._counts is None:
            self._counts = np.zeros((3, classes), np.int64)  # right, predicted, labelled
            self._confusion = None if self.place.several else np.zeros((classes, classes), np.int64)
        rows = folded.transpose(0, 2, 1).reshape(-1, classes)
        self._dense |= folded.shape[2] > 1
        if self.place.several:
            self._add_targets(rows, labels.reshape(outer, classes, -1).transpose(0, 2, 1).reshape(-1, classes))
        else:
            self._add_labels(rows, labels.reshape(-1))

    def _add_labels(self, rows: np.ndarray, labels: np.ndarray) -> None:
        assert self._confusion is not None and self._counts is not None
        counted = labels >= 0 if self.place.ignore is None else (labels != self.place.ignore) & (labels >= 0)
        rows, truth = rows[counted], labels[counted].astype(np.int64)
        classes = rows.shape[1]
        if truth.size and truth.max() >= classes:
            raise UsageError(f"label {truth.max()} is out of range: the {classes} classes are 0 .. {classes - 1}")
        guess = rows.argmax(axis=1) if rows.size else np.zeros(0, np.int64)
        self._confusion += np.bincount(truth * classes + guess, minlength=classes**2).reshape(classes, classes)
        if self.top <= classes:
            own = np.take_along_axis(rows, truth[:, None], axis=1)
            better = (rows >= own).sum(axis=1) - 1  # as the Accuracy layer: ties count against the label
            self._top_right += int(((better >= 0) & (better < self.top)).sum())
        self._predictions += len(truth)
        self._keep(probabilities(rows), truth)

    def _add_targets(self, rows: np.ndarray, targets: np.ndarray) -> None:
        assert self._counts is not None
        counted = np.ones(targets.shape, np.bool_) if self.place.ignore is None else targets != self.place.ignore
        truth, guess = (targets > 0.5) & counted, (rows > 0) & counted
        self._counts += [(truth & guess).sum(axis=0), guess.sum(axis=0), truth.sum(axis=0)]
        self._right += int((((rows > 0) == (targets > 0.5)) & counted).sum())
        self._targets += int(counted.sum())
        self._predictions += len(rows)
        self._keep(rows, np.where(counted, truth, -1).astype(np.int8))

    def _keep(self, rows: np.ndarray, truth: np.ndarray) -> None:
        self._kept += rows.size
        self._ranks &= not self._dense and self._kept <= MOST_SCORES
        if self._ranks:
            self._scores.append(rows)
            self._labels.append(truth)
        else:
            self._scores, self._labels = [], []

    def result(self) -> ClassResult:
        """The measures of all batches so far. raises UsageError before the first one"""
        if self._counts is None:
            raise UsageError("there are no predictions to measure")
        if self._confusion is not None:
            right, guessed, labelled = (
                np.diag(self._confusion),
                self._confusion.sum(axis=0),
                self._confusion.sum(axis=1),
            )
            accuracy = ratio(right.sum(), self._predictions)
            in_top = ratio(self._top_right, self._predictions)
        else:
            right, guessed, labelled = self._counts
            accuracy, in_top = ratio(self._right, self._targets), np.asarray(np.nan)
        classes = len(right)
        auc, precision = self._ranked(classes)
        return ClassResult(
            layer=self.place.layer,
            predictions=self._predictions,
            classes=classes,
            accuracy=float(accuracy),
            top=self.top,
            top_accuracy=float(in_top) if self.top <= classes else float("nan"),
            support=labelled,
            precision=ratio(right, guessed),
            recall=ratio(right, labelled),
            f1=ratio(2 * right, guessed + labelled),
            iou=ratio(right, guessed + labelled - right),
            auc=auc,
            average_precision=precision,
            confusion=self._confusion,
            dense=self._dense,
        )

    def _ranked(self, classes: int) -> tuple[np.ndarray, np.ndarray]:
        """Area under the ROC curve and average precision of each class."""
        areas, precisions = np.full(classes, np.nan), np.full(classes, np.nan)
        if not self._ranks or not self._scores:
            return areas, precisions
        scores, truth = np.concatenate(self._scores), np.concatenate(self._labels)
        for k in range(classes):
            known = truth[:, k] >= 0 if self.place.several else np.ones(len(truth), np.bool_)
            positive = (truth[:, k] if self.place.several else truth == k)[known] > 0
            own = scores[known, k]
            if not np.isnan(own).any():
                areas[k], precisions[k] = roc_area(own, positive), average_precision(own, positive)
        return areas, precisions


def ratio(a: Any, b: Any) -> np.ndarray:
    """a / b; NaN where b is 0."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    quotient = np.full(np.broadcast(a, b).shape, np.nan)
    np.divide(a, b, out=quotient, where=b != 0)
    return quotient


def probabilities(rows: np.ndarray) -> np.ndarray:
    """Softmax of each row, so that scores of different images compare; rows that are probabilities stay as they are."""
    if rows.size and rows.min() >= 0 and np.abs(rows.sum(axis=1) - 1).max() < 1e-3:
        return rows
    powers = np.exp(rows.astype(np.float64) - rows.max(axis=1, keepdims=True, initial=-np.inf))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def roc_area(scores: np.ndarray, positive: np.ndarray) -> float:
    """Probability that a positive has a higher score than a negative, ties counted half; NaN without both."""
    from scipy.stats import rankdata

    count, others = int(positive.sum()), int((~positive).sum())
    if not count or not others:
        return float("nan")
    ranks = float(rankdata(scores)[positive].sum())
    return (ranks - count * (count + 1) / 2) / (count * others)


def average_precision(scores: np.ndarray, positive: np.ndarray) -> float:
    """Sum over all thresholds of precision times the rise of the recall; NaN without a positive."""
    count = int(positive.sum())
    if not count:
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    right = np.cumsum(positive[order])
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)  # of each group of equal scores
    right = right[last]
    return float((np.diff(right, prepend=0) * right / (last + 1)).sum() / count)
