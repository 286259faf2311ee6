"""The three ways to make a net small, and the choice between them.

lasso     trains with group lasso until groups of weights are zero: learns the structure, takes long
prune     removes the least important channels in rounds, repairs and trains after each
one-shot  removes and repairs at once: no labels, no training
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sslnet.compress.pipeline.controls import CONTROLS
from sslnet.compress.pipeline.default_groups import declared
from sslnet.errors import UsageError
from sslnet.layers import LAYERS
from sslnet.net.graph import PhaseState, filter_layers

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from sslnet.compress.pipeline.task import Task
    from sslnet.prototxt import Definition

STAGES = {
    "lasso": ("baseline", "sparsify", "compact", "finetune", "test", *CONTROLS, "time"),
    "prune": ("baseline", "prune", "compact", "finetune", "test", *CONTROLS, "time"),
    "one-shot": ("baseline", "prune", "compact", "test", "time"),
}
"""The stages of each method, in order."""


def choose_method(task: Task, definition: Definition, state: Mapping[str, Any]) -> tuple[str, str]:
    """The method of a task, and why: (name, reason).

    definition  the net;  state: phase, level and stages of the net to train
    raises      UsageError for a method that cannot do what is asked for
    """
    trains = any(LAYERS[layer.param.type].IS_LOSS for layer in filter_layers(definition, PhaseState(**state)))
    whole_flops = task.targets.of == "flops" and not task.targets.layers
    if task.method is not None:
        method, reason = task.method, "as asked for"
    elif not trains:
        method, reason = "one-shot", "the net has no loss in phase TRAIN, so nothing can be trained"
    elif not whole_flops:
        method, reason = "lasso", "only this method has targets for parameters, time and single layers"
    elif declared(definition.message):
        method, reason = "lasso", "the net declares groups"
    elif task.targets.cut:
        method, reason = "lasso", "--cut belongs to it"
    elif task.weights is None:
        method, reason = "lasso", "no trained weights are given, so there is time to learn the structure"
    elif task.finetune == 0 and not task.iterations:
        method, reason = "one-shot", "the weights are trained, and no iterations are given"
    else:
        method, reason = "prune", "the weights are trained, and there are labels to train on"
    _check(task, method, trains, whole_flops)
    return method, reason


def _check(task: Task, method: str, trains: bool, whole_flops: bool) -> None:
    message, hint = "", ""
    if method != "one-shot" and not trains:
        message, hint = f"the method {method} trains, and the net has no loss in phase TRAIN", "--method one-shot"
    elif method != "lasso" and not whole_flops:
        message, hint = f"the method {method} takes a target of the whole net's FLOPs alone", "--method lasso"
    elif method != "lasso" and task.targets.cut:
        message, hint = f"--cut is for the method lasso, not for {method}", "--method lasso"
    elif method == "one-shot" and task.weights is None:
        message, hint = "the method one-shot needs trained weights", "--weights"
    elif method == "one-shot" and (task.iterations or task.finetune):
        message, hint = "the method one-shot does not train", "--method prune"
    elif method == "one-shot" and (task.controls or task.teach):
        option = "--controls" if task.controls else "--teach"
        message, hint = f"{option} is for methods that train, not for one-shot", "--method prune"
    elif method == "lasso" and task.pruning_options():
        option = next(iter(task.pruning_options()))
        message, hint = f"{option} is for the methods prune and one-shot", "--method prune"
    if message:
        raise UsageError(message, hint=hint)
