"""sslnet time: the table and the JSON of one net and of two."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from sslnet import sslnet_pb2 as pb
from sslnet.cli import main
from sslnet.net import Net

MODEL = """
name: "tiny"
layer { name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {
        shape { dim: 3 dim: 2 dim: 6 dim: 6 } shape { dim: 3 } data_filler { type: "gaussian" std: 1 }
        data_filler { type: "constant" value: 1 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
        inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "net.prototxt"
    path.write_text(MODEL)
    return str(path)


@pytest.fixture
def smaller(tmp_path: Path) -> str:
    path = tmp_path / "small.prototxt"
    path.write_text(MODEL.replace("num_output: 4", "num_output: 2"))
    return str(path)


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["time", *arguments, "--iterations", "2", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_time_json_has_every_layer(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = as_json(capsys, "--model", model)
    assert (result["iterations"], len(result["nets"])) == (2, 1)
    net = result["nets"][0]
    assert (net["name"], net["phase"], net["batch"]) == ("tiny", "TRAIN", 3)
    assert [layer["name"] for layer in net["layers"]] == ["data", "conv", "ip", "loss"]
    data, conv = net["layers"][:2]
    assert not data["timed"] and data["forward_ms"] is None
    assert set(conv["forward_ms"]) == set(conv["backward_ms"]) == {"median", "low", "high"}
    assert conv["flops"] == conv["flops_left"] == 3 * 16 * 4 * 18 * 2
    assert conv["filters"] == {"kept": 4, "total": 4}
    assert "speedup" not in result


def test_time_json_of_two_nets_has_speedups_beside_flops(
    model: str, smaller: str, capsys: pytest.CaptureFixture[str]
) -> None:
    speedup = as_json(capsys, "--model", model, "--compare", smaller)["speedup"]
    assert set(speedup["layers"]) == {"conv", "ip", "loss"}
    assert speedup["layers"]["conv"]["flops"] == 2
    assert speedup["layers"]["loss"]["flops"] is None
    assert speedup["whole"]["time"] > 0


def test_time_reads_weights_phase_and_batch(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = Net(model, phase=pb.TEST, seed=0)
    net.params["conv"][0].data[:3] = 0
    weights = tmp_path / "net.caffemodel"
    net.save(weights)
    found = as_json(
        capsys, "-model", model, "-weights", str(weights), "--phase", "TEST", "--batch", "5", "--forward-only"
    )
    assert (found["nets"][0]["phase"], found["nets"][0]["batch"]) == ("TEST", 5)
    assert found["nets"][0]["backward_ms"] is None
    assert found["nets"][0]["layers"][1]["filters"] == {"kept": 1, "total": 4}


def test_time_table_lists_layers_and_the_whole(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["time", "--model", model, "--iterations", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines[3:7]] == ["data", "conv", "ip", "loss"]
    assert any(line.startswith("whole net") for line in lines)


def test_time_table_of_two_nets_has_the_flop_ratio(
    model: str, smaller: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["time", "--model", model, "--model2", smaller, "--iterations", "1"]) == 0
    conv = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("conv"))
    assert conv.endswith("2.00x")


def test_time_refuses_weights_of_no_model(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["time", "--model", model, "--weights2", "x.caffemodel"]) == 2
    assert "--weights2 belongs to --model2" in capsys.readouterr().err


def test_comparison_fits_a_terminal_of_80_columns(
    model: str, smaller: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert main(["time", "--model", model, "--model2", smaller, "--iterations", "1"]) == 0
    lines = re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out).splitlines()
    table = lines[next(i for i, line in enumerate(lines) if line.split()[:1] == ["layer"]) :]
    assert table[0].split() == ["layer", *["A", "ms", "B", "ms", "speedup"] * 2, "ratio"]
    assert max(map(len, table)) <= 80


def test_filters_are_not_counted_in_a_net_whose_fillers_make_nothing_but_zeros(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "deploy.prototxt"
    path.write_text(MODEL.replace('weight_filler { type: "xavier" }', ""))
    layers = as_json(capsys, "--model", str(path))["nets"][0]["layers"]
    assert [layer["filters"] for layer in layers] == [None] * 4
