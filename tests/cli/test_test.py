"""``sslnet test``: Caffe's lines, the means of the batches, JSON, broken input."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from sslnet import cli
from sslnet import sslnet_pb2 as pb
from sslnet.net.net import Net
from sslnet.sources.builtin import builtin_source

NET = """\
name: "line"
layer { name: "digits" type: "Data" top: "data" top: "label"
  data_param { source: "digits/test" backend: BUILTIN batch_size: 100 } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" loss_weight: 2 }
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.prototxt").write_text(NET)
    monkeypatch.chdir(tmp_path)
    Net("net.prototxt", seed=5).save("net.caffemodel")
    return tmp_path


def run(*arguments: str) -> int:
    return cli.main(["test", "--model", "net.prototxt", "--weights", "net.caffemodel", *arguments])


def expected(batches: int) -> dict[str, list[float]]:
    """Outputs of each batch, by the net's own forward pass."""
    net = Net("net.prototxt", "net.caffemodel", pb.TEST)
    rows = [{name: float(data) for name, data in net.forward().items()} for _ in range(batches)]
    return {name: [row[name] for row in rows] for name in rows[0]}


def test_means_are_those_of_the_batches(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--iterations", "3", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    outputs = expected(3)
    assert result["iterations"] == 3
    for name, values in outputs.items():
        assert result["outputs"][name] == pytest.approx(np.mean(values), rel=1e-6)
    assert result["loss"] == pytest.approx(2 * np.mean(outputs["loss"]), rel=1e-6)


def test_lines_are_caffes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--iterations", "2") == 0
    captured = capsys.readouterr()
    outputs = expected(2)
    log = [line.split("] ", 1)[1] for line in captured.err.splitlines() if "compiling kernels" not in line]
    assert log[0] == "Running for 2 iterations."
    assert log[1:] == [f"Batch {i}, {name} = {outputs[name][i]:g}" for i in range(2) for name in ("accuracy", "loss")]
    loss = np.mean(outputs["loss"])
    assert captured.out.splitlines() == [
        f"Loss: {2 * loss:g}",
        f"accuracy = {np.mean(outputs['accuracy']):g}",
        f"loss = {loss:g} (* 2 = {2 * loss:g} loss)",
        f"test error: {100 - 100 * np.mean(outputs['accuracy']):.2f} % of 200 images",
    ]


def test_each_accuracy_has_its_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    top3 = NET.splitlines()[-2].replace('name: "accuracy"', 'name: "top3" accuracy_param { top_k: 3 }')
    (folder / "net.prototxt").write_text(NET + top3.replace('top: "accuracy"', 'top: "top3"'))
    assert run("--iterations", "1") == 0
    wrong = {name: 100 - 100 * values[0] for name, values in expected(1).items()}
    line = f"test error: {wrong['accuracy']:.2f} % (accuracy), {wrong['top3']:.2f} % (top3) of 100 images"
    assert capsys.readouterr().out.splitlines()[-1] == line


def test_net_without_accuracy_has_no_test_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--iterations", "1", "--phase", "TRAIN") == 0
    assert "test error" not in capsys.readouterr().out


def test_phase_chooses_the_layers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--iterations", "1", "--phase", "TRAIN", "--json") == 0
    assert set(json.loads(capsys.readouterr().out)["outputs"]) == {"loss"}


def test_without_iterations_all_test_data_run_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Batches of 7, so that there are more than the 50 that unknown data get; the records' number by the data themselves."""
    (folder / "net.prototxt").write_text(NET.replace("batch_size: 100", "batch_size: 7"))
    assert run("--json") == 0
    records = len(builtin_source("digits/test"))
    assert json.loads(capsys.readouterr().out)["iterations"] == records // 7 > 50


def test_without_iterations_fifty_batches_of_endless_data_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    endless = re.sub(
        r'layer \{ name: "digits".*?\} \}\n',
        'layer { name: "made" type: "DummyData" top: "data" top: "label" dummy_data_param {\n'
        "  shape { dim: 2 dim: 1 dim: 8 dim: 8 } shape { dim: 2 } } }\n",
        NET,
        flags=re.DOTALL,
    )
    (folder / "net.prototxt").write_text(endless)
    assert run("--json") == 0
    assert json.loads(capsys.readouterr().out)["iterations"] == 50


def test_deploy_net_has_nothing_to_test(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = NET.replace("digits/test", "").replace('type: "Data"', 'type: "Input"')
    text = re.sub(r"data_param \{.*?\}", "input_param { shape { dim: 4 dim: 1 dim: 8 dim: 8 } shape { dim: 4 } }", text)
    (folder / "net.prototxt").write_text(text)
    assert run() == 2
    assert "no data layer fills data, label" in capsys.readouterr().err


def test_weights_of_another_net_are_bad_input(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "net.prototxt").write_text(NET.replace('name: "ip"', 'name: "other"'))
    assert run() == 2
    assert capsys.readouterr().err.count("error: ") == 1


@pytest.mark.parametrize("number", ["0", "-3", "many"])
def test_iterations_are_at_least_one(number: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--iterations", number) == 2
    assert "--iterations" in capsys.readouterr().err


def test_net_without_outputs_has_a_loss_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    silent = NET + "".join(
        f'layer {{ name: "silent_{name}" type: "Silence" bottom: "{name}" }}\n'
        for name in Net(str(folder / "net.prototxt")).outputs
    )
    (folder / "silent.prototxt").write_text(silent)
    assert cli.main(["test", "--model", "silent.prototxt", "--weights", "net.caffemodel", "--iterations", "2"]) == 0
    assert "Loss: " in capsys.readouterr().out


def test_outputs_that_change_their_size_have_no_mean(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = """\
layer { name: "d" type: "DummyData" top: "x" top: "chosen" dummy_data_param { shape { dim: 8 dim: 3 } shape { dim: 8 }
  data_filler { type: "gaussian" } data_filler { type: "uniform" min: 0 max: 1.9999 } } }
layer { name: "floor" type: "Threshold" bottom: "chosen" top: "bits" threshold_param { threshold: 1 } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: 2 } }
layer { name: "filter" type: "Filter" bottom: "ip" bottom: "bits" top: "some" }
"""
    (folder / "filter.prototxt").write_text(text)
    Net(str(folder / "filter.prototxt")).save("filter.caffemodel")
    arguments = ["test", "--model", "filter.prototxt", "--weights", "filter.caffemodel", "--iterations"]
    assert cli.main([*arguments, "20"]) == 2
    assert "change size between batches" in capsys.readouterr().err
    assert cli.main([*arguments, "1"]) == 0
