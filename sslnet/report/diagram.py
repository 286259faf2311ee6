"""What a drawing of a net shows: a box for each layer, layers that work in place within the box of what they work on, the blobs
between them with their shapes, parameters counted.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sslnet import sslnet_pb2 as pb
from sslnet.blob import Blob
from sslnet.errors import DefinitionError, SslnetError
from sslnet.layers import LAYERS
from sslnet.layers.base import Context, Layer, LayerDefinition
from sslnet.net.graph import PhaseState, check_graph, filter_layers
from sslnet.net.input_layers import with_inputs
from sslnet.prototxt import Definition, upgrade_net
from sslnet.report.layered import Link, rank_nodes

Shape = tuple[int, ...]
FAR = 2
"""The number of ranks beyond which a source's blob is drawn as a tag beside its reader instead of a line."""


@dataclass
class DrawnLayer:
    """One layer. params: how many numbers it learns or keeps; None where that is not known."""

    name: str
    type: str
    detail: str
    params: int | None


@dataclass
class Output:
    """A blob that a box makes: its name, its shape where that is known, the boxes that read it."""

    name: str
    shape: Shape | None
    readers: list[int] = field(default_factory=list)


@dataclass
class Box:
    """A layer, with the layers that work in place on what it makes; or a tag, which has no parts: the name of a blob."""

    parts: list[DrawnLayer]
    outputs: list[Output] = field(default_factory=list)
    tag: str = ""

    @property
    def is_source(self) -> bool:
        return bool(self.parts) and LAYERS[self.parts[0].type].IS_SOURCE


@dataclass
class Diagram:
    """boxes    in the order of the net: who reads stands behind who makes
    unknown  why some shapes are not known: the error of the first layer that would not tell
    """

    name: str
    phase: str
    boxes: list[Box]
    layers: int
    params: int | None
    unknown: SslnetError | None


def diagram(definition: Definition, state: PhaseState, shapes: Mapping[str, Sequence[int]] | None = None) -> Diagram:
    """The net that runs in a state.

    shapes   of blobs that the net's source layers make; these then read nothing
    raises   DefinitionError for what the prototxt says wrong, ShapeError where shapes do not fit
    """
    definition = upgrade_net(definition)
    if shapes:
        definition = with_inputs(definition, shapes)
    layers = filter_layers(definition, state)
    check_graph(layers)
    inferred = infer(layers, state.phase, definition.path)
    boxes = _boxes(layers, inferred)
    params = [part.params for box in boxes for part in box.parts]
    return Diagram(
        definition.message.name,
        pb.Phase.Name(state.phase),
        _tagged(boxes),
        len(layers),
        None if None in params else sum(number or 0 for number in params),
        inferred.error,
    )


# -- shapes ------------------------------------------------------------------------------------------------------------


@dataclass
class Inferred:
    """tops, params   by layer; None where they are not known
    error          of the first layer that could not tell
    """

    tops: list[list[Shape | None]] = field(default_factory=list)
    params: list[int | None] = field(default_factory=list)
    error: SslnetError | None = None


def infer(layers: Sequence[LayerDefinition], phase: int, path: str | None) -> Inferred:
    """Shapes and numbers of parameters, as far as the layers can tell: nothing is run, no parameter is filled.

    raises DefinitionError and ShapeError; that files are missing, or code may not run, leaves shapes unknown
    """
    beside = os.path.dirname(os.path.abspath(path)) if path else None
    context = Context(phase=phase, beside=beside)
    blobs: dict[str, Blob] = {}
    result = Inferred()
    for definition in layers:
        param = definition.param
        tops: list[Blob | None] = [None] * len(param.top)
        count: int | None = None
        if all(name in blobs for name in param.bottom):
            try:
                layer, made = _set_up(definition, context, [blobs[name] for name in param.bottom])
                tops = list(made)
                count = sum(blob.count for blob in layer.blobs)
            except SslnetError as error:
                if isinstance(error, DefinitionError) and param.type != "Python":
                    raise
                result.error = result.error or error
        for name, top in zip(param.top, tops):
            blobs.pop(name, None)
            if top is not None:
                blobs[name] = top
        result.tops.append([None if top is None else top.shape for top in tops])
        result.params.append(count)
    return result


def _set_up(definition: LayerDefinition, context: Context, bottom: list[Blob]) -> tuple[Layer, list[Blob]]:
    param = definition.param
    layer = LAYERS[param.type](definition, context)

    def without_values(shape: Sequence[int], *filler: str, default: float = 0) -> Blob:
        layer.blobs.append(Blob(shape))
        return layer.blobs[-1]

    layer.new_param = without_values  # type: ignore[method-assign]
    names = list(param.top) or ([param.name] if layer.IS_LOSS else [])
    tops = [
        bottom[j] if j < len(bottom) and name == param.bottom[j] else Blob(name=name) for j, name in enumerate(names)
    ]
    layer.setup(bottom, tops)
    layer.reshape(bottom, tops)
    return layer, tops[: len(param.top)]


# -- boxes -------------------------------------------------------------------------------------------------------------


def _boxes(layers: Sequence[LayerDefinition], inferred: Inferred) -> list[Box]:
    boxes: list[Box] = []
    maker: dict[str, tuple[int, int]] = {}
    for definition, shapes, params in zip(layers, inferred.tops, inferred.params):
        param = definition.param
        part = DrawnLayer(param.name, param.type, detail(param), params)
        if len(param.bottom) == len(param.top) == 1 and param.bottom[0] == param.top[0]:
            boxes[maker[param.top[0]][0]].parts.append(part)
            continue
        box = Box([part])
        for name in param.bottom:
            made_by, output = maker[name]
            readers = boxes[made_by].outputs[output].readers
            if len(boxes) not in readers:
                readers.append(len(boxes))
        for j, (name, shape) in enumerate(zip(param.top, shapes)):
            box.outputs.append(Output(name, shape))
            maker[name] = (len(boxes), j)
        boxes.append(box)
    return boxes


def _tagged(boxes: list[Box]) -> list[Box]:
    """The boxes, and tags beside the readers of what would be long lines from a source."""
    links = [Link(i, tuple(output.readers)) for i, box in enumerate(boxes) for output in box.outputs]
    ranks = rank_nodes(len(boxes), links)
    tags: dict[int, list[str]] = {}
    for i, box in enumerate(boxes):
        for output in box.outputs if box.is_source else ():
            for reader in [reader for reader in output.readers if ranks[reader] - ranks[i] > FAR]:
                output.readers.remove(reader)
                tags.setdefault(reader, []).append(output.name)
    result: list[Box] = []
    new: list[int] = []
    for i, box in enumerate(boxes):
        here = tags.get(i, [])
        new.append(len(result) + len(here))
        result += [Box([], [Output(name, None, [new[i]])], name) for name in here]
        result.append(box)
    for box in boxes:
        for output in box.outputs:
            output.readers = [new[reader] for reader in output.readers]
    return result


# -- words -------------------------------------------------------------------------------------------------------------


def detail(param: Any) -> str:
    """The main parameters of a layer, in a few words."""
    words = {
        "Convolution": lambda: _window(param.convolution_param, "filters"),
        "ConvolutionDepthwise": lambda: _window(param.convolution_param, "filters"),
        "DepthwiseConvolution": lambda: _window(param.convolution_param, "filters"),
        "Deconvolution": lambda: _window(param.convolution_param, "filters"),
        "InnerProduct": lambda: f"{param.inner_product_param.num_output} outputs",
        "Embed": lambda: f"{param.embed_param.input_dim} words, {param.embed_param.num_output} outputs",
        "LSTM": lambda: f"{param.recurrent_param.num_output} units",
        "RNN": lambda: f"{param.recurrent_param.num_output} units",
        "Pooling": lambda: _pooling(param.pooling_param),
        "Eltwise": lambda: pb.EltwiseParameter.EltwiseOp.Name(param.eltwise_param.operation).lower(),
        "Concat": lambda: f"axis {param.concat_param.axis}" if param.concat_param.axis != 1 else "",
        "Slice": lambda: f"axis {param.slice_param.axis}" if param.slice_param.axis != 1 else "",
        "Dropout": lambda: f"{param.dropout_param.dropout_ratio:g}",
        "LRN": lambda: f"size {param.lrn_param.local_size}",
        "Accuracy": lambda: f"top {param.accuracy_param.top_k}" if param.accuracy_param.top_k != 1 else "",
        "Data": lambda: _place(param.data_param.source),
        "ImageData": lambda: _place(param.image_data_param.source),
        "HDF5Data": lambda: _place(param.hdf5_data_param.source),
        "WindowData": lambda: _place(param.window_data_param.source),
        "Python": lambda: f"{param.python_param.module}.{param.python_param.layer}",
    }
    found = words[param.type]() if param.type in words else ""
    if param.loss_weight and list(param.loss_weight) != [1]:
        weights = ", ".join(f"{weight:g}" for weight in param.loss_weight)
        found = f"{found}, weight {weights}".lstrip(", ")
    return found


def _window(param: Any, what: str) -> str:
    """3 × 3, stride 2, pad 1 · 64 filters."""
    size = [param.kernel_h, param.kernel_w] if param.kernel_h or param.kernel_w else list(param.kernel_size)
    words = [_times(size)]
    for name, usual in (("stride", 1), ("pad", 0), ("dilation", 1)):
        values = list(getattr(param, name))
        if name != "dilation" and (param.HasField(f"{name}_h") or param.HasField(f"{name}_w")):
            values = [getattr(param, f"{name}_h"), getattr(param, f"{name}_w")]
        if any(value != usual for value in values):
            words.append(f"{name} {_times(values) if len(set(values)) > 1 else values[0]}")
    if param.group > 1:
        words.append(f"{param.group} groups")
    return f"{', '.join(words)} · {param.num_output} {what}"


def _pooling(param: Any) -> str:
    method = pb.PoolingParameter.PoolMethod.Name(param.pool).lower()
    if param.global_pooling:
        return f"{method}, global"
    words = [f"{method} {_times([param.kernel_h, param.kernel_w] if param.kernel_h else [param.kernel_size])}"]
    stride = [param.stride_h, param.stride_w] if param.stride_h else [param.stride]
    pad = [param.pad_h, param.pad_w] if param.pad_h or param.pad_w else [param.pad]
    for name, values, usual in (("stride", stride, 1), ("pad", pad, 0)):
        if any(value != usual for value in values):
            words.append(f"{name} {_times(values) if len(set(values)) > 1 else values[0]}")
    return ", ".join(words)


def _times(sizes: list[int]) -> str:
    """3 × 3, also of a single 3."""
    return " × ".join(map(str, sizes * 2 if len(sizes) == 1 else sizes))


def _place(source: str) -> str:
    return source.rstrip("/").rpartition("/")[2]
