"""What there is to tell about a definition that was read: that it is of an older Caffe, what of it does nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sslnet.prototxt import Definition


def tell_notes(*definitions: Definition, log: Callable[[str], object] | None = None) -> None:
    """Each note once, to the log or to stderr."""
    told = dict.fromkeys(str(note) for definition in definitions for note in definition.notes)
    for text in told:
        if log is not None:
            log(text)
        else:
            print(text, file=sys.stderr)
