"""Definitions from files and texts, in today's form."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

from google.protobuf import text_format

from sslnet import sslnet_pb2 as pb
from sslnet.errors import DefinitionError, raise_errors
from sslnet.prototxt import fork_fields
from sslnet.prototxt.definition import Definition
from sslnet.prototxt.diagnostic import Diagnostic
from sslnet.prototxt.scan import Scan, UnknownField, scan
from sslnet.prototxt.source import SourceText, read_source
from sslnet.prototxt.upgrade import upgrade
from sslnet.prototxt.values import shorten

_skip_unknown = False


def skip_unknown_fields(skip: bool = True) -> None:
    """Whether fields that no message has are read past, in this process: each definition then has a warning that lists
    them (``Definition.notes``). Without it they are errors."""
    global _skip_unknown
    _skip_unknown = skip


def read(path: str | os.PathLike[str], message_type: type[Any], *, collect: bool = False) -> Definition:
    """Read a prototxt file that holds a message of this type; a net or solver of an older Caffe comes in today's form.

    collect  leave what is wrong in ``Definition.problems``, if the rest can be read

    raises DefinitionError: the file cannot be read, or says something that cannot be; ErrorList for several such things
    """
    return _upgraded(_parse(read_source(path), message_type), collect)


def read_net(path: str | os.PathLike[str], *, collect: bool = False) -> Definition:
    """Read the prototxt of a net; see ``read``."""
    return read(path, pb.NetParameter, collect=collect)


def read_solver(path: str | os.PathLike[str], *, collect: bool = False) -> Definition:
    """Read the prototxt of a solver; see ``read``."""
    return read(path, pb.SolverParameter, collect=collect)


def parse(text: str, message_type: type[Any], path: str | None = None, *, as_written: bool = False) -> Definition:
    """Parse the text of a prototxt; `path` is the name that errors show.

    as_written   leave a net or solver of an older Caffe in its form

    raises DefinitionError, ErrorList for several
    """
    definition = _parse(SourceText(text, path), message_type)
    if as_written:
        raise_errors(definition.problems)
        return definition
    return _upgraded(definition, collect=False)


def _upgraded(definition: Definition, collect: bool) -> Definition:
    """The definition in today's form. raises its problems, unless they are collected."""
    try:
        result = upgrade(definition)
    except DefinitionError as error:
        raise_errors([*definition.problems, *getattr(error, "errors", [error])])
        raise
    if not collect:
        raise_errors(result.problems)
    return result


def _parse(source: SourceText, message_type: type[Any]) -> Definition:
    found = scan(source, message_type.DESCRIPTOR, skip_unknown=_skip_unknown)
    message = message_type()
    definition = Definition(message, source, found.root)
    definition.problems = list(found.problems)
    if any(not isinstance(problem, UnknownField) for problem in found.problems):
        raise_errors(definition.problems)
    try:
        text_format.Parse(found.cleared(source.text), message)
    except text_format.ParseError as error:  # what the scanner let pass, text_format has the last word on
        raise _in_our_words(error, source) from error
    _tell(definition, found)
    return definition


def _tell(definition: Definition, found: Scan) -> None:
    """Adds the notes about fields that were read past."""
    for name, words in fork_fields.WITH_EFFECT.items():
        if name in found.ignored:
            message = f"ignored {_listed([each for each in found.ignored if each == name])}: {words}"
            definition.notes.append(Diagnostic("warning", message, path=definition.path))
    ignored = [name for name in found.ignored if name not in fork_fields.WITH_EFFECT]
    if ignored:
        names = _listed(ignored)
        message = f"ignored fields of other Caffes, which say nothing of the numbers: {names}"
        definition.notes.append(Diagnostic("note", message, path=definition.path))
    if found.unknown:
        message = f"ignored fields that are not known: {_listed(found.unknown)}"
        definition.notes.append(Diagnostic("warning", message, path=definition.path))
    if found.renamed:
        message = "`layers { }` with types in quotes, read as `layer { }`"
        span = definition.source.span(*found.renamed[0]) if definition.source else None
        definition.notes.append(Diagnostic("note", message, span=span, path=definition.path))


def _listed(names: list[str]) -> str:
    """The names, each once, with the number of times it stands there: "engine (12 times), debug"."""
    return ", ".join(shorten(name) + (f" ({n} times)" if n > 1 else "") for name, n in Counter(names).items())


def _in_our_words(error: text_format.ParseError, source: SourceText) -> DefinitionError:
    reason = str(error)
    line, column = error.GetLine(), error.GetColumn()
    if not line or not column:
        return DefinitionError(f"cannot be parsed: {reason}", path=source.path or "<text>")
    lines = source.text.split("\n")
    start = sum(len(text) + 1 for text in lines[: line - 1]) + column - 1
    reason = reason.removeprefix(f"{line}:{column} : ").removeprefix(f"'{lines[line - 1]}': ")
    return DefinitionError(f"cannot be parsed: {reason}", span=source.span(start, start + 1))
