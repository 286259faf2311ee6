"""``sslnet.teach``: adds a trained teacher net to a small net (knowledge distillation)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sslnet.api.inputs import Model, Weights, Word, as_argument, read_model, read_weights
from sslnet.api.net_result import NetResult
from sslnet.compress.distillation import teacher as distillation
from sslnet.compress.distillation.teacher import Taught
from sslnet.errors import UsageError
from sslnet.net.weights import arrays_to_proto


def teach(
    model: Model,
    weights: Weights | None = None,
    *,
    teacher: Model,
    teacher_weights: Weights | None = None,
    scores: str | None = None,
    teacher_scores: str | None = None,
    loss_weight: float | None = None,
    level: int = 0,
    stages: Sequence[str] = (),
    seed: int = 1,
) -> NetResult[Taught]:
    """Adds a trained net, the teacher, to a small net, which training then fits to the teacher's scores.

        taught = sslnet.teach(
            "small/digits.prototxt", "small/digits.caffemodel",
            teacher="models/digits/train_test.prototxt", teacher_weights="digits.caffemodel",
        )
        print(taught.details.weight)
        taught.save("taught/digits")

    model, weights             the small net and its weights, as in ``sslnet.compact``
    teacher, teacher_weights   the teacher net and its weights, likewise
    scores, teacher_scores     blobs to compare, of the same shape (images, classes); default: the bottom of each net's loss
    loss_weight                weight of the loss between them, above 0; default: computed from the teacher's scores
    level, stages              level and stages for the include and exclude rules of both nets
    seed                       seed of the batch from which the default of ``loss_weight`` is computed

    returns  both nets in one definition, the teacher frozen and only in phase TRAIN; ``details``: the names of both blobs of
             scores, and the weight of the loss
    raises   UsageError for nets that do not fit together, WeightsError for weights that do not fit them

    Ref: Hinton, Vinyals, Dean 2015, "Distilling the knowledge in a neural network"; Ba and Caruana 2014
    """
    check_loss_weight(loss_weight)
    student = read_model(model)
    result = distillation.teach(
        student,
        read_weights(weights, model),
        read_model(teacher),
        read_weights(teacher_weights, teacher),
        scores=scores,
        teacher_scores=teacher_scores,
        weight=loss_weight,
        level=level,
        stages=stages,
        seed=seed,
    )
    return NetResult(result.definition, arrays_to_proto(result.weights), result, path=student.path)


def check_loss_weight(value: float | None, word: Word = as_argument) -> None:
    """Checks the loss weight. raises UsageError unless the value is None or a finite number above 0"""
    if value is not None and not (value > 0 and math.isfinite(value)):
        raise UsageError(f"{word('loss_weight')} must be above 0, not {value:g}")
