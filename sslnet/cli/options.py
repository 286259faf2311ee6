"""Options that several commands share."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from sslnet.errors import UsageError, WeightsError
from sslnet.output_rule import OutputRule

if TYPE_CHECKING:
    from sslnet.cli.log import RunLog
    from sslnet.net.net import Net
    from sslnet.net.weights import Copied


def add_model_option(parser: argparse.ArgumentParser) -> None:
    """Adds ``--model``, for the commands that read any definition of a net."""
    parser.add_argument(
        "--model",
        required=True,
        metavar="FILE",
        help="the net (train_test.prototxt, train_val.prototxt or deploy.prototxt)",
    )


def add_rule_options(parser: argparse.ArgumentParser) -> None:
    """Adds ``--level`` and ``--stage``, which with the phase select layers by their include and exclude rules."""
    parser.add_argument(
        "--level", type=int, default=0, metavar="N", help="level for the net's include and exclude rules"
    )
    parser.add_argument("--stage", default="", metavar="A,B", help="stages for the net's include and exclude rules")


def add_deterministic_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--deterministic", action="store_true", help="bit-identical results with any number of threads; a little slower"
    )


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Adds ``--output-root`` and ``--allow-overwrite``, for the commands that allow layers to write files."""
    parser.add_argument("--output-root", metavar="DIR",
        help="folder that files written by layers (HDF5Output) must be in or below; default: the working folder")  # fmt: skip
    parser.add_argument("--allow-overwrite", action="store_true", help="allow layers to replace existing files")


def rule_of(args: argparse.Namespace) -> OutputRule:
    """The files that layers may write while a command runs: none, unless it has the options of add_output_options."""
    if not hasattr(args, "output_root"):
        return OutputRule(writes=False)
    return OutputRule(args.output_root and os.path.abspath(args.output_root), args.allow_overwrite)


def use_threads(threads: int | None, deterministic: bool = False) -> None:
    """Applies ``--threads N`` and ``--deterministic``; call it before any computation."""
    if threads is None and not deterministic:
        return
    from sslnet.kernels.runtime.threads import set_deterministic, set_num_threads

    if deterministic:
        set_deterministic(True)
    if threads is None:
        return
    if threads < 1:
        raise UsageError(f"--threads must be at least 1, not {threads}")
    set_num_threads(threads)


def as_option(name: str) -> str:
    """How the command line calls an argument of a Python function: its checks are the function's own."""
    return "--" + {"overrides": "set"}.get(name, name).replace("_", "-")


def stages(text: str) -> tuple[str, ...]:
    """The stages of a net's state, from ``--stage a,b``."""
    return tuple(stage.strip() for stage in text.split(",") if stage.strip())


def load_weights(net: Net, path: str, log: RunLog) -> None:
    """Copies weights into the net by layer name and logs layers without a match; raises if no layer matches."""
    tell_copied(net, path, net.copy_from(path), log)


def tell_copied(net: Net, path: str, done: Copied, log: RunLog) -> None:
    """Logs the layers without a match after a copy of weights; raises WeightsError if no layer matched."""
    if not done.copied:
        theirs = ", ".join(done.ignored[:5])
        raise WeightsError(f'no layer of the net "{net.name}" has weights in it', path=path, hint=f"it has {theirs}")
    if done.missing:
        log(f"{path} has no weights for {', '.join(done.missing)}: they start from their fillers")
    if done.ignored:
        log(f"{path} has layers that the net does not have: {', '.join(done.ignored)}")


def read_labels(path: str) -> list[str]:
    """Reads one class name per line; empty lines at the end are ignored."""
    from sslnet.files import read_text

    names = read_text(path, errors="replace").splitlines()
    while names and not names[-1].strip():
        del names[-1]
    return [name.strip() for name in names]
