"""Nodes of an ONNX model that no layer computes, and layers of an imported net that nothing reads.

A node without a counterpart gets a layer of the type UNREAD in its place. It may be part of a pattern that one layer computes
(``fusions.py``), or its value may be unused: its layer is then removed with all others that nothing reads. The errors of those
that remain are the import's errors.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sslnet.errors import SslnetError
from sslnet.exchange.builder import DefinitionBuilder
from sslnet.exchange.node import OnnxNode

UNREAD = "(unread)"
"""The type of a layer in the place of a node without a counterpart; no such layer leaves the import."""


class Unread:
    """The nodes without a counterpart.

    errors   an error for each of them, except for those whose error follows from another one
    """

    def __init__(self, builder: DefinitionBuilder) -> None:
        self.errors: list[SslnetError] = []
        self._builder = builder
        self._own: dict[str, SslnetError] = {}
        self._values: set[str] = set()

    def add(self, node: OnnxNode, error: SslnetError, *, known: bool) -> None:
        """Records a node and its error. known: whether there is a reader for its operator, so that its error follows from
        those of the values that it reads, if they have one"""
        builder = self._builder
        bottoms = [builder.blob_of(name) for name in node.inputs if name and builder.has_blob(name)]
        layer = builder.message.layer.add(name=f"{UNREAD}{len(self._values)}", type=UNREAD, bottom=bottoms)
        layer.top.extend(node.outputs)
        if not known or not self._values.intersection(node.inputs):  # each fault is told once
            self.errors.append(error)
            self._own[layer.name] = error
        self._values.update(node.outputs or [layer.name])
        for value in node.outputs:
            builder.become(value, value)

    def needed(self) -> list[SslnetError]:
        """The errors of the nodes whose layers remain: their values are read."""
        names = [layer.name for layer in self._builder.message.layer if layer.type == UNREAD]
        return [self._own[name] for name in names if name in self._own]


def remove_unread(message: Any, outputs: Collection[str]) -> None:
    """Removes layers none of whose tops is read, directly or through others, by an output; adds Silence layers for unread
    tops of the others.

    message  pb.NetParameter; layers that remain keep their order
    outputs  names of the blobs that are the net's outputs
    """
    needed = set(outputs)
    kept = []
    for layer in reversed(message.layer):
        if layer.type == "Input" or needed.intersection(layer.top):
            kept.append(layer)
            needed.update(layer.bottom)
    result = []
    for layer in reversed(kept):
        result.append(type(layer).FromString(layer.SerializeToString()))
        unread = [top for top in layer.top if top not in needed]
        if unread and layer.type not in ("Input", UNREAD):
            result.append(type(layer)(name=f"{layer.name}_rest", type="Silence", bottom=unread))
    del message.layer[:]
    message.layer.extend(result)
