"""sslnet check: two nets, the same data, one verdict."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sslnet.cli import main
from sslnet.net.net import Net

MODEL = """
name: "tiny"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 3 dim: 2 dim: 6 dim: 6 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
        convolution_param { num_output: 6 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "ip" type: "InnerProduct" bottom: "conv1" top: "ip"
        inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }
"""


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A model, its pruned weights (as first and second net), and what `compact` makes of them."""
    model, weights = tmp_path / "net.prototxt", tmp_path / "pruned.caffemodel"
    model.write_text(MODEL)
    net = Net(model, seed=0)
    net.params["conv1"][0].data[[1, 4]] = 0
    net.save(weights)
    assert main(["compact", "--model", str(model), "--weights", str(weights)]) == 0
    stem = f"{tmp_path}/pruned_compact"
    return {
        "model": model,
        "weights": weights,
        "model2": Path(f"{stem}.prototxt"),
        "weights2": Path(f"{stem}.caffemodel"),
    }


def run(files: dict[str, Path], *more: str) -> int:
    return main(["check", *(word for name, path in files.items() for word in (f"--{name}", str(path))), *more])


def test_net_and_its_compaction_are_the_same(files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run(files) == 0
    text = capsys.readouterr().out
    assert "6 -> 4" in text
    assert "the same, up to" in text.splitlines()[-1]


def test_changed_weight_is_a_difference(files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    net = Net(files["model2"], files["weights2"])
    net.params["ip"][0].data[0] += 0.5
    net.save(files["weights2"])
    capsys.readouterr()
    assert run(files, "--json") == 1
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert not found["same"]
    assert found["blobs"][0]["name"] == "ip"
    assert found["blobs"][0]["relative"] > 1e-3
    assert found["total"]["second"]["parameters"] < found["total"]["first"]["parameters"]
    assert run(files, "--tolerance", "100") == 0


def test_every_batch_is_new_and_the_worst_counts(files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    worst = []
    net = Net(files["model2"], files["weights2"])
    net.params["ip"][1].data[...] += np.float32(1e-3) * np.arange(2, dtype=np.float32)
    net.save(files["weights2"])
    for batches in ("1", "6"):
        capsys.readouterr()
        run(files, "--json", "--batches", batches)
        worst.append(json.loads(capsys.readouterr().out)["blobs"][0]["relative"])
    assert worst[1] > worst[0]


@pytest.mark.parametrize(
    "old, new, message",
    [
        (r'"data"', '"image"', 'the second net reads "image", which the first does not have'),
        (r'(top|bottom): "ip"', r'\1: "z"', "the nets have no output of the same name"),
        (r'name: "ip"', 'name: "ip_new"', "no weights for a layer of the net: ip_new"),
    ],
)
def test_nets_that_cannot_be_compared_are_an_error(
    old: str, new: str, message: str, files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    files["model2"].write_text(re.sub(old, new, files["model2"].read_text()))
    assert run(files) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("option, value", [("--batches", "0"), ("--tolerance", "nan"), ("--tolerance", "-1")])
def test_option_out_of_range_is_an_error(
    option: str, value: str, files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(files, option, value) == 2
    assert f"{option} must be" in capsys.readouterr().err
