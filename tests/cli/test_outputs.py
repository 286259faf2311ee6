"""Layers that write files: only `train` and `test` let them, below the working folder and over nothing."""

from __future__ import annotations

from pathlib import Path

import h5py
import pytest

from sslnet import cli
from sslnet.net.net import Net

NET = """\
layer { name: "digits" type: "Data" top: "data" top: "label" data_param { source: "digits/test" backend: BUILTIN batch_size: 20 } }
layer { name: "hidden" type: "InnerProduct" bottom: "data" top: "hidden" inner_product_param { num_output: 8 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "hidden" top: "hidden" }
layer { name: "ip" type: "InnerProduct" bottom: "hidden" top: "ip" inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
layer { name: "o" type: "HDF5Output" bottom: "ip" bottom: "label" hdf5_output_param { file_name: "out.h5" } }
"""
SOLVER = 'net: "net.prototxt" base_lr: 0.01 lr_policy: "fixed" max_iter: 3 snapshot_prefix: "run/r" random_seed: 1\n'
SAID = 'layer "o" writes no file: only sslnet train and sslnet test let layers write'


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(NET)
    Path("solver.prototxt").write_text(SOLVER)
    Net("net.prototxt", seed=1).save("net.caffemodel")
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [
        "time --model net.prototxt --iterations 1",
        "time --model net.prototxt --weights net.caffemodel --iterations 1 --forms",
        "check --model net.prototxt --weights net.caffemodel --model2 net.prototxt --weights2 net.caffemodel",
        "compact --model net.prototxt --weights net.caffemodel --output small",
        "prune --model net.prototxt --weights net.caffemodel --sparsity 0.5 --output pruned",
        "extract --model net.prototxt --weights net.caffemodel --blobs ip --iterations 2 --output features.h5",
        "draw net.prototxt net.svg",
        "warmup --model net.prototxt",
        "compress --model net.prototxt --target-flops 0.5 --cut --iterations 20 --baseline-iterations 5 --finetune 5 --output small",
        "path --solver solver.prototxt --strengths 1 --iterations 2 --output path",
    ],
)
def test_other_commands_let_no_layer_write(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(command.split()) in (0, 1, 2)
    text = capsys.readouterr().err
    assert "bug in sslnet" not in text
    assert "the layer may not write" not in text
    assert not Path("out.h5").exists()


@pytest.mark.parametrize("command", ["time --model net.prototxt --iterations 1", "compress --model net.prototxt --target-flops 0.5 --cut --iterations 20 --baseline-iterations 5 --finetune 5 --output small"])  # fmt: skip
def test_what_is_not_written_is_said_once(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(command.split())
    assert capsys.readouterr().err.count(SAID) == 1


def test_train_and_test_write_a_new_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "--solver", "solver.prototxt"]) == 0
    with h5py.File("out.h5") as file:
        assert file["data"].shape == (60, 10, 1, 1)
    words = ["test", "--model", "net.prototxt", "--weights", "net.caffemodel", "--iterations", "2"]
    assert cli.main(words) == 2
    assert "the layer may not write this file: out.h5 already exists" in capsys.readouterr().err
    assert cli.main([*words, "--allow-overwrite"]) == 0
    with h5py.File("out.h5") as file:
        assert file["data"].shape == (40, 10, 1, 1)


def test_refused_file_ends_a_run_before_it_begins(capsys: pytest.CaptureFixture[str]) -> None:
    Path("out.h5").write_text("precious")
    assert cli.main(["train", "--solver", "solver.prototxt"]) == 2
    assert "out.h5 already exists" in capsys.readouterr().err
    assert Path("out.h5").read_text() == "precious"
    assert not Path("run").exists()


def test_output_root_names_another_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "root").mkdir()
    Path("net.prototxt").write_text(NET.replace("out.h5", str(tmp_path / "root" / "out.h5")))
    words = ["test", "--model", "net.prototxt", "--weights", "net.caffemodel", "--iterations", "1", "--output-root"]
    assert cli.main([*words, "run"]) == 2
    assert "is not below" in capsys.readouterr().err
    assert cli.main([*words, "root"]) == 0
    assert (tmp_path / "root" / "out.h5").exists()
