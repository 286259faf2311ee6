"""Definitions from files and texts, in today's form."""

from __future__ import annotations

import os
from typing import Any

from google.protobuf import text_format

from sslnet import sslnet_pb2 as pb
from sslnet.errors import DefinitionError
from sslnet.prototxt.definition import Definition
from sslnet.prototxt.scan import scan
from sslnet.prototxt.source import SourceText, read_source
from sslnet.prototxt.upgrade import upgrade


def read(path: str | os.PathLike[str], message_type: type[Any]) -> Definition:
    """Read a prototxt file that holds a message of this type; a net or solver of an older Caffe comes in today's form.

    raises DefinitionError: the file cannot be read, or says something that cannot be
    """
    return upgrade(_parse(read_source(path), message_type))


def read_net(path: str | os.PathLike[str]) -> Definition:
    """Read the prototxt of a net."""
    return read(path, pb.NetParameter)


def read_solver(path: str | os.PathLike[str]) -> Definition:
    """Read the prototxt of a solver."""
    return read(path, pb.SolverParameter)


def parse(text: str, message_type: type[Any], path: str | None = None, *, as_written: bool = False) -> Definition:
    """Parse the text of a prototxt; `path` is the name that errors show.

    as_written   leave a net or solver of an older Caffe in its form

    raises DefinitionError
    """
    definition = _parse(SourceText(text, path), message_type)
    return definition if as_written else upgrade(definition)


def _parse(source: SourceText, message_type: type[Any]) -> Definition:
    root = scan(source, message_type.DESCRIPTOR)
    message = message_type()
    try:
        text_format.Parse(source.text, message)
    except text_format.ParseError as error:  # what the scanner let pass, text_format has the last word on
        raise _in_our_words(error, source) from error
    return Definition(message, source, root)


def _in_our_words(error: text_format.ParseError, source: SourceText) -> DefinitionError:
    reason = str(error)
    line, column = error.GetLine(), error.GetColumn()
    if not line or not column:
        return DefinitionError(f"cannot be parsed: {reason}", path=source.path or "<text>")
    lines = source.text.split("\n")
    start = sum(len(text) + 1 for text in lines[: line - 1]) + column - 1
    reason = reason.removeprefix(f"{line}:{column} : ").removeprefix(f"'{lines[line - 1]}': ")
    return DefinitionError(f"cannot be parsed: {reason}", span=source.span(start, start + 1))
