"""OnnxNode: one node of an ONNX model, whose inputs, outputs and attributes are checked when they are read.

A file may contain anything: readers access a node by the methods of ``OnnxNode``, which return a value of the right type,
number and range or raise an error that names the node.
"""

from __future__ import annotations

import math
from typing import Any

from onnx import AttributeProto, GraphProto, NodeProto

from sslnet.errors import DefinitionError, printable

MOST_INTEGER = 2**31 - 1
"""Largest integer of a field of a prototxt."""
MOST_INT64 = 2**63 - 1
"""Largest integer of an attribute of a node; as the end of a Slice it means the end of the axis."""


class OnnxNode:
    """One node: its operator, and the names of its inputs and outputs; trailing omitted ones are not counted."""

    def __init__(self, proto: NodeProto, number: int) -> None:
        self.proto = proto
        self.op: str = proto.op_type if proto.domain in ("", "ai.onnx") else f"{proto.domain}.{proto.op_type}"
        self.inputs: list[str] = list(proto.input)
        while self.inputs and not self.inputs[-1]:
            self.inputs.pop()
        self.outputs: list[str] = [name for name in proto.output if name]
        self.name: str = proto.name or f"{self.op}_{number}"
        self._attributes = {attribute.name: attribute for attribute in proto.attribute}

    def error(self, what: str, hint: str = "") -> DefinitionError:
        return DefinitionError(printable(f"{self.op}: {what}"[:500]), layer=self.name[:200], hint=hint)

    # -- inputs and outputs --------------------------------------------------------------------------------------------

    def input(self, index: int) -> str:
        """The name of an input. raises DefinitionError for an omitted input"""
        if not self.has_input(index):
            raise self.error(f"input {index} is missing")
        return self.inputs[index]

    def has_input(self, index: int) -> bool:
        return index < len(self.inputs) and bool(self.inputs[index])

    @property
    def result(self) -> str:
        """The name of the first output."""
        if not self.proto.output or not self.proto.output[0]:
            raise self.error("its first output is missing")
        return str(self.proto.output[0])

    # -- attributes ----------------------------------------------------------------------------------------------------

    @property
    def has_graphs(self) -> bool:
        """Whether the node contains other graphs, as an If or a Loop does."""
        return any(a.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for a in self._attributes.values())

    def has(self, name: str) -> bool:
        return name in self._attributes

    def integer(
        self, name: str, default: int | None = None, *, least: int = -MOST_INTEGER, most: int = MOST_INTEGER
    ) -> int:
        """An integer attribute from ``least`` to ``most``. Without a default it is required; the same holds for the
        other attributes."""
        attribute = self._attribute(name, AttributeProto.INT, default)
        value = int(attribute.i) if attribute is not None else int(default or 0)
        if not least <= value <= most:
            raise self.error(f"{name} is {value}; it must be from {least} to {most}")
        return value

    def integers(
        self,
        name: str,
        default: list[int] | None = None,
        *,
        count: int | None = None,
        least: int = -MOST_INTEGER,
        most: int = MOST_INTEGER,
    ) -> list[int]:
        """An attribute of integers from ``least`` to ``most``, ``count`` of them."""
        attribute = self._attribute(name, AttributeProto.INTS, default)
        values = [int(value) for value in attribute.ints] if attribute is not None else list(default or ())
        return self.checked(name, values, count=count, least=least, most=most)

    def checked(
        self,
        name: str,
        values: list[int],
        *,
        count: int | None = None,
        least: int = -MOST_INTEGER,
        most: int = MOST_INTEGER,
    ) -> list[int]:
        """Checks that there are ``count`` values, each from ``least`` to ``most``."""
        if count is not None and len(values) != count:
            raise self.error(f"{name} has {len(values)} values, not {count}")
        if any(not least <= value <= most for value in values):
            raise self.error(f"{name} is {values[:8]}; the values must be from {least} to {most}")
        return values

    def number(self, name: str, default: float | None = None, *, infinite: bool = False) -> float:
        """An attribute with a finite number. infinite: or an infinite one"""
        attribute = self._attribute(name, AttributeProto.FLOAT, default)
        value = float(attribute.f) if attribute is not None else float(default or 0.0)
        if not (math.isfinite(value) or (infinite and math.isinf(value))):
            raise self.error(f"{name} is {value}")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        return bool(self.integer(name, int(default)))

    def text(self, name: str, default: str) -> str:
        attribute = self._attribute(name, AttributeProto.STRING, default)
        return attribute.s.decode("utf-8", "replace") if attribute is not None else default

    def graph(self, name: str) -> GraphProto:
        found: GraphProto = self._attribute(name, AttributeProto.GRAPH, None).g
        return found

    def axis(self, default: int, axes: int, *, end: bool = False) -> int:
        """The attribute ``axis``, counted from the first axis. end: whether it may be the place after the last axis"""
        return self.place(self.integer("axis", default), axes, end=end)

    def place(self, axis: int, axes: int, *, end: bool = False) -> int:
        """An axis counted from the first one. raises DefinitionError if there is no such axis"""
        if not -axes <= axis < axes + end:
            raise self.error(f"axis {axis} of values with {axes} axes")
        return axis + axes if axis < 0 else axis

    def _attribute(self, name: str, kind: int, default: Any) -> Any:
        attribute = self._attributes.get(name)
        if attribute is None:
            if default is None:
                raise self.error(f"{name} is missing")
            return None
        if attribute.type != kind:
            raise self.error(f"{name} is of another type than {AttributeProto.AttributeType.Name(kind)}")
        return attribute
