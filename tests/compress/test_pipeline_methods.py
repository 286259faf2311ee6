"""The methods of the procedure: which is chosen, pruning in rounds that resume, one shot without labels or training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sslnet
from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.api.compress import run_task
from sslnet.cli import main
from sslnet.compress.control.targets import Targets
from sslnet.compress.pipeline.pipeline import Pipeline
from sslnet.compress.pipeline.task import Task
from sslnet.errors import UsageError
from sslnet.net.net import Net
from sslnet.net.weights import read_weights

from ..support.monitors import Kill, Killer

MODEL = Path(__file__).parents[2] / "models/digits/train_test.prototxt"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the digits net without groups of its own, its weights, and the net without labels."""
    folder = tmp_path_factory.mktemp("trained")
    message = prototxt.read_net(str(MODEL)).message
    for layer in message.layer:
        for spec in layer.param:
            for name in ("breadth_decay_mult", "kernel_shape_decay_mult", "group_lasso", "block_group_lasso"):
                spec.ClearField(name)
    prototxt.save(message, str(folder / "digits.prototxt"))
    solver = folder / "solver.prototxt"
    solver.write_text(
        f'net: "{folder}/digits.prototxt" base_lr: 0.01 lr_policy: "fixed" momentum: 0.9 max_iter: 150 random_seed: 1'
    )
    trained = sslnet.get_solver(str(solver))
    trained.step(150)
    trained.net.save(str(folder / "digits.caffemodel"))
    for k in reversed(range(len(message.layer))):
        if message.layer[k].type in ("SoftmaxWithLoss", "Accuracy"):
            del message.layer[k]
    prototxt.save(message, str(folder / "bare.prototxt"))
    return folder


def task(trained: Path, folder: Path, target: float = 0.4, **changes: Any) -> Task:
    options: dict[str, Any] = {
        "model": str(trained / "digits.prototxt"),
        "weights": str(trained / "digits.caffemodel"),
        "images": 64,
        **changes,
    }
    return Task(Targets("flops", target), str(folder), **options)


@pytest.mark.parametrize(
    ("changes", "method", "why"),
    [
        ({}, "prune", "there are labels to train on"),
        ({"finetune": 0}, "one-shot", "no iterations are given"),
        ({"model": "bare"}, "one-shot", "no loss in phase TRAIN"),
        ({"weights": None, "images": None}, "lasso", "no trained weights"),
        ({"model": str(MODEL), "images": None}, "lasso", "declares groups"),
        ({"targets": Targets("params", 0.5), "images": None}, "lasso", "only this method has targets for parameters"),
        ({"targets": Targets("flops", None, {"conv1": 0.5}), "images": None}, "lasso", "single layers"),
        ({"targets": Targets("flops", 0.5, cut=True), "images": None}, "lasso", "--cut belongs to it"),
        ({"method": "one-shot", "model": str(MODEL)}, "one-shot", "as asked for"),
    ],
)
def test_method_follows_from_what_is_given(
    changes: dict[str, Any], method: str, why: str, trained: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"targets": Targets("flops", 0.4), "folder": str(tmp_path / "a"), "images": 64}
    options |= {"model": str(trained / "digits.prototxt"), "weights": str(trained / "digits.caffemodel"), **changes}
    if options["model"] == "bare":
        options["model"] = str(trained / "bare.prototxt")
    pipeline = Pipeline(Task(**options))
    assert pipeline.method == method
    assert why in pipeline.reason


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "prunes"], '--method: unknown method "prunes"'),
        (["--method", "one-shot", "--finetune", "5"], "the method one-shot does not train"),
        (["--method", "one-shot", "--controls"], "--controls is for methods that train"),
        (["--method", "lasso", "--rounds", "2"], "--rounds is for the methods prune and one-shot"),
        (["--method", "prune", "--cut"], "--cut is for the method lasso"),
        (["--method", "prune", "--by", "magic"], 'unknown criterion "magic"'),
        (["--method", "prune", "--repair", "magic"], 'unknown repair "magic"'),
        (["--method", "prune", "--target-flops", "0.0001"], "cannot be reached"),
        (["--method", "prune", "--target-flops", "conv1=0.3"], "takes a target of the whole net's FLOPs alone"),
        (["--method", "prune", "--iterations", "0", "--finetune", "0", "--controls"], "which gets no iterations"),
        (["--method", "prune", "--rounds", "0"], "--rounds must be 1 or more"),
        (["--method", "prune", "--model", "bare"], "the net has no loss in phase TRAIN"),
    ],
)
def test_bad_options_are_one_clear_error(
    options: list[str], message: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(trained / "bare.prototxt") if word == "bare" else word for word in options]
    words = [*([] if "--model" in words else ["--model", str(trained / "digits.prototxt")]), *words]
    words += [] if "--target-flops" in words else ["--target-flops", "0.4"]
    command = ["compress", *words, "--weights", str(trained / "digits.caffemodel"), "--output", f"{tmp_path}/a"]
    assert main(command) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


ROUNDS: dict[str, Any] = {"method": "prune", "rounds": 3, "iterations": 60, "finetune": 40}


@pytest.fixture(scope="module")
def pruned(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("rounds") / "pruned"
    return folder, Pipeline(task(trained, folder, **ROUNDS)).run()


def test_rounds_meet_the_target_and_lose_little(pruned: tuple[Path, dict[str, Any]], trained: Path) -> None:
    folder, results = pruned
    before, after = results["compact"]["flops"]
    assert after <= 0.4 * before
    assert results["compact"]["parameters"][0] == 35_914
    assert results["prune"]["met"]
    assert results["test"]["error"] < results["baseline"]["error"] + 0.02
    assert results["test"]["error"] < results["prune"]["error"] + 0.005
    small = Net(folder / "3_compact.prototxt", folder / "4_finetune.caffemodel", pb.TEST)
    assert set(small.params) == set(read_weights(str(folder / "4_finetune.caffemodel")))
    for name in ("2_prune_round1", "2_prune_round2", "4_finetune"):
        solver = prototxt.read_solver(str(folder / f"{name}_solver.prototxt")).message
        assert solver.lr_policy == "cosine"
        assert solver.max_iter == (40 if name == "4_finetune" else 30)
        trained_by = prototxt.read_net(solver.net).message
        assert "teacher/loss" in [layer.name for layer in trained_by.layer]
    for k, share in ((1, 0.4 ** (1 / 3)), (2, 0.4 ** (2 / 3))):
        net = Net(folder / f"2_prune_round{k}.prototxt", folder / f"2_prune_round{k}.caffemodel", pb.TEST)
        whole = Net(trained / "digits.prototxt", phase=pb.TEST)
        flops = [sum(x.flops(n.bottoms[i], n.tops[i]) for i, x in enumerate(n.layers)) for n in (net, whole)]
        assert flops[0] <= share * flops[1] < 1.25 * flops[0]


@pytest.mark.parametrize("after", [2, 29, 45, 75])
def test_killed_run_goes_on_to_the_same_bits(
    after: int, pruned: tuple[Path, dict[str, Any]], trained: Path, tmp_path: Path
) -> None:
    folder, results = pruned
    with pytest.raises(Kill):
        Pipeline(task(trained, tmp_path / "killed", **ROUNDS), Killer(after)).run()
    again = Pipeline(task(trained, tmp_path / "killed", **ROUNDS)).run()
    assert {k: v for k, v in again.items() if k != "time"} == {k: v for k, v in results.items() if k != "time"}
    for path in folder.glob("*.caffemodel"):
        assert (tmp_path / "killed" / path.name).read_bytes() == path.read_bytes(), path.name
    assert not list((tmp_path / "killed").glob("*_iter_*"))


def test_controls_and_policy_of_ones_own(trained: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"method": "prune", "rounds": 2, "iterations": 6, "finetune": 4, "controls": True}
    overrides = ("lr_policy=fixed",)
    result = run_task(
        task(trained, tmp_path / "a", baseline_iterations=150, teach=False, overrides=overrides, **changes)
    )
    assert result.report["dense_control"]["iterations"] == {"baseline": 150, "dense_control": 10}
    assert result.report["scratch_control"]["iterations"] == {"scratch_control": 160}
    assert result.report["small"]["iterations"] == {"baseline": 150, "prune": 6, "finetune": 4}
    assert prototxt.read_solver(str(tmp_path / "a/4_finetune_solver.prototxt")).message.lr_policy == "fixed"
    layers = prototxt.read_net(str(tmp_path / "a/4_finetune.prototxt")).message.layer
    assert not [layer.name for layer in layers if layer.name.startswith("teacher/")]


def test_short_runs_have_one_round_and_train_behind_it(trained: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"method": "prune", "finetune": 30}
    short = Pipeline(task(trained, tmp_path / "a", iterations=799, **changes))
    assert (short.rounds, short.iterations("prune"), short.iterations("finetune")) == (1, 0, 829)
    assert short.iterations_before_finetuning == 0
    longer = Pipeline(task(trained, tmp_path / "a", iterations=801, **changes))
    assert (longer.rounds, longer.iterations("prune"), longer.iterations("finetune")) == (3, 400, 30)
    assert longer.iterations_before_finetuning == 800


def test_one_shot_needs_no_labels(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The net has neither loss nor Accuracy: the outputs are compared. Least squares keeps them nearer than no repair."""
    differences = {}
    for repair in ("least-squares", "none"):
        folder = tmp_path / repair
        command = ["compress", "--model", str(trained / "bare.prototxt"), "--target-flops", "0.4", "--repair", repair]
        command += ["--weights", str(trained / "digits.caffemodel"), "--output", str(folder), "--images", "64"]
        assert main([*command, "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["method"]["name"] == "one-shot"
        assert report["small"]["error"] is None
        assert report["small"]["flops"] <= 0.4 * report["baseline"]["flops"]
        differences[repair] = report["small"]["difference"]
        assert main(command) == 0
        assert "outputs differ by" in capsys.readouterr().out
    assert differences["least-squares"] < 0.7 * differences["none"]
    whole = Net(trained / "bare.prototxt", trained / "digits.caffemodel", pb.TEST)
    small = Net(tmp_path / "none/3_compact.prototxt", tmp_path / "none/3_compact.caffemodel", pb.TEST)
    (output,) = set(whole.outputs) - {"label"}
    sides: list[list[np.ndarray]] = [[], []]
    for _ in range(whole.layers[0].epoch_batches()):  # type: ignore[attr-defined]
        for net, side in zip((whole, small), sides):
            net.forward()
            side.append(net.blobs[output].data.astype(np.float64))
    error = sum(((a - b) ** 2).sum() for a, b in zip(*sides))
    spread = sum(((a - a.mean(axis=0)) ** 2).sum() for a in sides[0])
    assert differences["none"] == pytest.approx((error / spread) ** 0.5, rel=1e-4)


def test_one_shot_tests_where_there_are_labels(trained: Path, tmp_path: Path) -> None:
    result = run_task(task(trained, tmp_path / "a", 0.5, method="one-shot"))
    assert result.met
    assert result.report["method"]["name"] == "one-shot"
    assert result.report["small"]["error"] < result.report["baseline"]["error"] + 0.06
    assert sorted(path.name for path in (tmp_path / "a").glob("*.caffemodel")) == [
        "2_prune.caffemodel",
        "3_compact.caffemodel",
    ]
    folder = tmp_path / "b"
    shutil.copytree(tmp_path / "a", folder)
    with pytest.raises(UsageError, match="--images was 64 and is 65"):
        run_task(task(trained, folder, 0.5, method="one-shot", images=65))


@pytest.mark.parametrize("kind", ["Convolution", "Deconvolution"])
@pytest.mark.parametrize("repair", ["none", "least-squares"])
def test_one_shot_takes_equal_places_of_convolutions_with_groups(kind: str, repair: str, tmp_path: Path) -> None:
    """What the selection counts as left is what compaction leaves, to the FLOP."""
    model = tmp_path / "grouped.prototxt"
    model.write_text(
        f"""
layer {{ name: "data" type: "DummyData" top: "data" dummy_data_param {{ shape {{ dim: 8 dim: 2 dim: 12 dim: 12 }}
        data_filler {{ type: "gaussian" std: 1 }} }} }}
layer {{ name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
        convolution_param {{ num_output: 12 kernel_size: 3 pad: 1 weight_filler {{ type: "msra" }} }} }}
layer {{ name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }}
layer {{ name: "conv2" type: "{kind}" bottom: "conv1" top: "conv2"
        convolution_param {{ num_output: 16 kernel_size: 3 pad: 1 group: 2 weight_filler {{ type: "msra" }} }} }}
layer {{ name: "relu2" type: "ReLU" bottom: "conv2" top: "conv2" }}
layer {{ name: "conv3" type: "Convolution" bottom: "conv2" top: "conv3"
        convolution_param {{ num_output: 4 kernel_size: 3 weight_filler {{ type: "msra" }} }} }}
"""
    )
    net = Net(model, phase=pb.TEST)
    net.save(str(tmp_path / "net.caffemodel"))
    one = Task(
        Targets("flops", 0.5),
        str(tmp_path / "a"),
        model=str(model),
        weights=str(tmp_path / "net.caffemodel"),
        repair=repair,
        share_out="uniform",
        images=32,
    )
    results = Pipeline(one).run()
    before, after = results["compact"]["flops"]
    assert after / before == pytest.approx(results["prune"]["left"], abs=1e-6)
    assert after <= 0.5 * before
    small = prototxt.read_net(str(tmp_path / "a/3_compact.prototxt")).message
    grouped = next(layer for layer in small.layer if layer.name == "conv2").convolution_param
    assert grouped.group == 2
    assert grouped.num_output < 16
