"""The definition while an ONNX model is read: which blob each value is, the layers so far, padding that waits for a reader."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.errors import DefinitionError, SslnetError
from sslnet.exchange.source import Node, Source
from sslnet.weights import blob_proto


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

    def padded_blob(self, node: Node) -> str:
        """The blob that the node's first input is, for layers that take padding over."""
        return self._blobs[node.inputs[0]] if node.inputs[0] in self._padding else self.blob(node, 0)

    def blob_of(self, value: str) -> str:
        """The name of the blob that a value is; empty where there is none."""
        return self._blobs.get(value, "")

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
            bottom = [self.padded_blob(node) if kind == "Convolution" else self.blob(node, 0)]
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
        axis, part = along(shape, values.shape)
        if axis < 0:  # all axes but that of the images, unless the values differ along it
            full = (1,) * (len(shape) - values.ndim) + values.shape
            axis = 0 if full[0] > 1 else 1
            part = shape[axis:]
            values = np.broadcast_to(values.reshape(full), (full[0], *shape[1:]))
        kept = list(part)
        if operation == "Add" and self._joins_maker(node, bottom, axis, kept, shape):
            maker = self.message.layer[-1]
            (maker.scale_param if maker.type == "Scale" else maker.inner_product_param).bias_term = True
            self.add_blob(maker, values.reshape(kept))
            maker.top[0] = self.new_blob(node.outputs[0])
            self.become(node.outputs[0], maker.top[0])
            return
        layer = self.layer(node, "Bias" if operation == "Add" else "Scale", bottom=[bottom])
        param = layer.bias_param if operation == "Add" else layer.scale_param
        param.axis, param.num_axes = axis, len(kept)
        self.add_blob(layer, values.reshape(kept))

    def last_layer(self, node: Node, *kinds: str) -> Any:
        """The layer that was added last, if it is of such a type and made for this node alone; else None."""
        layer, value = self.message.layer[-1], node.inputs[0]
        mine = layer.type in kinds and list(layer.top) == [self.blob_of(value)] and value not in self._padding
        return layer if mine and self._readers(layer.top[0]) == 1 else None

    def take_back(self, node: Node) -> None:
        """Removes the layer that was added last: the node reads what that one read."""
        self.become(node.inputs[0], self.message.layer[-1].bottom[0])
        self._names.discard(self.message.layer[-1].name)
        del self.message.layer[-1]

    def skip_flatten(self, node: Node, weights: np.ndarray) -> np.ndarray:
        """Takes back what only lays an image out for a fully connected layer, which does that by itself.

        Where the channels had been brought to the end before, the columns of the weights (outputs, inputs) change places.
        """
        flat = self.last_layer(node, "Flatten", "Reshape")
        size = self.shape(node, 0)
        if flat is None or len(size) != 2 or (flat.type == "Reshape" and not self._is_flat(flat)):
            return weights
        order = self.message.layer[-2] if len(self.message.layer) > 1 else None
        if order is None or list(order.top) != list(flat.bottom) or order.type != "Permute":
            if flat.type == "Flatten":
                self.take_back(node)
            return weights
        perm = list(order.permute_param.order)
        shape = self._shape_of_blob(order.bottom[0])
        if self._readers(order.top[0]) != 1 or perm[0] != 0 or shape is None:
            return weights
        self.take_back(node)
        self.take_back(node)
        moved = weights.reshape(len(weights), *(shape[axis] for axis in perm[1:]))
        back = np.argsort(perm[1:])
        return np.ascontiguousarray(moved.transpose(0, *(1 + back))).reshape(len(weights), -1)

    def _readers(self, blob: str) -> int:
        """How many nodes read the blob, under whatever name, or give it as an output."""
        values = {value for value, name in self._blobs.items() if name == blob}
        nodes = [n for n in self.source.nodes if values & set(n.inputs) and not values & set(n.outputs)]
        return len(nodes) + len(values & set(self.source.outputs))

    @staticmethod
    def _is_flat(reshape: Any) -> bool:
        dims = list(reshape.reshape_param.shape.dim)
        return len(dims) == 2 and dims[0] == 0

    def _shape_of_blob(self, blob: str) -> tuple[int, ...] | None:
        values = [value for value, name in self._blobs.items() if name == blob and value in self.source.shapes]
        return self.source.shapes[values[0]] if values else None

    def broadcast(self, node: Node, blob: str, before: tuple[int, ...], after: tuple[int, ...], suffix: str) -> str:
        """The blob with axes of size 1 in front, and repeated along those of size 1, so that it has the shape ``after``."""
        full = (1,) * (len(after) - len(before)) + before
        if len(full) > len(after) or any(old not in (1, new) for old, new in zip(full, after)):
            raise node.error(f"values of shapes {before} and {after}")
        if full != before:
            layer = self.layer(node, "Reshape", bottom=[blob], last=False, suffix=f"{suffix}axes")
            layer.reshape_param.shape.dim.extend([0 if full[0] == before[0] else full[0], *full[1:]])
            blob = layer.top[0]
        for axis, (old, new) in enumerate(zip(full, after)):
            if old != new:
                layer = self.layer(node, "Tile", bottom=[blob], last=False, suffix=f"{suffix}axis{axis}")
                layer.tile_param.axis, layer.tile_param.tiles = axis, new
                blob = layer.top[0]
        return blob

    # -- padding -------------------------------------------------------------------------------------------------------

    def remember_padding(self, node: Node, amounts: list[int]) -> None:
        half = len(amounts) // 2
        if half < 3 or any(amounts[:2]) or any(amounts[half : half + 2]) or min(amounts) < 0:
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

    def all_padding(
        self, node: Node, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
    ) -> tuple[list[int], list[int]]:
        """The padding of each axis in front and behind, a Pad before the node included."""
        own, before = self.pads(node, kernel, strides, dilations), self.padding(node)
        front, behind = ([a + b for a, b in zip(o, p or [0] * len(o))] for o, p in zip(own, before))
        return front, behind

    # -- names ---------------------------------------------------------------------------------------------------------

    def new_blob(self, wanted: str) -> str:
        """A name for a blob: the one wanted, or the next that is free."""
        taken = {top for layer in self.message.layer for top in layer.top}
        name, number = wanted, 1
        while name in taken:
            number += 1
            name = f"{wanted}_{number}"
        return name

    def name_outputs(self) -> None:
        """Gives blobs that are outputs of the model the names that these have there, where nothing else is called so."""
        outputs = set(self.source.outputs)
        taken = {top for layer in self.message.layer for top in layer.top}
        fixed = outputs | set(self.source.inputs)
        for value in self.source.outputs:
            blob = self.blob_of(value)
            if not blob or blob in fixed or value in taken:
                continue
            for layer in self.message.layer:
                for names in (layer.bottom, layer.top):
                    names[:] = [value if name == blob else name for name in names]
            self._blobs = {key: value if name == blob else name for key, name in self._blobs.items()}
            taken.add(value)

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


def along(whole: tuple[int, ...], part: tuple[int, ...], *, batch: bool = False) -> tuple[int, tuple[int, ...]]:
    """From which axis on values of shape ``part`` lie along those of shape ``whole``, and their shape there; -1 where an
    axis between two that they have would be repeated, or where the shapes do not fit.

    batch   they are computed for each image, so that the first axis is one of theirs even if it has the size 1
    """
    full = (1,) * (len(whole) - len(part)) + tuple(part)
    if len(full) != len(whole) or any(p not in (1, w) for p, w in zip(full, whole)):
        return -1, ()
    axes = [axis for axis, size in enumerate(full) if size != 1 or (batch and axis == 0 and len(part) == len(whole))]
    if not axes:
        return 1, ()
    first, last = axes[0], axes[-1]
    if any(full[axis] != whole[axis] for axis in range(first, last + 1)):
        return -1, ()
    return first, full[first : last + 1]


class Chain:
    """Layers behind one another that stand for one node; ``blob`` is what the next of them reads."""

    def __init__(self, builder: Builder, node: Node, blob: str = "", *, padded: bool = False) -> None:
        """blob: what the first reads; default: the node's first input, which may be padded if the layers take that over."""
        self.builder, self.node = builder, node
        self.blob = blob or (builder.padded_blob(node) if padded else builder.blob(node, 0))
        self._top: tuple[Any, int] | None = None

    def add(
        self,
        kind: str,
        suffix: str = "",
        *others: str,
        blobs: Sequence[np.ndarray] = (),
        tops: int = 1,
        takes: int = 0,
    ) -> Any:
        """Adds a layer; returns its message. It reads ``others`` as well; what follows reads its top number ``takes``."""
        bottom = [self.blob, *others]
        layer = self.builder.layer(self.node, kind, bottom=bottom, blobs=blobs, suffix=suffix, last=False, tops=tops)
        self.blob, self._top = layer.top[takes], (layer, takes)
        return layer

    def reshape(self, dims: Sequence[int], suffix: str = "shape") -> None:
        """dims as in reshape_param: 0 keeps an axis, -1 is what remains."""
        self.add("Reshape", suffix).reshape_param.shape.dim.extend(int(n) for n in dims)

    def power(self, suffix: str, **fields: float) -> None:
        """(shift + scale x) ^ power, with these numbers."""
        param = self.add("Power", suffix).power_param
        for name, value in fields.items():
            setattr(param, name, value)

    def factor(self, values: np.ndarray, axis: int) -> None:
        """Times constants that lie along the axes from ``axis`` on; they are not trained."""
        layer = self.add("Scale", "factor", blobs=[values])
        layer.scale_param.axis, layer.scale_param.num_axes = axis, values.ndim
        layer.param.add(lr_mult=0, decay_mult=0)

    def end(self) -> None:
        """Makes what was added last the node's output."""
        if self._top is None:
            self.builder.same(self.node.outputs[0], self.node.inputs[0])
            return
        layer, takes = self._top
        layer.top[takes] = self.builder.new_blob(self.node.outputs[0])
        self.builder.become(self.node.outputs[0], layer.top[takes])
