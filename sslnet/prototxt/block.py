"""Blocks during the conversion of old forms: a message with the place of each field in its file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sslnet.prototxt.scan import TextNode
from sslnet.prototxt.values import is_repeated


class Block:
    """A block that is read or written: its message, and the places of its fields."""

    def __init__(self, message: Any, node: TextNode | None = None) -> None:
        self.message = message
        self.node = node or block_at(None)

    def nodes(self, name: str) -> list[TextNode]:
        return (self.node.children or {}).get(name, [])

    def items(self, name: str) -> list[Block]:
        """The blocks of a repeated field."""
        messages, nodes = getattr(self.message, name), self.nodes(name)
        return [Block(message, nodes[i] if i < len(nodes) else None) for i, message in enumerate(messages)]

    def block(self, name: str) -> Block:
        """The block of a field that is not repeated; when it is not written, it comes to stand where this one does."""
        assert self.node.children is not None
        nodes = self.node.children.setdefault(name, [])
        if not nodes:
            nodes.append(block_at(self.node))
        getattr(self.message, name).SetInParent()
        return Block(getattr(self.message, name), nodes[0])

    def own_block(self, name: str) -> Block:
        """The block, with a list of places that no other definition has."""
        assert self.node.children is not None
        self.node.children[name] = [copy_node(node) for node in self.nodes(name)]
        return self.block(name)

    def add(self, name: str, place: TextNode) -> Block:
        """One more block of a repeated field, at the place of another one."""
        assert self.node.children is not None
        node = block_at(place)
        self.node.children.setdefault(name, []).append(node)
        return Block(getattr(self.message, name).add(), node)

    def put(self, name: str, values: Sequence[Any], nodes: Sequence[TextNode]) -> None:
        """Set a field, or add to a repeated one."""
        assert self.node.children is not None
        field = self.message.DESCRIPTOR.fields_by_name[name]
        values = [as_text(value) if field.type == field.TYPE_STRING else value for value in values]
        if is_repeated(field):
            getattr(self.message, name).extend(values)
            self.node.children.setdefault(name, []).extend(nodes)
        else:
            if field.message_type is not None:
                getattr(self.message, name).CopyFrom(values[-1])
            else:
                setattr(self.message, name, values[-1])
            self.node.children[name] = list(nodes)

    def take(self, name: str) -> list[TextNode]:
        """Clear a field; the places where it stood."""
        self.message.ClearField(name)
        return (self.node.children or {}).pop(name, [])

    def copy_to(self, target: Block, name: str, new_name: str = "") -> None:
        """A field of this block in another one, under its name or a new one."""
        value = getattr(self.message, name)
        values = value if is_repeated(self.message.DESCRIPTOR.fields_by_name[name]) else [value]
        target.put(new_name or name, values, self.nodes(name))

    def replace(self, name: str, index: int, message: Any, node: TextNode | None) -> None:
        """Another block in the place of one, its field repeated or not."""
        value = getattr(self.message, name)
        repeated = is_repeated(self.message.DESCRIPTOR.fields_by_name[name])
        (value[index] if repeated else value).CopyFrom(message)
        if node is not None and index < len(self.nodes(name)):
            nodes = list(self.nodes(name))
            nodes[index] = node
            assert self.node.children is not None
            self.node.children[name] = nodes

    def names(self) -> list[str]:
        """The fields that are set."""
        return [field.name for field, _ in self.message.ListFields()]


def block_at(place: TextNode | None) -> TextNode:
    """A block without fields yet, at the place of another field, or nowhere."""
    node = TextNode(place.start, place.end) if place is not None else TextNode(0, 0)
    if place is not None:
        node.value_start, node.value_end = place.value_start, place.value_end
    node.children = {}
    return node


def copy_node(node: TextNode | None) -> TextNode:
    """A block whose list of fields can be changed without changing this one's."""
    copy = block_at(node)
    if node is not None:
        copy.children = {name: list(nodes) for name, nodes in (node.children or {}).items()}
    return copy


def as_text(value: str | bytes) -> str:
    """A text; in a message that was not parsed from a text, what is no UTF-8 comes as bytes."""
    return value if isinstance(value, str) else value.decode("utf-8", "replace")
