"""Writes a message as a formatted prototxt."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from typing import Any

from google.protobuf import text_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from sslnet.files import atomic_write
from sslnet.prototxt.values import is_repeated

WIDTH = 100
_INDENT = "  "
_FLOATS = (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE)
_ALWAYS_OPEN = ("layer", "layers")  # one field a line, however short


def write(message: Message) -> str:
    """The text of a message: fields in the order of the schema, a short block on one line.

    parse(write(message)) is the message again, to the last bit.
    """
    return "".join(line + "\n" for line in _block(message, ""))


def save(message: Message, path: str | os.PathLike[str]) -> None:
    """Write the text of a message to a file, completely or not at all."""
    atomic_write(path, write(message).encode("utf-8"))


def _block(message: Message, indent: str) -> Iterator[str]:
    for field, value in _fields(message):
        if field.message_type is None:
            yield f"{indent}{field.name}: {_scalar(field, value)}"
            continue
        line = f"{indent}{field.name} {_on_one_line(value)}"
        if len(line) < WIDTH and field.name not in _ALWAYS_OPEN:
            yield line
        else:
            yield f"{indent}{field.name} {{"
            yield from _block(value, indent + _INDENT)
            yield f"{indent}}}"


def _on_one_line(message: Message) -> str:
    """`{ lr_mult: 1 decay_mult: 1 }`, or what of it is enough to see that it is too long."""
    words, length = ["{"], 0
    for field, value in _fields(message):
        word = f" {_on_one_line(value)}" if field.message_type is not None else f": {_scalar(field, value)}"
        words.append(field.name + word)
        length += len(words[-1])
        if length > WIDTH:
            break
    return " ".join([*words, "}"])


def _fields(message: Message) -> Iterator[tuple[FieldDescriptor, Any]]:
    """The fields that are set, in the order of the schema; each value of a repeated one by itself."""
    for field, value in sorted(message.ListFields(), key=lambda item: item[0].index):
        if is_repeated(field):
            for item in value:
                yield field, item
        else:
            yield field, value


def _scalar(field: FieldDescriptor, value: Any) -> str:
    out = io.StringIO()
    text_format.PrintFieldValue(field, value, out, as_utf8=True)
    text = out.getvalue()
    return text.removesuffix(".0") if field.cpp_type in _FLOATS else text
