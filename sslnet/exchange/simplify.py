"""Joins nodes of an exported graph where fewer compute the same: one operator for one layer, or for two.

BatchNormalization, Mul, Add    one BatchNormalization (BatchNorm and Scale)
Split                           a Slice, where one part is read
Softmax, Log                    LogSoftmax
Mul by a reciprocal, Add of a negative    Div, Sub
Tile, Expand                    nothing, where the next operator repeats values by itself
Reshape, Flatten, Unsqueeze     nothing, where their result has the shape that their input had
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import NodeProto, ValueInfoProto, helper, numpy_helper

from sslnet.exchange.graph import Graph

SHAPES = {"Reshape", "Flatten", "Unsqueeze", "Squeeze"}
REPEATING = {"Add", "Sub", "Mul", "Div", "Max", "Min", "Pow"}
"""Operators of two values that repeat axes of size 1 of either."""
SMALL = 64
"""Most values of a constant whose value may determine shapes."""


def simplify(graph: Graph, inputs: Sequence[ValueInfoProto], outputs: Sequence[ValueInfoProto]) -> None:
    """Changes the nodes and constants of a graph; its outputs keep their names and values, apart from rounding."""
    _Simplifier(graph, inputs, outputs).run()


class _Simplifier:
    def __init__(self, graph: Graph, inputs: Sequence[ValueInfoProto], outputs: Sequence[ValueInfoProto]) -> None:
        self.graph, self.inputs, self.outputs = graph, inputs, outputs
        self.fixed = {info.name for info in outputs}

    def run(self) -> None:
        self._index()
        for node in list(self.graph.nodes):
            if node.op_type == "BatchNormalization":
                self._join_norm(node)
            elif node.op_type == "Split":
                self._one_part(node)
            elif node.op_type == "Log":
                self._log_softmax(node)
            elif node.op_type in ("Mul", "Add"):
                self._inverse(node)
        self._sweep()
        if any(node.op_type in (*SHAPES, "Tile", "Expand") for node in self.graph.nodes):
            self.shapes = self._infer()
            for node in list(self.graph.nodes):
                if node.op_type in SHAPES:
                    self._same_shape(node)
            self._index()
            for node in list(self.graph.nodes):
                if node.op_type in REPEATING:
                    self._repeats_itself(node)
            self._sweep()

    # -- the graph ---------------------------------------------------------------------------------------------------

    def _index(self) -> None:
        self.makers = {name: node for node in self.graph.nodes for name in node.output}
        self.readers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in self.graph.nodes:
            for name in node.input:
                self.readers[name].append(node)

    def _only_reader(self, value: str, op: str) -> NodeProto | None:
        """The node that alone reads a value, if it is of this operator."""
        readers = self.readers[value]
        good = len(readers) == 1 and value not in self.fixed and readers[0].op_type == op
        return readers[0] if good else None

    def _constant(self, name: str) -> np.ndarray | None:
        found = self.graph.constants.get(name)
        return None if found is None else numpy_helper.to_array(found)

    def _add_constant(self, name: str, values: np.ndarray) -> str:
        self.graph.constants[name] = numpy_helper.from_array(np.ascontiguousarray(values), name)
        return name

    def _sweep(self) -> None:
        """Removes nodes and constants whose values nothing reads."""
        needed = set(self.fixed)
        kept = []
        for node in reversed(self.graph.nodes):
            if needed.intersection(node.output):
                kept.append(node)
                needed.update(node.input)
        self.graph.nodes[:] = kept[::-1]
        for name in [name for name in self.graph.constants if name not in needed]:
            del self.graph.constants[name]
        self._index()

    def _infer(self) -> dict[str, list[int | str]]:
        """The shapes of the graph's values; weights are not copied."""
        small, large = [], []
        for name, tensor in self.graph.constants.items():
            if int(np.prod(tensor.dims)) <= SMALL:
                small.append(tensor)
            else:
                large.append(helper.make_tensor_value_info(name, tensor.data_type, list(tensor.dims)))
        made = helper.make_graph(self.graph.nodes, "part", [*self.inputs, *large], list(self.outputs), small)
        model = helper.make_model(made, opset_imports=[helper.make_opsetid("", self.graph.opset)])
        try:
            inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
        except Exception:  # shapes that ONNX cannot infer: nothing is simplified by them
            return {}
        found: dict[str, list[int | str]] = {}
        for info in (*inferred.value_info, *self.inputs, *self.outputs):
            dims = info.type.tensor_type.shape.dim
            if info.type.tensor_type.HasField("shape"):
                found[info.name] = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in dims]
        for name, tensor in self.graph.constants.items():
            found[name] = list(tensor.dims)
        return found

    def _replace(self, old: str, new: str) -> None:
        """Lets all readers of a value read another."""
        for node in self.readers[old]:
            node.input[:] = [new if name == old else name for name in node.input]
            self.readers[new].append(node)
        self.readers[old] = []

    # -- rules ---------------------------------------------------------------------------------------------------------

    def _join_norm(self, norm: NodeProto) -> None:
        """BatchNorm and Scale in one node."""
        factor, summand = (self._constant(name) for name in norm.input[1:3])
        if factor is None or summand is None or (factor != 1).any() or (summand != 0).any():
            return
        count = len(factor)
        times = self._only_reader(norm.output[0], "Mul")
        scale = self._channel_values(times, norm.output[0], count) if times is not None else None
        if times is None or scale is None:
            return
        last, shift = times, np.zeros(count, np.float32)
        plus = self._only_reader(times.output[0], "Add")
        values = self._channel_values(plus, times.output[0], count) if plus is not None else None
        if plus is not None and values is not None:
            last, shift = plus, values
        norm.input[1] = self._add_constant(f"{norm.name}/scale", scale)
        norm.input[2] = self._add_constant(f"{norm.name}/bias", shift)
        for node in {id(n): n for n in (times, last)}.values():
            self.graph.nodes.remove(node)
        norm.output[0] = last.output[0]
        self._index()

    def _channel_values(self, node: NodeProto, value: str, count: int) -> np.ndarray | None:
        """The constant of a Mul or Add, if it has a number for each channel."""
        other = [name for name in node.input if name != value]
        values = self._constant(other[0]) if len(other) == 1 else None
        if values is None or values.ndim < 2 or values.shape[1] != count or values.size != count:
            return None
        return values.reshape(-1).astype(np.float32)

    def _one_part(self, node: NodeProto) -> None:
        used = [k for k, name in enumerate(node.output) if self.readers[name] or name in self.fixed]
        sizes = self._constant(node.input[1]) if len(node.input) > 1 else None
        if len(used) != 1 or sizes is None:
            return
        start = int(sizes[: used[0]].sum())
        axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
        ends = [
            self._add_constant(f"{node.name}/{word}", np.array([number], np.int64))
            for word, number in (("start", start), ("end", start + int(sizes[used[0]])), ("axis", axis))
        ]
        made = helper.make_node("Slice", [node.input[0], *ends], [node.output[used[0]]], name=node.name)
        self.graph.nodes[self._place(node)] = made
        self._index()

    def _place(self, node: NodeProto) -> int:
        return next(k for k, other in enumerate(self.graph.nodes) if other is node)

    def _inverse(self, node: NodeProto) -> None:
        """x * (1 / y) as x / y, x + (-y) as x - y."""
        inner, joined = ("Reciprocal", "Div") if node.op_type == "Mul" else ("Neg", "Sub")
        for k in (1, 0):
            maker = self.makers.get(node.input[k])
            if maker is not None and maker.op_type == inner and self._only_reader(node.input[k], node.op_type) is node:
                other = node.input[1 - k]
                node.op_type = joined
                node.input[:] = [other, maker.input[0]]
                return

    def _log_softmax(self, node: NodeProto) -> None:
        maker = self.makers.get(node.input[0])
        if maker is not None and maker.op_type == "Softmax" and self._only_reader(node.input[0], "Log") is node:
            node.op_type = "LogSoftmax"
            node.input[0] = maker.input[0]
            node.attribute.extend(maker.attribute)

    def _same_shape(self, node: NodeProto) -> None:
        """Skips a chain of changes of the shape whose result has the shape of an earlier value."""
        shape, value = self.shapes.get(node.output[0]), node.output[0]
        if node.output[0] in self.fixed or not shape or "" in shape:
            return
        while (maker := self.makers.get(value)) is not None and maker.op_type in SHAPES:
            value = maker.input[0]
            if self.shapes.get(value) == shape:
                self._replace(node.output[0], value)
                return

    def _repeats_itself(self, node: NodeProto) -> None:
        """Skips Tile and Expand in front of an operator whose other value has their result's shape."""
        for k in (0, 1):
            shape, whole = self.shapes.get(node.input[1 - k]), self.shapes.get(node.input[k])
            if not shape or "" in shape or whole != shape:
                continue
            while (maker := self.makers.get(node.input[k])) is not None and maker.op_type in ("Tile", "Expand"):
                if not self._only_ones_grow(maker.input[0], shape):
                    break
                node.input[k] = maker.input[0]

    def _only_ones_grow(self, value: str, shape: list[int | str]) -> bool:
        before = self.shapes.get(value, [])
        return len(before) == len(shape) and all(a in (1, b) for a, b in zip(before, shape))
