"""Converts reports to JSON: dataclasses, NumPy numbers and arrays, paths; NaN and infinity become null."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np


def to_plain(value: Any) -> Any:
    """The value in the types JSON has. Dataclasses become objects of their fields, sets sorted lists.

    raises TypeError for what has no form in JSON
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, np.bool_ | np.integer):
        return value.item()
    if isinstance(value, np.ndarray):
        return to_plain(value.tolist())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return [to_plain(item) for item in sorted(value)]
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def dump_json(value: Any, indent: int | None = 2) -> str:
    """The text of ``to_plain(value)`` in ASCII, so that it is the same on every terminal; one line with indent None."""
    return json.dumps(to_plain(value), indent=indent, allow_nan=False)
