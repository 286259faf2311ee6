"""``restructure``: replaces convolutions of a net by cheaper structures; the result is trained, or fine-tuned.

Of a chain of layers, the last has the name, bias and rates of the layer that it replaces; those before it are called
NAME_basis and NAME_core. Of an inception, the Concat has the name, and its branches are called NAME_1x1, NAME_3x3_basis,
NAME_3x3, ...
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.compress.compaction.build import free_name
from sslnet.compress.compaction.compare import Difference, compare
from sslnet.compress.compaction.deploy import deploy_definition
from sslnet.compress.compaction.sizes import LayerSize, layer_sizes
from sslnet.compress.low_rank.chains import SUFFIXES, chain, refusal, shared_layers, weights_message, weights_of
from sslnet.compress.low_rank.factors import Weights
from sslnet.compress.restructure.forms import FORMS, Structure, unsuitable
from sslnet.errors import UsageError, suggestion
from sslnet.layers.base import Layer
from sslnet.layers.convolution import Convolution
from sslnet.net.graph import PhaseState
from sslnet.net.input_layers import copy_sources, fill_inputs, source_shapes, with_inputs
from sslnet.net.net import Net
from sslnet.net.weights import Arrays, WeightSource, copy_all_weights, stored_weights
from sslnet.prototxt import Definition
from sslnet.timing.layerwise import Timing, open_net, time_nets

SCALED_FILLERS = ("msra", "xavier", "orthogonal")
"""Fillers that follow the size of a layer, so that they fit the layers of a structure too; others become msra."""


@dataclass(frozen=True)
class RestructuredLayer:
    """One layer of the net and what replaces it.

    names       the layers in its place, first to last
    flops       FLOPs per image before and after
    parameters  without biases, before and after
    error       of the factors: norm of the change of the weights, relative to their norm; None: weights are from fillers
    """

    name: str
    form: str
    names: tuple[str, ...]
    flops: tuple[int, int]
    parameters: tuple[int, int]
    error: float | None


@dataclass
class Restructured:
    """The result of ``restructure``: definitions, weights, statistics.

    before, after  the definitions, with weights each (None: from fillers)
    deploy         definition for deployment; None if the net is one
    difference     of the outputs; None where the weights of the structures are from fillers
    """

    before: tuple[Definition, WeightSource | None]
    after: tuple[Definition, pb.NetParameter]
    deploy: pb.NetParameter | None
    layers: list[RestructuredLayer]
    sizes: list[LayerSize]
    state: PhaseState
    difference: Difference | None = None
    notes: list[str] = field(default_factory=list)

    def time(
        self,
        iterations: int = 20,
        *,
        phase: int = pb.TRAIN,
        batch: int | None = None,
        forward_only: bool = False,
        partial: bool = False,
        on_run: Callable[[int], object] = lambda done: None,
    ) -> Timing:
        """Times both nets in turns, on the same data, layer by layer and as a whole, with as many runs.

        batch            images; None: as many as the net's own
        partial, on_run  as of ``time_nets``

        raises UsageError for numbers below 1
        """
        options: dict[str, Any] = {"phase": phase, "level": self.state.level, "stages": self.state.stages}
        lean = phase == pb.TRAIN or forward_only
        first = open_net(*self.before, batch=batch, lean=lean, **options)
        definition = with_inputs(self.after[0], source_shapes(first))
        second = Net(definition, self.after[1], lean=lean, **options)
        copy_sources(first, second)
        found = time_nets([first, second], iterations, forward_only=forward_only, partial=partial, on_run=on_run)
        forms = sorted({layer.form for layer in self.layers})
        return replace(found, nets=[found.nets[0], replace(found.nets[1], model="", name=", ".join(forms))])


def restructure(
    model: str | Path | Definition,
    weights: WeightSource | None,
    form: str,
    *,
    layers: Sequence[str] = (),
    ratio: float = 0.5,
    fit: bool = False,
    relu: bool = False,
    level: int = 0,
    stages: Sequence[str] = (),
    seed: int = 0,
) -> Restructured:
    """Replaces convolutions by structures of the form. Writes no files.

    weights  of the net; None: from its fillers
    form     one of FORMS
    layers   names (default: all that become cheaper)
    ratio    width of the structure as a part of the layer's
    fit      weights of the structures are factors of the layer's, else they are from fillers
    relu     a ReLU after each layer of a chain but the last

    raises UsageError when a layer is named that cannot take the form, or none can
    """
    definition = model if isinstance(model, Definition) else prototxt.read_net(os.fspath(model))
    state = PhaseState(pb.TEST, level, tuple(stages))
    options: dict[str, Any] = {"phase": pb.TEST, "level": level, "stages": stages, "seed": seed}
    net = Net(definition, **options)
    stored = None if weights is None else stored_weights(weights)
    if stored is not None:
        copy_all_weights(net.params, stored)
    notes: list[str] = []
    chosen = _structures(net, form, layers, ratio, notes)
    message, names = _with_structures(definition.message, net, {name: s for name, (_, s) in chosen.items()}, relu)
    smaller = definition.with_message(message)
    after = Net(with_inputs(smaller, source_shapes(net)), **options)
    arrays: Arrays = {name: [blob.data for blob in blobs] for name, blobs in after.params.items()}
    kept = stored.arrays if stored is not None else {}
    arrays |= {name: values for name, values in kept.items() if name not in chosen}
    if fit:
        for name, (_, structure) in chosen.items():
            arrays |= _factors(structure, names[name], [blob.data for blob in net.params[name][1:]])
    new_weights = weights_message(message, arrays)
    copy_all_weights(after.params, new_weights)
    inputs = "random numbers" if fill_inputs(net, seed) else "data of the net"
    rows = [
        RestructuredLayer(
            name, form, tuple(names[name].every), (w.flops, structure.flops(w)),
            (w.array.size, structure.parameters), structure.error if fit else None,
        )
        for name, (w, structure) in chosen.items()
    ]  # fmt: skip
    return Restructured(
        before=(definition, stored),
        after=(smaller, new_weights),
        deploy=deploy_definition(smaller, state, source_shapes(net)),
        layers=rows,
        sizes=layer_sizes(net, after),
        state=state,
        difference=compare(net, after, inputs) if fit else None,
        notes=notes,
    )


# -- choosing ----------------------------------------------------------------------------------------------------------


def _structures(
    net: Net, form: str, wanted: Sequence[str], ratio: float, notes: list[str]
) -> dict[str, tuple[Weights, Structure]]:
    """The structure of each layer that gets one, by layer name. raises UsageError if none does"""
    for name in wanted:
        if name not in net.params:
            raise UsageError(f'the net has no layer "{name}" with weights', hint=suggestion(name, net.params))
    shared = shared_layers(net)
    result = {}
    for i, layer in enumerate(net.layers):
        if wanted and layer.name not in wanted:
            continue
        weights = None
        why = _refusal(layer, shared)
        if not why:
            weights = weights_of(layer, net.bottoms[i][0].shape)
            why = unsuitable(form, weights)
        if weights is None or why:
            if layer.name in wanted:
                raise UsageError(f'layer "{layer.name}" cannot become {form}: {why}')
            if isinstance(layer, Convolution):
                notes.append(f"{layer.name} is unchanged: {why}")
            continue
        structure = FORMS[form](weights, ratio)
        if not wanted and structure.flops(weights) >= weights.flops:
            notes.append(f"{layer.name} is unchanged: as {form} it would not have less FLOPs")
            continue
        result[layer.name] = weights, structure
    if not result:
        raise UsageError(
            f"no layer can become {form} with less FLOPs", hint="; ".join(notes) or "it has no Convolution"
        )
    return result


def _refusal(layer: Layer, shared: set[str]) -> str:
    """Reason why a layer cannot be replaced by any structure; empty if it can."""
    if not isinstance(layer, Convolution):
        return f"it is of type {layer.TYPE}"
    if len(layer.param.bottom) > 1:
        return "it has several bottoms"
    return refusal(layer, shared).replace("factored", "replaced")


# -- building ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Names:
    """Names of the layers in place of one: of those with weights by branch, and of every one in order."""

    branches: list[list[str]]
    every: list[str]


def _with_structures(
    message: pb.NetParameter, net: Net, chosen: dict[str, Structure], relu: bool
) -> tuple[pb.NetParameter, dict[str, _Names]]:
    """The definition with each chosen layer, in every phase, replaced by its structure; and the names of its layers."""
    result = pb.NetParameter()
    result.CopyFrom(message)
    del result.layer[:]
    taken = {name for layer in message.layer for name in (layer.name, *layer.top)}
    branches = {name: _branch_names(name, structure, taken) for name, structure in chosen.items()}
    types = {layer.name: layer.TYPE for layer in net.layers}
    names: dict[str, _Names] = {}
    relus: dict[str, str] = {}
    for layer in message.layer:
        if layer.name not in chosen or layer.type != types[layer.name]:
            result.layer.add().CopyFrom(layer)
            continue
        made = [*_layers(layer, chosen[layer.name], branches[layer.name])]
        if relu:
            made = [*_with_relu(made, {branch[-1] for branch in branches[layer.name]}, taken, relus)]
        names[layer.name] = _Names(branches[layer.name], [each.name for each in made])
        result.layer.extend(made)
    return result, names


def _branch_names(name: str, structure: Structure, taken: set[str]) -> list[list[str]]:
    if len(structure.branches) == 1:
        (stages,) = structure.branches
        return [[*(free_name(name + suffix, taken) for suffix in SUFFIXES[len(stages)]), name]]
    result = []
    for stages in structure.branches:
        kh, kw = stages[-1].kernel
        last = f"{name}_{kh}x{kw}"
        result.append([*(free_name(f"{last}_basis", taken) for _ in stages[1:]), free_name(last, taken)])
    return result


def _layers(layer: pb.LayerParameter, structure: Structure, names: list[list[str]]) -> Iterator[pb.LayerParameter]:
    """The layers of a structure, with fillers that suit their sizes."""
    several = len(names) > 1
    for stages, branch in zip(structure.branches, names):
        for new in chain(layer, stages, branch):
            filler = new.convolution_param.weight_filler
            if filler.type not in SCALED_FILLERS:
                filler.Clear()
                filler.type = "msra"
            if several and new.name == branch[-1]:
                new.ClearField("loss_weight")
                new.top[:] = [new.name]
            yield new
    if several:
        last = pb.LayerParameter(name=layer.name, type="Concat", bottom=[branch[-1] for branch in names], top=layer.top)
        last.loss_weight.extend(layer.loss_weight)
        last.include.extend(layer.include)
        last.exclude.extend(layer.exclude)
        yield last


def _with_relu(
    made: list[pb.LayerParameter], last: set[str], taken: set[str], names: dict[str, str]
) -> Iterator[pb.LayerParameter]:
    """The layers with a ReLU in place after each convolution that is not the last of its branch.

    names   of the ReLU layers, by the layer before: the same in every phase  [adds to it]
    """
    for layer in made:
        yield layer
        if layer.type == "Convolution" and layer.name not in last:
            name = names.setdefault(layer.name, "") or free_name(f"{layer.name}_relu", taken)
            names[layer.name] = name
            after = pb.LayerParameter(name=name, type="ReLU", bottom=layer.top, top=layer.top)
            after.include.extend(layer.include)
            after.exclude.extend(layer.exclude)
            yield after


def _factors(structure: Structure, names: _Names, biases: list[Any]) -> Arrays:
    """The factors as blobs of the structure's layers; the bias, if there is one, is that of the last layers."""
    arrays: Arrays = {}
    at = 0
    for stages, branch in zip(structure.branches, names.branches):
        arrays |= {name: [stage.array] for name, stage in zip(branch, stages)}
        count = len(stages[-1].array)
        arrays[branch[-1]] += [bias[at : at + count] for bias in biases]
        at += count
    return arrays
