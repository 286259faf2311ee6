"""``sslnet lint``: checks whether nets, solvers and weights run, without running them."""

from __future__ import annotations

import argparse

from sslnet.errors import UsageError

HELP = "Checks whether nets, solvers and weights run here, without data: lists all problems of each file."
EXAMPLE = "sslnet lint train_val.prototxt solver.prototxt net.caffemodel --shape data=32,3,227,227"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="nets, solvers (.prototxt) and weights (.caffemodel)")
    parser.add_argument("--shape", action="append", default=[], metavar="BLOB=N,C,H,W",
        help="shape of a data layer's top; default: assumed from its definition; may be repeated")  # fmt: skip
    parser.add_argument("--details", action="store_true", help="of several files: every problem and note, too")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Runs the command. Exit code 0: all files run; 2: some do not."""
    from sslnet.api.lint import lint
    from sslnet.errors import printable
    from sslnet.report import dump_json, print_table
    from sslnet.report.lint import as_json, problem_texts, tables, verdict

    checks = lint(args.files, shapes=shapes_of(args.shape))
    if args.json:
        print(dump_json(as_json(checks)))
    else:
        if len(checks) == 1 or args.details:
            for check in checks:
                for text in problem_texts(check):
                    print(text)
                for note in check.notes:
                    print(f"{printable(check.path)}: note: {printable(note)}")
                print(verdict(check))
        if len(checks) > 1:
            for table in tables(checks):
                print_table(table)
    return 0 if all(check.accepted for check in checks) else 2


def shapes_of(options: list[str]) -> dict[str, tuple[int, ...]]:
    """Reads ``--shape data=1,3,300,300``. raises UsageError for anything else"""
    shapes = {}
    for option in options:
        name, _, sizes = option.partition("=")
        try:
            shape = tuple(int(size) for size in sizes.split(","))
        except ValueError:
            shape = ()
        if not name or not shape or min(shape) < 1:
            raise UsageError(f'--shape must be like data=1,3,300,300, not "{option}"')
        shapes[name] = shape
    return shapes
