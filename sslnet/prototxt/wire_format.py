"""Protobuf's wire format by hand, for the three places where the library is too slow, or parses before it can be stopped.

Ref: protobuf.dev/programming-guides/encoding (varints, wire types, packed repeated fields)
"""

from __future__ import annotations


def varint(number: int) -> bytes:
    """A number >= 0 in bytes of seven bits, the low ones first."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def field_head(number: int, size: int) -> bytes:
    """What stands before ``size`` bytes of a field that has a length: bytes, a message, a packed repeated field."""
    return varint(number << 3 | 2) + varint(size)


def has_few_fields(data: bytes, most: int) -> bool:
    """Whether a message has at most so many fields, not counting those of messages inside. True for what is no message."""
    at = 0
    for _ in range(most):
        key, at = _read_varint(data, at)
        size, wire = 0, key & 7
        if wire == 2:
            size, at = _read_varint(data, at)
        elif wire == 0:
            _, at = _read_varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            return True  # the parser says what is wrong with it
        at += size
        if at >= len(data):
            return True
    return False


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of variable length, and the place behind it; the end of the data ends it too."""
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            break
    return value, at
