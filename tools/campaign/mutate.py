"""Damages inputs: bytes, text and messages. The same generator gives the same damage."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Any

STEPS = (1, 1, 1, 2, 3, 5, 10, 40)
"""Possible numbers of changes of one input."""
NUMBERS = [
    "0",
    "-1",
    "1",
    "2",
    "3",
    "4",
    "5",
    "7",
    "8",
    "13",
    "16",
    "255",
    "1024",
    "65536",
    "100000",
    "2147483647",
    "-2147483648",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "1e9",
    "1e20",
    "1e38",
    "-1e38",
    "nan",
    "inf",
    "-inf",
    "0.5",
    "-0.5",
    "1e-45",
    "1e-8",
    "0.999",
    "1.5",
]
SMALL_NUMBERS = ["0", "-1", "1", "2", "3", "4", "5", "6", "7", "8", "9", "11", "13", "16"]
NAMES = [
    "MAX",
    "AVE",
    "STOCHASTIC",
    "SUM",
    "PROD",
    "TRAIN",
    "TEST",
    "true",
    "false",
    "0",
    "FULL",
    "NONE",
    "VALID",
    "BATCH_SIZE",
    "L1",
    "L2",
    "CAFFE",
    "AUTO",
    "LOWERED_CSRMM",
    "DIRECT_SCONV",
    "WITHIN_CHANNEL",
    "HDF5",
    "BINARYPROTO",
    "LMDB",
]
TAILS = (
    " pad: 3", " stride: 5", " kernel_size: 9", " dilation: 4", " group: 3", " axis: -3", " num_output: 0",
    " loss_weight: -1", " propagate_down: false", ' param { lr_mult: 0 share_mode: PERMISSIVE name: "w" }', " }", " {",
)  # fmt: skip
STRINGS = ('""', '"\\000"', '"../x"', '"\\033[31mred"', '"\\377"')
INTEGERS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 13, -1, -2)
LARGE_INTEGERS = (16, 255, 1024, 65536, 10**6, 2**31 - 1, -(2**31), 2**32 - 1, 2**40, 2**62, 2**63 - 1)
FLOATS = (0, 1, -1, 0.5, -0.5, 2, 1e-8, 1e38, -1e38, float("nan"), float("inf"), 1e-45, 100)


def mutate_bytes(data: bytes, rng: random.Random, others: Sequence[bytes] = ()) -> bytes:
    """Flips bits, removes or duplicates pieces, overwrites them with zeros, extreme numbers or parts of `others`."""
    damaged = bytearray(data)
    for _ in range(rng.choice(STEPS)):
        if not damaged:
            damaged = bytearray(rng.randbytes(10))
        size = len(damaged)
        # headers are at the start: two of five changes are made near it
        at = rng.randrange(size) if rng.random() < 0.6 else min(size - 1, int(rng.expovariate(1 / 64)))
        match rng.randrange(11):
            case 0:
                damaged[at] ^= 1 << rng.randrange(8)
            case 1:
                damaged[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
            case 2:
                width = rng.choice([2, 4, 8])
                value = rng.choice([0, -1, 1, 2**31 - 1, -(2**31), 2**15, 2**20, 2**33, -2]) & (2 ** (8 * width) - 1)
                damaged[at : at + width] = value.to_bytes(width, rng.choice(["little", "big"]))
            case 3:
                del damaged[at : at + rng.choice([1, 2, 4, 16, 256, 4096])]
            case 4:
                damaged[at:at] = rng.randbytes(rng.choice([1, 2, 4, 16]))
            case 5:
                damaged[at:at] = damaged[at : at + rng.choice([1, 4, 16, 256])]
            case 6:
                del damaged[at:]
            case 7 if others:
                other = rng.choice(others)
                start, length = rng.randrange(max(1, len(other))), rng.choice([4, 16, 64, 512])
                damaged[at : at + length] = other[start : start + length]
            case 8:
                length = min(rng.choice([4, 64, 1024]), size - at)
                damaged[at : at + length] = bytes(length)
            case 9:
                to, length = rng.randrange(size), rng.choice([1, 2, 4, 8])
                one, two = bytes(damaged[at : at + length]), bytes(damaged[to : to + length])
                damaged[at : at + length], damaged[to : to + length] = two, one
            case _:
                damaged[at] = (damaged[at] + rng.choice([-1, 1])) & 255
    return bytes(damaged)


def mutate_text(text: str, rng: random.Random, others: Sequence[str], types: Sequence[str]) -> str:
    """Changes numbers, names, strings and layer types of a prototxt; duplicates, moves or removes lines, or inserts
    lines of `others`."""
    lines = text.split("\n")
    for _ in range(rng.choice([1, 1, 2, 2, 3, 5, 8])):
        at = rng.randrange(len(lines))
        line = lines[at]
        match rng.randrange(13):
            case 0 | 1 | 2 | 3 | 4:
                _replace_number(lines, rng)
            case 5:
                del lines[at]
                lines = lines or [""]
            case 6:
                lines.insert(at, line)
            case 7:
                strings = re.findall(r'"[^"]*"', text)
                lines[at] = _replaced(line, r'"[^"]*"', rng, [*strings, *STRINGS])
            case 8:
                lines[at] = _replaced(line, r'type: "[A-Za-z0-9]*"', rng, [f'type: "{rng.choice(types)}"'])
            case 9:
                other = rng.choice(others).split("\n")
                start = rng.randrange(len(other))
                lines[at:at] = other[start : start + rng.choice([1, 2, 5])]
            case 10:
                lines[at] = _replaced(line, r"\b[A-Z][A-Z_]{2,}\b|true|false", rng, NAMES)
            case 11:
                to = rng.randrange(len(lines))
                lines[at], lines[to] = lines[to], lines[at]
            case _:
                lines[at] += rng.choice(TAILS)
    return "\n".join(lines)


def _replace_number(lines: list[str], rng: random.Random) -> None:
    pattern = r"(?<=[: ])-?\d+(\.\d+)?(e-?\d+)?\b"
    places = [number for number, line in enumerate(lines) if re.search(pattern, line)]
    if places:
        at = rng.choice(places)
        lines[at] = _replaced(lines[at], pattern, rng, SMALL_NUMBERS if rng.random() < 0.7 else NUMBERS)


def _replaced(line: str, pattern: str, rng: random.Random, choices: Sequence[str]) -> str:
    """Replaces one match of the pattern, if there is any, by one of the choices."""
    matches = list(re.finditer(pattern, line))
    if not matches:
        return line
    match = rng.choice(matches)
    return line[: match.start()] + rng.choice(choices) + line[match.end() :]


def mutate_message(message: Any, rng: random.Random, types: Sequence[str], words: Sequence[str] = ()) -> None:
    """Sets, clears, adds and removes fields anywhere in a protobuf message, by its descriptor.

    types   values for fields called "type" or "op_type"
    words   further values for strings, besides those in the message
    """
    for _ in range(rng.choice([1, 1, 2, 3, 5])):
        inner = _messages(message)
        place = rng.choice(inner if rng.random() < 0.5 or len(inner) == 1 else inner[1:])
        there = [field for field, _ in place.ListFields()]
        field = rng.choice(there if there and rng.random() < 0.55 else list(place.DESCRIPTOR.fields))
        try:
            if field.message_type is not None:
                _mutate_inner(place, field, rng)
            else:
                _mutate_value(
                    place, field, rng, lambda field=field, inner=inner: _value(field, inner, rng, types, words)
                )
        except (ValueError, TypeError, OverflowError):
            pass  # the value does not suit the field


def _messages(message: Any) -> list[Any]:
    """The message and all messages in it."""
    found = [message]
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if field.is_repeated else [value]:
                found += _messages(inner)
    return found


def _mutate_inner(place: Any, field: Any, rng: random.Random) -> None:
    if not field.is_repeated:
        if rng.random() < 0.2:
            place.ClearField(field.name)
        else:
            getattr(place, field.name).SetInParent()
        return
    items = getattr(place, field.name)
    if rng.random() < 0.3 and items:
        del items[rng.randrange(len(items))]
    elif items and rng.random() < 0.5:
        items.add().CopyFrom(items[rng.randrange(len(items))])
    elif len(items) < 6:
        items.add()


def _mutate_value(place: Any, field: Any, rng: random.Random, value: Any) -> None:
    if not field.is_repeated:
        if rng.random() < 0.15:
            place.ClearField(field.name)
        else:
            setattr(place, field.name, value())
        return
    items, kind = getattr(place, field.name), rng.random()
    if kind < 0.25 and items:
        del items[rng.randrange(len(items))]
    elif kind < 0.6 and items:
        items[rng.randrange(len(items))] = value()
    else:
        items.append(value())


def _value(field: Any, inner: Sequence[Any], rng: random.Random, types: Sequence[str], words: Sequence[str]) -> Any:
    """A random value for a field that is not a message."""
    match field.cpp_type:
        case field.CPPTYPE_STRING if field.type == field.TYPE_BYTES:
            return rng.randbytes(rng.choice([0, 1, 4, 8, 64]))
        case field.CPPTYPE_STRING:
            if field.name in ("type", "op_type") and rng.random() < 0.6:
                return rng.choice(types)
            return rng.choice([*_strings(inner), *words, "", "x/y", "\x1b[31mred"])
        case field.CPPTYPE_BOOL:
            return rng.random() < 0.5
        case field.CPPTYPE_ENUM:
            return rng.choice(field.enum_type.values).number
        case field.CPPTYPE_FLOAT | field.CPPTYPE_DOUBLE:
            return float(rng.choice(FLOATS))
    number = int(rng.choice(INTEGERS if rng.random() < 0.8 else LARGE_INTEGERS))
    match field.cpp_type:
        case field.CPPTYPE_INT32:
            return max(-(2**31), min(2**31 - 1, number))
        case field.CPPTYPE_UINT32:
            return number & (2**32 - 1)
        case field.CPPTYPE_UINT64:
            return number & (2**64 - 1)
    return number


def _strings(messages: Sequence[Any]) -> list[str]:
    """All short strings in the messages: names of layers, blobs, operators."""
    found: dict[str, None] = {}
    for message in messages:
        for field, value in message.ListFields():
            if field.type == field.TYPE_STRING:
                found |= dict.fromkeys(value if field.is_repeated else [value])
    return [text for text in found if len(text) < 60]
