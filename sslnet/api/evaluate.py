"""``sslnet.evaluate``: measures of a classifier on its test data."""

from __future__ import annotations

from sslnet import sslnet_pb2 as pb
from sslnet.api.inputs import Model, Weights, read_model, read_weights
from sslnet.compress.evaluation import epoch_batches
from sslnet.errors import UsageError
from sslnet.inference.class_metrics import ClassMetrics, ClassResult, scored_labels
from sslnet.net.net import Net


def evaluate(
    model: Model,
    weights: Weights | None = None,
    *,
    iterations: int | None = None,
    layer: str | None = None,
    top: int = 5,
    phase: int = pb.TEST,
) -> ClassResult:
    """Runs a net on its test data, and measures its predictions.

        result = sslnet.evaluate("models/digits/train_test.prototxt", "digits.caffemodel")
        print(result.accuracy, result.mean("f1"), result.confusion)

    model, weights  the net with its data layers, and its weights, as in ``sslnet.compact``
    iterations      batches to run; None: all data once, or 50 where their number is not known
    layer           Accuracy layer or loss whose scores are measured; None: the last Accuracy layer, else the last loss
    top             the k of the top-k accuracy
    phase           phase of the net

    returns  a ClassResult: ``accuracy``, ``top_accuracy``, ``confusion`` (labels, predictions), and of each class ``support``,
             ``precision``, ``recall``, ``f1``, ``iou``, ``auc``, ``average_precision``; ``mean(name)`` over the classes
    raises   UsageError for a net without data layers, or that compares no scores with labels; WeightsError
    """
    if iterations is not None and iterations < 1:
        raise UsageError(f"iterations must be at least 1, not {iterations}")
    if top < 1:
        raise UsageError(f"top must be at least 1, not {top}")
    net = Net(read_model(model), phase=phase, lean=True)
    if net.inputs:
        raise UsageError(f"the net has no test data: no data layer fills {', '.join(net.inputs)}")
    net.copy_from(read_weights(weights, model))
    metrics = ClassMetrics(scored_labels(net, layer), top)
    for _ in range(iterations or epoch_batches(net) or 50):
        metrics.add(net.forward(metrics.blobs))
    return metrics.result()
