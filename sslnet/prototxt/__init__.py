"""Definitions: prototxt text to message and back, with the position of every field for the errors to come."""

from sslnet.prototxt.definition import Definition
from sslnet.prototxt.diagnostic import Diagnostic
from sslnet.prototxt.finite import check_finite
from sslnet.prototxt.lint import lint_solver
from sslnet.prototxt.overrides import apply_overrides
from sslnet.prototxt.parse import parse, read, read_net, read_solver
from sslnet.prototxt.upgrade import upgrade, upgrade_net, upgrade_solver
from sslnet.prototxt.write import save, write

__all__ = [
    "Definition",
    "Diagnostic",
    "apply_overrides",
    "check_finite",
    "lint_solver",
    "parse",
    "read",
    "read_net",
    "read_solver",
    "save",
    "upgrade",
    "upgrade_net",
    "upgrade_solver",
    "write",
]
