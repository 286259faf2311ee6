"""``from_onnx``: an ONNX model as a prototxt and weights, ready to be trained and made sparse here.

Values become blobs of the same names, nodes layers of the same names where they have one. What the model computes from
constants and shapes alone is computed once; Dropout, Identity and the like vanish.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.compress.compare import Difference, blob_difference
from sslnet.errors import DefinitionError, ErrorList, RunError, SslnetError
from sslnet.exchange.readers import READERS
from sslnet.exchange.runtime import run_in_onnxruntime
from sslnet.exchange.source import Node, Source, load
from sslnet.net import Net
from sslnet.prototxt import Definition
from sslnet.weights import blob_proto

TOLERANCE = 1e-4


@dataclass
class Imported:
    """What an import made.

    message     pb.NetParameter: the definition, for phase TEST
    weights     pb.NetParameter with the blobs of its layers
    difference  from what onnxruntime makes of the model; None when that is not installed
    """

    message: Any
    weights: Any
    difference: Difference | None


class Builder:
    """The definition while it is put together, and which blob each value of the model is."""

    def __init__(self, source: Source, name: str) -> None:
        self.source = source
        self.message = pb.NetParameter(name=name)
        self._blobs: dict[str, str] = {}
        self._names: set[str] = set()
        self._padding: dict[str, list[int]] = {}
        for value, shape in source.inputs.items():
            layer = self.message.layer.add(name=self._layer_name(value), type="Input", top=[self.new_blob(value)])
            layer.input_param.shape.add().dim.extend(shape)
            self.become(value, layer.top[0])

    # -- values --------------------------------------------------------------------------------------------------------

    def blob(self, node: Node, index: int) -> str:
        """The blob that an input of the node is. raises DefinitionError for one that is padded or a constant"""
        value = node.inputs[index]
        if value in self._padding:
            raise node.error("it reads padded values: only convolutions and pooling can take padding over")
        if value not in self._blobs:
            raise node.error(f'its input "{value}" is a constant, in a place where a blob is needed')
        return self._blobs[value]

    def become(self, value: str, blob: str) -> None:
        self._blobs[value] = blob

    def same(self, value: str, other: str) -> None:
        """One value is another, unchanged."""
        for table in (self._blobs, self._padding):
            if other in table:
                table[value] = table[other]  # type: ignore[assignment]
        if self.source.is_constant(other):
            self.source.constants[value] = self.source.constants[other]

    def shape(self, node: Node, index: int) -> tuple[int, ...]:
        return self.source.shape(node, node.inputs[index])

    def output_shape(self, node: Node) -> tuple[int, ...]:
        return self.source.shape(node, node.outputs[0])

    def known(self, node: Node, index: int) -> np.ndarray:
        """An input that must be a constant."""
        value = self.source.constant(node, index)
        if value is None:
            raise node.error(f"input {index} is missing")
        return value

    def axes(self, node: Node) -> list[int]:
        """The axes that a reduction goes over, counted from the first."""
        count = len(self.shape(node, 0))
        given = node.get("axes")
        if given is None and len(node.inputs) > 1:
            given = self.source.constant(node, 1)
        return sorted(int(axis) % count for axis in (range(count) if given is None else given))

    # -- layers --------------------------------------------------------------------------------------------------------

    def layer(
        self,
        node: Node,
        kind: str,
        *,
        bottom: Sequence[str] | None = None,
        blobs: Sequence[np.ndarray] = (),
        suffix: str = "",
        last: bool = True,
        tops: int | None = None,
    ) -> Any:
        """Adds a layer for the node; returns its message.

        bottom   its bottoms; default: the node's first input
        suffix   what tells it from the node's other layers
        last     its tops are the node's outputs; otherwise blobs of its own, as many as ``tops`` says
        """
        if bottom is None:
            takes_padding = kind in ("Convolution", "Pooling") and node.inputs[0] in self._padding
            bottom = [self._blobs[node.inputs[0]] if takes_padding else self.blob(node, 0)]
        name = self._layer_name(f"{node.name}_{suffix}" if suffix else node.name)
        layer = self.message.layer.add(name=name, type=kind, bottom=bottom)
        if last:
            for value in node.outputs:
                layer.top.append(self.new_blob(value))
                self.become(value, layer.top[-1])
        else:
            layer.top.extend(self.new_blob(f"{name}_{k}" if k else name) for k in range(tops or 1))
        for array in blobs:
            self.add_blob(layer, array)
        return layer

    def call_top(self, layer: Any, node: Node) -> None:
        """Makes the layer's top the node's output after all."""
        layer.top[0] = self.new_blob(node.outputs[0])
        self.become(node.outputs[0], layer.top[0])

    def add_blob(self, layer: Any, array: np.ndarray) -> None:
        layer.blobs.append(blob_proto(np.ascontiguousarray(array, np.float32)))

    def weights(self, node: Node, index: int) -> np.ndarray:
        """A constant as a layer's parameter."""
        return self.known(node, index).astype(np.float32)

    def optional_weights(self, node: Node, index: int) -> list[np.ndarray]:
        return [self.weights(node, index)] if index < len(node.inputs) and node.inputs[index] else []

    def silence(self, node: Node, blobs: list[str], suffix: str) -> None:
        if blobs:
            self.message.layer.add(name=self._layer_name(f"{node.name}_{suffix}"), type="Silence", bottom=blobs)

    def reshape(self, node: Node, bottom: list[str]) -> None:
        """A Reshape to the shape of the node's output; the batch stays free where it stays the first axis."""
        before, after = self.shape(node, 0), self.output_shape(node)
        if after == (before[0], int(np.prod(before[1:]))):
            self.layer(
                node, "Flatten", bottom=bottom, suffix="flatten" if self.message.layer[-1].name == node.name else ""
            )
            return
        layer = self.layer(node, "Reshape", bottom=bottom)
        layer.reshape_param.shape.dim.extend([0 if after[:1] == before[:1] else after[0], *after[1:]] if after else [])

    def constant_step(self, node: Node, operation: str, values: np.ndarray, bottom: str) -> None:
        """x + values or x * values as the layer that is simplest for their shape; a bias of fully connected layers joins them."""
        shape = self.output_shape(node)
        if values.size == 1:
            layer = self.layer(node, "Power", bottom=[bottom])
            setattr(layer.power_param, "shift" if operation == "Add" else "scale", float(values.ravel()[0]))
            return
        axis, part = self.axis_of_parts(node, shape, values.shape)
        kept = list(part)
        while kept and kept[-1] == 1:  # what is repeated along the last axes needs no axes
            kept.pop()
        if operation == "Add" and self._joins_maker(node, bottom, axis, kept, shape):
            maker = self.message.layer[-1]
            (maker.scale_param if maker.type == "Scale" else maker.inner_product_param).bias_term = True
            self.add_blob(maker, values.reshape(kept))
            self.call_top(maker, node)
            return
        layer = self.layer(node, "Bias" if operation == "Add" else "Scale", bottom=[bottom])
        param = layer.bias_param if operation == "Add" else layer.scale_param
        param.axis, param.num_axes = axis, len(kept)
        self.add_blob(layer, values.reshape(kept))

    def skip_flatten(self, node: Node) -> None:
        """Takes back the Flatten that was just added for the node alone: a fully connected layer flattens by itself."""
        layer = self.message.layer[-1]
        if layer.type == "Flatten" and list(layer.top) == [self.blob(node, 0)] and self._read_once(node):
            self.become(node.inputs[0], layer.bottom[0])
            del self.message.layer[-1]

    def factor(self, node: Node, values: np.ndarray, axis: int) -> None:
        """The last layer's top times constants that lie along its axes from ``axis`` on; they are not trained."""
        bottom = self.message.layer[-1].top[0]
        layer = self.layer(node, "Scale", bottom=[bottom], suffix="factor")
        layer.scale_param.axis, layer.scale_param.num_axes = axis, values.ndim
        layer.param.add(lr_mult=0, decay_mult=0)
        self.add_blob(layer, values)

    def axis_of_parts(self, node: Node, whole: tuple[int, ...], part: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
        """From which axis on values of shape ``part`` lie along those of shape ``whole``, and their shape there.

        raises DefinitionError where an axis between two that they have would be repeated
        """
        full = (1,) * (len(whole) - len(part)) + tuple(part)
        if len(full) != len(whole) or any(p not in (1, w) for p, w in zip(full, whole)):
            raise node.error(f"values of shapes {whole} and {part}")
        along = [axis for axis, size in enumerate(full) if size != 1]
        if not along:
            return 1, ()
        first, last = along[0], along[-1]
        if any(full[axis] != whole[axis] for axis in range(first, last + 1)):
            raise node.error(f"values of shapes {whole} and {part}: an axis in between is repeated")
        return first, full[first : last + 1]

    # -- padding -------------------------------------------------------------------------------------------------------

    def remember_padding(self, node: Node, amounts: list[int]) -> None:
        half = len(amounts) // 2
        if half != 4 or any(amounts[:2]) or any(amounts[half : half + 2]) or min(amounts) < 0:
            raise node.error(f"padding {amounts}: only that of images, by 0 or more pixels, can be taken over")
        self._blobs[node.outputs[0]] = self.blob(node, 0)
        self._padding[node.outputs[0]] = [int(n) for n in (*amounts[2:half], *amounts[half + 2 :])]

    def unused_padding(self, path: str) -> list[SslnetError]:
        """An error for each output of the model that is a padded value."""
        padded = [value for value in self.source.outputs if value in self._padding]
        return [
            DefinitionError(f'the output "{value}" is padded: there is no layer for that', path=path)
            for value in padded
        ]

    def padding(self, node: Node) -> tuple[list[int], list[int]]:
        """Zeros that a Pad puts around what the node reads: in front and behind, for each axis of the image."""
        amounts = self._padding.get(node.inputs[0], [])
        half = len(amounts) // 2
        return amounts[:half], amounts[half:]

    def pads(
        self, node: Node, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
    ) -> tuple[list[int], list[int]]:
        """The node's own padding, in front and behind, for each axis of the image."""
        axes, auto = len(kernel), node.get("auto_pad", "NOTSET")
        if auto not in ("SAME_UPPER", "SAME_LOWER"):
            pads = list(node.get("pads", [0] * (2 * axes)))
            return pads[:axes], pads[axes:]
        sizes = zip(self.output_shape(node)[2:], strides, kernel, dilations, self.shape(node, 0)[2:])
        missing = [max((out - 1) * s + (k - 1) * d + 1 - n, 0) for out, s, k, d, n in sizes]
        less, more = [m // 2 for m in missing], [m - m // 2 for m in missing]
        return (less, more) if auto == "SAME_UPPER" else (more, less)

    def symmetric_pads(
        self, node: Node, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
    ) -> list[int]:
        """The padding of each axis, a Pad before the node included. raises DefinitionError where its sides differ"""
        own = self.pads(node, kernel, strides, dilations)
        before = self.padding(node)
        front, behind = ([a + b for a, b in zip(o, p or [0] * len(o))] for o, p in zip(own, before))
        if front != behind:
            raise node.error(
                f"padding {front} in front and {behind} behind: Caffe's layers pad both sides alike",
                hint="pad both sides alike in the model, or put the rest into the images",
            )
        return front

    # -- names ---------------------------------------------------------------------------------------------------------

    def new_blob(self, wanted: str) -> str:
        """A name for a blob: the one wanted, or the next that is free."""
        taken = {top for layer in self.message.layer for top in layer.top}
        name, number = wanted, 1
        while name in taken:
            number += 1
            name = f"{wanted}_{number}"
        return name

    def _layer_name(self, wanted: str) -> str:
        name, number = wanted, 1
        while name in self._names:
            number += 1
            name = f"{wanted}_{number}"
        self._names.add(name)
        return name

    def _joins_maker(self, node: Node, bottom: str, axis: int, kept: list[int], shape: tuple[int, ...]) -> bool:
        """Whether a summand of shape ``kept`` from ``axis`` on can be the bias of the layer just added, which makes ``bottom``."""
        maker = self.message.layer[-1]
        if list(maker.top) != [bottom] or not self._read_once(node):
            return False
        if maker.type == "InnerProduct":
            return not maker.inner_product_param.bias_term and kept == [shape[-1]]
        same = maker.type == "Scale" and len(maker.blobs) == 1 and list(maker.blobs[0].shape.dim) == kept
        return bool(same and maker.scale_param.axis == axis and not maker.param)

    def _read_once(self, node: Node) -> bool:
        """Whether the node's computed input is read by no other node, and is no output."""
        value = next(name for name in node.inputs if not self.source.is_constant(name))
        readers = sum(value in other.inputs for other in self.source.nodes)
        return readers == 1 and value not in self.source.outputs


def from_onnx(path: str | Path, batch: int = 1) -> Imported:
    """The model in a file as a definition and weights, compared with what onnxruntime makes of it.

    batch   images that the definition's inputs take, where the model leaves it open

    raises DataError for a file that is no model, DefinitionError (one for each node) for what has no counterpart here,
    RunError when the net computes something else
    """
    source = load(path, batch)
    builder = Builder(source, Path(path).stem)
    errors: list[SslnetError] = []
    for node in source.nodes:
        try:
            if source.fold(node):
                continue
            if node.op not in READERS:
                raise DefinitionError(f"there is no layer for the operator {node.op}", layer=node.name)
            READERS[node.op](builder, node)
        except SslnetError as error:
            error.path = error.path or str(path)
            errors.append(error)
            for value in node.outputs:  # so that each fault is told once
                builder.become(value, value)
    errors += builder.unused_padding(str(path))
    if errors:
        raise errors[0] if len(errors) == 1 else ErrorList(errors[:20])
    weights = pb.NetParameter(name=builder.message.name)
    for layer in builder.message.layer:
        if layer.blobs:
            weights.layer.add(name=layer.name, type=layer.type).blobs.extend(layer.blobs)
            del layer.blobs[:]
    net = Net(Definition(builder.message), weights if weights.layer else None, pb.TEST)
    return Imported(builder.message, weights, _compare(path, net, builder, source))


def _compare(path: str | Path, net: Net, builder: Builder, source: Source) -> Difference | None:
    random = np.random.default_rng(0)
    inputs: dict[str, Any] = {name: random.standard_normal(shape).astype("f4") for name, shape in source.inputs.items()}
    theirs = run_in_onnxruntime(str(path), inputs, source.outputs)
    if theirs is None:
        return None
    blobs = {value: builder._blobs[value] for value in source.outputs if value in builder._blobs}
    ours = net.forward(list(blobs.values()), **{builder._blobs[name]: array for name, array in inputs.items()})
    difference = Difference(
        "random numbers", [blob_difference(value, theirs[value], ours[blob]) for value, blob in blobs.items()]
    )
    if not difference.relative <= TOLERANCE:
        worst = max(difference.blobs, key=lambda found: found.relative)
        raise RunError(
            f'the net differs by {worst.relative:.3g} of the largest value in "{worst.name}"; nothing was written',
            path=str(path),
        )
    return difference
