"""Puts a student net and its teacher into one definition, which trains the student towards the teacher's scores.

The teacher's layers follow those of the student, with the prefix ``teacher/``, frozen, in phase TRAIN only. An
EuclideanLoss compares the student's scores (the bottom of its loss) with the teacher's on the same batch. The result is a
plain Caffe prototxt, which can be read and changed; in phase TEST it is the student alone.

    loss = student's own + weight / (2 N) sum over images and classes of (z - t)^2

z, t   scores of student and teacher, before the softmax

The gradient w (z - t) / N is proportional to that of the cross entropy between both softmax outputs at a high temperature.
By default, w is 1 over the root mean square norm of t, less its mean over the batch; on an untrained student, the gradient
from the teacher is then about as large as that from the labels.

Ref: Ba and Caruana 2014, "Do deep nets really need to be deep?" (regression on scores); Hinton, Vinyals, Dean 2015,
"Distilling the knowledge in a neural network", section 2.1 (the limit)
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.errors import UsageError
from sslnet.layers import LAYERS
from sslnet.net.graph import PhaseState, filter_layers
from sslnet.net.input_layers import is_source, source_shapes, with_inputs
from sslnet.net.net import Net
from sslnet.net.weights import Arrays, WeightSource, copy_all_weights
from sslnet.prototxt import Definition, upgrade_net

PREFIX = "teacher/"
"""Prefix of the names of the teacher's layers and blobs."""


@dataclass(frozen=True)
class Taught:
    """A student with its teacher.

    definition   the student in all its phases, the teacher in phase TRAIN
    weights      of both, by layer
    scores       names in the definition of the compared blobs: the student's, the teacher's
    weight       weight of the loss between them
    """

    definition: pb.NetParameter
    weights: Arrays
    scores: tuple[str, str]
    weight: float


def teach(
    student: Definition,
    weights: WeightSource,
    teacher: Definition,
    teacher_weights: WeightSource,
    *,
    scores: str | None = None,
    teacher_scores: str | None = None,
    weight: float | None = None,
    level: int = 0,
    stages: Sequence[str] = (),
    seed: int = 1,
) -> Taught:
    """Puts a teacher and a student into one definition.

    scores, teacher_scores    blobs to compare; None: the bottom of each net's loss
    weight                    weight of the loss between them; None: computed from the teacher's scores on one batch
    level, stages             state of both nets, the student's in phase TRAIN, the teacher's in phase TEST
    seed                      seed of the batch from which the weight is computed

    raises UsageError for nets that do not fit together, WeightsError for weights that do not fit them
    """
    student, teacher = upgrade_net(student), upgrade_net(teacher)
    ours = [layer.param for layer in filter_layers(student, PhaseState(pb.TRAIN, level, tuple(stages)))]
    theirs = [layer.param for layer in filter_layers(teacher, PhaseState(pb.TEST, level, tuple(stages)))]
    if any(layer.name.startswith(PREFIX) for layer in ours):
        raise UsageError(f"the student has a teacher already: layers whose names begin with {PREFIX}")
    blobs = [_scores(ours, scores, student), _scores(theirs, teacher_scores, teacher)]
    student_net = Net(student, phase=pb.TRAIN, level=level, stages=stages, seed=seed)
    copy_all_weights(student_net.params, weights)
    shapes = source_shapes(student_net) | {name: student_net.blobs[name].shape for name in student.message.input}
    needed = _needed(theirs, blobs[1])
    _check_inputs(needed, teacher, set(shapes))
    teacher_net = Net(with_inputs(teacher, shapes), phase=pb.TEST, level=level, stages=stages)
    copy_all_weights(teacher_net.params, teacher_weights)
    sizes = [net.blobs[name].shape for net, name in zip((student_net, teacher_net), blobs)]
    if sizes[0] != sizes[1]:
        raise UsageError(
            f'the scores differ in shape: "{blobs[0]}" of the student is {sizes[0]}, "{blobs[1]}" of the teacher {sizes[1]}',
            hint="--scores and --teacher-scores name the blobs that are compared",
        )
    both = {name: [blob.data.copy() for blob in params] for name, params in student_net.params.items()}
    weight = (
        _weight(student_net, teacher_net, blobs[1]) if weight is None else weight
    )  # changes the statistics of BatchNorm
    definition = copy.deepcopy(student.message)
    definition.layer.extend(_frozen(needed, teacher_net, set(shapes)))
    definition.layer.append(_loss(blobs[0], PREFIX + blobs[1], weight))
    kept = [layer.name for layer in needed if layer.name in teacher_net.params]
    both |= {PREFIX + name: [blob.data for blob in teacher_net.params[name]] for name in kept}
    return Taught(definition, both, (blobs[0], PREFIX + blobs[1]), weight)


def _scores(layers: Sequence[pb.LayerParameter], given: str | None, net: Definition) -> str:
    """The given blob; else the bottom of the loss with the largest weight; without a loss, that of Softmax or Accuracy."""
    made = [top for layer in layers for top in layer.top]
    if given is not None:
        if given not in made:
            raise UsageError(f'{net.path or "the net"} has no blob "{given}"', hint=f"it has {', '.join(made)}")
        return given
    losses = [layer for layer in layers if layer.type in LAYERS and LAYERS[layer.type].IS_LOSS]
    measures = [layer for name in ("Softmax", "Accuracy") for layer in layers if layer.type == name]
    if losses:
        return str(max(losses, key=lambda loss: loss.loss_weight[0] if loss.loss_weight else 1).bottom[0])
    if measures:
        return str(measures[0].bottom[0])
    raise UsageError(
        f"{net.path or 'the net'} has no loss, no Softmax and no Accuracy from which to find the scores",
        hint="give --scores for the student, --teacher-scores for the teacher",
    )


def _weight(student: Net, teacher: Net, scores: str) -> float:
    """1 / root mean square norm of the teacher's scores, less their mean, on one batch of the student's data."""
    student.forward()
    given: dict[str, Any] = {name: student.blobs[name].data for name in source_shapes(teacher)}
    values = teacher.forward(blobs=[scores], **given)[scores].astype(np.float64)
    length = math.sqrt(float(((values - values.mean(axis=0)) ** 2).sum()) / len(values))
    if not (math.isfinite(length) and length > 0):
        raise UsageError(f'the scores "{scores}" of the teacher are the same for all images of a batch')
    return float(f"{1 / length:.2g}")


def _needed(layers: Sequence[pb.LayerParameter], blob: str) -> list[pb.LayerParameter]:
    """The layers that compute a blob, without data layers."""
    wanted, found = {blob}, []
    for layer in reversed(layers):
        if wanted & set(layer.top) and not is_source(layer):
            found.append(layer)
            wanted |= set(layer.bottom)
    return found[::-1]


def _check_inputs(layers: Sequence[pb.LayerParameter], teacher: Definition, given: Set[str]) -> None:
    """Raises UsageError if the student's data layers lack a blob that the teacher reads."""
    made = {top for layer in layers for top in layer.top}
    lacking = [name for layer in layers for name in layer.bottom if name not in made | given]
    if lacking:
        raise UsageError(
            f'the teacher reads "{lacking[0]}", which the student\'s data layers do not make',
            hint=f"they make {', '.join(sorted(given))}; use the same blob names in both nets",
        )


def _frozen(layers: Sequence[pb.LayerParameter], net: Net, given: Set[str]) -> Iterator[pb.LayerParameter]:
    """The teacher's layers for the combined definition: not trained, no dropout, saved statistics."""
    called = {name: name for name in given}
    for layer in layers:
        if layer.type == "Dropout":
            called[layer.top[0]] = called[layer.bottom[0]]
            continue
        frozen = copy.deepcopy(layer)
        for name in ("include", "exclude", "param", "loss_weight", "propagate_down"):
            frozen.ClearField(name)
        frozen.name = PREFIX + layer.name
        frozen.bottom[:] = [called[name] for name in layer.bottom]
        frozen.top[:] = [PREFIX + name for name in layer.top]
        called |= {name: PREFIX + name for name in layer.top}
        frozen.include.add(phase=pb.TRAIN)
        for index in range(len(net.params.get(layer.name, ()))):
            spec = frozen.param.add(lr_mult=0, decay_mult=0)
            if index < len(layer.param) and layer.param[index].name:
                spec.name = PREFIX + layer.param[index].name
        if layer.type == "BatchNorm":
            frozen.batch_norm_param.use_global_stats = True
        yield frozen


def _loss(scores: str, wanted: str, weight: float) -> pb.LayerParameter:
    name = f"{PREFIX}loss"
    loss = pb.LayerParameter(name=name, type="EuclideanLoss", bottom=[scores, wanted], top=[name], loss_weight=[weight])
    loss.propagate_down.extend([True, False])
    loss.include.add(phase=pb.TRAIN)
    return loss
