"""sslnet warmup: afterwards a run compiles nothing, whether the data were there or not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import sslnet
from sslnet import cli

TRAIN = """\
name: "small"
layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  data_param { source: "%s" backend: %s batch_size: 20 } }
layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TEST }
  data_param { source: "%s" backend: %s batch_size: 30 } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" param { group_lasso { group: INPUT_NEURON } }
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" include { phase: TEST } }
"""
DEPLOY = 'layer { name: "d" type: "Input" top: "data" input_param { shape { dim: 1 dim: 1 dim: 8 dim: 8 } } }\n'
SOLVER = (
    'net: "train.prototxt" base_lr: 0.01 momentum: 0.9 lr_policy: "fixed" max_iter: 2 group_lasso_decay: 0.001 '
    'test_iter: 1 test_interval: 1 snapshot_prefix: "run/x" random_seed: 1\n'
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.prototxt").write_text(TRAIN % (("digits/train", "BUILTIN", "digits/test", "BUILTIN")))
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    return tmp_path


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "PYTHONPATH": str(Path(sslnet.__file__).parent.parent),
        "NUMBA_CACHE_DIR": str(folder / "cache"),
    }
    command = [sys.executable, "-m", "sslnet", *arguments, "--threads", "2"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)


def test_run_after_a_warm_up_compiles_nothing(folder: Path) -> None:
    done = run(folder, "warmup", "--solver", "solver.prototxt")
    assert "compiling kernels, once" in done.stderr
    assert done.stdout.startswith("1/1 solver.prototxt compiled in ")
    assert not (folder / "run").exists()
    assert "compil" not in run(folder, "train", "--solver", "solver.prototxt").stderr
    assert run(folder, "warmup", "--solver", "solver.prototxt").stdout == "1/1 solver.prototxt was ready\n"


def test_data_need_not_be_there_where_a_deploy_net_says_the_size(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "train.prototxt").write_text(TRAIN % (("nowhere_lmdb", "LMDB") * 2))
    assert cli.main(["warmup", "--model", "train.prototxt"]) == 2
    assert "nowhere_lmdb" in capsys.readouterr().err
    (folder / "deploy.prototxt").write_text(DEPLOY)
    assert cli.main(["warmup", "--solver", "solver.prototxt", "--model", "train.prototxt"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in out] == [["1/2", "train.prototxt"], ["2/2", "solver.prototxt"]]


@pytest.mark.parametrize("beside_package", [False, True])
def test_without_arguments_the_solvers_of_the_repository_are_meant(
    beside_package: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from sslnet.cli import warmup

    root = Path(__file__).parents[2]
    if beside_package:
        monkeypatch.setattr(sslnet, "__file__", str(root / "sslnet" / "__init__.py"))
    monkeypatch.chdir(tmp_path if beside_package else root)
    warmed: list[str] = []
    monkeypatch.setattr(warmup, "warm_solver", lambda path, compiling: warmed.append(path))
    assert cli.main(["warmup"]) == 0
    assert sorted(Path(path).resolve() for path in warmed) == sorted((root / "solvers").glob("*.prototxt"))


def test_without_solvers_it_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sslnet, "__file__", str(tmp_path / "sslnet" / "__init__.py"))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["warmup"]) == 2
    assert "give --solver or --model" in capsys.readouterr().err
