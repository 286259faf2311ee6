"""Controls: two nets to compare a small net with, trained for as many iterations.

    dense_control    the baseline, trained on without penalties for as long as the stages behind it
    scratch_control  the structure of the small net with new weights, trained for as long as baseline and stages together

A small net that is better than its baseline may owe it to the longer training alone: the first control shows it. The
second shows whether the weights of the baseline were needed at all.

Ref: Liu et al. 2019, "Rethinking the Value of Network Pruning" (the small structure from scratch); Li et al. 2017,
section 4 (the dense net trained on)
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

from sslnet import sslnet_pb2 as pb
from sslnet.compress.pipeline.task import Task
from sslnet.layers import LAYERS

CONTROLS = ("dense_control", "scratch_control")
"""Names of the stages."""


def baseline_length(task: Task, max_iter: int) -> int | None:
    """Number of iterations behind the baseline; None if its weights are given, and how long they were trained is not."""
    return task.baseline_iterations if task.weights is not None else task.iterations_of("baseline", max_iter)


def control_lengths(baseline: int | None, stages: Mapping[str, int]) -> dict[str, int]:
    """Number of iterations of each control.

    baseline  iterations behind the baseline; None: not known, and not counted
    stages    iterations of each stage behind it that trains
    """
    on = sum(stages.values())
    return {"dense_control": on, "scratch_control": (baseline or 0) + on}


def with_fillers(message: pb.NetParameter) -> pb.NetParameter:
    """A copy of a definition in which every layer that mixes channels has a filler for its weights: msra, where there is
    none. A definition made from another framework's model often has none, and its weights would start at zero."""
    result = copy.deepcopy(message)
    for layer in result.layer:
        layer.ClearField("blobs")
        if not (layer.type in LAYERS and LAYERS[layer.type].MIXES_CHANNELS):
            continue
        for field in layer.DESCRIPTOR.fields:
            kind = field.message_type
            if kind is None or "weight_filler" not in kind.fields_by_name or not layer.HasField(field.name):
                continue
            own = getattr(layer, field.name)
            if not own.HasField("weight_filler"):
                own.weight_filler.type = "msra"
    return result
