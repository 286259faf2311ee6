"""Fields set on the command line: --set base_lr=0.01."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from sslnet.errors import UsageError, suggestion
from sslnet.prototxt.definition import Definition, Path
from sslnet.prototxt.scan import TextNode
from sslnet.prototxt.upgrade import upgrade
from sslnet.prototxt.values import ValueProblem, is_repeated, must_be, parse_value, quoted

_ITEM = re.compile(r"""(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^,])+""")  # up to a comma that is not in quotes


def apply_overrides(definition: Definition, overrides: Sequence[str], option: str = "--set") -> Definition:
    """The definition with each FIELD=VALUE in place; the one given stays as it is.

    FIELD   base_lr, or a path with dots: train_state.level, test_state.0.stage
    VALUE   as in a prototxt, text with or without quotes; for a repeated field all its values: stepvalue=100,200.
            Nothing at all takes the field away.

    raises UsageError, which names the option
    """
    message = copy.deepcopy(definition.message)
    changed = definition.with_message(message)
    changed.root = copy.deepcopy(definition.root)
    for override in overrides:
        words = f"{option} {override}"
        name, equals, value = override.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"{words}: write {option} FIELD=VALUE", hint=f"as {option} base_lr=0.01")
        try:
            path = _set(message, name.strip().split("."), value.strip())
        except ValueProblem as problem:
            raise UsageError(f"{words}: {problem.message}", hint=problem.hint) from None
        changed.overrides[path] = words
        if changed.root is not None:
            _forget(changed.root, path)
    return upgrade(changed)


def _set(message: Message, names: list[str], value: str) -> Path:
    """Set one field and give its path."""
    path: list[str | int] = []
    while True:
        field = _field(message, names.pop(0))
        path.append(field.name)
        if field.message_type is None:
            break
        if not names:
            raise ValueProblem(f"{field.name} is {must_be(field)}: set a field in it", f"as {field.name}.FIELD=VALUE")
        inner = getattr(message, field.name)
        if is_repeated(field):
            path.append(_index(field, inner, names))
            inner = inner[path[-1]]
            if not names:
                raise ValueProblem(f"{field.name} is a list of blocks: set a field in one of them")
        message = inner
    if names:
        raise ValueProblem(f"{field.name} is {must_be(field)}: there is no {names[0]} in it")
    if not value:
        message.ClearField(field.name)
    elif is_repeated(field):
        values = [_value(field, item.strip()) for item in _ITEM.findall(value)]
        message.ClearField(field.name)
        getattr(message, field.name).extend(values)
    else:
        setattr(message, field.name, _value(field, value))
    return tuple(path)


def _field(message: Message, name: str) -> FieldDescriptor:
    fields: Mapping[str, FieldDescriptor] = message.DESCRIPTOR.fields_by_name
    if name not in fields:
        raise ValueProblem(f'{message.DESCRIPTOR.name} has no field "{name}"', suggestion(name, fields))
    return fields[name]


def _index(field: FieldDescriptor, items: Any, names: list[str]) -> int:
    word = names.pop(0)
    if not (word.isascii() and word.isdigit()):
        raise ValueProblem(f"{field.name} is a list: say which one, counted from 0", f"as {field.name}.0.{word}")
    if int(word[:9]) >= len(items):
        raise ValueProblem(f"there is no {field.name} {word}: there are {len(items)}, counted from 0")
    return int(word)


def _value(field: FieldDescriptor, word: str) -> Any:
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING and not quoted(word):
        return word.encode() if field.type == FieldDescriptor.TYPE_BYTES else word
    return parse_value(field, word)


def _forget(root: TextNode, path: Path) -> None:
    """Take the field out of the tree of positions: what stands in the file is no longer its value."""
    node = root
    for at, name in enumerate(path):
        if isinstance(name, int):
            continue
        following = path[at + 1] if at + 1 < len(path) else None
        nodes = (node.children or {}).get(name, [])
        if following is None:
            (node.children or {}).pop(name, None)
        index = following if isinstance(following, int) else 0
        if index >= len(nodes):
            return
        node = nodes[index]
