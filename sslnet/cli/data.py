"""``sslnet data NAME``: creates the databases of a data set from its original files, which it can download; ``sslnet data
show`` draws the images that a data layer reads."""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sslnet.cli.data_show import add_show_arguments, show
from sslnet.cli.log import terminal_console
from sslnet.errors import UsageError
from sslnet.terminal import escape_streams

HELP = (
    "Creates the LMDBs of MNIST or CIFAR-10 from files on disk, or downloads them; draws shapes with boxes, or what a data "
    "layer reads."
)
EXAMPLE = "sslnet data mnist --from ~/Downloads --to data/mnist"

Progress = Callable[[int, "int | None"], object]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", metavar="NAME", help="mnist, cifar10 or shapes; list: show the known data sets and their databases; show: draw "
        "the images that a data layer of NET reads",
    )  # fmt: skip
    add_show_arguments(parser)
    parser.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="DIR",
        help="folder with the original files; without it they are downloaded",
    )
    parser.add_argument(
        "--to", dest="target", type=Path, metavar="DIR", help="folder for the databases; default data/NAME"
    )
    parser.add_argument(
        "--no-verify", action="store_true", help="accept files whose checksum differs from the original's"
    )
    parser.add_argument(
        "--name", dest="own_name", metavar="NAME", help="with mnist and --from: the name of a data set of one's own in "
        "MNIST's format (fashion-mnist, emnist, ...), for the databases and data/NAME; no checksums are verified",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    from sslnet.files import make_folder
    from sslnet.sources.datasets import DATASETS, dataset

    if args.name == "show":
        return show(args)
    _refuse_show_options(args)
    if args.name == "list":
        for name, known in DATASETS.items():
            print(f"{name:<10}{known.title}")
            print(f"{'':<10}makes {', '.join(known.outputs)}; {known.licence}")
        return 0
    chosen = dataset(args.name)
    if args.own_name is not None:
        chosen = _named(args.own_name, args)
        args.no_verify = True
    target = args.target or Path("data", args.own_name or args.name)
    missing = [output for output in chosen.outputs if not (target / output).exists()]
    for output in chosen.outputs:
        if output not in missing:
            print(f"{target / output}: already there")
    if not missing:
        return 0
    source = args.source
    if source is None:
        source = target
        _download(chosen, target)
    plan = chosen.plan(source, not args.no_verify)
    make_folder(target / missing[0])
    for output in missing:
        print(f"{target / output}: ", end="", flush=True)
        done = False
        try:
            words = plan[output](target / output)
            done = True
        finally:
            print(words if done else "not created")
    return 0


def _refuse_show_options(args: argparse.Namespace) -> None:
    """Refuses what belongs to ``show`` beside another name."""
    options = ("layer", "phase", "images", "seed", "output", "labels", "write_labels")
    given = [f"--{name.replace('_', '-')}" for name in options if getattr(args, name) is not None]
    if args.model is not None or given:
        what = given[0] if given else args.model
        raise UsageError(f"{what} belongs to `sslnet data show NET`", hint="without it: sslnet data NAME")


def _named(name: str, args: argparse.Namespace) -> Any:
    """The data set of that name in the format of the chosen one. raises UsageError for a name that is no file's"""
    from sslnet.sources.datasets import named_like_mnist

    if args.name != "mnist" or args.source is None:
        raise UsageError("--name is for MNIST's format: sslnet data mnist --from DIR --name NAME")
    if not re.fullmatch(r"[\w.-]+", name) or name.startswith("."):
        raise UsageError(f'--name must be letters, digits, "-", "_" and ".", not "{name}"')
    return named_like_mnist(name)


def _download(chosen: Any, folder: Path) -> None:
    """Downloads the original files that are missing in the folder."""
    from sslnet.errors import RunError
    from sslnet.files import make_folder
    from sslnet.report.units import size
    from sslnet.sources.download import download

    for remote in chosen.remotes:
        make_folder(folder / remote.name)
        if (folder / remote.name).exists():
            continue
        with _progress(remote.name, remote.size) as progress:
            try:
                download(remote.urls, folder / remote.name, remote.md5, progress)
            except RunError as error:
                hint = "put the original files into a folder and give it with --from DIR"
                raise RunError(error.message, hint=hint) from error
        print(f"{folder / remote.name}: downloaded, {size(remote.size)}")


@contextlib.contextmanager
def _progress(name: str, total: int) -> Iterator[Progress | None]:
    """A progress bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=terminal_console(), transient=True) as bar:
        escape_streams()  # the bar has put itself in front of them
        task = bar.add_task(name, total=total)
        yield lambda done, expected: bar.update(task, completed=done, total=expected or total)
