"""``sslnet teach``: combines a small net with its teacher, in files ready for training."""

from __future__ import annotations

import argparse
import math

from sslnet.cli.options import add_rule_options
from sslnet.errors import UsageError, printable

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
    from sslnet import prototxt
    from sslnet.cli.compact import output_paths, train_line
    from sslnet.cli.notes import tell_notes
    from sslnet.cli.options import stages
    from sslnet.compress.compaction.rebase import relocate
    from sslnet.compress.distillation.teacher import teach
    from sslnet.files import make_folder
    from sslnet.net.weights import save_arrays
    from sslnet.prototxt import read_net
    from sslnet.report import dump_json

    if args.loss_weight is not None and not (args.loss_weight > 0 and math.isfinite(args.loss_weight)):
        raise UsageError(f"--loss-weight must be above 0, not {args.loss_weight:g}")
    paths = output_paths(args.model, args.weights, args.output, "_taught")
    student, teacher = read_net(args.model), read_net(args.teacher)
    tell_notes(student)
    taught = teach(
        student,
        args.weights,
        teacher,
        args.teacher_weights,
        scores=args.scores,
        teacher_scores=args.teacher_scores,
        weight=args.loss_weight,
        level=args.level,
        stages=stages(args.stage),
    )
    make_folder(paths["model"])
    save_arrays(taught.weights, paths["weights"], hdf5=False)
    relocate(taught.definition, args.model, paths["model"])
    prototxt.save(taught.definition, paths["model"])
    if args.json:
        record = {"model": paths["model"], "weights": paths["weights"], "scores": taught.scores}
        print(dump_json({**record, "loss_weight": taught.weight}))
        return 0
    print("\n".join(["wrote", f"  {paths['model']}", f"  {paths['weights']}"]))
    scores = [printable(name) for name in taught.scores]
    print(f"\nto train {scores[0]} towards {scores[1]} with weight {taught.weight:g}:")
    print(train_line(paths["model"], "--weights", paths["weights"]))
    return 0
