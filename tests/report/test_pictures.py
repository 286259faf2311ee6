"""What pictures show: filters with what is gone, connections by pixel, errors by cost, the course of a run."""

from __future__ import annotations

import contextlib
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from sslnet import cli
from sslnet import sslnet_pb2 as pb
from sslnet.errors import UsageError
from sslnet.net.weights import blob_proto, save_arrays
from sslnet.report import error_pictures, training_pictures, weight_pictures
from sslnet.report.error_pictures import known_costs, plot_errors, read_results
from sslnet.report.metrics_file import NetTest, _sparsity, accuracy_errors, layers_left, parameters_left, read_metrics
from sslnet.report.training_pictures import PicturedTraining, plot_training
from sslnet.report.weight_pictures import (
    PicturedFilters,
    find_connections,
    find_filters,
    plot_connections,
    plot_filters,
)


@pytest.fixture
def panels(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The axes of pictures that are drawn, in place of files."""
    from matplotlib.figure import Figure

    drawn: list[Any] = []

    @contextlib.contextmanager
    def figure(path: Any, rows: int = 1, columns: int = 1, size: Any = None) -> Iterator[list[Any]]:
        axes = Figure(layout="constrained").subplots(rows, columns, squeeze=False).ravel().tolist()
        drawn[:] = axes
        yield axes

    for module in (weight_pictures, error_pictures, training_pictures):
        monkeypatch.setattr(module, "figure", figure)
    return drawn


def save(path: Path, **arrays: Any) -> str:
    """Weights by layer."""
    save_arrays(
        {name: [np.asarray(array, np.float32)] for name, array in arrays.items()}, path, hdf5=path.suffix == ".h5"
    )
    return str(path)


def lines(path: Path, *records: dict[str, Any], rest: str = "") -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records) + rest)
    return str(path)


# -- filters ---------------------------------------------------------------------------------------------------------------


def test_first_convolution_is_found(tmp_path: Path) -> None:
    weights = np.random.default_rng(1).standard_normal((3, 2, 5, 4))
    for name in ("a.caffemodel", "a.caffemodel.h5"):
        path = save(tmp_path / name, ip=np.ones((3, 4)), conv=weights)
        assert np.array_equal(find_filters(path, None, "").weights, weights.astype(np.float32))
        assert find_filters(path, "conv", "").weights.shape == (3, 2, 5, 4)


@pytest.mark.parametrize("groups", [1, 2])
def test_columns_that_were_taken_out_are_zero_again(groups: int, tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    full = np.zeros((4, 3 * 6), np.float32)
    kept = [sorted([*random.choice(17, 5, replace=False).tolist(), 17]) for _ in range(groups)]
    message = pb.NetParameter()
    layer = message.layer.add(name="conv", type="Convolution")
    layer.convolution_param.group = groups
    layer.convolution_param.kernel_h, layer.convolution_param.kernel_w = 2, 3
    small = random.standard_normal((4, 6)).astype(np.float32)
    for group, columns in enumerate(kept):
        layer.convolution_param.kept_column.extend(columns)
        for row in range(group * 4 // groups, (group + 1) * 4 // groups):
            full[row, columns] = small[row]
    layer.blobs.append(blob_proto(small))
    path = tmp_path / "small.caffemodel"
    path.write_bytes(message.SerializeToString())
    assert np.array_equal(find_filters(str(path), None, "").weights, full.reshape(4, 3, 2, 3))


def test_layers_that_have_no_filters_are_told(tmp_path: Path) -> None:
    path = save(tmp_path / "a.caffemodel", conv1=np.ones((2, 1, 3, 3)), ip1=np.ones((3, 4)))
    with pytest.raises(UsageError, match='no layer "conf1" has weights in it') as error:
        find_filters(path, "conf1", "")
    assert error.value.hint == 'did you mean "conv1"?'
    with pytest.raises(UsageError, match='weights of "ip1" are 3 x 4: no filters'):
        find_filters(path, "ip1", "")
    with pytest.raises(UsageError, match="no convolution over two axes"):
        find_filters(save(tmp_path / "b.caffemodel", ip1=np.ones((3, 4))), None, "")


def test_grey_filters_have_zero_in_the_middle(panels: list[Any]) -> None:
    weights = np.zeros((3, 1, 2, 2), np.float32)
    weights[0, 0] = [[1, -1], [0.5, 0.25]]
    weights[2, 0] = [[0, 0.5], [0.5, 0.5]]
    plot_filters([PicturedFilters("net", weights)], "")
    image = panels[0].images[0].get_array().data
    assert image.shape == (4, 10, 3)
    assert image[1:3, 1:3, 0] == pytest.approx(np.array([[1, 0], [0.75, 0.625]]))
    assert (image[1:3, 4:6] == 1).all()  # a filter that is gone is white
    assert image[1, 7, 0] == 1 and image[1, 8, 0] == 0.75  # so is a weight, crossed
    crosses, frames = panels[0].collections
    assert len(crosses.get_segments()) == 2 and len(frames.get_segments()) == 3
    assert panels[0].get_title(loc="left") == "net   2 of 3 filters, black to white: ±1"


def test_each_filter_can_have_a_scale_of_its_own(panels: list[Any]) -> None:
    weights = np.array([4.0, 0.5], np.float32).reshape(2, 1, 1, 1)
    plot_filters([PicturedFilters("net", weights)], "", each=True)
    assert panels[0].images[0].get_array().data[1, [1, 3], 0] == pytest.approx([1, 1])
    plot_filters([PicturedFilters("net", weights)], "")
    assert panels[0].images[0].get_array().data[1, [1, 3], 0] == pytest.approx([1, 0.5625])


@pytest.mark.parametrize(("bgr", "channel"), [(False, 0), (True, 2)])
def test_filters_of_three_channels_are_in_colour(bgr: bool, channel: int, panels: list[Any]) -> None:
    weights = np.zeros((1, 3, 1, 2), np.float32)
    weights[0, 0, 0, 0] = 1
    plot_filters([PicturedFilters("net", weights)], "", bgr=bgr)
    image = panels[0].images[0].get_array().data
    assert image[1, 1].tolist() == [1.0 if c == channel else 0.5 for c in range(3)]
    assert len(panels[0].collections[0].get_segments()) == 2  # the second weight is zero in all channels


def test_filters_of_many_channels_have_a_row_for_each(panels: list[Any]) -> None:
    weights = np.ones((4, 2, 1, 1), np.float32)
    weights[:, 1] = 0
    plot_filters([PicturedFilters("net", weights), PicturedFilters("small", weights[:1, :1])], "")
    assert panels[0].images[0].get_array().data.shape == (5, 9, 3)
    assert "a column is a filter, a row an input channel" in panels[1].get_xlabel()
    assert "1 of 4 filters" in panels[1].get_title(loc="left")
    assert "1 of 2 weights in each" in panels[0].get_title(loc="left")
    assert len(panels[1].collections[1].get_segments()) == 8


# -- connections -------------------------------------------------------------------------------------------------------------


def test_connections_are_counted_by_pixel_over_channels(tmp_path: Path) -> None:
    weights = np.zeros((5, 2, 2, 3), np.float32)
    weights[:4, 0, 0, 1] = 1
    weights[2:, 1, 0, 1] = -1
    weights[0, 1, 1, 2] = 1
    path = save(tmp_path / "a.caffemodel", conv1=np.ones((2, 1, 3, 3)), ip1=weights.reshape(5, -1))
    counts = find_connections(path, None, [2, 2, 3], "").counts
    assert counts.tolist() == [[0, 7, 0], [0, 0, 1]]


def test_transposed_and_old_weights_are_read_too(tmp_path: Path) -> None:
    matrix = np.ones((3, 4), np.float32)
    matrix[:, 1] = 0
    message = pb.NetParameter()
    layer = message.layer.add(name="ip", type="InnerProduct")
    layer.inner_product_param.transpose = True
    layer.blobs.append(blob_proto(matrix.T))
    (tmp_path / "t.caffemodel").write_bytes(message.SerializeToString())
    old = save(tmp_path / "old.caffemodel", ip=matrix.reshape(1, 1, 3, 4))
    for path in (str(tmp_path / "t.caffemodel"), old):
        assert find_connections(path, "ip", None, "").counts.tolist() == [[3, 0], [3, 3]]


def test_what_is_no_image_needs_a_shape(tmp_path: Path) -> None:
    path = save(tmp_path / "a.caffemodel", conv1=np.ones((2, 1, 3, 3)), ip1=np.ones((2, 6)), ip2=np.ones((2, 48)))
    with pytest.raises(UsageError, match='"ip1" reads 6 numbers: no square image') as error:
        find_connections(path, "ip1", None, "")
    assert error.value.hint == "say which: --shape C,H,W"
    with pytest.raises(UsageError, match=r'"ip1" reads 6 numbers, not 8 \(--shape 2,4\)'):
        find_connections(path, "ip1", [2, 4], "")
    with pytest.raises(UsageError, match='"conv1" is no InnerProduct layer') as error:
        find_connections(path, "conv1", None, "")
    assert error.value.hint == "InnerProduct layers in it: ip1, ip2"
    assert find_connections(path, "ip1", [2, 3], "").counts.shape == (2, 3)
    assert find_connections(path, "ip2", None, "").counts.shape == (4, 4)


def test_maps_share_their_colours_unless_asked(panels: list[Any], tmp_path: Path) -> None:
    few, many = np.zeros((9, 4)), np.ones((9, 4))
    few[:3, :2] = 1
    path = save(tmp_path / "a.caffemodel", few=few, many=many)
    models = [find_connections(path, layer, None, layer) for layer in ("few", "many")]
    plot_connections(models, "")
    assert [panel.images[0].get_clim() for panel in panels] == [(1, 9), (1, 9)]
    assert panels[0].get_title() == "few\n2 of 4 pixels connected"
    plot_connections(models, "", each=True)
    assert [panel.images[0].get_clim() for panel in panels] == [(1, 3), (1, 9)]


# -- errors --------------------------------------------------------------------------------------------------------------------


PATH = {
    "weights": "dense.caffemodel",
    "points": [
        {"factor": None, "error": 0.01, "flops": 1e6, "parameters": 1000, "forward_ms": 2.0, "best": {"flops": True, "parameters": True, "time": True}},
        {"factor": 0.5, "error": 0.02, "flops": 1e5, "parameters": 500, "forward_ms": 1.0, "best": {"flops": True, "parameters": False, "time": False}},
    ],
}  # fmt: skip


def test_path_is_read_with_its_baseline_and_marks(tmp_path: Path) -> None:
    file = tmp_path / "path.json"
    file.write_text(json.dumps(PATH))
    results = read_results(str(file), "")
    assert (results.measure, results.baseline, results.joined) == ("error", 0.01, True)
    assert [net.label for net in results.nets] == ["start", "0.500"]
    assert results.nets[1].best == {"flops"}
    assert known_costs([results]) == ["flops", "parameters", "forward_ms"]


def test_lines_of_a_path_tell_the_same_as_its_json(tmp_path: Path) -> None:
    head = "point,factor,error,loss,flops,parameters,forward_ms,speedup,best_by_flops,best_by_parameters,best_by_time,weights"
    rows = ["0,,0.01,,1000000.0,1000,2.0,1.0,1,1,1,", "1,0.5,0.02,,100000.0,500,1.0,2.0,1,0,0,p.caffemodel"]
    (tmp_path / "path.csv").write_text("\n".join([head, *rows]) + "\n")
    (tmp_path / "path.json").write_text(json.dumps(PATH))
    found = [read_results(str(tmp_path / name), "").nets for name in ("path.csv", "path.json")]
    assert found[0] == found[1]


def test_outcome_of_compress_is_read(tmp_path: Path) -> None:
    sides = {name: {"error": error, "loss": 0.1, "flops": 10.0 * error, "parameters": 9} for name, error in (("baseline", 0.01), ("small", 0.02))}  # fmt: skip
    (tmp_path / "report.json").write_text(json.dumps({"target": {}, **sides}))
    results = read_results(str(tmp_path / "report.json"), "")
    assert [(net.label, net.score) for net in results.nets] == [("baseline", 0.01), ("small", 0.02)]
    assert results.baseline == 0.01 and not results.joined


def test_losses_count_where_there_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "nets.csv").write_text("name,loss,layers\na,2.5,20\nb,nan,30\nc,2.25,14\n")
    results = read_results(str(tmp_path / "nets.csv"), "")
    assert results.measure == "loss"
    assert [(net.label, net.score, net.costs) for net in results.nets] == [
        ("a", 2.5, {"layers": 20}),
        ("c", 2.25, {"layers": 14}),
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.json", "{"), ("a.json", "[]"), ("a.json", '{"points": 3}'), ("a.csv", "x,y\n1,2\n"), ("a.csv", "")],
)
def test_files_without_nets_are_refused(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=name):
        read_results(str(tmp_path / name), "")


def test_panels_show_points_and_the_baseline(panels: list[Any], tmp_path: Path) -> None:
    (tmp_path / "path.json").write_text(json.dumps(PATH))
    results = read_results(str(tmp_path / "path.json"), "")
    plot_errors([results], ["flops", "forward_ms"], "")
    assert [panel.get_xlabel() for panel in panels] == ["FLOPs per image", "forward ms"]
    baseline, line, best = panels[1].lines
    assert list(baseline.get_ydata()) == [1, 1]
    assert list(zip(line.get_xdata(), line.get_ydata())) == [(2, 1), (1, 2)]
    assert list(zip(best.get_xdata(), best.get_ydata())) == [(2, 1)]
    assert {text.get_text() for text in panels[0].texts} == {"baseline", "start", "0.500"}
    plot_errors([results], ["flops"], "", 0.05)
    assert list(panels[0].lines[0].get_ydata()) == [5, 5]


def test_net_that_was_not_trained_is_left_out(panels: list[Any], tmp_path: Path) -> None:
    points = [{**PATH["points"][0], "error": 0.9}, PATH["points"][1]]  # type: ignore[dict-item]
    (tmp_path / "path.json").write_text(json.dumps({"weights": None, "points": points}))
    plot_errors([read_results(str(tmp_path / "path.json"), "")], ["flops"], "")
    assert list(panels[0].lines[0].get_xdata()) == [1e5]


def test_labels_keep_apart(panels: list[Any], tmp_path: Path) -> None:
    rows = [f"net number {i},0.0{i},{10 + i % 2}" for i in range(1, 7)]
    (tmp_path / "nets.csv").write_text("\n".join(["name,error,layers", *rows]))
    plot_errors([read_results(str(tmp_path / "nets.csv"), "")], ["layers"], "")
    canvas_of(panels[0]).draw()
    boxes = [text.get_window_extent() for text in panels[0].texts]
    assert len(boxes) == 6
    assert not any(boxes[i].overlaps(boxes[j]) for i in range(6) for j in range(i))


def canvas_of(ax: Any) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    ax.figure.set_size_inches(*error_pictures.PANEL)
    return FigureCanvasAgg(ax.figure)


# -- runs ----------------------------------------------------------------------------------------------------------------------


def display(iteration: int, conv: int, ip: int = 3, loss: float | None = 0.5) -> dict[str, Any]:
    def blob(kept: int) -> dict[str, Any]:
        return {"elements": {"kept": 10 * kept, "total": 50}, "filters": {"kept": kept, "total": 5}}

    bias = {"elements": {"kept": 5, "total": 5}}
    sparsity = {"conv[0]": blob(conv), "conv[1]": bias, "ip[0]": blob(ip)}
    return {"type": "train", "iteration": iteration, "loss": loss, "lr": 0.1, "sparsity": sparsity}


def trial(iteration: int, accuracy: float) -> dict[str, Any]:
    return {"type": "test", "iteration": iteration, "net": 0, "outputs": {"accuracy": accuracy, "loss": 1 - accuracy}}


def test_half_a_line_at_the_end_is_passed_over(tmp_path: Path) -> None:
    path = lines(tmp_path / "m.jsonl", {"type": "run"}, display(0, 5), trial(0, 0.5), rest='{"type": "tra')
    run = read_metrics(path)
    assert (len(run.displays), len(run.tests)) == (1, 1)
    for text, words in (("{\n" + '{"type": "train"}\n', "line 1"), ('{"type": "run"}\n', "nothing was measured"), ("3\n3\n", "line 1")):  # fmt: skip
        (tmp_path / "m.jsonl").write_text(text)
        with pytest.raises(UsageError, match=words):
            read_metrics(path)


def test_layers_and_parameters_left_are_counted() -> None:
    sparsity = _sparsity(display(0, 0)["sparsity"])
    assert layers_left(sparsity) == 1
    assert parameters_left(sparsity) == 35


def test_accuracy_is_found_by_its_name() -> None:
    record = NetTest(1, {"accuracy": 0.75, "loss": 0.25}, None)
    assert accuracy_errors(record, None, "m") == {"accuracy": 0.25}
    assert accuracy_errors(record, "loss", "m") == {"loss": 0.75}
    with pytest.raises(UsageError, match='there is no output "top"') as error:
        accuracy_errors(record, "top", "m")
    assert error.value.hint == "outputs of its tests: accuracy, loss"


def test_run_counts_as_a_net_with_its_last_test(tmp_path: Path) -> None:
    path = lines(tmp_path / "m.jsonl", display(0, 5), trial(0, 0.1), display(9, 0), trial(9, 0.9))
    (net,) = read_results(path, "run").nets
    assert net.score == pytest.approx(0.1)
    assert net.costs == {"layers": 1, "parameters": 35}


def test_course_of_a_run_is_drawn(panels: list[Any], tmp_path: Path) -> None:
    path = lines(
        tmp_path / "m.jsonl", display(0, 5), trial(0, 0.1), display(5, 2, loss=None), trial(5, 0.8), display(9, 1), trial(9, 0.9)
    )  # fmt: skip
    plot_training([PicturedTraining("run", path, read_metrics(path))], "")
    losses, errors, left = panels
    assert [list(line.get_xdata()) for line in losses.lines] == [[0, 9], [0, 5, 9]]
    assert list(errors.lines[0].get_ydata()) == pytest.approx([20, 10])
    assert [text.get_text() for text in errors.get_legend().get_texts()] == ["at the end 10.00 %"]
    assert {line.get_label(): list(line.get_ydata()) for line in left.lines} == {
        "conv": [100, 40, 20],
        "ip": [60, 60, 60],
    }


def test_runs_are_told_apart(panels: list[Any], tmp_path: Path) -> None:
    path = lines(tmp_path / "m.jsonl", display(0, 5), trial(5, 0.9))
    run = read_metrics(path)
    plot_training([PicturedTraining("one", path, run), PicturedTraining("two", path, run)], "", of="elements")
    assert {text.get_text() for text in panels[1].get_legend().get_texts()} == {"one: 10.00 %", "two: 10.00 %"}
    assert {text.get_text() for text in panels[2].get_legend().get_texts()} == {"conv", "ip", "one", "two"}
    assert panels[2].get_ylabel() == "elements left (%)"


def test_many_layers_are_told_by_one_colour_bar(panels: list[Any], tmp_path: Path) -> None:
    record = display(0, 5)
    record["sparsity"] = {f"conv{i}[0]": record["sparsity"]["conv[0]"] for i in range(20)}
    path = lines(tmp_path / "m.jsonl", record)
    plot_training([PicturedTraining("run", path, read_metrics(path))], "")
    assert len(panels[2].lines) == 20 and panels[2].get_legend() is None
    assert len(panels[2].figure.axes) == 4


# -- files as nobody wrote them ------------------------------------------------------------------------------------------

ODD = [
    None, True, "x", "\x1b[31m", {}, [], [1], -1, 0, 1.5, 1e300, -1e300, 1e-320, 10**400, 2**31, 2**63,
    float("nan"), float("inf"), {"kept": 5, "total": 1}, {"filters": {"kept": 1, "total": 2}},
]  # fmt: skip
NAMES = ["$\\frac$", "\x1b[0m", "acc$", "_x", "é\u202e", "a\nb"]


def damaged(value: Any, draw: random.Random) -> Any:
    """The value with parts of it replaced, renamed or left out."""
    if draw.random() < 0.05:
        return draw.choice(ODD)
    if isinstance(value, list):
        return [damaged(item, draw) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {name: damaged(item, draw) for name, item in value.items() if draw.random() > 0.02}
    return {draw.choice(NAMES) if draw.random() < 0.04 else name: item for name, item in kept.items()}


PATH_JSON = {
    "weights": "w",
    "measure": "error",
    "points": [
        {"factor": factor, "error": 0.1, "loss": 0.2, "flops": 1e6, "parameters": 9, "forward_ms": 1.0,
         "speedup": 1.0, "best": {"flops": True, "parameters": False, "time": True}, "weights": "w"}
        for factor in (None, 0.1, 1.0)
    ],
}  # fmt: skip
SIDE = {"error": 0.1, "loss": 0.3, "parameters": 10, "flops": 10.0, "forward_ms": 1.0}
REPORT_JSON = {"baseline": SIDE, "small": SIDE}


@pytest.mark.parametrize("kind", ["training", "metrics", "path", "report"])
def test_odd_files_end_in_a_picture_or_one_error(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    codes = set()
    for seed in range(int(os.environ.get("SSLNET_TEST_EXAMPLES", "8"))):
        draw = random.Random(f"{os.urandom(8) if os.environ.get('SSLNET_TEST_RANDOM') else ''}{seed}")
        if kind in ("training", "metrics"):
            records = [display(0, 5), trial(0, 0.1), display(5, 3), trial(5, 0.5), display(9, 0), trial(9, 0.9)]
            records[draw.randrange(6)] = damaged(records[draw.randrange(6)], draw)
            text = "".join(json.dumps(record) + "\n" for record in records)
            path = tmp_path / "m.jsonl"
        else:
            text = json.dumps(damaged(PATH_JSON if kind == "path" else REPORT_JSON, draw))
            path = tmp_path / "m.json"
        path.write_text(text)
        picture = tmp_path / "m.svg"
        picture.unlink(missing_ok=True)
        code = cli.main(["plot", "training" if kind == "training" else "error", str(path), "--output", str(picture)])
        said = capsys.readouterr().err
        if code == 0:
            assert said == ""
            ElementTree.parse(picture)
        else:
            assert code == 2 and "bug in sslnet" not in said, f"{said}\n{text}"
            assert len(said) < 1000 and said.replace("\n", "").isprintable()
        codes.add(code)
    assert codes == {0, 2}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"type": "train", "loss": 1}', 'm.jsonl:2:1: error: line 2 is of type "train" and has no iteration'),
        (b'{"type": "test", "iteration": "x"}', 'm.jsonl:2:1: error: line 2 is of type "test" and has no iteration'),
        (b'{"type": "train", "iteration": 1e9}', "has no iteration"),
        (b'{"type": "train", "iteration": 2147483648}', "has no iteration"),
        (b'{"type": ["train"], "iteration": 1}', "m.jsonl:2:1: error: line 2 is not one that sslnet train writes"),
        (b"\xff\xfe", "m.jsonl:2:1: error: line 2 is not one that sslnet train writes"),
        (b"[" * 100_000, "m.jsonl:2:1: error: line 2 is not one that sslnet train writes"),
    ],
)
def test_line_that_belongs_nowhere_is_named(line: bytes, words: str, tmp_path: Path) -> None:
    good = b'{"type": "train", "iteration": 0, "loss": 1}\n'
    (tmp_path / "m.jsonl").write_bytes(good + line + b"\n" + good)
    with pytest.raises(UsageError) as error:
        read_metrics(str(tmp_path / "m.jsonl"))
    assert words in str(error.value)


def test_values_of_another_type_were_not_measured(tmp_path: Path) -> None:
    record = {
        "type": "train",
        "iteration": 3,
        "loss": {},
        "sparsity": {"conv[0]": {"filters": 7, "columns": {"kept": 1}}},
    }
    tested = {"type": "test", "iteration": 3, "outputs": {"accuracy": "high", "loss": 0.5, "top": [1, 2]}, "loss": "x"}
    run = read_metrics(lines(tmp_path / "m.jsonl", record, tested))
    assert (run.displays[0].loss, run.displays[0].sparsity) == (None, {"conv[0]": {}})
    assert (run.tests[0].outputs, run.tests[0].loss) == ({"loss": 0.5}, None)
