"""Makes the ordered list of layers that run from a NetParameter: applies rules, makes fan-out explicit.

Checks everything that needs no layer to run, and reports all errors at once: types, names of bottoms, numbers of bottoms
and tops, in-place tops.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import DefinitionError, ErrorList, SslnetError, raise_errors, suggestion
from sslnet.layers import LAYERS
from sslnet.layers.base import Layer, LayerDefinition
from sslnet.prototxt import Definition, UnknownField, check_finite, upgrade_net

NetSource: TypeAlias = str | os.PathLike[str] | Definition | pb.NetParameter
"""The sources of a net; a path names a prototxt."""


@dataclass(frozen=True)
class PhaseState:
    """The state against which include / exclude rules are matched: phase (pb.TRAIN or pb.TEST), level, stages."""

    phase: int = pb.TEST
    level: int = 0
    stages: tuple[str, ...] = ()

    def meets(self, rule: pb.NetStateRule) -> bool:
        """Whether the state meets a NetStateRule: every condition it names."""
        return (
            (not rule.HasField("phase") or rule.phase == self.phase)
            and (not rule.HasField("min_level") or self.level >= rule.min_level)
            and (not rule.HasField("max_level") or self.level <= rule.max_level)
            and all(stage in self.stages for stage in rule.stage)
            and not any(stage in self.stages for stage in rule.not_stage)
        )


def definition_of(source: NetSource) -> Definition:
    """The definition of a source, read from its file if it is a path."""
    if isinstance(source, Definition):
        return source
    if isinstance(source, pb.NetParameter):
        return prototxt.parse(prototxt.write(source), pb.NetParameter)
    if isinstance(source, str | os.PathLike):
        return prototxt.read_net(os.fspath(source), collect=True)
    raise DefinitionError(
        f"a net is made from a path, a Definition or a NetParameter, not from {type(source).__name__}"
    )


def build_graph(definition: Definition, state: PhaseState) -> list[LayerDefinition]:
    """The layers that run in this state, in order, checked, with Split layers for fan-out.

    raises DefinitionError, or ErrorList when several things are wrong
    """
    layers, errors = checked_layers(definition, state)
    raise_errors(errors)
    return insert_splits(layers)


def checked_layers(definition: Definition, state: PhaseState) -> tuple[list[LayerDefinition], list[SslnetError]]:
    """The layers that run in this state, in order, and all errors in them that can be found without running."""
    definition = upgrade_net(definition)
    errors: list[SslnetError] = []
    try:
        check_finite(definition)
        layers = filter_layers(definition, state)
        if not layers:
            phase = pb.Phase.Name(state.phase)
            raise DefinitionError(f"the net has no layer in phase {phase}", path=definition.path)
    except ErrorList as several:
        return [], several.errors
    except DefinitionError as error:
        return [], [error]
    errors += [problem for problem in definition.problems if not _of_unknown_type(problem)]
    return layers, errors + check_graph(layers)


def _of_unknown_type(problem: DefinitionError) -> bool:
    """Whether a problem is about a field of a layer of unknown type, which has an error of its own where it runs."""
    return isinstance(problem, UnknownField) and problem.layer_type is not None and problem.layer_type not in LAYERS


def filter_layers(definition: Definition, state: PhaseState) -> list[LayerDefinition]:
    """The layers whose include / exclude rules match the state, each with its position in the file."""
    kept = []
    for index, param in enumerate(definition.message.layer):
        if len(param.include) and len(param.exclude):
            raise DefinitionError(
                "a layer has either include or exclude rules, not both",
                span=definition.span("layer", index, "exclude", 0),
                layer=param.name,
            )
        if len(param.include):
            runs = any(state.meets(rule) for rule in param.include)
        else:
            runs = not any(state.meets(rule) for rule in param.exclude)
        if runs:
            kept.append(LayerDefinition(param, definition, index))
    return kept


def check_graph(layers: Sequence[LayerDefinition]) -> list[SslnetError]:
    """The errors in types, names, bottoms that no layer above makes, and numbers of bottoms and tops."""
    errors: list[SslnetError] = []
    available: set[str] = set()
    seen: dict[str, int] = {}
    for layer in layers:
        param = layer.param

        def complain(
            message: str, *field: str | int, hint: str = "", layer: LayerDefinition = layer, value: bool = False
        ) -> None:
            span = layer.span(*field, value=value)
            path = layer.source.path if layer.source is not None else None
            errors.append(DefinitionError(message, span=span, path=path, layer=layer.param.name or None, hint=hint))

        if not param.name:
            complain("a layer needs a name")
        elif param.name in seen:
            complain(f'a second layer is named "{param.name}"', "name", hint="names of layers must be distinct")
        seen[param.name] = 1
        cls = LAYERS.get(param.type)
        if cls is None:
            message = f'unknown layer type "{param.type}"' if param.type else "the layer has no type"
            complain(message, "type", value=True, hint=suggestion(param.type, LAYERS))
        else:
            _check_counts(cls, param, complain)
        for j, name in enumerate(param.bottom):
            if name not in available:
                hint = suggestion(name, available) or ("no layer above it makes any blob" if not available else "")
                complain(f'unknown bottom "{name}"', "bottom", j, value=True, hint=hint)
        for j, name in enumerate(param.top):
            in_place = j < len(param.bottom) and param.bottom[j] == name
            if in_place and cls is not None and not cls.IN_PLACE:
                complain(
                    f"{param.type} cannot work in place", "top", j, value=True, hint="give the top a name of its own"
                )
            elif name in available and not in_place:
                complain(f'blob "{name}" is made twice', "top", j, value=True)
            available.add(name)
    return errors


def _check_counts(cls: type[Layer], param: pb.LayerParameter, complain: Callable[..., None]) -> None:
    for what, (least, most), names in (("bottom", cls.BOTTOMS, param.bottom), ("top", cls.TOPS, param.top)):
        count = len(names)
        if what == "top" and cls.IS_LOSS and count == 0:
            continue
        if count < least or (most is not None and count > most):
            wanted = str(least) if least == most else f"{least} or more" if most is None else f"{least} to {most}"
            complain(f"{param.type} takes {wanted} {what}{'' if wanted == '1' else 's'}, not {count}")
    if cls.EQUAL_BOTTOMS_TOPS and len(param.bottom) != len(param.top):
        complain(f"{param.type} makes one top of each bottom: {len(param.bottom)} bottoms, {len(param.top)} tops")
    if len(param.propagate_down) not in (0, len(param.bottom)):
        complain(
            f"propagate_down is given {len(param.propagate_down)} times for {len(param.bottom)} bottoms",
            "propagate_down",
            hint="give it once for each bottom, or not at all",
        )
    if len(param.loss_weight) not in (0, len(param.top)) and not (cls.IS_LOSS and len(param.loss_weight) == 1):
        complain(
            f"loss_weight is given {len(param.loss_weight)} times for {len(param.top)} tops",
            "loss_weight",
            hint="give it once for each top, or not at all",
        )


def insert_splits(layers: Sequence[LayerDefinition]) -> list[LayerDefinition]:
    """Adds a Split layer after every top that several layers read (or a layer and the loss), with Caffe's names:
    ``<blob>_<layer>_<index of the top>_split`` with tops ``..._split_0``, ``..._split_1``, ..."""
    maker: dict[str, tuple[int, int]] = {}
    source: dict[tuple[int, int], tuple[int, int]] = {}
    readers: Counter[tuple[int, int]] = Counter()
    weight: dict[tuple[int, int], float] = {}
    for i, layer in enumerate(layers):
        for j, name in enumerate(layer.param.bottom):
            source[i, j] = maker[name]
            readers[maker[name]] += 1
        for j, name in enumerate(layer.param.top):
            maker[name] = (i, j)
        for j, value in enumerate(_loss_weights(layer.param)):
            if value:
                weight[i, j] = value
                readers[i, j] += 1

    result: list[LayerDefinition] = []
    taken: Counter[tuple[int, int]] = Counter()
    for i, layer in enumerate(layers):
        param = pb.LayerParameter()
        param.CopyFrom(layer.param)
        for j, name in enumerate(layer.param.bottom):
            origin = source[i, j]
            if readers[origin] > 1:
                param.bottom[j] = _split_name(layers[origin[0]].param.name, name, origin[1], taken[origin])
                taken[origin] += 1
        result.append(LayerDefinition(param, layer.source, layer.index))
        for j, name in enumerate(layer.param.top):
            count = readers[i, j]
            if count > 1:
                split = pb.LayerParameter(name=_split_name(param.name, name, j), type="Split", bottom=[name])
                split.top.extend(_split_name(param.name, name, j, k) for k in range(count))
                if (i, j) in weight:
                    split.loss_weight.extend([weight[i, j]] + [0.0] * (count - 1))
                    param.loss_weight[:] = [*_loss_weights(param)[:j], 0.0, *_loss_weights(param)[j + 1 :]]
                    taken[i, j] += 1
                result.append(LayerDefinition(split))
    return result


def _loss_weights(param: pb.LayerParameter) -> list[float]:
    """The loss weight of each top, given or default."""
    given, cls = list(param.loss_weight), LAYERS[param.type]
    return given[: len(param.top)] or [float(cls.IS_LOSS and j == 0) for j in range(len(param.top))]


def _split_name(layer: str, blob: str, top: int, index: int | None = None) -> str:
    return f"{blob}_{layer}_{top}_split" + ("" if index is None else f"_{index}")
