"""Checks that the numbers of a solver or a net are finite, except the few fields that allow infinity.

The fields come from the schema, so a new field is checked automatically.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator

from google.protobuf.message import Message

from sslnet.errors import DefinitionError, ErrorList, SslnetError
from sslnet.prototxt.definition import Definition, Path
from sslnet.prototxt.values import is_repeated

INFINITE = {
    "sslnet.ClipParameter.min": "no lower bound",
    "sslnet.ClipParameter.max": "no upper bound",
}
"""The fields that may be infinite (never NaN), and what that means."""
WEIGHTS = ("sslnet.BlobProto",)
"""Blocks of learned values, which are no settings: a diverged run may have left anything there."""


def check_finite(definition: Definition, apart: Collection[str] = ()) -> None:
    """Checks every number that is set, in all blocks and lists.

    apart   fields of the definition not to look into: nets in a solver, which are checked as nets
    raises  DefinitionError for a NaN or an infinity, ErrorList for several
    """
    errors: list[SslnetError] = [
        _error(definition, path, value) for path, value in _not_finite(definition.message, ()) if path[0] not in apart
    ]
    if errors:
        raise errors[0] if len(errors) == 1 else ErrorList(errors)


def _not_finite(message: Message, path: Path) -> Iterator[tuple[Path, float]]:
    """The numbers that are not allowed, each with its path."""
    if message.DESCRIPTOR.full_name in WEIGHTS:
        return
    for field, value in message.ListFields():
        numeric = field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE)
        if not numeric and field.message_type is None:
            continue
        repeated = is_repeated(field)
        for index, item in enumerate(value if repeated else (value,)):
            place = (*path, field.name, index) if repeated else (*path, field.name)
            if not numeric:
                yield from _not_finite(item, place)
            elif math.isnan(item) or (math.isinf(item) and field.full_name not in INFINITE):
                yield place, item


def _error(definition: Definition, path: Path, value: float) -> DefinitionError:
    name = next(str(step) for step in reversed(path) if isinstance(step, str))
    words = next((w for place, w in definition.overrides.items() if place == path[: len(place)]), "")
    span = None if words else definition.span(*path, value=True)
    layer = definition.message.layer[path[1]].name if path[0] == "layer" else None
    message = f"{name} must be a finite number, not {value:g}"
    return DefinitionError(
        message, span=span, path=definition.path, layer=layer or None, hint=words and f"set by {words}"
    )
