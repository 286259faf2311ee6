"""Error and time of the float net and the quantised net, side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.compress.compaction.deploy import deploy_net
from sslnet.compress.evaluation import Score, Trial
from sslnet.compress.quantization.quantize import Quantized
from sslnet.errors import UsageError
from sslnet.kernels.runtime.threads import num_threads
from sslnet.net.input_layers import fill_inputs
from sslnet.net.net import Net
from sslnet.net.weights import WeightSource
from sslnet.prototxt import Definition
from sslnet.timing.layerwise import clock

ROUNDS = 9
"""Runs of each net that count; the nets run in turns."""


@dataclass(frozen=True)
class Speed:
    """Seconds of a forward pass over ``batch`` images of the deployed nets, as medians over runs in turns."""

    batch: int
    before: float
    after: float
    threads: int

    @property
    def ratio(self) -> float:
        """The quantised net's time by the float net's."""
        return self.after / self.before if self.before else float("inf")


def scores(
    definition: Definition, weights: WeightSource, result: Quantized, *, level: int, stages: tuple[str, ...],
    batches: int | None, seed: int,
) -> tuple[Score, Score] | None:  # fmt: skip
    """Error and loss on the test data before and after; None if the definition has no test data to compare on."""
    trial = Trial(definition, level, stages, batches, seed)
    try:
        trial.check()
    except UsageError:
        return None
    return trial.score(weights), trial.score(result.weights, definition.with_message(result.message))


def error_of(
    definition: Definition, weights: WeightSource, *, level: int, stages: tuple[str, ...], batches: int | None, seed: int
) -> tuple[float, Callable[[Quantized], float]]:  # fmt: skip
    """The float net's test error, and a function that measures that of a quantised net.

    raises UsageError for a net without test data or without an Accuracy
    """
    trial = Trial(definition, level, stages, batches, seed)
    trial.check()
    before = trial.score(weights).error
    if before is None:
        raise UsageError("a target of the error needs an Accuracy layer in phase TEST")

    def error(result: Quantized) -> float:
        found = trial.score(result.weights, definition.with_message(result.message)).error
        assert found is not None
        return found

    return before, error


def speeds(
    definition: Definition, weights: WeightSource, result: Quantized, batches: tuple[int, ...], *, level: int,
    stages: tuple[str, ...], seed: int,
) -> list[Speed]:  # fmt: skip
    """Times both deployed nets with batches of these sizes, on random inputs."""
    now = clock()
    nets = [
        deploy_net(definition, weights, level=level, stages=stages, lean=True)[0],
        deploy_net(definition.with_message(result.message), result.weights, level=level, stages=stages, lean=True)[0],
    ]
    found = []
    for batch in batches:
        for net in nets:
            _resize(net, batch)
            fill_inputs(net, seed)
            plan = net.plan(fused=True)
            plan.hold_weights(True)
            net.forward()
            net.forward()
        samples: list[list[float]] = [[], []]
        for turn in range(ROUNDS):
            for which in (0, 1) if turn % 2 else (1, 0):
                runs, start = 0, now()
                while runs < 50 and (not runs or now() - start < 0.02):
                    nets[which].forward()
                    runs += 1
                samples[which].append((now() - start) / runs)
        before, after = (float(np.median(each)) for each in samples)
        found.append(Speed(batch, before, after, num_threads()))
    return found


def _resize(net: Net, batch: int) -> None:
    assert net.phase == pb.TEST
    for name in net.inputs:
        blob = net.blobs[name]
        blob.reshape(batch, *blob.shape[1:])
    net.reshape()
