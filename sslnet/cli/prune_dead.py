"""``sslnet prune --dead``: sets to zero what provably emits a constant."""

from __future__ import annotations

import argparse

from sslnet.errors import UsageError


def run_dead(args: argparse.Namespace) -> int:
    from sslnet.api.prune_dead import check_box, prune_dead
    from sslnet.cli.compact import output_prefix
    from sslnet.cli.notes import tell_notes
    from sslnet.cli.options import as_option, stages
    from sslnet.prototxt import read_net
    from sslnet.report import dump_json, print_table
    from sslnet.report.dead import dead_record, dead_table

    if not args.dead:
        raise UsageError("--box and --seen need --dead")
    for name, given in (
        ("--sparsity", args.sparsity is not None), ("--quality", args.quality is not None), ("--whole-net", args.whole_net),
        ("--take-bias", args.take_bias), ("--layers", bool(args.layers)), ("--group", args.group != "ELEMENT"),
    ):  # fmt: skip
        if given:
            raise UsageError(f"{name} and --dead exclude each other: --dead zeroes what is proven to be constant")
    box = read_box(args.box)
    check_box(box, args.seen, as_option)
    prefix = output_prefix(args.model, args.weights, args.output, "_pruned")
    definition = read_net(args.model)
    tell_notes(definition)
    pruned = prune_dead(definition, args.weights, box=box, seen=args.seen, level=args.level, stages=stages(args.stage))
    paths, details = pruned.save(prefix), pruned.details
    if args.json:
        print(dump_json({"model": paths["model"], "weights": paths["weights"], **dead_record(details)}))
        return 0
    boxes = ", ".join(f"{each.blob} in [{each.low:g}, {each.high:g}]" for each in details.inputs)
    dead = sum(len(each.dead) for each in details.layers)
    print(f"proven for every input with {boxes}: {dead:,} filters and neurons emit a constant")
    if details.layers:
        print()
        print_table(dead_table(details.layers))
    if details.images:
        idle = sum(len(each.dead) for each in details.idle)
        print(
            f"\napproximate, constant on {details.images:,} images of {details.data}, not proven for others: {idle:,} more"
        )
        if details.idle:
            print()
            print_table(dead_table(details.idle))
    print(f"\nwrote\n  {paths['model']}\n  {paths['weights']}\n\nto remove them:")
    print(f"  sslnet compact --model {paths['model']} --weights {paths['weights']}")
    return 0


def read_box(text: str | None) -> tuple[float, float] | None:
    """The two numbers of ``--box LO,HI``. raises UsageError"""
    if text is None:
        return None
    try:
        low, high = (float(word) for word in text.split(","))
    except ValueError:
        raise UsageError(f'--box takes two numbers, as --box 0,1, not "{text}"') from None
    return low, high
