"""``sslnet teach``: combines a small net with its teacher, in files ready for training."""

from __future__ import annotations

import argparse

from sslnet.cli.options import add_rule_options
from sslnet.errors import printable

HELP = "Combines a small net with a trained teacher net for knowledge distillation: files ready for fine-tuning."
EXAMPLE = (
    "sslnet teach --model small.prototxt --weights small.caffemodel "
    "--teacher models/lenet/train_test.prototxt --teacher-weights lenet.caffemodel"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="FILE", help="the small net (train_test.prototxt)")
    parser.add_argument("--weights", required=True, metavar="FILE", help="its weights (.caffemodel)")
    parser.add_argument("--teacher", required=True, metavar="FILE",
        help="the teacher net (train_test.prototxt or deploy.prototxt)")  # fmt: skip
    parser.add_argument("--teacher-weights", required=True, metavar="FILE", help="the teacher's weights (.caffemodel)")
    parser.add_argument("--scores", metavar="BLOB",
        help="blob of the small net's scores; default: the blob that its loss reads")  # fmt: skip
    parser.add_argument(
        "--teacher-scores",
        metavar="BLOB",
        help="blob of the teacher's scores; default: the blob that its loss or Softmax reads",
    )
    parser.add_argument("--loss-weight", type=float, metavar="X",
        help="loss weight of the distance between the scores; default: by the size of the teacher's scores")  # fmt: skip
    parser.add_argument(
        "--output", metavar="PREFIX", help="where to write PREFIX.prototxt and PREFIX.caffemodel; a folder takes the "
        "weights' name; default: beside the weights, with _taught",
    )  # fmt: skip
    add_rule_options(parser)
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")


def run(args: argparse.Namespace) -> int:
    from sslnet.api.teach import check_loss_weight, teach
    from sslnet.cli.compact import output_prefix, train_line
    from sslnet.cli.notes import tell_notes
    from sslnet.cli.options import as_option, stages
    from sslnet.prototxt import read_net
    from sslnet.report import dump_json

    check_loss_weight(args.loss_weight, as_option)
    prefix = output_prefix(args.model, args.weights, args.output, "_taught")
    student, teacher = read_net(args.model), read_net(args.teacher)
    tell_notes(student)
    result = teach(
        student,
        args.weights,
        teacher=teacher,
        teacher_weights=args.teacher_weights,
        scores=args.scores,
        teacher_scores=args.teacher_scores,
        loss_weight=args.loss_weight,
        level=args.level,
        stages=stages(args.stage),
    )
    paths, taught = result.save(prefix), result.details
    if args.json:
        record = {"model": paths["model"], "weights": paths["weights"], "scores": taught.scores}
        print(dump_json({**record, "loss_weight": taught.weight}))
        return 0
    print("\n".join(["wrote", f"  {paths['model']}", f"  {paths['weights']}"]))
    scores = [printable(name) for name in taught.scores]
    print(f"\nto train {scores[0]} towards {scores[1]} with weight {taught.weight:g}:")
    print(train_line(paths["model"], "--weights", paths["weights"]))
    return 0
