"""``sslnet prune``: sets the smallest weights to zero, or removes whole channels and repairs the net without training."""

from __future__ import annotations

import argparse

from sslnet.cli.options import add_rule_options
from sslnet.cli.prune_channels import add_channel_arguments, check_options, run_channels

HELP = "Sets the smallest weights to zero, or removes whole channels to a FLOPs target and repairs the net untrained."
EXAMPLE = (
    "sslnet prune --model models/digits/train_test.prototxt "
    "--weights snapshots/digits/digits_iter_1200.caffemodel --sparsity 0.9"
)
GROUPS = ("ELEMENT", "FILTER", "CHANNEL", "SHAPE", "FILTER_2D", "INPUT_NEURON", "OUTPUT_NEURON", "NEURON")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="FILE", help="the net")
    parser.add_argument("--weights", required=True, metavar="FILE", help="its weights (.caffemodel)")
    parser.add_argument("--sparsity", type=float, metavar="X", help="fraction of the groups to set to zero, 0 to 1")
    parser.add_argument("--quality", type=float, metavar="Q",
        help="instead of --sparsity: zero groups below Q standard deviations of their layer's weights")  # fmt: skip
    parser.add_argument(
        "--group",
        choices=GROUPS,
        default="ELEMENT",
        help="kind of groups to zero; default ELEMENT, single weights; NEURON: whole channels",
    )
    parser.add_argument("--take-bias", action="store_true",
        help="with FILTER or OUTPUT_NEURON: also zero the biases of the pruned filters or neurons")  # fmt: skip
    parser.add_argument("--whole-net", action="store_true",
        help="apply --sparsity to the smallest groups of the whole net; default: to each layer")  # fmt: skip
    parser.add_argument("--layers", default="", metavar="A,B",
        help="layers to prune; default: all but the last with weights")  # fmt: skip
    parser.add_argument(
        "--output", metavar="PREFIX", help="where to write PREFIX.prototxt and PREFIX.caffemodel; a folder takes the "
        "weights' name; default: beside the weights, with _pruned",
    )  # fmt: skip
    parser.add_argument("--dead", action="store_true",
        help="instead of --sparsity: zero filters and neurons that provably emit a constant; the function stays the same")  # fmt: skip
    parser.add_argument("--box", metavar="LO,HI",
        help="with --dead: smallest and largest number of the net's input; default: those that its data layer can give")  # fmt: skip
    parser.add_argument("--seen", type=int, default=0, metavar="N",
        help="with --dead: also zero what is constant on N images of the training data; exact on these images alone")  # fmt: skip
    add_channel_arguments(parser)
    add_rule_options(parser)
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")


def run(args: argparse.Namespace) -> int:
    from sslnet.api.prune import check_amount, prune
    from sslnet.cli.compact import output_prefix, train_line
    from sslnet.cli.notes import tell_notes
    from sslnet.cli.options import as_option, stages
    from sslnet.prototxt import read_net
    from sslnet.report import dump_json, print_table, sparsity_table

    if args.dead or args.box is not None or args.seen:
        from sslnet.cli.prune_dead import run_dead

        return run_dead(args)
    if check_options(args):
        return run_channels(args)
    check_amount(args.sparsity, args.quality, args.whole_net, as_option)
    prefix = output_prefix(args.model, args.weights, args.output, "_pruned")
    definition = read_net(args.model)
    tell_notes(definition)
    pruned = prune(
        definition,
        args.weights,
        sparsity=args.sparsity,
        quality=args.quality,
        group=args.group,
        layers=stages(args.layers),
        whole_net=args.whole_net,
        take_bias=args.take_bias,
        level=args.level,
        stages=stages(args.stage),
    )
    paths = pruned.save(prefix)
    if args.json:
        record = {
            "model": paths["model"],
            "weights": paths["weights"],
            "group": args.group,
            "layers": pruned.details.layers,
        }
        print(dump_json({**record, "sparsity": pruned.details.sparsity}))
        return 0
    print_table(sparsity_table(pruned.details.sparsity))
    print(
        f"\nwrote\n  {paths['model']}\n  {paths['weights']}\n\nto continue training it with the zeros kept, with a solver of your choice:"
    )
    print(train_line(paths["model"], "--weights", paths["weights"]))
    return 0
