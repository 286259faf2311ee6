"""CtcLoss and CTCLoss: connectionist temporal classification, minus the log-probability of a label sequence.

A path gives each time step a class of softmax(x_t) or the blank; it reads as its classes without repetitions, then without
blanks. loss = mean over the sequences of -log sum over the paths that read as the labels; its gradient is softmax(x_t) minus
the share of these paths that are in each class at time t.

bottoms  scores x (T, N, classes), before the softmax; CtcLoss: labels (N, L), filled up with blanks; CTCLoss: cont (T, N),
         0 where a sequence has ended, then labels (L, N), filled up with negative numbers; or the labels alone
top      the loss

CtcLoss gives the gradient of the sum over the sequences, as its fork does, CTCLoss that of the mean.

Ref: Graves et al. 2006, "Connectionist temporal classification"; yalecyu's crnn.caffe (CtcLoss, with Baidu's warp-ctc) and
ChWick's fork (CTCLoss)
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, final

import numpy as np

from sslnet.layers.base import Blobs
from sslnet.layers.loss import Loss


def path_sums(
    scores: np.ndarray, labels: list[list[int]], lengths: np.ndarray, blank: int
) -> tuple[np.ndarray, np.ndarray]:
    """The losses (N) and their gradients (T, N, classes), float64.

    scores   (T, N, classes); lengths: (N) number of time steps of each sequence; labels: without blanks
    """
    steps, count, _classes = scores.shape
    logs = scores.astype(np.float64)
    logs -= logs.max(axis=2, keepdims=True)
    logs -= np.log(np.exp(logs).sum(axis=2, keepdims=True))
    longest = max((len(each) for each in labels), default=0)
    places = np.full((count, 2 * longest + 1), blank)
    for n, each in enumerate(labels):
        places[n, 1 : 2 * len(each) : 2] = each
    ends = np.array([2 * len(each) for each in labels], np.int64)
    outside = np.arange(places.shape[1]) > ends[:, None]
    skips = np.zeros(places.shape, np.bool_)  # whether the place two before may come directly before
    skips[:, 2:] = (places[:, 2:] != blank) & (places[:, 2:] != places[:, :-2])
    emitted = np.where(outside, -np.inf, np.take_along_axis(logs, np.broadcast_to(places, (steps, *places.shape)), 2))
    forward = _forward(emitted, skips)
    rows = np.arange(count)
    last = forward[np.maximum(lengths - 1, 0), rows]
    total = np.logaddexp(last[rows, ends], np.where(ends > 0, last[rows, np.maximum(ends - 1, 0)], -np.inf))
    backward = _backward(emitted, skips, ends, lengths)
    with np.errstate(invalid="ignore"):
        shares = np.exp(forward + backward - total[None, :, None])
    gradient = np.exp(logs)
    for s in range(places.shape[1]):
        gradient[:, rows, places[:, s]] -= np.where(outside[:, s], 0, shares[:, :, s])
    gradient[np.arange(steps)[:, None] >= lengths] = 0
    return -total, gradient


def _forward(emitted: np.ndarray, skips: np.ndarray) -> np.ndarray:
    """Logarithms of the sums over the beginnings of paths that are at each place at each time, that time's class included."""
    found = np.full(emitted.shape, -np.inf)
    if len(emitted):
        found[0, :, :2] = emitted[0, :, :2]
    for t in range(1, len(emitted)):
        before = found[t - 1]
        one, two = np.full((2, *before.shape), -np.inf)
        one[:, 1:] = before[:, :-1]
        two[:, 2:] = np.where(skips[:, 2:], before[:, :-2], -np.inf)
        found[t] = np.logaddexp(np.logaddexp(before, one), two) + emitted[t]
    return found


def _backward(emitted: np.ndarray, skips: np.ndarray, ends: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Logarithms of the sums over the rests of paths from each place at each time, that time's class not included."""
    found = np.full(emitted.shape, -np.inf)
    rows = np.arange(len(ends))
    final = np.full(emitted.shape[1:], -np.inf)
    final[rows, ends] = 0
    final[rows, np.maximum(ends - 1, 0)] = 0
    for t in reversed(range(len(emitted))):
        if t + 1 < len(emitted):
            after = found[t + 1] + emitted[t + 1]
            one, two = np.full((2, *after.shape), -np.inf)
            one[:, :-1] = after[:, 1:]
            two[:, :-2] = np.where(skips[:, 2:], after[:, 2:], -np.inf)
            found[t] = np.logaddexp(np.logaddexp(after, one), two)
        found[t] = np.where((lengths == t + 1)[:, None], final, found[t])
    return found


class ConnectionistLoss(Loss, ABC):
    """Both layers of this loss, which differ in their bottoms and in the divisor of the gradient."""

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.param.ctc_loss_param
        if not param.ctc_merge_repeated:
            raise self.error("only ctc_merge_repeated: true is supported", "ctc_loss_param", "ctc_merge_repeated")

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        scores = bottom[0]
        if scores.num_axes != 3 or scores.shape[2] < 1:
            raise self.shape_error(f"scores are (T, N, classes): {scores.shape}")
        self.check_bottoms(bottom)
        if not 0 <= self.blank < scores.shape[2]:
            raise self.error(f"the blank is class {self.blank}, but there are {scores.shape[2]} classes")
        self._gradient = np.zeros(scores.shape)
        top[0].reshape(())

    blank: int
    """The class of the blank; set by ``check_bottoms``."""
    DIVIDES: ClassVar[bool]
    """Whether the gradient is divided by the number of sequences."""

    @abstractmethod
    def check_bottoms(self, bottom: Blobs) -> None:
        """Checks the shapes of the other bottoms, and sets ``blank``."""

    @abstractmethod
    def sequences(self, bottom: Blobs) -> tuple[list[list[int]], np.ndarray, int]:
        """The labels of each sequence, the lengths (N) in time steps, and the first time step."""

    def allow_force_backward(self, index: int) -> bool:
        return index == 0

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        scores = bottom[0].data
        labels, lengths, begin = self.sequences(bottom)
        for n, each in enumerate(labels):
            wrong = [k for k in each if not 0 <= k < scores.shape[2] or k == self.blank]
            if wrong:
                message = f"label {wrong[0]} of sequence {n} is no class but the blank: there are {scores.shape[2]}"
                raise self.batch_error(message, hint=f"the blank is class {self.blank}")
            needed = len(each) + sum(a == b for a, b in itertools.pairwise(each))
            if needed > lengths[n]:
                message = f"sequence {n} has {len(each)} labels, which need {needed} time steps, but has {lengths[n]}"
                raise self.batch_error(message)
        losses, gradient = path_sums(scores[begin:], labels, lengths, self.blank)
        self._gradient[:begin] = 0
        self._gradient[begin:] = gradient
        top[0].data[...] = losses.sum() / max(1, len(losses))

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return False

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if any(propagate_down[1:]):
            raise self.run_error(f"{self.TYPE} has no gradient for its labels")
        if propagate_down[0]:
            scale = float(top[0].diff) / (max(1, bottom[0].shape[1]) if self.DIVIDES else 1)
            bottom[0].diff[...] = self._gradient * scale


@final
class CtcLoss(ConnectionistLoss):
    TYPE: ClassVar[str] = "CtcLoss"
    DIVIDES: ClassVar[bool] = False

    def check_bottoms(self, bottom: Blobs) -> None:
        param, (scores, labels) = self.param.ctc_loss_param, bottom
        self.blank = int(param.blank_label)
        if labels.num_axes < 1 or labels.shape[0] != scores.shape[1]:
            raise self.shape_error(f"labels are (N, L) for scores (T, N, classes): {labels.shape} and {scores.shape}")
        for name, size in (("alphabet_size", scores.shape[2]), ("time_step", scores.shape[0])):
            if getattr(param, name) not in (0, size):
                message = f"{name} is {getattr(param, name)}, but the scores have shape {scores.shape}"
                raise self.shape_error(message, "ctc_loss_param", name)

    def sequences(self, bottom: Blobs) -> tuple[list[list[int]], np.ndarray, int]:
        rows = bottom[1].data.reshape(bottom[1].shape[0], -1)
        labels = [[_whole(k) for k in row if k != self.blank] for row in rows]
        return labels, np.full(len(rows), bottom[0].shape[0]), 0


@final
class CTCLoss(ConnectionistLoss):
    TYPE: ClassVar[str] = "CTCLoss"
    BOTTOMS: ClassVar[tuple[int, int | None]] = (2, 3)
    DIVIDES: ClassVar[bool] = True

    def check_bottoms(self, bottom: Blobs) -> None:
        param, scores, labels = self.param.ctc_loss_param, bottom[0], bottom[-1]
        self.blank = int(param.blank_index) if param.blank_index >= 0 else scores.shape[2] - 1
        if labels.num_axes < 2 or labels.shape[1] != scores.shape[1] or labels.count_of(2) != 1:
            raise self.shape_error(f"labels are (L, N) for scores (T, N, classes): {labels.shape} and {scores.shape}")
        if len(bottom) == 3 and bottom[1].shape[:2] != scores.shape[:2]:
            raise self.shape_error(f"cont is (T, N) for scores (T, N, classes): {bottom[1].shape} and {scores.shape}")
        if param.output_delay >= scores.shape[0]:
            message = f"output_delay {param.output_delay} leaves none of {scores.shape[0]} time steps"
            raise self.shape_error(message, "ctc_loss_param", "output_delay")

    def sequences(self, bottom: Blobs) -> tuple[list[list[int]], np.ndarray, int]:
        param, steps = self.param.ctc_loss_param, bottom[0].shape[0]
        columns = bottom[-1].data.reshape(bottom[-1].shape[0], -1).T
        labels = [[_whole(k) for k in column if not k < 0] for column in columns]
        if param.preprocess_collapse_repeated:
            labels = [[k for i, k in enumerate(each) if not i or k != each[i - 1]] for each in labels]
        lengths = np.full(len(columns), steps)
        if len(bottom) == 3 and steps > 1:
            ended = bottom[1].data.reshape(steps, -1)[1:] == 0
            lengths = np.where(ended.any(axis=0), ended.argmax(axis=0) + 1, steps)
        return labels, np.maximum(lengths - param.output_delay, 0), int(param.output_delay)


def _whole(label: float) -> int:
    """The label as a class; -1 for what is none, as NaN."""
    return int(label) if np.isfinite(label) else -1
