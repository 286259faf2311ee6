"""``sslnet test``: tests a trained net on its test data, as ``caffe test`` does."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from sslnet.cli.options import add_deterministic_option, add_output_options, add_rule_options
from sslnet.errors import UsageError

if TYPE_CHECKING:
    from sslnet.cli.log import RunLog
    from sslnet.inference.class_metrics import ClassMetrics
    from sslnet.net.average_precision import DetectionScore
    from sslnet.net.net import Net

HELP = "Tests a trained net on its test data: the average of every output over the batches, and measures of each class."
EXAMPLE = (
    "sslnet test --model models/digits/train_test.prototxt "
    "--weights snapshots/digits_ssl/digits_ssl_iter_3000.caffemodel"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", required=True, metavar="FILE", help="the net with its data (train_test.prototxt, train_val.prototxt)"
    )
    parser.add_argument("--weights", required=True, metavar="FILE", help="its weights (.caffemodel or .caffemodel.h5)")
    parser.add_argument(
        "--iterations", type=int, metavar="N", help="batches to run; default: all test data once, or 50"
    )
    parser.add_argument(
        "--ap-version", choices=("11point", "MaxIntegral", "Integral"), default="11point",
        help="average precision of detections; default 11point",
    )  # fmt: skip
    parser.add_argument("--phase", choices=("TRAIN", "TEST"), default="TEST", help="phase of the net; default TEST")
    measures = parser.add_argument_group("measures of a classifier")
    measures.add_argument(
        "--metrics",
        action="store_true",
        help="also top-k accuracy, and precision, recall, F1, intersection over union, ROC area and average precision of "
        "each class, with the confusion matrix of few classes",
    )
    measures.add_argument(
        "--top", type=int, default=5, metavar="N", help="with --metrics: the k of the top-k accuracy; default 5"
    )
    measures.add_argument(
        "--of",
        metavar="LAYER",
        help="with --metrics: Accuracy or loss layer whose scores are measured; default: the last Accuracy layer, else "
        "the last loss",
    )
    measures.add_argument("--labels", metavar="FILE", help="with --metrics: text file with one class name per line")
    measures.add_argument("--confusion", metavar="FILE.csv", help="with --metrics: file for the confusion matrix")
    add_rule_options(parser)
    parser.add_argument("--threads", type=int, metavar="N", help="number of threads; default: one per physical core")
    add_deterministic_option(parser)
    add_output_options(parser)
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")


def run(args: argparse.Namespace) -> int:
    from sslnet import sslnet_pb2 as pb
    from sslnet.cli.compiling import Compiling
    from sslnet.cli.log import RunLog
    from sslnet.cli.notes import tell_data, tell_notes
    from sslnet.cli.options import load_weights, stages, use_threads
    from sslnet.compress.evaluation import epoch_batches
    from sslnet.net.average_precision import DetectionScore
    from sslnet.net.net import Net
    from sslnet.report import dump_json

    use_threads(args.threads, args.deterministic)
    if args.iterations is not None and args.iterations < 1:
        raise UsageError(f"--iterations must be at least 1, not {args.iterations}")
    phase = pb.Phase.Value(args.phase)
    net = Net(args.model, phase=phase, level=args.level, stages=stages(args.stage), lean=True)
    metrics = make_metrics(args, net)
    if net.inputs:
        raise UsageError(
            f"{args.model} has no test data: no data layer fills {', '.join(net.inputs)}",
            hint="give the net with the data layers, train_test.prototxt or train_val.prototxt",
        )
    log = RunLog()
    tell_notes(net.definition, log=log)
    tell_data(net, log=log)
    load_weights(net, args.weights, log)
    iterations = args.iterations or epoch_batches(net) or 50
    log(f"Running for {iterations} iterations.")
    detections = DetectionScore(net)
    with Compiling(log):
        outputs, loss = score(net, iterations, log, metrics, detections)
    measured, lines = measures_of(metrics, args)
    if args.json:
        found = precision_of(net, detections, args.ap_version)
        print(dump_json(as_json(args, net, iterations, outputs, loss) | found | measured, indent=None))
    else:
        lines = [*precision_lines(net, detections, args.ap_version), *lines]
        log.result(*summary(net, outputs, loss), *error_lines(net, outputs, iterations), *lines)
    return 0


def make_metrics(args: argparse.Namespace, net: Net) -> ClassMetrics | None:
    """What --metrics collects; None without it. raises UsageError for options without effect, or that do not fit the net"""
    from sslnet.inference.class_metrics import ClassMetrics, scored_labels

    if not args.metrics:
        for name in ("of", "labels", "confusion"):
            if getattr(args, name) is not None:
                raise UsageError(f"--{name} does nothing without --metrics")
        return None
    if args.top < 1:
        raise UsageError(f"--top must be at least 1, not {args.top}")
    place = scored_labels(net, args.of)
    if place.several and args.confusion:
        raise UsageError(f"--confusion: {place.layer} has several labels an image, so there is no confusion matrix")
    return ClassMetrics(place, args.top)


def measures_of(metrics: ClassMetrics | None, args: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """The measures as fields of the JSON object, and as lines of text; writes the confusion matrix if it has a file."""
    from sslnet.cli.options import read_labels
    from sslnet.files import atomic_write
    from sslnet.report.class_metrics import class_json, class_summary, class_table, confusion_csv, confusion_table

    if metrics is None:
        return {}, []
    result = metrics.result()
    names = read_labels(args.labels) if args.labels else []
    if names and len(names) != result.classes:
        raise UsageError(f"there are {len(names)} class names, but {result.classes} classes", path=args.labels)
    tables = [class_summary(result), class_table(result, names), confusion_table(result, names)]
    lines = [line for table in tables if table is not None for line in ("", *table.text().splitlines())]
    if args.confusion:
        atomic_write(args.confusion, confusion_csv(result, names).encode())
        lines += ["", f"confusion matrix: {args.confusion}"]
    return {"metrics": class_json(result, names)}, lines


def score(
    net: Net,
    iterations: int,
    log: RunLog,
    metrics: ClassMetrics | None = None,
    detections: DetectionScore | None = None,
) -> tuple[list[tuple[str, float]], float]:
    """Averages over the batches: (output, value) for each element of each output, and the weighted loss. Outputs of
    DetectionEvaluate layers have no mean: ``detections`` collects them."""
    import numpy as np

    from sslnet.cli.log import number

    sums: Any = 0.0
    loss = 0.0
    names: list[str] = []
    for batch in range(iterations):
        outputs = net.forward(metrics.blobs if metrics is not None else None)
        loss += net.loss
        if metrics is not None:
            metrics.add(outputs)
            outputs = {name: outputs[name] for name in net.outputs}
        if detections is not None:
            detections.add()
            outputs = {name: data for name, data in outputs.items() if name not in detections.names}
        names = [name for name, data in outputs.items() for _ in range(data.size)]
        values = np.concatenate([np.empty(0), *(data.ravel() for data in outputs.values())])
        if batch and len(values) != len(sums):
            raise UsageError(
                "the outputs of the net change size between batches, so they have no mean",
                path=net.definition.path,
                hint="--iterations 1 shows the outputs of the first batch",
            )
        sums = sums + values
        for name, value in zip(names, values):
            log(f"Batch {batch}, {name} = {number(value)}")
    return [(name, float(total) / iterations) for name, total in zip(names, sums)], loss / iterations


def summary(net: Net, outputs: list[tuple[str, float]], loss: float) -> list[str]:
    """The last lines of Caffe's output."""
    from sslnet.cli.log import loss_part, number

    lines = [f"Loss: {number(loss)}"]
    lines += [f"{name} = {number(value)}{loss_part(value, net.loss_weights.get(name, 0.0))}" for name, value in outputs]
    return lines


def error_lines(net: Net, outputs: list[tuple[str, float]], iterations: int) -> list[str]:
    """The test errors from the net's Accuracy layers; empty without such layers."""
    from sslnet.cli.monitors import accuracies
    from sslnet.net.input_layers import source_shapes

    names = accuracies(net)
    errors = [
        f"{100 * (1 - value):.2f} %" + f" ({name})" * (len(names) > 1) for name, value in outputs if name in names
    ]
    images = iterations * next((shape[0] for shape in source_shapes(net).values() if shape), 1)
    return [f"test error: {', '.join(errors)} of {images:,} images"] if errors else []


def precision_lines(net: Net, detections: DetectionScore, version: str) -> list[str]:
    """The average precision of each class, and their mean; empty without DetectionEvaluate layers."""
    lines, names = [], class_names(net)
    for name in detections.names:
        classes = detections.classes(name, version)
        lines += [f"{names.get(label, f'class {label}')}: {value:.4f}" for label, value in classes.items()]
        lines.append(f"{name}: mAP {detections.mean(name, version):.4f} ({version}, {len(classes)} classes)")
    return lines


def precision_of(net: Net, detections: DetectionScore, version: str) -> dict[str, Any]:
    """The same for programs."""
    names = class_names(net)
    found = {
        name: {
            "mean": detections.mean(name, version),
            "classes": {names.get(k, str(k)): value for k, value in detections.classes(name, version).items()},
        }
        for name in detections.names
    }
    return {"ap_version": version, "average_precision": found} if found else {}


def class_names(net: Net) -> dict[int, str]:
    """The names of classes from the label map of an AnnotatedData layer."""
    from sslnet.layers.annotated_data import AnnotatedData

    return next((layer.classes for layer in net.layers if isinstance(layer, AnnotatedData)), {})


def as_json(
    args: argparse.Namespace, net: Net, iterations: int, outputs: list[tuple[str, float]], loss: float
) -> dict[str, Any]:
    """The result for programs: an output of several elements is a list."""
    values: dict[str, Any] = {}
    for name, value in outputs:
        values.setdefault(name, []).append(value)
    return {
        "model": args.model,
        "weights": args.weights,
        "net": net.name,
        "iterations": iterations,
        "loss": loss,
        "outputs": {name: items[0] if len(items) == 1 else items for name, items in values.items()},
    }
