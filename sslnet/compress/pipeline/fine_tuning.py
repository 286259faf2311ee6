"""Training of a small net whose weights are good already: how a pipeline keeps what they are worth.

rate         with the method prune a rate that does not undo the repair is found by short trials (``learning_rate``)
teacher      the baseline, where it teaches
statistics   those of BatchNorm are measured anew after training (``renew``): the moving averages of short runs lag behind
kept         the net as it was before training, if it does better on the test data
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.compress.distillation.teacher import PREFIX, teach
from sslnet.compress.evaluation import Score
from sslnet.compress.pipeline.learning_rate import RATES, choose_rate, trial_iterations
from sslnet.compress.pipeline.pipeline_base import PipelineBase
from sslnet.compress.pipeline.schedule import check_started
from sslnet.compress.pipeline.training import Stopped, remove
from sslnet.compress.pruning.calibration import CalibrationSet, batch_within, calibration_net, draw_images, fill
from sslnet.compress.pruning.repair.statistics import renew_statistics, trained_statistics
from sslnet.errors import NotFiniteError, UsageError
from sslnet.files import atomic_write, read_bytes
from sslnet.net.net import Net
from sslnet.net.weights import Arrays, StoredWeights, read_weights, save_arrays
from sslnet.prototxt import Definition
from sslnet.solver.callbacks import Monitor
from sslnet.solver.solver import Solver

STATISTICS_IMAGES = 2000
"""Largest number of training images from which statistics of BatchNorm are measured."""
JUDGED_IMAGES = 1000
"""Largest number of training images on which a trial of a learning rate is judged."""
LONGER = 5
"""A training is longer than a trial if it has so many times its iterations."""


class FineTuning(PipelineBase):
    """The part of a pipeline that trains small nets."""

    def train_small(self, stage: str, prefix: str, definition: Definition, weights: str) -> dict[str, Any]:
        """Trains a small net; writes PREFIX.caffemodel, of the small net alone. Of the stage finetune also PREFIX.prototxt,
        the definition it was trained by.

        weights  path of those to start from
        returns  iterations, and ``worse``: the score after training, if the net was kept as it was before; else None
        """
        alone, final = f"{prefix}_taught.caffemodel", f"{prefix}.caffemodel"
        iterations = self.iterations(stage)
        message, start = definition.message, weights
        if self.teaches and iterations:
            message, start = self._taught(definition, weights, alone)
        path = f"{prefix}.prototxt" if stage == "finetune" else f"{prefix}_training.prototxt"
        prototxt.save(message, path)
        worse: Score | None = None
        if iterations:
            self._find_rate(stage, path, start, definition, weights)
            self.train(stage, [start], path=path, prefix=prefix)
            small = {k: v for k, v in read_weights(final).items() if not k.startswith(PREFIX)}
            self._renew(small, definition)
            worse = self._worse(small, weights, definition)
            if worse is None:
                save_arrays(small, final, hdf5=False)
            else:
                atomic_write(final, read_bytes(weights))
        elif stage != "finetune":
            atomic_write(final, read_bytes(weights))
        remove(alone)
        return {"iterations": iterations, "worse": None if worse is None else asdict(worse)}

    def _taught(self, small: Definition, weights: str, path: str) -> tuple[pb.NetParameter, str]:
        """The small net with the baseline as its teacher: (definition, file of the weights of both). The small net alone
        where nobody asked for a teacher and the nets have no scores to compare."""
        baseline = prototxt.read_net(self.name("baseline", ".prototxt"))
        state = {"level": self.state["level"], "stages": self.state["stages"]}
        try:
            taught = teach(small, weights, baseline, self.weights("baseline"), **state, seed=self.seed)
        except UsageError as error:
            if self.task.teach:
                raise
            self.tell(f"no teacher: {error.message}")
            return small.message, weights
        save_arrays(taught.weights, path, hdf5=False)
        return taught.definition, path

    # -- after training ------------------------------------------------------------------------------------------------

    def _renew(self, weights: Arrays, definition: Definition) -> None:
        """Measures the statistics of BatchNorm on training images, prepared as in phase TEST.  [changes weights]"""
        net = self.trial.net(StoredWeights(weights), definition)
        if not trained_statistics(net):
            return
        images = self._draw(net, STATISTICS_IMAGES)
        if images is None:
            return
        renew_statistics(net, images, batch_within(net, images))
        for layer, name in zip(net.layers, net.layer_names):
            if layer in trained_statistics(net):
                weights[name] = [blob.data.copy() for blob in layer.blobs]

    def _draw(self, net: Net, count: int) -> CalibrationSet | None:
        """Training images, prepared as in phase TEST; None where the definition has none that fit."""
        try:
            return draw_images(net, count, self.seed)
        except UsageError as error:
            self.tell(f"{error.message}: the statistics of BatchNorm stay, and learning rates are not tried")
            return None

    def _worse(self, weights: Arrays, before: str, definition: Definition) -> Score | None:
        """The score of these weights if those before training do better on the test data; else None."""
        then, now = self.trial.score(before, definition), self.trial.score(StoredWeights(weights), definition)
        pair = (then.error, now.error) if then.error is not None else (then.loss, now.loss)
        if pair[0] is None or pair[1] is None or pair[1] <= pair[0]:
            return None
        kind, scale = ("%", 100) if then.error is not None else ("of loss", 1)
        self.tell(
            f"training made the net worse on the test data ({scale * pair[1]:.4g} {kind} against {scale * pair[0]:.4g}): "
            "the net is kept as it was before"
        )
        return now

    # -- the learning rate ---------------------------------------------------------------------------------------------

    @property
    def _searches_rate(self) -> bool:
        """Whether the learning rate is found by trials: with the method prune, unless it or its policy was set."""
        fixed = {text.split("=")[0].strip() for text in self.task.overrides} & {"lr_policy", "base_lr"}
        return self.method == "prune" and not fixed and self.task.base_lr is None

    def _find_rate(self, stage: str, path: str, start: str, definition: Definition, weights: str) -> None:
        """Finds the rate of all trainings of small nets by short trials of this one, once; see ``learning_rate``.

        path, start  definition and weights to train, with the teacher;  definition, weights: of the small net alone
        """
        if not self._searches_rate or self.rate is not None:
            return
        net = self.trial.net(weights, definition)
        images = self._draw(net, JUDGED_IMAGES) if net.loss_weights else None
        if images is None:
            return
        first, iterations = self.solver.message.base_lr, trial_iterations(self.iterations(stage))
        before = _loss(net, images)
        self.tell(
            f"learning rate: trials of {iterations} iterations; loss on {images.count} training images {before:.4g}"
        )

        def measure(part: float) -> float:
            try:
                trained = self._try_rate(stage, path, start, part * first, iterations)
                self._renew(trained, definition)
                loss = _loss(self.trial.net(StoredWeights(trained), definition), images)
            except NotFiniteError:
                loss = float("inf")
            self.tell(f"learning rate {part * first:.3g}: loss {loss:.4g}")
            return loss

        part, losses = choose_rate(measure, before, longer=self.iterations(stage) >= LONGER * iterations)
        tried = {f"{RATES[k] * first:.6g}": loss for k, loss in enumerate(losses)}
        self.results["rate"] = {"base_lr": part * first, "before": before, "iterations": iterations, "losses": tried}
        self.save()
        self.tell(f"learning rate: {part * first:.3g}")

    def _try_rate(self, stage: str, path: str, start: str, rate: float, iterations: int) -> dict[str, list[np.ndarray]]:
        """Weights of the small net after a short training. raises Stopped when the solver was asked to stop"""
        param = self.stage_solver(stage, prototxt.read_net(path).message, iterations)
        param.net, param.base_lr, param.snapshot, param.display = path, rate, 0, 0
        written = f"{os.path.splitext(path)[0]}_trial_solver.prototxt"
        prototxt.save(param, written)
        try:
            solver = Solver(written, weights=[start], monitor=Monitor(), lean=True)
            check_started(solver, [start])
            with self.watch(solver):
                solver.solve()
        finally:
            remove(written)
        if solver.iter < iterations:
            raise Stopped
        params: Mapping[str, Any] = solver.net.params
        return {k: [blob.data.copy() for blob in v] for k, v in params.items() if not k.startswith(PREFIX)}


def _loss(net: Net, images: CalibrationSet) -> float:
    """Mean loss of a net over images; infinite if it is no number."""
    size = batch_within(net, images)
    shown = calibration_net(net, images, size)
    losses = []
    for first in range(0, images.count - size + 1, size):
        fill(shown, images, first)
        shown.forward()
        losses.append(shown.loss)
    mean = float(np.mean(losses))
    return mean if np.isfinite(mean) else float("inf")
