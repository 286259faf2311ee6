"""Measures of classifiers: values of scikit-learn 1.9 on data with ties, and pairs counted one by one."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

import sslnet
from sslnet import cli
from sslnet.errors import UsageError
from sslnet.inference.class_metrics import ClassMetrics, ScoredLabels, average_precision, roc_area
from sslnet.report.class_metrics import class_summary, class_table, confusion_csv, confusion_table

N, CLASSES = 40, 4
ROWS = np.arange(N)
LABELS = (ROWS * 7 + ROWS // 5) % CLASSES
SCORES = ((ROWS[:, None] * 5 + np.arange(CLASSES) * 11 + (ROWS[:, None] * np.arange(CLASSES)) % 7) % 13) / 4.0
SCORES[ROWS[::3], LABELS[::3]] += 2
TARGETS = ((ROWS[:, None] * 3 + np.arange(CLASSES) * 5) % 4 < 1 + np.arange(CLASSES) % 2).astype(float)


def measured(scores: np.ndarray, labels: np.ndarray, batch: int = 7, **place: object) -> object:
    fields: dict[str, object] = {"axis": 1, "ignore": None, "several": False} | place
    metrics = ClassMetrics(ScoredLabels("layer", "s", "l", **fields), top=2)  # type: ignore[arg-type]
    for start in range(0, len(scores), batch):
        metrics.add({"s": scores[start : start + batch], "l": labels[start : start + batch]})
    return metrics.result()


def test_measures_of_classes_are_those_of_scikit_learn() -> None:
    result = measured((SCORES + 1) / (SCORES + 1).sum(axis=1, keepdims=True), LABELS.astype(float))
    assert result.accuracy == pytest.approx(0.325)
    assert result.precision == pytest.approx([0.3333333333333333, 0.25, 0.42857142857142855, 0.3])
    assert result.recall == pytest.approx([0.3125, 0.25, 0.375, 0.375])
    assert result.f1 == pytest.approx([0.3225806451612903, 0.25, 0.4, 0.3333333333333333])
    assert result.iou == pytest.approx([0.19230769230769232, 0.14285714285714285, 0.25, 0.2])
    assert result.auc == pytest.approx([0.6796875, 0.556640625, 0.7109375, 0.626953125])
    assert result.average_precision == pytest.approx(
        [0.6030317684634573, 0.3576525054466231, 0.3611081932773109, 0.25969687570494027]
    )
    assert result.confusion.tolist() == [[5, 4, 1, 6], [3, 2, 2, 1], [4, 1, 3, 0], [3, 1, 1, 3]]
    better = (SCORES[ROWS, LABELS][:, None] <= SCORES).sum(axis=1)
    assert result.top_accuracy == pytest.approx((better <= 2).mean())
    assert result.mean("recall") == pytest.approx(0.328125)


def test_scores_of_images_are_compared_as_probabilities() -> None:
    scores = np.random.default_rng(3).normal(size=(50, 4)) + 10 * np.arange(50)[:, None]
    labels = np.arange(50) % 4
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    first = measured(scores, labels)
    second = measured(powers / powers.sum(axis=1, keepdims=True), labels)
    np.testing.assert_allclose(first.auc, second.auc)
    np.testing.assert_allclose(first.average_precision, second.average_precision)


def test_measures_of_several_labels_are_those_of_scikit_learn() -> None:
    result = measured(SCORES - 1.5, TARGETS, several=True)
    assert result.accuracy == pytest.approx(0.53125)
    assert result.precision == pytest.approx(
        [0.3181818181818182, 0.42857142857142855, 0.2777777777777778, 0.5833333333333334]
    )
    assert result.recall == pytest.approx([0.7, 0.45, 0.5, 0.7])
    assert result.auc == pytest.approx([0.5166666666666666, 0.4575, 0.49, 0.5625])
    assert result.average_precision == pytest.approx(
        [0.26218159033948507, 0.5359094300398648, 0.2584825734825735, 0.5431961564466636]
    )
    assert result.confusion is None and np.isnan(result.top_accuracy)
    ignored = TARGETS.copy()
    ignored[:10] = 2
    rest = measured(SCORES[10:] - 1.5, TARGETS[10:], several=True)
    assert measured(SCORES - 1.5, ignored, several=True, ignore=2).auc == pytest.approx(rest.auc)


def test_ranked_measures_are_those_of_all_pairs_and_thresholds() -> None:
    random = np.random.default_rng(0)
    for count in (2, 3, 9, 30):
        scores = random.integers(0, 6, count).astype(np.float32)
        positive = random.random(count) < 0.4
        pairs = [(a > b) + 0.5 * (a == b) for a, b in itertools.product(scores[positive], scores[~positive])]
        if pairs:
            assert roc_area(scores, positive) == pytest.approx(np.mean(pairs))
        else:
            assert np.isnan(roc_area(scores, positive))
        value, recall = 0.0, 0.0
        for threshold in sorted(set(scores), reverse=True):
            taken = scores >= threshold
            if positive.any():
                new = (taken & positive).sum() / positive.sum()
                value += (new - recall) * (taken & positive).sum() / taken.sum()
                recall = new
        if positive.any():
            assert average_precision(scores, positive) == pytest.approx(value)


def test_labels_of_pixels_count_each_and_ignored_ones_do_not() -> None:
    random = np.random.default_rng(1)
    scores, labels = random.normal(size=(3, 4, 5, 6)), random.integers(0, 4, (3, 1, 5, 6)).astype(float)
    labels[random.random(labels.shape) < 0.2] = 255
    result = measured(scores, labels, batch=2, ignore=255)
    guess, truth = scores.argmax(axis=1)[:, None], labels
    for k in range(4):
        both, either = ((guess == k) & (truth == k)).sum(), ((guess == k) | (truth == k))[truth != 255].sum()
        assert result.iou[k] == pytest.approx(both / either)
    assert result.predictions == (labels != 255).sum()
    assert result.dense and np.isnan(result.auc).all()


def test_class_without_labels_has_no_recall_and_is_left_out() -> None:
    result = measured(SCORES, np.minimum(LABELS, 2).astype(float))
    assert np.isnan(result.recall[3]) and not np.isnan(result.mean("recall"))
    assert "means leave out 1 class without labels" in class_summary(result).text()
    assert "-" in class_table(result, ["a", "b", "c", "d"]).text()
    table = confusion_table(result, ["a", "b", "c", "d"])
    assert table is not None and len(table.rows) == 4
    assert confusion_csv(result).splitlines()[0] == "label \\ prediction,0,1,2,3"


NET = """\
layer { name: "digits" type: "Data" top: "data" top: "label"
  data_param { source: "digits/test" backend: BUILTIN batch_size: 359 } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.prototxt").write_text(NET)
    monkeypatch.chdir(tmp_path)
    sslnet.Net("net.prototxt", sslnet.TEST).save("net.caffemodel")
    return tmp_path


def run(*arguments: str) -> int:
    return cli.main(["test", "--model", "net.prototxt", "--weights", "net.caffemodel", *arguments])


def test_command_and_function_agree_with_the_net(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = sslnet.evaluate("net.prototxt", "net.caffemodel", top=3)
    net = sslnet.Net("net.prototxt", "net.caffemodel", sslnet.TEST)
    assert result.accuracy == pytest.approx(float(net.forward()["accuracy"]))
    assert result.predictions == 359 and result.layer == "accuracy"
    (folder / "names.txt").write_text("".join(f"class {k}\n" for k in range(10)))
    assert run("--metrics", "--top", "3", "--confusion", "c.csv", "--labels", "names.txt", "--json") == 0
    found = json.loads(capsys.readouterr().out)["metrics"]
    assert found["accuracy"] == pytest.approx(result.accuracy)
    assert found["top_3"] == pytest.approx(result.top_accuracy)
    assert found["classes"][4]["class"] == "class 4"
    assert found["confusion"] == result.confusion.tolist()
    rows = [line.split(",")[1:] for line in Path("c.csv").read_text().splitlines()[1:]]
    assert [[int(cell) for cell in row] for row in rows] == result.confusion.tolist()
    assert run("--metrics", "--of", "loss") == 0
    out = capsys.readouterr().out
    assert "Measures of loss, 359 images, 10 classes" in out and "Confusion matrix" in out


def test_options_that_cannot_be_are_errors(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (["--confusion", "c.csv"], "--confusion does nothing without --metrics"),
        (["--metrics", "--of", "ip"], 'no layer "ip" compares scores with labels'),
        (["--metrics", "--top", "0"], "--top must be at least 1"),
    ):
        assert run(*arguments) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(UsageError, match="no data layer"):
        sslnet.evaluate(str(deploy(folder)), "net.caffemodel")


def deploy(folder: Path) -> Path:
    path = folder / "deploy.prototxt"
    path.write_text(
        'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 1 dim: 8 dim: 8 } } }'
    )
    return path
