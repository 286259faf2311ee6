"""DefinitionBuilder: the definition during the import of an ONNX model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.exchange.limits import MOST_AXES, tidy
from sslnet.exchange.names import layer_name
from sslnet.exchange.node import OnnxNode
from sslnet.exchange.shapes import along, pad_sides
from sslnet.exchange.source import OnnxModel
from sslnet.net.blob_arrays import blob_proto


class DefinitionBuilder:
    """The definition during an import, and the blob of each value of the model."""

    def __init__(self, source: OnnxModel, name: str) -> None:
        self.source = source
        self.message = pb.NetParameter(name=tidy(name))
        self._blobs: dict[str, str] = {}
        self._names: dict[str, int] = {}
        self._tops: dict[str, int] = {}
        self.padding: dict[str, list[int]] = {}
        """Values that are another value with zeros around its images, added by no layer yet (``padding.py``)."""
        for value, shape in source.inputs.items():
            layer = self.message.layer.add(name=self._layer_name(value), type="Input", top=[self.new_blob(value)])
            layer.input_param.shape.add().dim.extend(shape)
            self.become(value, layer.top[0])

    # -- values --------------------------------------------------------------------------------------------------------

    def blob(self, node: OnnxNode, index: int) -> str:
        """The blob of an input of the node; of a constant, a layer that repeats it for each image."""
        value = node.input(index)
        if value in self.padding:
            self.add_padding(node, value)
        if value not in self._blobs:
            if not self.source.is_constant(value):
                raise node.error(f'its input "{value}" is made by no node that has a layer')
            return self.constant_blob(node, value)
        return self._blobs[value]

    def constant_blob(self, node: OnnxNode, value: str) -> str:
        """The blob of a constant: a layer repeats it for each image. raises DefinitionError if it differs from image to
        image"""
        values = self.source.constants[value]
        first = self.message.layer[0].top[0]
        images = next(iter(self.source.inputs.values()))[0]
        if values.ndim and len(values) not in (1, images):
            raise node.error(
                f'its input "{value}" is a constant with {len(values)} values along the axis of the images'
            )
        if values.dtype.kind not in "fiub" or not values.size or (values.ndim and (values != values[:1]).any()):
            raise node.error(f'its input "{value}" is a constant that no layer can hold')
        self.source.room.take(node, values.shape)
        one = values[0] if values.ndim else values
        layer = self.layer(node, "Constant", bottom=[first], blobs=[one], suffix="constant", last=False)
        layer.constant_param.shape.dim.extend(one.shape)
        layer.param.add(lr_mult=0, decay_mult=0)
        if values.ndim == 0 or len(values) == images:
            self.become(value, layer.top[0])
        return str(layer.top[0])

    def add_padding(self, node: OnnxNode, value: str) -> None:
        """Adds a layer for the zeros that a Pad puts around a value, where no layer can include them."""
        top, left, bottom, right = pad_sides(self.padding.pop(value))
        shape = self.source.shapes[value]
        blob = self._blobs[value]
        if len(shape) == 3:
            blob = self.reshaped(node, blob, [0, 0, 1, -1], "pad_image")
        layer = self.layer(node, "Pad", bottom=[blob], suffix="pad", last=False)
        for name, amount in (("top", top), ("bottom", bottom), ("left", left), ("right", right)):
            if amount:
                setattr(layer.pad_param, name, amount)
        blob = layer.top[0]
        if len(shape) == 3:
            blob = self.reshaped(node, blob, [0, 0, -1], "pad_line")
        self.become(value, blob)

    def reshaped(self, node: OnnxNode, blob: str, dims: Sequence[int], suffix: str) -> str:
        """The blob with another shape; dims as in reshape_param."""
        layer = self.layer(node, "Reshape", bottom=[blob], suffix=suffix, last=False)
        layer.reshape_param.shape.dim.extend(dims)
        return str(layer.top[0])

    def padded_blob(self, node: OnnxNode) -> str:
        """The blob of the node's first input, for layers that can include its padding."""
        return self._blobs[node.input(0)] if node.input(0) in self.padding else self.blob(node, 0)

    def has_blob(self, value: str) -> bool:
        """Whether the value is computed by a layer, or an input."""
        return value in self._blobs

    def blob_of(self, value: str) -> str:
        """The name of the blob of a value; empty if there is none."""
        return self._blobs.get(value, "")

    def become(self, value: str, blob: str) -> None:
        self._blobs[value] = blob

    def same(self, value: str, other: str) -> None:
        """Records that one value is another, unchanged."""
        for table in (self._blobs, self.padding):
            if other in table:
                table[value] = table[other]  # type: ignore[assignment]
        if self.source.is_constant(other):
            self.source.same(value, other)

    def shape(self, node: OnnxNode, index: int, least: int = 1) -> tuple[int, ...]:
        """The shape of an input. raises DefinitionError if it has fewer than ``least`` axes"""
        shape = self.source.shape(node, node.input(index))
        if len(shape) < least:
            raise node.error(f"input {index} has {len(shape)} axes, less than {least}")
        return shape

    def output_shape(self, node: OnnxNode) -> tuple[int, ...]:
        return self.source.shape(node, node.result)

    def known(self, node: OnnxNode, index: int) -> np.ndarray:
        """The value of an input that must be a constant, of numbers."""
        value = self.source.constant(node, index)
        if value is None:
            raise node.error(f"input {index} is missing")
        if value.dtype.kind in "cOSU":
            raise node.error(f"input {index} holds no real numbers")
        return value

    def known_number(self, node: OnnxNode, index: int) -> float:
        """The value of an input that must be a constant with one number."""
        value = self.known(node, index)
        if value.size != 1:
            raise node.error(f"input {index} has {value.size} values, not one")
        return float(value.reshape(-1)[0])

    def known_integers(self, node: OnnxNode, index: int) -> list[int]:
        """The value of an input that must be a constant list of integers."""
        value = self.known(node, index)
        if value.dtype.kind not in "iu" or value.ndim > 1:
            raise node.error(f"input {index} is no list of whole numbers")
        return [int(number) for number in value.reshape(-1)]

    def axes(self, node: OnnxNode) -> list[int]:
        """The axes of a reduction, counted from the first."""
        count = len(self.shape(node, 0, 0))
        given = list(range(count))
        if node.has("axes"):
            given = node.integers("axes")
        elif node.has_input(1):
            given = self.known_integers(node, 1)
        axes = sorted(node.place(axis, count) for axis in given)
        if len(set(axes)) < len(axes):
            raise node.error(f"axes {axes}: one of them twice")
        return axes

    # -- layers --------------------------------------------------------------------------------------------------------

    def layer(
        self,
        node: OnnxNode,
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
        suffix   distinguishes it from other layers of the node
        last     whether its tops are the node's outputs; otherwise they are new blobs, ``tops`` of them
        """
        if bottom is None:
            bottom = [self.padded_blob(node) if kind == "Convolution" else self.blob(node, 0)]
        own = layer_name(node, self.source.stored)
        name = self._layer_name(f"{own}_{suffix}" if suffix else own)
        layer = self.message.layer.add(name=name, type=kind, bottom=bottom)
        if last:
            if kind != "Slice" and node.outputs != [node.result]:
                raise node.error(f"it has {len(node.outputs)} outputs; only the first has a counterpart")
            for value in node.outputs:
                layer.top.append(self.new_blob(value))
                self.become(value, layer.top[-1])
        else:
            layer.top.extend(self.new_blob(f"{name}_{k}" if k else name) for k in range(tops or 1))
        for array in blobs:
            self.add_blob(node, layer, array)
        return layer

    def add_blob(self, node: OnnxNode, layer: pb.LayerParameter, array: np.ndarray) -> None:
        self.source.room.take(node, array.shape)
        layer.blobs.append(blob_proto(np.ascontiguousarray(array, np.float32)))

    def weights(self, node: OnnxNode, index: int, least: int = 0, most: int = MOST_AXES) -> np.ndarray:
        """A constant as a layer's parameter. raises DefinitionError if it does not have ``least`` to ``most`` axes, or
        has no values"""
        values = self.known(node, index)
        if not least <= values.ndim <= most or not values.size:
            raise node.error(f"weights of shape {values.shape}")
        return values.astype(np.float32)

    def optional_weights(self, node: OnnxNode, index: int, size: int) -> list[np.ndarray]:
        """An optional constant, with ``size`` values or one for all of them."""
        if not node.has_input(index):
            return []
        values = self.weights(node, index).reshape(-1)
        if values.size not in (1, size):
            raise node.error(f"input {index} has {values.size} values, not {size}")
        return [np.broadcast_to(values, (size,))]

    def silence(self, node: OnnxNode, blobs: list[str], suffix: str) -> None:
        if blobs:
            self.message.layer.add(name=self._layer_name(f"{node.name}_{suffix}"), type="Silence", bottom=blobs)

    def reshape(self, node: OnnxNode, bottom: list[str]) -> None:
        """Adds a Reshape to the shape of the node's output; the batch stays free if it remains the first axis."""
        before, after = self.shape(node, 0), self.output_shape(node)
        if after == (before[0], math.prod(before[1:])):
            self.layer(
                node,
                "Flatten",
                bottom=bottom,
                suffix="flatten" if self.message.layer[-1].name == layer_name(node, self.source.stored) else "",
            )
            return
        layer = self.layer(node, "Reshape", bottom=bottom)
        layer.reshape_param.shape.dim.extend([0 if after[:1] == before[:1] else after[0], *after[1:]] if after else [])

    def constant_step(self, node: OnnxNode, operation: str, values: np.ndarray, bottom: str) -> None:
        """Adds x + values or x * values as the simplest layer for their shape; a bias of a fully connected layer
        becomes part of it."""
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
            self.add_blob(node, maker, values.reshape(kept))
            maker.top[0] = self.new_blob(node.result)
            self.become(node.result, maker.top[0])
            return
        layer = self.layer(node, "Bias" if operation == "Add" else "Scale", bottom=[bottom])
        param = layer.bias_param if operation == "Add" else layer.scale_param
        param.axis, param.num_axes = axis, len(kept)
        self.add_blob(node, layer, values.reshape(kept))

    def last_layer(self, node: OnnxNode, *kinds: str, index: int = 0) -> pb.LayerParameter | None:
        """The layer that was added last, if it is of such a type and only this input of the node reads its top; else
        None."""
        layer, value = self.message.layer[-1], node.input(index)
        mine = layer.type in kinds and list(layer.top) == [self.blob_of(value)] and value not in self.padding
        return layer if mine and self.readers(layer.top[0]) == 1 else None

    def take_back(self, node: OnnxNode, index: int = 0) -> None:
        """Removes the layer that was added last: this input of the node becomes the bottom of that layer."""
        self.become(node.input(index), self.message.layer[-1].bottom[0])
        del self._names[self.message.layer[-1].name]
        for top in self.message.layer[-1].top:
            del self._tops[top]
        del self.message.layer[-1]

    def skip_flatten(self, node: OnnxNode, weights: np.ndarray) -> np.ndarray:
        """Removes a layer that only flattens an image for a fully connected layer, which flattens by itself.

        If the channels had been moved to the last axis before, the columns of the weights (outputs, inputs) are reordered.
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
        if self.readers(order.top[0]) != 1 or perm[0] != 0 or shape is None:
            return weights
        self.take_back(node)
        self.take_back(node)
        moved = weights.reshape(len(weights), *(shape[axis] for axis in perm[1:]))
        back = np.argsort(perm[1:])
        return np.ascontiguousarray(moved.transpose(0, *(1 + back))).reshape(len(weights), -1)

    def readers(self, blob: str) -> int:
        """Number of nodes that read the blob under any name, or output it."""
        values = {value for value, name in self._blobs.items() if name == blob}
        nodes = [n for n in self.source.nodes if values & set(n.inputs) and not values & set(n.outputs)]
        return len(nodes) + len(values & set(self.source.outputs))

    @staticmethod
    def _is_flat(reshape: pb.LayerParameter) -> bool:
        dims = list(reshape.reshape_param.shape.dim)
        return len(dims) == 2 and dims[0] == 0

    def _shape_of_blob(self, blob: str) -> tuple[int, ...] | None:
        values = [value for value, name in self._blobs.items() if name == blob and value in self.source.shapes]
        return self.source.shapes[values[0]] if values else None

    def broadcast(self, node: OnnxNode, blob: str, before: tuple[int, ...], after: tuple[int, ...], suffix: str) -> str:
        """Adds axes of size 1 in front of the blob, and repeats axes of size 1, so that it has the shape ``after``."""
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

    # -- names ---------------------------------------------------------------------------------------------------------

    def new_blob(self, wanted: str) -> str:
        """A free name for a blob: the requested name, or this name with a number."""
        return _free(tidy(wanted), self._tops)

    def name_outputs(self) -> None:
        """Renames blobs that are outputs of the model to the names of the outputs, if these names are free."""
        fixed = {tidy(value) for value in self.source.outputs} | {self.blob_of(value) for value in self.source.inputs}
        taken = {top for layer in self.message.layer for top in layer.top}
        names: dict[str, str] = {}
        for value in self.source.outputs:
            blob, wanted = self.blob_of(value), tidy(value)
            if blob and blob not in fixed and blob not in names and wanted not in taken:
                names[blob] = wanted
                taken.add(wanted)
        for layer in self.message.layer if names else ():
            for listed in (layer.bottom, layer.top):
                listed[:] = [names.get(name, name) for name in listed]
        self._blobs = {value: names.get(blob, blob) for value, blob in self._blobs.items()}

    def _layer_name(self, wanted: str) -> str:
        return _free(tidy(wanted), self._names)

    def _joins_maker(self, node: OnnxNode, bottom: str, axis: int, kept: list[int], shape: tuple[int, ...]) -> bool:
        """Whether a summand of shape ``kept`` from ``axis`` on can be the bias of the layer just added, whose top is
        ``bottom``."""
        maker = self.message.layer[-1]
        if list(maker.top) != [bottom] or not self._read_once(node):
            return False
        if maker.type == "InnerProduct":
            return not maker.inner_product_param.bias_term and kept == [shape[-1]]
        same = maker.type == "Scale" and len(maker.blobs) == 1 and list(maker.blobs[0].shape.dim) == kept
        return bool(same and maker.scale_param.axis == axis and not maker.param)

    def _read_once(self, node: OnnxNode) -> bool:
        """Whether only this node reads its computed input, and it is not an output."""
        value = next(name for name in node.inputs if not self.source.is_constant(name))
        readers = sum(value in other.inputs for other in self.source.nodes)
        return readers == 1 and value not in self.source.outputs


def _free(wanted: str, taken: dict[str, int]) -> str:
    """The name, or the name with the next number that is free. taken: names, each with the last number used for it"""
    name = wanted
    while name in taken:
        taken[wanted] += 1
        name = f"{wanted}_{taken[wanted]}"
    taken[name] = 1
    return name
