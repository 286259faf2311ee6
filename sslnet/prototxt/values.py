"""Parses the value of one field, and words the error if it is wrong."""

from __future__ import annotations

import re
from typing import Any

import google.protobuf.text_encoding as text_encoding
from google.protobuf import text_format
from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

from sslnet.errors import printable, suggestion

_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_ESCAPED = re.compile(
    r"""(?: [^\\]++
          | \\ (?: [abfnrtv\\'"] | [0-3]?[0-7]{1,2} | x[0-9a-fA-F]{1,2} | u[0-9a-fA-F]{4} | U[0-9a-fA-F]{8} )
        )*+""",
    re.VERBOSE,
)
_LARGEST = {FieldDescriptor.CPPTYPE_FLOAT: 3.4028235677973366e38, FieldDescriptor.CPPTYPE_DOUBLE: float("inf")}


class ValueProblem(ValueError):
    """A value that its field cannot take: what is wrong, and a hint."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def parse_value(field: FieldDescriptor, token: str) -> Any:
    """The value that a token gives to a field that is no message; an enum's is its number.

    raises ValueProblem
    """
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_STRING:
        return _text(field, token)
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return _enum(field, token)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        try:
            return text_format.ParseBool(token)
        except ValueError:
            raise _wrong(field, token, suggestion(token, ("true", "false"))) from None
    if kind in _INTEGERS:
        return _integer(field, token)
    return _float(field, token)


def enum_of(field: FieldDescriptor) -> EnumDescriptor:
    """The enum of a field that has one."""
    result: EnumDescriptor | None = field.enum_type
    assert result is not None
    return result


def enum_names(field: FieldDescriptor) -> list[str]:
    """The names that a field with an enum takes."""
    return [value.name for value in enum_of(field).values]


def must_be(field: FieldDescriptor) -> str:
    """The kind of value that the field takes, in words: "a whole number"."""
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_MESSAGE:
        return "a block { ... }"
    if kind == FieldDescriptor.CPPTYPE_STRING:
        return "text in quotes"
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        names = enum_names(field)
        return "one of " + ", ".join(names) if len(names) <= 12 else f"a {enum_of(field).name}"
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return "true or false"
    if kind in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        return "a number"
    return "a whole number, 0 or above" if _INTEGERS[kind][0] == 0 else "a whole number"


def quoted(token: str) -> bool:
    """Whether the token is text in quotes, both of them."""
    return len(token) > 1 and token[0] in "\"'" and token[-1] == token[0]


def shorten(token: str, width: int = 40) -> str:
    """The token as it can be shown: cut when it is long, without control characters."""
    token = token if len(token) <= width else token[: width - 3] + "..."
    return printable(token)


def is_repeated(field: FieldDescriptor) -> bool:
    """Whether the field is a list; protobuf 4 and 5 have no name for it that 7 has too."""
    known: bool | None = getattr(field, "is_repeated", None)
    return bool(getattr(field, "label", None) == field.LABEL_REPEATED) if known is None else known


def _integer(field: FieldDescriptor, token: str) -> int:
    low, high = _INTEGERS[field.cpp_type]
    try:
        value: int = text_format.ParseInteger(token, is_signed=low < 0, is_long=True)
    except ValueError:
        if not token.removeprefix("-").isdigit():
            raise _wrong(field, token) from None
        value = low - 1 if token.startswith("-") else high + 1  # beyond 64 bits
    if value > high:
        raise ValueProblem(f"{field.name} must be at most {high}, not {shorten(token)}")
    if value < low:
        raise ValueProblem(f"{field.name} must be at least {low}, not {shorten(token)}")
    return value


def _float(field: FieldDescriptor, token: str) -> float:
    try:
        value: float = text_format.ParseFloat(token)
    except ValueError:
        raise _wrong(field, token) from None
    if abs(value) >= _LARGEST[field.cpp_type] and "inf" not in token.lower():
        raise ValueProblem(f"{field.name} must be at most 3.4e38 in magnitude, not {shorten(token)}")
    return value


def _text(field: FieldDescriptor, token: str) -> str | bytes:
    if not quoted(token):
        hint = f'write "{token}"' if token.replace("_", "a").isalnum() else ""
        raise _wrong(field, token, hint)
    if "\\" not in token and field.type == FieldDescriptor.TYPE_STRING:
        return token[1:-1]
    try:
        if not _ESCAPED.fullmatch(token):  # text_format lets some of these pass, Caffe does not
            raise ValueError
        value: bytes = text_encoding.CUnescape(token[1:-1])
        return value if field.type == FieldDescriptor.TYPE_BYTES else value.decode("utf-8")
    except ValueError:
        message = f"{field.name} has an escape that is not a character: {shorten(token)}"
        raise ValueProblem(message, r"write \\ for a backslash") from None


def _enum(field: FieldDescriptor, token: str) -> int:
    try:
        return int(text_format.ParseEnum(field, token))
    except ValueError:
        names = enum_names(field)
        if quoted(token) and token[1:-1] in names:
            raise _wrong(field, token, f"write {token[1:-1]}, without quotes") from None
        raise _wrong(field, token, suggestion(token.strip("\"'"), names)) from None


def _wrong(field: FieldDescriptor, token: str, hint: str = "") -> ValueProblem:
    return ValueProblem(f"{field.name} must be {must_be(field)}, not {shorten(token)}", hint)
