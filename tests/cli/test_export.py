"""sslnet export: files in, an ONNX model out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sslnet import prototxt
from sslnet.cli import main

from ..support.small_nets import conv_net, renamed, write_net

onnxruntime = pytest.importorskip("onnxruntime")

MODEL = conv_net({"conv": {"num_output": 6}}, data={"transform_param": {"scale": 0.25}})


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return write_net(tmp_path, MODEL)


def run(files: tuple[Path, Path], *more: str) -> int:
    return main(["export", "--model", str(files[0]), "--weights", str(files[1]), *more])


def test_net_for_training_is_exported_as_it_is_deployed(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(files) == 0
    text = capsys.readouterr().out
    assert "largest difference from the net, in onnxruntime" in text
    assert '{"scale": 0.25}' in text
    session = onnxruntime.InferenceSession(str(files[1].with_suffix(".onnx")), providers=["CPUExecutionProvider"])
    (probabilities,) = session.run(["prob"], {"data": np.ones((5, 2, 6, 6), np.float32)})
    np.testing.assert_allclose(probabilities.sum(axis=1), np.ones(5), rtol=1e-6)
    assert json.loads(session.get_modelmeta().custom_metadata_map["preprocessing"]) == {"scale": 0.25}


def test_existing_file_is_kept_unless_forced(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    target = files[0].parent / "a.onnx"
    target.write_text("mine")
    assert run(files, "--output", str(target)) == 2
    assert "--force" in capsys.readouterr().err
    assert target.read_text() == "mine"
    assert run(files, "--output", str(target), "--force", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["inputs"] == {"data": ["N", 2, 6, 6]}
    assert record["outputs"] == {"prob": ["N", 2]}
    assert record["bytes"] == target.stat().st_size


def test_weights_of_another_net_are_an_error_and_write_nothing(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    prototxt.save(renamed(MODEL, ip="other"), files[0])
    assert run(files) == 2
    assert "no weights for a layer of the net: other" in capsys.readouterr().err
    assert not files[1].with_suffix(".onnx").exists()
