"""Averaged weights (ema_decay), the best snapshot (snapshot_best) and early stopping (patience)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.cli import main
from sslnet.errors import DefinitionError, UsageError
from sslnet.net.weights import read_weights
from sslnet.solver import callbacks
from sslnet.solver.callbacks import Best, Monitor
from sslnet.solver.snapshot import averaged_path
from sslnet.solver.solver import Solver
from tests.support.monitors import Kill, Killer

NET = """\
layer { name: "digits" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  transform_param { scale: 0.0625 } data_param { source: "digits/train" backend: BUILTIN batch_size: 50 } }
layer { name: "digits" type: "Data" top: "data" top: "label" include { phase: TEST }
  transform_param { scale: 0.0625 } data_param { source: "digits/test" backend: BUILTIN batch_size: 359 } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  param { group_lasso { group: INPUT_NEURON } }
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "bn" type: "BatchNorm" bottom: "ip" top: "bn" }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "bn" bottom: "label" top: "loss" }
layer { name: "accuracy" type: "Accuracy" bottom: "bn" bottom: "label" top: "accuracy" include { phase: TEST } }
"""
SOLVER = """\
net: "net.prototxt" test_iter: 1 test_interval: 4 base_lr: 0.5 lr_policy: "fixed" max_iter: 20 snapshot_prefix: "run/a"
random_seed: 3 group_lasso_decay: 0.05
"""


class Heard(Monitor):
    def __init__(self) -> None:
        self.tests: list[callbacks.Test] = []
        self.bests: list[Best] = []

    def on_test(self, record: callbacks.Test) -> None:
        self.tests.append(record)

    def on_best(self, record: Best) -> None:
        self.bests.append(record)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.prototxt").write_text(NET)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(more: str, **settings: Any) -> Solver:
    Path("solver.prototxt").write_text(SOLVER + more)
    return Solver("solver.prototxt", **settings)


def weights_of(path: str) -> dict[str, np.ndarray]:
    return {f"{name}/{k}": array for name, arrays in read_weights(path).items() for k, array in enumerate(arrays)}


def test_average_follows_its_formula_and_is_what_is_tested_and_saved(folder: Path) -> None:
    heard = Heard()
    solver = made("ema_decay: 0.7", monitor=heard)
    expected = [param.blob.data.astype(np.float64) for param in solver.net.learnable]
    for t in range(1, 21):
        solver.step(1)
        decay = min(0.7, (1 + t) / (10 + t))
        expected = [decay * m + (1 - decay) * p.blob.data for m, p in zip(expected, solver.net.learnable)]
    zeros = [param.blob.data == 0 for param in solver.net.learnable]
    assert zeros[0].any() and not zeros[0].all()
    expected = [np.where(zero, 0, mean) for zero, mean in zip(zeros, expected)]
    own = [param.blob.data.copy() for param in solver.net.learnable]
    weights, _ = solver.snapshot()
    solver.test()
    for param, before in zip(solver.net.learnable, own):
        np.testing.assert_array_equal(param.blob.data, before)
    saved = weights_of(averaged_path(weights))
    for array, mean in zip(saved.values(), expected, strict=True):
        np.testing.assert_allclose(array.reshape(mean.shape), mean, rtol=1e-5, atol=1e-7)
    plain = Solver("solver.prototxt", weights=[averaged_path(weights)])
    assert plain.test()[0].outputs == heard.tests[-1].outputs
    raw = Solver("solver.prototxt", weights=[weights])
    assert raw.test()[0].outputs != heard.tests[-1].outputs


def test_resumed_run_has_the_same_average_and_best_test(folder: Path) -> None:
    fields = 'ema_decay: 0.9 snapshot: 6 snapshot_best: "accuracy" patience: 9'
    whole = made(fields)
    whole.solve()
    first, best = weights_of("run/a_iter_20_average.caffemodel"), Path("run/a_best.caffemodel").read_bytes()
    with pytest.raises(Kill):
        made(fields, monitor=Killer(15)).solve()
    resumed = made(fields, snapshot="run/a_iter_12.solverstate")
    resumed.solve()
    second = weights_of("run/a_iter_20_average.caffemodel")
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name])
    assert Path("run/a_best.caffemodel").read_bytes() == best
    assert (resumed.best.value, resumed.best.iteration) == (whole.best.value, whole.best.iteration)


@pytest.mark.parametrize("more", ["", "snapshot_format: HDF5 ema_decay: 0.5"])
def test_best_weights_are_those_of_the_best_test(folder: Path, more: str) -> None:
    heard = Heard()
    solver = made(f'snapshot_best: "accuracy" {more}', monitor=heard)
    solver.solve()
    found = {test.iteration: next(v for name, v, _ in test.outputs if name == "accuracy") for test in heard.tests}
    best = max(found.values())
    assert heard.bests[-1].value == best
    assert heard.bests[-1].iteration == min(i for i, value in found.items() if value == best)
    again = made(more, weights=[heard.bests[-1].weights])
    assert {name: v for name, v, _ in again.test()[0].outputs}["accuracy"] == best


def test_lowest_loss_is_best(folder: Path) -> None:
    heard = Heard()
    made('snapshot_best: "loss"', monitor=heard).solve()
    losses = [next(v for name, v, _ in test.outputs if name == "loss") for test in heard.tests]
    assert heard.bests[-1].value == min(losses)
    heard = Heard()
    made('snapshot_best: "loss" snapshot_best_lowest: false', monitor=heard).solve()
    assert heard.bests[-1].value == max(losses)


def test_patience_ends_a_run_that_no_longer_improves(folder: Path) -> None:
    heard = Heard()
    solver = made('snapshot_best: "accuracy" snapshot_best_lowest: true patience: 2', monitor=heard)
    solver.solve()
    assert [test.iteration for test in heard.tests] == [0, 4, 8]
    assert solver.iter == 8 and solver.is_finished
    resumed = Solver("solver.prototxt", snapshot="run/a_iter_8.solverstate")
    resumed.solve()
    assert resumed.iter == 8


def test_train_says_what_was_best_and_why_it_ended(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fields = 'snapshot_best: "accuracy" snapshot_best_lowest: true patience: 1 ema_decay: 0.5'
    Path("solver.prototxt").write_text(SOLVER + fields)
    assert main(["train", "--solver", "solver.prototxt"]) == 0
    out = capsys.readouterr().out
    assert "averaged weights, which were tested: run/a_iter_4_average.caffemodel" in out
    assert (
        "at iteration 0: run/a_best.caffemodel; the run ended at iteration 4, after 1 tests without a better one" in out
    )


@pytest.mark.parametrize(
    "fields, message",
    [
        ('snapshot_best: "acuracy"', 'no test net has the output "acuracy"'),
        ("patience: 3", "patience does nothing without snapshot_best"),
        ("snapshot_best_lowest: true", "snapshot_best_lowest does nothing without snapshot_best"),
        ('snapshot_best: "accuracy" patience: -1', "patience must be 0 or more"),
        ("ema_decay: 1", "ema_decay must be at least 0 and below 1, not 1"),
        ("ema_decay: nan", "ema_decay"),
    ],
)
def test_settings_that_cannot_be_are_errors(folder: Path, fields: str, message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        made(fields)


def test_best_snapshot_needs_tests_and_no_steering(folder: Path) -> None:
    text = SOLVER.replace("test_iter: 1 test_interval: 4", "") + 'snapshot_best: "accuracy"'
    Path("solver.prototxt").write_text(text)
    with pytest.raises(DefinitionError, match="snapshot_best needs tests"):
        Solver("solver.prototxt")
    Path("solver.prototxt").write_text(SOLVER + 'snapshot_best: "accuracy"')
    assert main(["train", "--solver", "solver.prototxt", "--target-flops", "0.5"]) != 0


def test_compress_refuses_the_best_snapshot(folder: Path) -> None:
    from sslnet.compress.pipeline.schedule import quiet

    param = prototxt.parse(SOLVER + 'snapshot_best: "accuracy"', pb.SolverParameter, path="s.prototxt").message
    with pytest.raises(UsageError, match="snapshot_best cannot be used here"):
        quiet(param)
