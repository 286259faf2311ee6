"""The ``sslnet`` program: finds the module of a command, parses its options, prints errors, and returns exit codes.

A command is a module of this folder with ``HELP`` (a sentence), ``EXAMPLE`` (a command line), ``add_arguments(parser)``
and ``run(args) -> int``. It is imported only when it runs or for its line of help, and imports heavy packages inside
``run``.

Exit codes: 0 done; 1 the run failed; 2 bad input; 129, 130, 143 ended by SIGHUP, Ctrl-C, SIGTERM; 141 the reader of
the output is gone.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn, TextIO, cast

from sslnet.cli.log import READER_GONE, Patient, silence
from sslnet.cli.options import rule_of
from sslnet.cli.signals import Ended, ended_by_signals
from sslnet.errors import SslnetError, UsageError, printable, suggestion
from sslnet.output_rule import layers_write
from sslnet.terminal import escaped_streams

COMMANDS = {
    "train": "sslnet.cli.train",
    "test": "sslnet.cli.test",
    "compress": "sslnet.cli.compress",
    "path": "sslnet.cli.path",
    "compact": "sslnet.cli.compact",
    "lowrank": "sslnet.cli.lowrank",
    "restructure": "sslnet.cli.restructure",
    "prune": "sslnet.cli.prune",
    "quantize": "sslnet.cli.quantize",
    "teach": "sslnet.cli.teach",
    "check": "sslnet.cli.check",
    "time": "sslnet.cli.time",
    "export": "sslnet.cli.export",
    "import": "sslnet.cli.import_",
    "classify": "sslnet.cli.classify",
    "detect": "sslnet.cli.detect",
    "extract": "sslnet.cli.extract",
    "data": "sslnet.cli.data",
    "upgrade": "sslnet.cli.upgrade",
    "draw": "sslnet.cli.draw",
    "plot": "sslnet.cli.plot",
    "convert-imageset": "sslnet.cli.convert_imageset",
    "mean": "sslnet.cli.mean",
    "lint": "sslnet.cli.lint",
    "info": "sslnet.cli.info",
    "warmup": "sslnet.cli.warmup",
}
"""The module of each command, in the order of the help."""


ALLOW_PYTHON = "--allow-python-layers"
IGNORE_UNKNOWN = "--ignore-unknown"
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line and returns its exit code; errors are printed to stderr, with a traceback only by --debug."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    prepare_streams()
    with _streams(), ended_by_signals() as received:
        code = _run(arguments)
    return 128 + received[-1] if code == INTERRUPTED and received else code


def _run(arguments: list[str]) -> int:
    debug = "--debug" in arguments
    try:
        with warnings.catch_warnings():
            if not debug:  # an overflow shows in the loss, which has an error of its own
                warnings.simplefilter("ignore", RuntimeWarning)
            if ALLOW_PYTHON in arguments:
                importlib.import_module("sslnet.layers.python").allow_python_layers()
            if IGNORE_UNKNOWN in arguments:
                importlib.import_module("sslnet.prototxt").skip_unknown_fields()
            everywhere = ("--debug", ALLOW_PYTHON, IGNORE_UNKNOWN)
            code = dispatch([argument for argument in arguments if argument not in everywhere])
        sys.stdout.flush()
        return code
    except SystemExit as stop:  # argparse, after printing help
        return stop.code if isinstance(stop.code, int) else 0
    except KeyboardInterrupt as interrupt:
        _complain(f"ended by {interrupt}" if isinstance(interrupt, Ended) else "interrupted", debug)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of a pipe is gone, as with `sslnet ... | head`
        _flush(sys.stdout)
        return READER_GONE
    except SslnetError as error:
        _complain(str(error), debug)
        return error.exit_code
    except MemoryError as error:
        _complain(f"error: out of memory: {printable(str(error))}" if str(error) else "error: out of memory", debug)
        return 1
    except OSError as error:
        place = f": {printable(str(error.filename))}" if error.filename else ""
        _complain(f"error: {error.strerror or error}{place}", debug)
        return 1
    except Exception as error:
        _complain(f"error: this is a bug in sslnet: {type(error).__name__}: {printable(str(error))}", debug)
        if not debug:
            print("  --debug shows the traceback; please report it together with the command", file=sys.stderr)
        return 1


@contextlib.contextmanager
def _streams() -> Iterator[None]:
    """Makes stdout and stderr escape characters that cannot be printed, and ignores failures of stderr."""
    before = sys.stderr
    sys.stderr = cast(TextIO, Patient(before))
    try:
        with escaped_streams():
            yield
    finally:
        sys.stderr = before
        _flush(before)


def _flush(stream: TextIO) -> None:
    """Flushes a stream at the end; one that cannot be written is silenced, so that the interpreter prints no error."""
    try:
        stream.flush()
    except (OSError, ValueError):
        silence(stream)


def prepare_streams() -> None:
    """Makes stdout and stderr accept every line: closed streams discard it, characters outside their encoding are escaped."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by who started the command, as `sslnet ... >&-` does
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 it stays open
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def dispatch(arguments: list[str]) -> int:
    """Finds the command, parses its options, and runs it."""
    if not arguments:
        print(overview(), file=sys.stderr)
        return 2
    name, rest = arguments[0], arguments[1:]
    if name in ("-h", "--help", "help"):
        print(overview() if not rest else command_parser(_known(rest[0])).format_help(), end="")
        return 0
    if name in ("-V", "--version", "version"):
        from sslnet import __version__

        print(f"sslnet {__version__}")
        return 0
    parser = command_parser(_known(name))
    options, unknown = parser.parse_known_args(double_dashes(rest, parser))
    if unknown:
        hint = suggestion(unknown[0], parser.option_strings) or f"sslnet {name} -h lists its options"
        raise UsageError(f'sslnet {name} does not take "{unknown[0]}"', hint=hint)
    if options.gpu is not None:
        print("note: sslnet computes on the CPU; --gpu changes nothing", file=sys.stderr)
    with layers_write(rule_of(options)):
        return int(importlib.import_module(COMMANDS[name]).run(options))


def _known(name: str) -> str:
    if name not in COMMANDS:
        raise UsageError(
            f'there is no command "{name}"',
            hint=suggestion(name, COMMANDS) or f"the commands: {', '.join(COMMANDS)}",
        )
    return name


def overview() -> str:
    """The text of ``sslnet --help``."""
    lines = [
        "sslnet trains nets defined in Caffe's prototxt with structured sparsity, and makes them smaller and faster.",
        "",
        "example:",
        "  sslnet train --solver solvers/digits_ssl.prototxt",
        "",
        "commands:",
    ]
    lines += [f"  {name:<18}{importlib.import_module(module).HELP}" for name, module in COMMANDS.items()]
    lines += [
        "",
        "options:",
        "  -h, --help             show this text; `sslnet COMMAND -h` describes one command",
        "  -V, --version          show the version",
        "  --debug                with any command: show the traceback of an error",
        f"  {ALLOW_PYTHON}  with any command: allow Python layers to run the code that the net names",
        f"  {IGNORE_UNKNOWN}       with any command: ignore unknown fields of definitions, with a warning that lists them",
        "",
    ]
    return "\n".join(lines)


def command_parser(name: str) -> Parser:
    """The parser of one command, made from its module's HELP, EXAMPLE and add_arguments."""
    module: Any = importlib.import_module(COMMANDS[name])
    parser = Parser(prog=f"sslnet {name}", sentence=module.HELP, example=module.EXAMPLE)
    module.add_arguments(parser)
    if "--gpu" not in parser.option_strings:
        parser.add_argument("--gpu", help=argparse.SUPPRESS)
    return parser


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose help starts with a sentence and an example, and whose errors are UsageErrors."""

    def __init__(self, *, sentence: str = "", example: str = "", **kwargs: Any) -> None:
        super().__init__(allow_abbrev=False, **kwargs)
        self.sentence = sentence
        self.example = example

    def format_help(self) -> str:
        return f"{self.sentence}\n\nexample:\n  {self.example}\n\n{super().format_help()}"

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"{self.prog} -h lists its options")

    @property
    def option_strings(self) -> list[str]:
        return list(self._option_string_actions)


def double_dashes(arguments: Sequence[str], parser: Parser) -> list[str]:
    """Converts Caffe's spelling of options, ``-solver x`` or ``--sigint_effect=stop``, to the parser's."""
    result = []
    for argument in arguments:
        match = re.fullmatch(r"--?([A-Za-z][\w-]+)(=.*)?", argument, flags=re.DOTALL)
        known = "--" + match[1].replace("_", "-") if match else ""
        result.append(known + (match[2] or "") if match and known in parser.option_strings else argument)
    return result


def _complain(text: str, debug: bool) -> None:
    if debug:
        import traceback

        traceback.print_exc()
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)
