"""The options ``--target-flops``, ``--target-params`` and ``--target-speedup``."""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from typing import TYPE_CHECKING

from sslnet.errors import UsageError

if TYPE_CHECKING:
    from sslnet.compress.control.targets import Targets

SMALL = {"flops": "FLOPs", "params": "parameters"}
SPEEDUP = "speedup"


def add_target_options(parser: argparse.ArgumentParser) -> None:
    for of, name in SMALL.items():
        parser.add_argument(f"--target-{of}", metavar="X|LAYER=X,...",
            help=f"adjust the group lasso's strengths until the compacted net has this fraction of its {name}, 0 to 1, or "
            "fractions of single layers: conv1=0.5,conv2=0.2; exit code 1 if it does not")  # fmt: skip
    parser.add_argument("--target-speedup", metavar="S",
        help="adjust the strengths until the compacted net runs S times as fast forward, measured on this machine; exit code 1 if "
        "it does not")  # fmt: skip
    parser.add_argument("--speedup-batch", type=int, metavar="N",
        help="batch size to measure --target-speedup with; default: the test net's")  # fmt: skip
    parser.add_argument("--cut", action="store_true",
        help="if the target is not met after 60 %% of the run, remove the smallest groups at once")  # fmt: skip


def read_targets(args: argparse.Namespace) -> Targets | None:
    """The targets that the options set, or None. raises UsageError for numbers out of range, or several options"""
    from sslnet.compress.control.targets import Targets

    given = {of: text for of in (*SMALL, SPEEDUP) if (text := getattr(args, f"target_{of}")) is not None}
    if len(given) > 1:
        raise UsageError(f"only one of {', '.join(f'--target-{of}' for of in given)}, not both")
    batch = args.speedup_batch
    if batch is not None and SPEEDUP not in given:
        raise UsageError("--speedup-batch needs --target-speedup")
    if args.cut and not given:
        raise UsageError("--cut needs a target: --target-flops, --target-params or --target-speedup")
    if batch is not None and batch < 1:
        raise UsageError(f"--speedup-batch must be at least 1, not {batch}")
    for of, text in given.items():
        if of == SPEEDUP:
            factor = _number(of, text)
            if not 1 < factor < math.inf:
                raise UsageError(f"--target-speedup must be above 1, not {text}")
            return Targets(of, factor, batch=batch, cut=args.cut)
        return replace(_parts(of, text), cut=args.cut)
    return None


def _parts(of: str, text: str) -> Targets:
    from sslnet.compress.control.targets import Targets

    whole: float | None = None
    layers: dict[str, float] = {}
    for word in text.split(","):
        layer, equals, number = (part.strip() for part in word.rpartition("="))
        value = _number(of, number)
        if not 0 < value < 1:
            raise UsageError(f"--target-{of} must lie between 0 and 1, not {word.strip()}")
        if layer in layers or (not equals and whole is not None):
            raise UsageError(f"--target-{of}: two targets for {layer or 'the net'}: {text}")
        if equals and not layer:
            raise UsageError(f"--target-{of}: {word.strip()} names no layer")
        if equals:
            layers[layer] = value
        else:
            whole = value
    return Targets(of, whole, layers)


def _number(of: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        example = "2" if of == SPEEDUP else "0.3, or conv1=0.5,conv2=0.2"
        raise UsageError(
            f'--target-{of}: "{text}" is not a number', hint=f"for example --target-{of} {example}"
        ) from None
