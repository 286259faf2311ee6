"""Ranks for a measured speedup: each layer's chains are timed at some ranks, and the net they make against the whole one.

Times are those of the forward pass as deployed: phase TEST, no losses, weights packed once, a batch of random numbers. The
time of a rank between two that were timed is interpolated over the FLOPs. The prediction only leads the search: the net that
is returned has been timed, in turns with the whole net, and had the speedup.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.compress.control.latency_model import LEAST, MOST, SECONDS, LatencyComparison, fastest
from sslnet.compress.low_rank.chains import chain, weights_message
from sslnet.compress.low_rank.factors import Candidate, Factors
from sslnet.errors import RunError
from sslnet.kernels.runtime.threads import num_threads
from sslnet.layers.base import Layer
from sslnet.net.graph import definition_of
from sslnet.net.input_layers import fill_inputs, with_inputs
from sslnet.net.net import Net
from sslnet.net.weights import Arrays, copy_all_weights

Chosen = dict[str, tuple[Factors, Candidate]]

RANKS = 6
"""Ranks of a method that are timed for each layer."""
LAYER_SECONDS = 0.1
"""Duration for which the chains of one method of a layer are timed, in seconds, limited to LEAST to MOST runs."""
GAIN = 0.98
"""Fraction of the layer's time below which it is replaced: less is within the noise."""
ROUNDS = 8
"""The most nets that are timed whole."""
CLOSE = 1.03
"""A speedup of at most so many times the target ends the search."""


@dataclass(frozen=True)
class LayerTimes:
    """Seconds of a layer, and of its chains at some ranks.

    dense   of the layer as it is
    points  by method: FLOPs of the timed ranks, increasing, and their seconds
    """

    dense: float
    points: Mapping[str, tuple[np.ndarray, np.ndarray]]

    def seconds(self, method: str, candidate: Candidate) -> float:
        """Of a candidate, interpolated."""
        return float(np.interp(candidate.flops, *self.points[method]))

    def choose(self, factors: Sequence[Factors], error: float) -> tuple[Factors, Candidate] | None:
        """The fastest candidate of all methods within the error; None if none is faster than the layer."""
        best, least = None, GAIN * self.dense
        for each in factors:
            if each.METHOD not in self.points:
                continue
            for candidate in each.candidates:
                seconds = self.seconds(each.METHOD, candidate)
                if candidate.error <= error and seconds < least:
                    best, least = (each, candidate), seconds
        return best

    def left(self, found: tuple[Factors, Candidate] | None) -> float:
        """Seconds of the choice."""
        return self.dense if found is None else self.seconds(found[0].METHOD, found[1])


def time_layer(layer: Layer, shape: tuple[int, ...], factors: Sequence[Factors], seed: int) -> LayerTimes:
    """Times a layer on a bottom of this shape, and its chains, in turns."""
    blobs = [blob.data for blob in layer.blobs]
    whole = _layer_net([_plain(layer)], {layer.name: blobs}, shape, seed)
    (first,) = fastest([whole], LEAST)
    points: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    dense: list[float] = []
    for each in factors:
        candidates = [c for c in each.candidates if c.flops < each.weights.flops]
        if not candidates:
            continue
        places = np.unique(np.geomspace(1, len(candidates), RANKS).round().astype(int)) - 1
        timed = sorted((candidates[place] for place in places), key=lambda candidate: candidate.flops)
        nets = [whole]
        for candidate in timed:
            stages = each.stages(candidate.rank)
            names = [f"{layer.name}_{k}" for k in range(len(stages) - 1)] + [layer.name]
            arrays: Arrays = {name: [stage.array] for name, stage in zip(names, stages)}
            arrays[layer.name] += blobs[1:]
            nets.append(_layer_net([*chain(_plain(layer), stages, names)], arrays, shape, seed))
        runs = int(np.clip(LAYER_SECONDS / len(nets) / max(first, 1e-9), LEAST, MOST))
        own, *seconds = fastest(nets, runs)
        dense.append(own)
        points[each.METHOD] = np.array([c.flops for c in timed], float), np.array(seconds)
    return LayerTimes(min(dense, default=first), points)


def find_ranks(
    factors: Mapping[str, list[Factors]],
    times: Mapping[str, LayerTimes],
    whole: Net,
    build: Callable[[Chosen], Net],
    target: float,
    tell: Callable[[str], object] = lambda text: None,
) -> tuple[Chosen, float, LatencyComparison]:
    """The choice of least error found whose net is measured ``target`` times as fast; its error; and the measurement.

    whole   the net as deployed, with its inputs filled
    build   such a net with the chosen factors

    raises RunError when no choice that was timed is as fast
    """
    search = _Search(factors, times, whole)
    best: tuple[Chosen, float, LatencyComparison] | None = None
    low, high = search.first(lambda level: bool(search.at(level)[0]), 0, search.last), search.last
    fastest_seen = 1.0
    for _ in range(ROUNDS):
        level = search.next(low, high, target, measured=best is not None)
        chosen, _ = search.at(level)
        if not chosen or level in search.tried:
            break
        comparison = search.compare(level, build(chosen))
        tell(f"error {search.levels[level]:.3g}: {comparison}")
        fastest_seen = max(fastest_seen, comparison.speedup)
        if comparison.speedup >= target:
            best, high = (chosen, search.levels[level], comparison), level
            if comparison.speedup <= CLOSE * target:
                break
        else:
            low = level + 1
        if low > high or (low == high and best is not None):
            break
    if best is None:
        seen = (
            f"the fastest that was measured is {fastest_seen:.2f} times as fast"
            if search.tried
            else "no rank is faster"
        )
        raise RunError(
            f"low rank does not make the net {target:g} times as fast: {seen}",
            hint="a smaller target, or fewer filters and channels: sslnet compress",
        )
    return best


class _Search:
    """The choices by error, with their predicted times.

    levels      all errors of candidates, increasing
    tried       levels that were measured
    correction  measured time over predicted time, of the last measurement
    """

    def __init__(self, factors: Mapping[str, list[Factors]], times: Mapping[str, LayerTimes], whole: Net) -> None:
        self.factors, self.times, self.whole = factors, times, whole
        self.levels = sorted({c.error for each in factors.values() for f in each for c in f.candidates}) or [0.0]
        self.last = len(self.levels) - 1
        self.tried: set[int] = set()
        (self.alone,) = fastest([whole], LEAST)
        self.runs = int(np.clip(SECONDS / max(self.alone, 1e-9), LEAST, MOST))
        self.fixed = max(self.alone - sum(each.dense for each in times.values()), 0.0)
        self.correction = 1.0
        self._found: dict[int, tuple[Chosen, float]] = {}

    def at(self, level: int) -> tuple[Chosen, float]:
        """The choice within an error, and its predicted seconds."""
        if level not in self._found:
            found = {name: each.choose(self.factors[name], self.levels[level]) for name, each in self.times.items()}
            left = self.fixed + sum(each.left(found[name]) for name, each in self.times.items())
            self._found[level] = {name: pair for name, pair in found.items() if pair is not None}, left
        return self._found[level]

    @staticmethod
    def first(holds: Callable[[int], bool], low: int, high: int) -> int:
        """The first number for which a monotone condition holds; ``high`` if it does for none."""
        while low < high:
            middle = (low + high) // 2
            if holds(middle):
                high = middle
            else:
                low = middle + 1
        return low

    def next(self, low: int, high: int, target: float, *, measured: bool) -> int:
        """The level to measure: where the prediction meets the target; if that is ``high`` and ``measured`` already, half
        way there from ``low`` in predicted time."""
        low = min(low, high)
        goal = self.alone / target
        level = self.first(lambda k: self.correction * self.at(k)[1] <= goal, low, high)
        if measured and level == high:
            middle = (self.at(low)[1] + self.at(high)[1]) / 2
            level = self.first(lambda k: self.at(k)[1] <= middle, low, high)
        return level

    def compare(self, level: int, small: Net) -> LatencyComparison:
        """Measures a net against the whole one, and corrects later predictions."""
        before, after = fastest([self.whole, small], self.runs)
        self.tried.add(level)
        self.correction = after / before * self.alone / self.at(level)[1]
        batch = next((self.whole.blobs[name].shape[0] for name in self.whole.inputs), 1)
        return LatencyComparison(batch, num_threads(), before, after)


def deployed_net(message: pb.NetParameter, shapes: Mapping[str, tuple[int, ...]], weights: Any, seed: int) -> Net:
    """A net in phase TEST with inputs of these shapes, filled, and weights that are packed once."""
    net = Net(with_inputs(definition_of(message), shapes), phase=pb.TEST, seed=seed, lean=True)
    fill_inputs(net, seed)
    copy_all_weights(net.params, weights)
    for fused in (False, True):
        net.plan(fused=fused).hold_weights(True)
    return net


def _layer_net(layers: list[pb.LayerParameter], arrays: Arrays, shape: tuple[int, ...], seed: int) -> Net:
    message = pb.NetParameter(name="layer")
    source = message.layer.add(name="bottom", type="Input", top=["bottom"])
    source.input_param.shape.add().dim.extend(shape)
    message.layer.extend(layers)
    return deployed_net(message, {"bottom": shape}, weights_message(message, arrays), seed)


def _plain(layer: Layer) -> pb.LayerParameter:
    """The layer on a bottom called so, in every phase."""
    result = pb.LayerParameter()
    result.CopyFrom(layer.param)
    for name in ("include", "exclude", "phase", "loss_weight", "propagate_down", "param"):
        result.ClearField(name)
    result.bottom[:] = ["bottom"]
    result.top[:] = [layer.name]
    return result
