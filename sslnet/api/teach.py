"""``sslnet.teach``: a small net beside a trained one that it learns from (knowledge distillation)."""

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
    """Puts a trained net, the teacher, beside a small one: in training the small one's scores are drawn towards the teacher's.

        taught = sslnet.teach(
            "small/digits.prototxt", "small/digits.caffemodel",
            teacher="models/digits/train_test.prototxt", teacher_weights="digits.caffemodel",
        )
        print(taught.details.weight)
        taught.save("taught/digits")

    model, weights             the small net and its weights, as in ``sslnet.compact``
    teacher, teacher_weights   the net to learn from, likewise
    scores, teacher_scores     blobs that are drawn together, of the same shape (images, classes); default: what the loss
                               of each net reads
    loss_weight                of the distance between them, above 0; default: by the size of the teacher's scores
    level, stages              the rest of the state that include and exclude rules are tried against
    seed                       of what is random in the batch that the default of ``loss_weight`` is found by

    returns  both nets in one definition, the teacher frozen and in phase TRAIN alone; ``details``: the names of both blobs
             of scores, and the weight of the loss
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
    """raises UsageError unless the value is None or a finite number above 0"""
    if value is not None and not (value > 0 and math.isfinite(value)):
        raise UsageError(f"{word('loss_weight')} must be above 0, not {value:g}")
