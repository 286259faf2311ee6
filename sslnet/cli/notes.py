"""Notes about a definition: fields of an older Caffe, and fields that have no effect."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from sslnet.errors import printable
from sslnet.output_rule import output_rule

if TYPE_CHECKING:
    from sslnet.net.net import Net
    from sslnet.prototxt import Definition


def tell_notes(*definitions: Definition, log: Callable[..., object] | None = None) -> None:
    """Prints each note once, to the log or to stderr."""
    told = dict.fromkeys(str(note) for definition in definitions for note in definition.notes)
    told |= dict.fromkeys(text for definition in definitions for text in silent_writers(definition))
    for text in told:
        if log is not None:
            log(*text.split("\n"))
        else:
            print(text, file=sys.stderr)


def tell_data(*nets: Net, log: Callable[..., object] | None = None) -> None:
    """Prints what the data layers of the nets recognised in their data, each sentence once, to the log or to stderr."""
    found = (note for net in nets for layer in net.layers for note in getattr(layer, "notes", ()))
    for text in dict.fromkeys(found):
        if log is not None:
            log(f"note: {text}")
        else:
            print(f"note: {printable(text)}", file=sys.stderr)


def silent_writers(definition: Definition) -> list[str]:
    """A line for each layer that would write a file, in a command that does not allow it."""
    layers = () if output_rule().writes else getattr(definition.message, "layer", ())
    return [
        f'note: layer "{printable(layer.name)}" writes no file: only sslnet train and sslnet test let layers write'
        for layer in layers
        if layer.type == "HDF5Output"
    ]
