"""Definitions: prototxt text to message and back, with the position of every field, which errors name.

    source.py, scan.py   the text of a definition; the positions of all its fields
    parse.py, values.py  text to message: ``read_net``, ``read_solver``, ``parse``; the value of one field
    definition.py        Definition: a message with the position of each field
    diagnostic.py        Diagnostic: an error, a warning or a note about a definition
    upgrade.py, old_forms.py, old_blobs.py, block.py   definitions of older Caffe versions in today's form
    fork_fields.py, fork_forms.py                      those of Caffe's forks
    finite.py, lint.py   checks: numbers are finite; settings without an effect
    overrides.py         fields set on the command line (``--set``)
    write.py             message to formatted text
    net_spec.py          NetSpec: nets written in Python
    wire_format.py       protobuf's binary format, where the library is too slow

Knows: errors, files, messages. Does not know: layers, nets. The names to start with: ``read_net``, ``Definition``. A
check of settings is a function in ``lint``.
"""

from sslnet.prototxt.definition import Definition
from sslnet.prototxt.diagnostic import Diagnostic
from sslnet.prototxt.finite import check_finite
from sslnet.prototxt.lint import lint_solver
from sslnet.prototxt.overrides import apply_overrides
from sslnet.prototxt.parse import parse, read, read_net, read_solver, skip_unknown_fields
from sslnet.prototxt.scan import UnknownField
from sslnet.prototxt.upgrade import upgrade, upgrade_net, upgrade_solver
from sslnet.prototxt.write import save, write

__all__ = [
    "Definition",
    "Diagnostic",
    "UnknownField",
    "apply_overrides",
    "check_finite",
    "lint_solver",
    "parse",
    "read",
    "read_net",
    "read_solver",
    "save",
    "skip_unknown_fields",
    "upgrade",
    "upgrade_net",
    "upgrade_solver",
    "write",
]
