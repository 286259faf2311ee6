"""``sslnet prune --group NEURON``: the part of the command that removes whole channels."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from sslnet.errors import UsageError

if TYPE_CHECKING:
    from sslnet.compress.evaluation import Trial
    from sslnet.prototxt import Definition

CHANNEL_OPTIONS = {
    "by": "reconstruction",
    "target_flops": None,
    "target_params": None,
    "target_time": None,
    "repair": "least-squares",
    "images": 256,
    "share_out": "sensitivity",
    "round_channels": 1,
    "floor": 0.1,
    "seed": 0,
    "test": False,
}
"""The options that are for NEURON alone, and their defaults; they are None or False where they are not given."""
MAGNITUDE_OPTIONS = ("sparsity", "quality", "take_bias", "whole_net", "layers")
"""The options that are not for NEURON."""


def add_channel_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("with --group NEURON: coupled channels, with all that makes and reads them")
    group.add_argument("--target-flops", type=float, metavar="X", help="part of the FLOPs that may be left, 0 to 1")
    group.add_argument("--target-params", type=float, metavar="X", help="instead: part of the parameters")
    group.add_argument("--target-time", type=float, metavar="X",
        help="instead: part of the time of the forward pass, estimated from the measured times of the layers")  # fmt: skip
    group.add_argument("--by", metavar="NAME[,NAME]",
        help="criterion: reconstruction (the default), magnitude, magnitude_l1, fpgm, fisher, taylor, fluctuation, "
        "activation, bn_scale, random; several are shown side by side, and nothing is written")  # fmt: skip
    group.add_argument("--repair", metavar="NAME",
        help="least-squares (the default), mean, statistics (of BatchNorm) or none; without labels or training")  # fmt: skip
    group.add_argument("--images", type=int, metavar="N",
        help="calibration images, drawn from the data of phase TRAIN; default 256")  # fmt: skip
    group.add_argument("--share-out", metavar="NAME",
        help="division of the removals between the layers: sensitivity (measured; the default), uniform or flops")  # fmt: skip
    group.add_argument("--round-channels", type=int, metavar="N",
        help="each layer keeps a multiple of N channels, or all; default 1")  # fmt: skip
    group.add_argument("--floor", type=float, metavar="X",
        help="part of the channels of each layer that stays; default 0.1, at least one channel")  # fmt: skip
    group.add_argument("--seed", type=int, metavar="N",
        help="seed of the draw of images, and of the criterion random; default 0")  # fmt: skip
    group.add_argument("--test", action="store_true", help="test the net before and after, on all its test data")


def check_options(args: argparse.Namespace) -> bool:
    """Whether whole channels are pruned; sets the defaults of their options.

    raises UsageError for options that do not belong together
    """
    from sslnet.cli.options import as_option

    channels: bool = args.group == "NEURON"
    given = [name for name in CHANNEL_OPTIONS if getattr(args, name) not in (None, False)]
    wrong = [name for name in MAGNITUDE_OPTIONS if getattr(args, name) not in (None, False, "")] if channels else given
    if wrong:
        what = "is not for" if channels else "needs"
        hint = "give --target-flops X" if channels else ""
        raise UsageError(f"{as_option(wrong[0])} {what} --group NEURON", hint=hint)
    for name, value in CHANNEL_OPTIONS.items() if channels else ():
        setattr(args, name, value if getattr(args, name) is None else getattr(args, name))
    return channels


def run_channels(args: argparse.Namespace) -> int:
    from sslnet.api.prune_channels import check_pruning
    from sslnet.cli.notes import tell_notes
    from sslnet.cli.options import as_option, stages
    from sslnet.prototxt import read_net

    names = stages(args.by)
    if not names:
        raise UsageError("--by names no criterion")
    for name in names:
        check_pruning(
            name,
            args.repair,
            args.share_out,
            (args.target_flops, args.target_params, args.target_time),
            args.images,
            args.round_channels,
            args.floor,
            as_option,
        )
    definition = read_net(args.model)
    tell_notes(definition)
    return _compare(args, definition, names) if len(names) > 1 else _prune(args, definition)


def _prune(args: argparse.Namespace, definition: Definition) -> int:
    from sslnet.api.prune_channels import prune_channels
    from sslnet.cli.compact import output_prefix
    from sslnet.cli.options import stages
    from sslnet.report import dump_json, print_table
    from sslnet.report.pruning import pruned_record, pruned_table

    prefix = output_prefix(args.model, args.weights, args.output, "_pruned")
    trial = _trial(args, definition) if args.test else None
    pruned = prune_channels(
        definition,
        args.weights,
        target_flops=args.target_flops,
        target_params=args.target_params,
        target_time=args.target_time,
        by=args.by.strip(),
        repair=args.repair,
        images=args.images,
        share_out=args.share_out,
        round_channels=args.round_channels,
        floor=args.floor,
        seed=args.seed,
        level=args.level,
        stages=stages(args.stage),
        progress=_tell,
    )
    scores = None
    if trial is not None:
        _tell("testing both nets")
        scores = trial.score(args.weights), trial.score(pruned.weights)
    paths = pruned.save(prefix)
    if args.json:
        record = {"model": paths["model"], "weights": paths["weights"], **pruned_record(pruned.details)}
        print(dump_json(record if scores is None else {**record, "test": {"before": scores[0], "after": scores[1]}}))
        return 0
    table = pruned_table(pruned.details)
    if scores is not None and scores[0].error is not None:
        before, after = (f"{100 * (score.error or 0.0):.2f} %" for score in scores)
        table.note(f"test error: {before} before, {after} after")
    print_table(table)
    print(f"\nwrote\n  {paths['model']}\n  {paths['weights']}\n\nto remove the channels:")
    print(f"  sslnet compact --model {paths['model']} --weights {paths['weights']}")
    return 0


def _compare(args: argparse.Namespace, definition: Definition, names: tuple[str, ...]) -> int:
    from sslnet.api.prune_channels import pruner_of, read_net_in_test
    from sslnet.cli.options import stages
    from sslnet.compress.pruning.compare_criteria import compare_criteria
    from sslnet.report import dump_json, print_table
    from sslnet.report.pruning import criteria_table, pruned_record

    if args.output:
        raise UsageError(
            "--output is for one criterion: several are compared, and nothing is written", hint="--by one of them"
        )
    trial = _trial(args, definition) if args.test else None
    net = read_net_in_test(definition, args.weights, args.level, stages(args.stage))
    whole = None
    if trial is not None:
        _tell("testing the whole net")
        whole = trial.score(args.weights)
    rows = compare_criteria(
        pruner_of(net, args.images, args.seed, _tell),
        names,
        target_flops=args.target_flops,
        target_params=args.target_params,
        target_time=args.target_time,
        repair=args.repair,
        share_out=args.share_out,
        round_channels=args.round_channels,
        floor=args.floor,
        trial=trial,
        progress=_tell,
    )
    if args.json:
        record = [{**pruned_record(row.result), **({} if row.score is None else {"test": row.score})} for row in rows]
        print(dump_json({"model": args.model, "weights": args.weights, "whole": whole, "criteria": record}))
    else:
        print_table(criteria_table(rows, whole))
    return 0


def _trial(args: argparse.Namespace, definition: Definition) -> Trial:
    from sslnet.cli.options import stages
    from sslnet.compress.evaluation import Trial

    trial = Trial(definition, args.level, stages(args.stage), None, 0)
    trial.check()
    return trial


def _tell(text: str) -> None:
    """Says on stderr what is being done."""
    print(f"{text} ...", file=sys.stderr, flush=True)
