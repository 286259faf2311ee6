"""JSON from untrusted files: read with size limits, with values checked by their type.

    read_json(path)       the value of a whole file
    parse_json(text)      of a text, as a line of metrics.jsonl
    fields(value)         the object as a dict; an empty one for anything else
    items(value)          the list; an empty one for anything else
    number(value)         the finite number as a float; None for anything else
    whole(value)          the whole number, 0 or above; None for anything else

A value that is missing, null or of another type is therefore treated as not known.
"""

from __future__ import annotations

import json
import math
import os
from typing import Any

from sslnet.errors import SslnetError, UsageError
from sslnet.files import MOST_TEXT, read_text

LARGEST = 1e38
"""Of the numbers: about that of single precision, in which all is computed."""
MOST = 2**63 - 1
"""Of the whole numbers."""


def read_json(path: str | os.PathLike[str], *, error: type[SslnetError] = UsageError, hint: str = "") -> Any:
    """The value in a file of UTF-8 text. raises `error` for a file that cannot be read, or is not JSON"""
    text = read_text(path, limit=MOST_TEXT, errors="replace", error=error)
    try:
        return parse_json(text)
    except ValueError as problem:
        raise error(f"cannot be read as JSON: {problem}", path=os.fspath(path), hint=hint) from None


def parse_json(text: str) -> Any:
    """The value of a text. raises ValueError for what is not JSON, also for what is nested too deep"""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def fields(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) <= LARGEST and math.isfinite(value) else None


def whole(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= MOST else None
