"""Tables of the measures of a classifier."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sslnet.inference.class_metrics import ClassResult
from sslnet.report.tables import Table

MEANS = {
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "iou": "IoU",
    "auc": "area under the ROC curve",
    "average_precision": "average precision (mAP)",
}
"""Measures of a class, and their names in the table."""
MOST_ROWS = 50
"""Classes of the table; with more of them it has those of the lowest F1."""
MOST_COLUMNS = 16
"""Classes of the largest confusion matrix that is printed."""


def class_summary(result: ClassResult) -> Table:
    """Measures over all predictions, and means over the classes."""
    kind = "pixels" if result.dense else "images"
    table = Table(f"Measures of {result.layer}, {result.predictions:,} {kind}, {result.classes:,} classes", "", "value")
    table.add("accuracy" if result.confusion is not None else "right targets", percent(result.accuracy))
    if not math.isnan(result.top_accuracy):
        table.add(f"top-{result.top} accuracy", percent(result.top_accuracy))
    for name, title in MEANS.items():
        if not math.isnan(value := result.mean(name)):
            table.add(f"mean {title}", percent(value))
    if (missing := int((result.support == 0).sum())) and result.classes > missing:
        table.note(f"means leave out {missing} {'class' if missing == 1 else 'classes'} without labels")
    return table


def class_table(result: ClassResult, names: Sequence[str] = ()) -> Table:
    """A row for each class, or for the ``MOST_ROWS`` classes of the lowest F1."""
    shown = [name for name in MEANS if not np.isnan(getattr(result, name)).all()]
    heads = {"average_precision": "average\nprecision", "auc": "ROC\narea", "f1": "F1", "iou": "IoU"}
    table = Table(
        "Classes", "class", "labels", *(heads.get(name, name) for name in shown), drop=range(1 + len(shown), 3, -1)
    )
    classes = np.arange(result.classes)
    if result.classes > MOST_ROWS:
        classes = np.sort(np.argsort(np.nan_to_num(result.f1, nan=2.0), kind="stable")[:MOST_ROWS])
        table.note(f"the {MOST_ROWS} classes of the lowest F1; --json has all {result.classes:,}")
    for k in classes:
        values = (percent(float(getattr(result, name)[k])) for name in shown)
        table.add(name_of(int(k), names), f"{result.support[k]:,}", *values)
    return table


def confusion_table(result: ClassResult, names: Sequence[str] = ()) -> Table | None:
    """Labels against predictions; None with too many classes, or several labels an image."""
    if result.confusion is None or result.classes > MOST_COLUMNS:
        return None
    columns = [name_of(k, names) for k in range(result.classes)]
    table = Table("Confusion matrix: a row for each label, a column for each predicted class", "", *columns)
    for name, row in zip(columns, result.confusion):
        table.add(name, *(f"{count:,}" if count else "." for count in row))
    return table


def confusion_csv(result: ClassResult, names: Sequence[str] = ()) -> str:
    """The confusion matrix as CSV: the first row and the first column are names of classes."""
    assert result.confusion is not None
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [name_of(k, names) for k in range(result.classes)]
    writer.writerow(["label \\ prediction", *columns])
    writer.writerows([name, *row.tolist()] for name, row in zip(columns, result.confusion))
    return text.getvalue()


def class_json(result: ClassResult, names: Sequence[str] = ()) -> dict[str, Any]:
    """The measures for programs; NaN becomes null where it is written."""
    means = {f"mean_{name}": result.mean(name) for name in MEANS}
    classes = [
        {"class": name_of(k, names), "labels": int(result.support[k])}
        | {name: float(getattr(result, name)[k]) for name in MEANS}
        for k in range(result.classes)
    ]
    return {
        "layer": result.layer,
        "predictions": result.predictions,
        "accuracy": result.accuracy,
        f"top_{result.top}": result.top_accuracy,
        **means,
        "classes": classes,
        "confusion": result.confusion,
    }


def name_of(k: int, names: Sequence[str]) -> str:
    """Name of a class, or its number."""
    return names[k] if k < len(names) else str(k)


def percent(value: float) -> str | None:
    """A share in percent; None for NaN."""
    return None if math.isnan(value) else f"{100 * value:.2f} %"
