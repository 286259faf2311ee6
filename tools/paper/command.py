"""The command line of the tables of trained nets: ``tools/table1``, ``table2``, ``table3``, ``figure4``.

Prints the table of the recorded figures; with ``--work`` it first runs the missing steps.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from paper.figures import figures_of
from paper.page import show
from paper.published import TABLES
from paper.recipes import DATA, RECIPES, ROWS
from paper.record import Record
from paper.runner import Runner, Stopped
from paper.steps import Step, Steps
from paper.tables import trained_table
from sslnet.errors import SslnetError, UsageError
from sslnet.report.plots import check_plot
from sslnet.report.weight_pictures import find_connections, find_filters, plot_connections, plot_filters

ROOT = Path(__file__).resolve().parents[2]
RECORD = ROOT / "docs" / "paper.json"


def main(name: str, arguments: list[str] | None = None) -> int:
    """Runs the command of one table; prints errors of sslnet as messages."""
    options = parse(name, arguments)
    try:
        return run(name, options)
    except Stopped:
        print("stopped: the same command goes on where it was", file=sys.stderr)
        return 130
    except SslnetError as error:
        print(error, file=sys.stderr)
        return error.exit_code


def run(name: str, options: argparse.Namespace) -> int:
    steps = Steps(ROOT, dense_weights(name, options))
    if options.plot:
        check_plot(options.plot)
        if not options.work:
            raise UsageError("--plot draws the nets in a working folder", hint="name it with --work DIR")
    if options.commands:
        print(*command_lines(steps, options.rows), sep="\n")
        return 0
    record = Record(options.json or (options.work / "paper.json" if options.work else RECORD))
    if options.work and not options.print:
        make(options, steps, record)
    show(trained_table(name, record.nets), name, options.write)
    if options.plot:
        plot(name, options, steps)
    return 0


def plot(name: str, options: argparse.Namespace, steps: Steps) -> None:
    """Draws the paper's pictures: filters of conv1 (figures 3 and 5), connections of each pixel (figure 4 b), before
    compaction."""
    files = {row.name: options.work / steps.trained(recipe) for row, recipe in zip(TABLES[name].rows, ROWS[name])}
    there = {title: str(file) for title, file in files.items() if file.exists()}
    if not there:
        raise UsageError(f"no net of tools/{name} has been trained in {options.work}")
    if name == "figure4":
        plot_connections(
            [find_connections(file, "ip1", None, title) for title, file in there.items()], options.plot, each=True
        )
    else:
        plot_filters([find_filters(file, "conv1", title) for title, file in there.items()], options.plot)


def make(options: argparse.Namespace, steps: Steps, record: Record) -> None:
    """Runs the steps of each row, then records its figures."""
    data = data_folder(options)
    runner = Runner(ROOT, options.work, data)
    done: set[str] = set()
    for row in options.rows:
        for recipe in steps.needed(row):
            if recipe in done:
                continue
            runner.run(chosen(steps.of(recipe), options))
            done.add(recipe)
            if recipe in options.rows:
                record.add("nets", recipe, figures_of(recipe, steps, options.work))


def chosen(steps: list[Step], options: argparse.Namespace) -> list[Step]:
    return [step for step in steps if not (options.no_time and step.name == "5_time")]


def command_lines(steps: Steps, rows: list[str]) -> list[str]:
    """The commands for these rows that a user would type in the working folder."""
    lines, told = [], set()
    for row in rows:
        for recipe in steps.needed(row):
            if recipe not in told:
                told.add(recipe)
                folders = " ".join(step.folder for step in steps.of(recipe))
                lines += [f"# {recipe}", f"mkdir -p {folders}", *map(str, steps.of(recipe)), ""]
    return lines[:-1]


def data_folder(options: argparse.Namespace) -> Path:
    """The folder with the data sets. raises UsageError if one is missing"""
    folder: Path = options.data or ROOT / "data"
    for name in sorted({DATA[RECIPES[row].model] for row in options.rows}):
        if not (folder / name / f"{name}_train_lmdb").exists():
            raise UsageError(
                f"there is no {folder / name / f'{name}_train_lmdb'}",
                hint=f"sslnet data {name} --to {folder / name} makes it; --data DIR names the folder that {name} is in",
            )
    return folder


def dense_weights(name: str, options: argparse.Namespace) -> dict[str, str]:
    """Reads ``--dense FILE``: weights of the dense net from which all rows start or with which they are compared."""
    if options.dense is None:
        return {}
    if not options.dense.exists():
        raise UsageError(f"there is no {options.dense}")
    needed = {known for row in ROWS[name] for known in Steps(ROOT).needed(row)}
    first = [known for known in needed if not (RECIPES[known].baseline or RECIPES[known].weights)]
    return {known: str(options.dense.absolute()) for known in first}


def parse(name: str, arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"tools/{name}",
        description=f"{TABLES[name].title}: the paper's figures, and ours beside them. Without --work those that are recorded.",
    )
    rows = ROWS[name]
    parser.add_argument(
        "--work", type=Path, metavar="DIR", help="working folder: train, test and time what is not done there yet"
    )
    parser.add_argument("--data", type=Path, metavar="DIR",
        help="folder with mnist and cifar10, as `sslnet data` makes them; default: data")  # fmt: skip
    parser.add_argument("--rows", nargs="+", choices=rows, default=list(rows), metavar="ROW", help=", ".join(rows))
    parser.add_argument(
        "--dense", type=Path, metavar="FILE", help="weights of the dense net, which is then not trained"
    )
    parser.add_argument("--no-time", action="store_true", help="time nothing, for a busy machine")
    parser.add_argument("--json", type=Path, metavar="FILE",
        help="where figures are kept; default: paper.json in the working folder, without one docs/paper.json")  # fmt: skip
    parser.add_argument("--print", action="store_true", help="run nothing, only print the table")
    what = "connections of each pixel" if name == "figure4" else "filters of conv1"
    parser.add_argument("--plot", type=Path, metavar="FILE", help=f"draw the {what}, of the nets in the working folder")
    parser.add_argument("--commands", action="store_true", help="only print the commands that would be run")
    parser.add_argument(
        "--write", type=Path, metavar="FILE.md", help="write the table into that page, between its markers"
    )
    return parser.parse_args(arguments)
