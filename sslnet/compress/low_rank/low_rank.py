"""``low_rank``: replaces layers of a net by products of smaller ones; the result should be fine-tuned.

The last of the layers that replace a layer has its name, bias and rates; those before it are called NAME_basis (tucker:
NAME_basis and NAME_core).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.compress.compaction.build import free_name
from sslnet.compress.compaction.compare import Difference, compare
from sslnet.compress.compaction.deploy import deploy_definition
from sslnet.compress.compaction.sizes import LayerSize, layer_sizes
from sslnet.compress.control.latency_model import LatencyComparison
from sslnet.compress.low_rank.chains import SUFFIXES, chain, refusal, shared_layers, weights_message, weights_of
from sslnet.compress.low_rank.factors import METHODS, Candidate, Factors, Stage, choose, factorise
from sslnet.compress.low_rank.speedup import Chosen, LayerTimes, deployed_net, find_ranks, time_layer
from sslnet.errors import UsageError, suggestion
from sslnet.net.graph import PhaseState
from sslnet.net.input_layers import fill_inputs, source_shapes, with_inputs
from sslnet.net.net import Net
from sslnet.net.weights import Arrays, StoredWeights, WeightSource, copy_all_weights, stored_weights
from sslnet.prototxt import Definition


@dataclass(frozen=True)
class FactoredLayer:
    """The factorisation chosen for one layer of the net, and its candidates.

    chosen   the chosen candidate; None: the layer is unchanged
    flops    FLOPs per image before and after
    """

    name: str
    flops: tuple[int, int]
    parameters: tuple[int, int]
    method: str = ""
    chosen: Candidate | None = None
    factors: list[Factors] = field(default_factory=list)


@dataclass
class LowRank:
    """The result of ``low_rank``: definition, deployment definition (None if the first is one), weights, statistics."""

    message: pb.NetParameter
    deploy: pb.NetParameter | None
    weights: pb.NetParameter
    layers: list[FactoredLayer]
    sizes: list[LayerSize]
    difference: Difference
    error: float
    """The maximum relative error allowed for a layer's weights."""
    speedup: LatencyComparison | None = None
    """The measurement, where a speedup was the target."""
    notes: list[str] = field(default_factory=list)


def low_rank(
    model: str | Path | Definition,
    weights: WeightSource,
    *,
    error: float | None = None,
    target_flops: float | None = None,
    target_speedup: float | None = None,
    speedup_batch: int | None = None,
    methods: Sequence[str] = tuple(METHODS),
    layers: Sequence[str] = (),
    level: int = 0,
    stages: Sequence[str] = (),
    seed: int = 0,
    tell: Callable[[str], object] = lambda text: None,
) -> LowRank:
    """Factorises the layers of a net. Writes no files.

    error           maximum relative error of a layer's weights, 0 to 1; or
    target_flops    fraction of the net's FLOPs that may remain, 0 to 1, from which the error is determined; or
    target_speedup  how many times as fast the deployed net must be, measured; each layer gets the fastest method within
                    the error
    speedup_batch   images to measure with; None: the batch of the net's data
    methods         methods of which each layer gets the cheapest; layers: names (default: all that become cheaper)
    tell            takes a line for each step of the measurement

    raises UsageError when the target of FLOPs cannot be reached, or a layer is named that cannot be factored, RunError
    when the speedup is not reached
    """
    definition = model if isinstance(model, Definition) else prototxt.read_net(os.fspath(model))
    state = PhaseState(pb.TEST, level, tuple(stages))
    net = Net(definition, phase=pb.TEST, level=level, stages=stages, seed=seed)
    stored = stored_weights(weights)
    copy_all_weights(net.params, stored)
    notes: list[str] = []
    factors = _all_factors(net, tuple(methods), layers, notes)
    speedup = None
    if target_speedup is not None:
        builder = _Builder(definition, state, net, stored, speedup_batch, seed)
        chosen, error, speedup = _ranks_for(builder, factors, target_speedup, tell)
    else:
        if error is None:
            error = _error_for(net, factors, 1.0 if target_flops is None else target_flops)
        chosen = {name: found for name, each in factors.items() if (found := choose(each, error)) is not None}
    message, arrays = _with_factors(definition.message, net, chosen)
    new_weights = weights_message(message, stored.arrays | arrays)
    smaller = definition.with_message(message)
    after = Net(with_inputs(smaller, source_shapes(net)), new_weights, pb.TEST, level=level, stages=stages, seed=seed)
    inputs = "random numbers" if fill_inputs(net, seed) else "data of the net"
    return LowRank(
        message=message,
        deploy=deploy_definition(smaller, state, source_shapes(net)),
        weights=new_weights,
        layers=_rows(factors, chosen),
        sizes=layer_sizes(net, after),
        difference=compare(net, after, inputs),
        error=error,
        speedup=speedup,
        notes=notes,
    )


# -- choosing ----------------------------------------------------------------------------------------------------------


def _all_factors(
    net: Net, methods: tuple[str, ...], wanted: Sequence[str], notes: list[str]
) -> dict[str, list[Factors]]:
    """The factorisations of each layer that has any, by layer name."""
    for name in wanted:
        if name not in net.params:
            raise UsageError(f'the net has no layer "{name}" with weights', hint=suggestion(name, net.params))
    shared = shared_layers(net)
    result: dict[str, list[Factors]] = {}
    for i, layer in enumerate(net.layers):
        if wanted and layer.name not in wanted:
            continue
        why = refusal(layer, shared)
        if why:
            if layer.name in wanted:
                raise UsageError(f'layer "{layer.name}" cannot be factored: {why}')
            if layer.LOW_RANK:
                notes.append(f"{layer.name} is unchanged: {why}")
            continue
        result[layer.name] = factorise(weights_of(layer, net.bottoms[i][0].shape), methods)
    return result


def _error_for(net: Net, factors: dict[str, list[Factors]], target: float) -> float:
    """The smallest error, among those of the candidates, with which the net meets the target."""
    batch = next((shape[0] for shape in source_shapes(net).values() if shape), 1)
    total = sum(layer.flops(b, t) for layer, b, t in zip(net.layers, net.bottoms, net.tops)) // batch
    levels = sorted({c.error for each in factors.values() for f in each for c in f.candidates})

    def left(error: float) -> int:
        found = (choose(each, error) for each in factors.values())
        return total - sum(f.weights.flops - c.flops for f, c in (pair for pair in found if pair is not None))

    low, high = 0, len(levels) - 1
    if not levels or left(levels[-1]) > target * total:
        least = left(levels[-1]) / total if levels else 1.0
        raise UsageError(f"low rank cannot reduce the net to {target:g} of its FLOPs; the minimum is {least:.3g}")
    while low < high:
        middle = (low + high) // 2
        if left(levels[middle]) <= target * total:
            high = middle
        else:
            low = middle + 1
    return levels[low]


class _Builder:
    """Makes deployed nets with some layers factored, to be timed. batch: images; None: as many as the net's data has."""

    def __init__(
        self, definition: Definition, state: PhaseState, net: Net, stored: StoredWeights, batch: int | None, seed: int
    ) -> None:
        self.definition, self.state, self.net, self.stored, self.seed = definition, state, net, stored, seed
        found = source_shapes(net)
        self.own_batch = next((shape[0] for shape in found.values() if shape), 1)
        self.batch = batch or self.own_batch
        self.shapes = {name: (self.batch, *shape[1:]) for name, shape in found.items()}

    def bottom(self, i: int) -> tuple[int, ...]:
        """The shape of a layer's bottom with the batch to measure with."""
        first, *others = self.net.bottoms[i][0].shape
        return (first * self.batch // self.own_batch, *others)

    def deployed(self, chosen: Chosen) -> Net:
        message, arrays = _with_factors(self.definition.message, self.net, chosen)
        deploy = deploy_definition(self.definition.with_message(message), self.state, self.shapes)
        weights = weights_message(message, self.stored.arrays | arrays)
        return deployed_net(deploy or message, self.shapes, weights, self.seed)


def _ranks_for(
    builder: _Builder, factors: dict[str, list[Factors]], target: float, tell: Callable[[str], object]
) -> tuple[Chosen, float, LatencyComparison]:
    """The choice for a measured speedup. raises RunError when it is not reached"""
    times: dict[str, LayerTimes] = {}
    for i, layer in enumerate(builder.net.layers):
        if factors.get(layer.name):
            tell(f"timing {layer.name} ({len(times) + 1} of {len(factors)})")
            times[layer.name] = time_layer(layer, builder.bottom(i), factors[layer.name], builder.seed)
    return find_ranks(factors, times, builder.deployed({}), builder.deployed, target, tell)


def _rows(factors: dict[str, list[Factors]], chosen: dict[str, tuple[Factors, Candidate]]) -> list[FactoredLayer]:
    rows = []
    for name, each in factors.items():
        if not each:
            continue
        flops, parameters = each[0].weights.flops, each[0].weights.array.size
        if name in chosen:
            method, candidate = chosen[name]
            after = (candidate.flops, candidate.parameters)
            rows.append(FactoredLayer(name, (flops, after[0]), (parameters, after[1]), method.METHOD, candidate, each))
        else:
            rows.append(FactoredLayer(name, (flops, flops), (parameters, parameters), factors=each))
    return rows


# -- building ----------------------------------------------------------------------------------------------------------


def _with_factors(
    message: pb.NetParameter, net: Net, chosen: dict[str, tuple[Factors, Candidate]]
) -> tuple[pb.NetParameter, Arrays]:
    """The definition with each chosen layer, in every phase, replaced by its factors; and the blobs of the factors."""
    result = pb.NetParameter()
    result.CopyFrom(message)
    del result.layer[:]
    taken = {name for layer in message.layer for name in (layer.name, *layer.top)}
    arrays: Arrays = {}
    chains: dict[str, tuple[list[Stage], list[str]]] = {}
    for name, (factors, candidate) in chosen.items():
        stages = factors.stages(candidate.rank)
        names = [*(free_name(name + suffix, taken) for suffix in SUFFIXES[len(stages)]), name]
        chains[name] = stages, names
        arrays |= {each: [stage.array] for each, stage in zip(names, stages)}
        arrays[name] += [blob.data for blob in net.params[name][1:]]
    types = {layer.name: layer.TYPE for layer in net.layers}
    for layer in message.layer:
        if layer.name in chains and layer.type == types[layer.name]:
            result.layer.extend(chain(layer, *chains[layer.name]))
        else:
            result.layer.add().CopyFrom(layer)
    return result, arrays
