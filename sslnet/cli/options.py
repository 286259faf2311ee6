"""What options of several commands mean."""

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


def add_rule_options(parser: argparse.ArgumentParser) -> None:
    """``--level`` and ``--stage``, of the commands that read a net: the state, beside the phase, that its rules meet."""
    parser.add_argument(
        "--level", type=int, default=0, metavar="N", help="level for the net's include and exclude rules"
    )
    parser.add_argument("--stage", default="", metavar="A,B", help="stages for the net's include and exclude rules")


def add_deterministic_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--deterministic", action="store_true", help="bit-identical results with any number of threads; a little slower"
    )


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """``--output-root`` and ``--allow-overwrite``, of the commands that let layers write files."""
    parser.add_argument("--output-root", metavar="DIR",
        help="folder that files written by layers (HDF5Output) must be in or below; default: the working folder")  # fmt: skip
    parser.add_argument("--allow-overwrite", action="store_true", help="allow layers to replace existing files")


def rule_of(args: argparse.Namespace) -> OutputRule:
    """What layers may write while a command runs: nothing, unless it has the options of add_output_options."""
    if not hasattr(args, "output_root"):
        return OutputRule(writes=False)
    return OutputRule(args.output_root and os.path.abspath(args.output_root), args.allow_overwrite)


def use_threads(threads: int | None, deterministic: bool = False) -> None:
    """``--threads N`` and ``--deterministic``: to be called before anything computes."""
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


def stages(text: str) -> tuple[str, ...]:
    """``--stage a,b`` as the stages of a net's state."""
    return tuple(stage.strip() for stage in text.split(",") if stage.strip())


def load_weights(net: Net, path: str, log: RunLog) -> None:
    """Copies weights into the net by layer name and says what did not match; raises when nothing did."""
    tell_copied(net, path, net.copy_from(path), log)


def tell_copied(net: Net, path: str, done: Copied, log: RunLog) -> None:
    """Says which layers a copy of weights left out; raises WeightsError when it brought nothing at all."""
    if not done.copied:
        theirs = ", ".join(done.ignored[:5])
        raise WeightsError(f'no layer of the net "{net.name}" has weights in it', path=path, hint=f"it has {theirs}")
    if done.missing:
        log(f"{path} has no weights for {', '.join(done.missing)}: they start from their fillers")
    if done.ignored:
        log(f"{path} has layers that the net does not have: {', '.join(done.ignored)}")
