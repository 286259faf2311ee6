"""The command line of ``tools/bench``: one sub-command per section, and ``goals`` for all of them."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from benchmarks import goals, page
from benchmarks.arguments import positive
from benchmarks.isa import ISAS, run_again
from benchmarks.load import busy
from benchmarks.machine import describe, machine
from benchmarks.record import Record, compare, load
from benchmarks.sections import SECTIONS
from benchmarks.tables import head_line, line
from benchmarks.turns import interruptible
from sslnet.kernels.runtime.threads import num_threads

DESCRIPTION = """\
How fast sslnet is, beside PyTorch and onnxruntime where they are installed.

Contestants take turns in one process, A B C, C B A, ...; what is printed are medians over the rounds with their quartiles,
and our time divided by that of the fastest other contestant: below 1 we are faster. "of best" is that ratio for the
shortest times of both, which a busy machine disturbs least. Times of one thread are those of its own clock.
Ctrl-C ends a run; what was measured until then is kept."""

BUSY = 0.7
"""The number of other running programs from which on the user is warned."""


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    if options.isa and not os.environ.get(ISAS[options.isa].mark):
        return run_again(options.isa, sys.argv if arguments is None else [sys.argv[0], *arguments])
    old = load(options.compare) if options.compare else {}
    found = machine()
    print(describe(found), flush=True)
    others = os.getloadavg()[0]
    if others > BUSY and max(options.threads) > 1:
        print(f"the machine is busy (load {others:.1f}): figures of several threads will mean little", file=sys.stderr)
    record = Record(options.json, found)
    names = options.only if options.command == "goals" else [options.command]
    try:
        with interruptible(), busy(options.load):
            for number, name in enumerate(names, 1):
                if len(names) > 1:
                    print(f"\n{number}/{len(names)} {name}: {SECTIONS[name].HELP}", flush=True)
                measure(name, options, record)
    except KeyboardInterrupt:
        kept = f"; what was measured is in {record.path}" if record.path else ""
        print(f"\ninterrupted{kept}", file=sys.stderr)
        return 130
    for name in names:
        changes = compare(old.get(found["vector"], {}).get(name, {}).get("rows", []), record.rows(name))
        if changes:
            print(f"\n{name}, beside {options.compare}:", *changes, sep="\n")
    if options.command == "goals":
        print(f"\n{goals.show(record.sections)}")
        if options.write is not None:
            page.write(options.write, record)
            print(f"written: {options.write}, {options.json}")
    return 0


def measure(name: str, options: argparse.Namespace, record: Record) -> None:
    """One section, row by row."""
    section = SECTIONS[name]
    record.start(name)
    settings = argparse.Namespace(**{**section_defaults(name), **vars(options)})
    settings.seconds = options.seconds if options.seconds is not None else section.SECONDS
    start = time.perf_counter()
    print(head_line(section.COLUMNS))
    for row in section.measure(settings):
        record.add(row)
        print(line(section.COLUMNS, row), flush=True)
    closing = section.closing(record.rows(name)) if hasattr(section, "closing") else ""
    print(*filter(None, [closing, f"{name}: {time.perf_counter() - start:.0f} s"]), sep="\n", flush=True)


def section_defaults(name: str) -> dict[str, object]:
    """The defaults of the section's own options."""
    parser = argparse.ArgumentParser()
    SECTIONS[name].add_options(parser)
    return vars(parser.parse_args([]))


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tools/bench", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, section in SECTIONS.items():
        command = _command(commands, name, section.HELP, section.__doc__ or "")
        section.add_options(command)
        command.add_argument("--json", type=Path, metavar="FILE", help="add the results to this JSON file")
        command.add_argument(
            "--seconds", type=float, metavar="S", help=f"seconds for each row, about; default {section.SECONDS:g}"
        )
    command = _command(commands, "goals", goals.HELP, goals.__doc__ or "")
    goals.add_options(command, list(SECTIONS))
    command.add_argument("--write", type=Path, metavar="FILE.md", help="write the page, and its figures to FILE.json")
    command.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file instead")
    command.add_argument(
        "--seconds", type=float, metavar="S", help="seconds for each row; default: that of each section"
    )
    options = parser.parse_args(arguments)
    for path in (options.json, options.compare, getattr(options, "write", None)):
        if path is not None and not path.absolute().parent.is_dir():
            parser.error(f"{path}: there is no folder {path.parent}")
    if options.command == "goals" and options.write is not None and options.json is None:
        options.json = options.write.with_suffix(".json")
    return options


def _command(commands: argparse._SubParsersAction, name: str, help: str, description: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=help, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command.add_argument(
        "--threads", nargs="+", type=positive, default=default_threads(), metavar="N",
        help="numbers of threads of all contestants, one measurement each; default 1 and one per core",
    )  # fmt: skip
    command.add_argument(
        "--load", type=int, default=0, metavar="N",
        help="run so many other programs meanwhile, which use a core each; default 0",
    )  # fmt: skip
    command.add_argument("--rounds", type=positive, default=5, metavar="N", help="least number of rounds; default 5")
    command.add_argument("--alone", action="store_true", help="measure without torch and onnxruntime")
    command.add_argument("--compare", type=Path, metavar="OLD", help="then print the changes since that JSON file")
    command.add_argument(
        "--isa",
        choices=ISAS,
        help="limit sslnet and torch to these vector instructions (onnxruntime cannot be limited)",
    )
    return command


def default_threads() -> list[int]:
    return sorted({1, num_threads()})
