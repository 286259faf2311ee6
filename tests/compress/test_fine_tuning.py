"""Training of nets whose weights are good already: statistics measured anew, a rate found by trials, no worse net kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sslnet
from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.api.compress import run_task
from sslnet.compress.control.targets import Targets
from sslnet.compress.pipeline.learning_rate import RATES, choose_rate, trial_iterations
from sslnet.compress.pipeline.pipeline import Pipeline
from sslnet.compress.pipeline.task import Task
from sslnet.compress.pruning.calibration import CalibrationSet, batch_within
from sslnet.compress.pruning.repair.statistics import renew_statistics
from sslnet.net.net import Net

MODEL = Path(__file__).parents[2] / "models/digits/train_test.prototxt"
NORMS = """
layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 4 dim: 2 dim: 5 dim: 5 } } }
layer { name: "c1" type: "Convolution" bottom: "x" top: "c1" convolution_param { num_output: 3 kernel_size: 3
        weight_filler { type: "gaussian" std: 1 } bias_filler { type: "gaussian" std: 2 } } }
layer { name: "n1" type: "BatchNorm" bottom: "c1" top: "c1" batch_norm_param { MORE moving_average_fraction: 1 } }
layer { name: "r1" type: "ReLU" bottom: "c1" top: "c1" }
layer { name: "c2" type: "Convolution" bottom: "c1" top: "c2" convolution_param { num_output: 4 kernel_size: 2
        weight_filler { type: "gaussian" std: 1 } } }
layer { name: "n2" type: "BatchNorm" bottom: "c2" top: "c2" batch_norm_param { MORE moving_average_fraction: 1 } }
"""


def norms(more: str, phase: int) -> Net:
    return Net(prototxt.parse(NORMS.replace("MORE", more), pb.NetParameter), phase=phase, seed=3)


@pytest.mark.parametrize("batch", [4, 12])
def test_statistics_are_those_that_training_would_gather(batch: int) -> None:
    """The oracle is phase TRAIN: with a fraction of 1 its averages are plain ones over all batches."""
    net = norms("", pb.TEST)
    values = np.random.default_rng(0).normal(1, 2, (12, 2, 5, 5)).astype(np.float32)
    renew_statistics(net, CalibrationSet({"x": values}), batch)
    train = Net(
        prototxt.parse(NORMS.replace("MORE", "").replace("dim: 4 dim: 2", f"dim: {batch} dim: 2"), pb.NetParameter),
        phase=pb.TRAIN,
        seed=3,
    )
    spread = {"n1": [], "n2": []}  # type: dict[str, list[np.ndarray]]
    for first in range(0, 12, batch):
        before = {name: train.params[name][0].data.copy() for name in spread}
        train.forward(x=values[first : first + batch])
        for name in spread:
            spread[name].append(train.params[name][0].data - before[name])
    for name, places in (("n1", 9 * batch), ("n2", 4 * batch)):
        mean, variance, factor = (blob.data for blob in train.params[name])
        assert factor == 12 // batch
        np.testing.assert_allclose(net.params[name][0].data, mean / factor, rtol=1e-5, atol=1e-6)
        within, between = variance / factor * (places - 1) / places, np.var(spread[name], axis=0)
        np.testing.assert_allclose(net.params[name][1].data, within + between, rtol=1e-5)
        assert net.params[name][2].data == 1


def test_frozen_statistics_stay() -> None:
    net = norms("use_global_stats: true", pb.TEST)
    for name in ("n1", "n2"):
        net.params[name][0].data[...], net.params[name][1].data[...], net.params[name][2].data[...] = 1, 2, 3
    values = np.random.default_rng(0).normal(1, 2, (12, 2, 5, 5)).astype(np.float32)
    renew_statistics(net, CalibrationSet({"x": values}), 4)
    for name in ("n1", "n2"):
        assert [float(blob.data.min()) for blob in net.params[name]] == [1, 2, 3]


def test_batches_keep_within_a_size_and_are_even() -> None:
    net = norms("", pb.TEST)
    images = CalibrationSet({"x": np.zeros((25, 2, 5, 5), np.float32)})
    one = sum(blob.count for blob in net.blobs.values())  # 4 bytes a number, 4 images a batch
    assert batch_within(net, images, 25 * one) == 25
    assert batch_within(net, images, 24 * one) == 12
    assert batch_within(net, images, 10 * one) == 8
    assert batch_within(net, images, 0) == 1


def test_rate_with_the_smallest_loss_is_taken_or_a_larger_one_for_longer_runs() -> None:
    losses = dict(zip(RATES, (float("inf"), 0.9, 0.4, 0.5)))
    values = list(losses.values())
    assert choose_rate(losses.__getitem__, 0.6, longer=False) == (0.1, values)
    assert choose_rate(losses.__getitem__, 0.6, longer=True) == (0.1, values)  # the next one ends above 0.6
    assert choose_rate(losses.__getitem__, 0.95, longer=True) == (0.3, values)
    rising = dict(zip(RATES, (0.1, 0.2, 0.3, 0.4)))
    assert choose_rate(rising.__getitem__, 0.6, longer=True) == (1.0, list(rising.values()))
    assert [trial_iterations(n) for n in (1, 300, 100_000)] == [10, 30, 100]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the digits net with BatchNorm, and its weights."""
    folder = tmp_path_factory.mktemp("trained")
    message = prototxt.read_net(str(MODEL)).message
    for layer in message.layer:
        for spec in layer.param:
            for name in ("breadth_decay_mult", "kernel_shape_decay_mult", "group_lasso", "block_group_lasso"):
                spec.ClearField(name)
    place = next(k for k, layer in enumerate(message.layer) if layer.name == "conv1") + 1
    text = """layer { name: "bn" type: "BatchNorm" bottom: "conv1" top: "conv1" }
              layer { name: "scale" type: "Scale" bottom: "conv1" top: "conv1" scale_param { bias_term: true } }"""
    rest = list(message.layer)[place:]
    del message.layer[place:]
    message.layer.extend([*prototxt.parse(text, pb.NetParameter).message.layer, *rest])
    prototxt.save(message, str(folder / "digits.prototxt"))
    solver = folder / "solver.prototxt"
    solver.write_text(
        f'net: "{folder}/digits.prototxt" base_lr: 0.01 lr_policy: "fixed" momentum: 0.9 max_iter: 200 random_seed: 1'
    )
    net = sslnet.get_solver(str(solver))
    net.step(200)
    net.net.save(str(folder / "digits.caffemodel"))
    solver.write_text(f'net: "{folder}/digits.prototxt" base_lr: 0.5 lr_policy: "fixed" momentum: 0.9 max_iter: 100')
    return folder


def task(trained: Path, folder: Path, **changes: Any) -> Task:
    options: dict[str, Any] = {
        "solver": str(trained / "solver.prototxt"),
        "weights": str(trained / "digits.caffemodel"),
    }
    options |= {"images": 64, "iterations": 0, "finetune": 30, "seed": 1, **changes}
    return Task(Targets("flops", 0.1), str(folder), **options)


def test_default_rate_does_not_undo_the_repair(trained: Path, tmp_path: Path) -> None:
    """The solver's rate of 0.5 would: see the next test."""
    lines: list[str] = []
    result = run_task(task(trained, tmp_path / "a"), tell=lines.append)
    report, state = result.report, json.loads((tmp_path / "a/state.json").read_text())
    assert report["small"]["error"] <= report["before_finetuning"]["error"] < 0.2
    assert "worse_after_finetuning" not in report
    assert report["method"]["base_lr"] < 0.5
    losses = state["stages"]["rate"]["losses"]
    assert list(losses) == ["0.5", "0.15", "0.05", "0.015"]
    assert losses[f"{report['method']['base_lr']:.6g}"] < state["stages"]["rate"]["before"]
    solver = prototxt.read_solver(str(tmp_path / "a/4_finetune_solver.prototxt")).message
    assert (solver.base_lr, solver.lr_policy, solver.warmup_iter) == (
        pytest.approx(report["method"]["base_lr"]),
        "cosine",
        1,
    )
    assert any("found by trials" in line for line in result.training.text().splitlines())
    assert sorted(path.name for path in (tmp_path / "a").glob("*trial*")) == []
    factors = [
        blobs[2].data for name, blobs in Net(result.model, result.weights, pb.TEST).params.items() if name == "bn"
    ]
    assert factors == [1]  # measured anew


def test_net_that_training_made_worse_is_not_kept(trained: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    result = run_task(task(trained, tmp_path / "a", overrides=("base_lr=5",), teach=False), tell=lines.append)
    report = result.report
    assert report["worse_after_finetuning"]["error"] > report["before_finetuning"]["error"]
    assert report["small"]["error"] == pytest.approx(report["before_finetuning"]["error"], abs=0.003)
    assert report["small"]["iterations"]["finetune"] == 0
    assert "base_lr" not in report["method"]
    assert (tmp_path / "a/4_finetune.caffemodel").read_bytes() == (tmp_path / "a/3_compact.caffemodel").read_bytes()
    assert any("training made the net worse" in line for line in lines)
    assert "fine-tuning made the net worse" in result.training.text()


def test_given_rates_are_not_tried(trained: Path, tmp_path: Path) -> None:
    model = {"solver": None, "model": str(trained / "digits.prototxt")}
    for number, changes in enumerate(
        ({"overrides": ("base_lr=0.01",)}, {"overrides": ("lr_policy=fixed",)}, {**model, "base_lr": 0.02})
    ):
        results = Pipeline(task(trained, tmp_path / str(number), finetune=2, **changes)).run()
        assert "rate" not in results
