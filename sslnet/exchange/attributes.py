"""Reads and writes the fields of layers' definitions that hold attributes of ONNX operators
(``OnnxOperator.fields``)."""

from __future__ import annotations

from typing import Any

import onnx.defs
from onnx import helper

from sslnet.exchange.node import OnnxNode


def read_field(definition: Any, path: str) -> Any:
    """The value of a field of a layer's definition; for an enum its word in small letters, as in attributes.

    path   names of fields separated by dots: "elu_param.alpha"
    """
    message, name = _owner(definition, path)
    value, kind = getattr(message, name), message.DESCRIPTOR.fields_by_name[name].enum_type
    return value if kind is None else kind.values_by_number[value].name.lower()


def write_field(node: OnnxNode, attribute: str, definition: Any, path: str) -> None:
    """Sets a field of a layer's definition to the value of a node's attribute, or to the operator's default.

    raises DefinitionError for a word that the field does not have
    """
    message, name = _owner(definition, path)
    default = helper.get_attribute_value(onnx.defs.get_schema(node.op).attributes[attribute].default_value)
    kind = message.DESCRIPTOR.fields_by_name[name].enum_type
    if kind is None:
        setattr(message, name, node.number(attribute, default))
        return
    word = node.text(attribute, default.decode())
    if word.upper() not in kind.values_by_name:
        raise node.error(f'{attribute} is "{word}"', hint=f"it may be {', '.join(kind.values_by_name).lower()}")
    setattr(message, name, kind.values_by_name[word.upper()].number)


def _owner(definition: Any, path: str) -> tuple[Any, str]:
    """The message at the end of a path of names, and the last name."""
    *parents, name = path.split(".")
    for parent in parents:
        definition = getattr(definition, parent)
    return definition, name
