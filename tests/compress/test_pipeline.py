"""The whole procedure: a small net in one folder, the same after an interruption at any place, clear errors before it starts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.api.compress import default_folder, run_task
from sslnet.cli import main
from sslnet.compress.control.controller import StrengthController
from sslnet.compress.control.targets import Targets
from sslnet.compress.pipeline.controls import with_fillers
from sslnet.compress.pipeline.default_groups import add_groups, declared, set_strengths
from sslnet.compress.pipeline.pipeline import Pipeline
from sslnet.compress.pipeline.task import Task
from sslnet.compress.pipeline.training import Stopped
from sslnet.errors import UsageError
from sslnet.net.net import Net
from sslnet.net.weights import read_weights
from sslnet.solver.callbacks import Monitor
from sslnet.solver.solver import Solver

from ..support.monitors import Kill, Killer

MODEL = Path(__file__).parents[2] / "models/digits/train_test.prototxt"
SOLVER = Path(__file__).parents[2] / "solvers/digits_ssl.prototxt"
SHORT = {"iterations": 240, "finetune": 30, "baseline_iterations": 40}

DUMMY = """
name: "tiny"
layer {{ name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {{
        shape {{ dim: 4 dim: 2 dim: 6 dim: 6 }} shape {{ dim: 4 }} data_filler {{ type: "gaussian" std: 1 }}
        data_filler {{ type: "constant" value: 1 }} }} {rule} }}
layer {{ name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
        convolution_param {{ num_output: 6 kernel_size: 3 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }}
layer {{ name: "ip" type: "InnerProduct" bottom: "conv1" top: "ip"
        inner_product_param {{ num_output: 2 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" {loss} }}
"""


def task(folder: Path, **changes: Any) -> Task:
    options: dict[str, Any] = {
        "model": str(MODEL),
        "overrides": ("breadth_decay=0.3", "kernel_shape_decay=0.1"),
        **SHORT,
        **changes,
    }
    return Task(Targets("flops", 0.7), str(folder), **options)


def stripped(results: dict[str, Any]) -> dict[str, Any]:
    """Without what is measured in seconds."""
    return {stage: found for stage, found in results.items() if stage != "time"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("procedure") / "whole"
    return folder, Pipeline(task(folder)).run()


def test_net_gets_small_and_all_files_are_there(whole: tuple[Path, dict[str, Any]]) -> None:
    folder, results = whole
    assert results["sparsify"]["met"]
    before, after = results["compact"]["flops"]
    assert after <= 0.72 * before
    assert sorted(path.name for path in folder.iterdir()) == [
        "1_baseline.caffemodel",
        "1_baseline.prototxt",
        "1_baseline_solver.prototxt",
        "2_sparsify.caffemodel",
        "2_sparsify.prototxt",
        "2_sparsify_solver.prototxt",
        "3_compact.caffemodel",
        "3_compact.prototxt",
        "3_compact_deploy.prototxt",
        "4_finetune.caffemodel",
        "4_finetune.prototxt",
        "4_finetune_solver.prototxt",
        "state.json",
    ]
    small = Net(folder / "3_compact.prototxt", folder / "4_finetune.caffemodel", pb.TEST)
    small.forward()
    assert 1 - float(small.blobs["accuracy"].data.item()) == pytest.approx(results["test"]["error"])


def test_small_net_still_knows_its_digits(tmp_path: Path) -> None:
    overrides = ("max_iter=900", "stepvalue=700,850")
    lengths: dict[str, Any] = {"baseline_iterations": 300, "finetune": 200}
    results = Pipeline(
        Task(Targets("flops", 0.3), str(tmp_path / "a"), solver=str(SOLVER), overrides=overrides, **lengths)
    ).run()
    before, after = results["compact"]["flops"]
    assert results["sparsify"]["met"]
    assert after <= 0.33 * before
    assert results["baseline"]["error"] < 0.05
    assert results["test"]["error"] < 0.1


@pytest.mark.parametrize("after", [3, 45, 160, 282, 305])
def test_killed_run_goes_on_to_the_same_bits(after: int, whole: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """In each of the stages that train: before their first snapshot, and behind one."""
    folder, results = whole
    with pytest.raises(Kill):
        Pipeline(task(tmp_path / "killed"), Killer(after)).run()
    again = Pipeline(task(tmp_path / "killed")).run()
    assert stripped(again) == stripped(results)
    for path in folder.glob("*.caffemodel"):
        assert (tmp_path / "killed" / path.name).read_bytes() == path.read_bytes(), path.name
    assert not list((tmp_path / "killed").glob("*_iter_*"))


def test_run_that_was_asked_to_stop_goes_on_from_there(whole: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    class Stopper(Monitor):
        def on_start(self, solver: Solver) -> None:
            self.solver = solver

        def on_iteration(self, iteration: int, loss: float) -> None:
            if iteration == 77:
                self.solver.request("stop")

    with pytest.raises(Stopped):
        Pipeline(task(tmp_path / "a"), Stopper()).run()
    assert [path.name for path in (tmp_path / "a").glob("*.solverstate")] == ["2_sparsify_iter_77.solverstate"]
    told: list[str] = []
    Pipeline(task(tmp_path / "a"), tell=told.append).run()
    assert any("continuing from" in line and "2_sparsify_iter_77" in line for line in told)
    ours, theirs = (place / "4_finetune.caffemodel" for place in (tmp_path / "a", whole[0]))
    assert ours.read_bytes() == theirs.read_bytes()


def test_finished_folder_is_not_run_again(whole: tuple[Path, dict[str, Any]]) -> None:
    assert Pipeline(task(whole[0]), Killer(1)).run() == whole[1]


def test_folder_of_other_options_is_one_clear_error(whole: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match="started with other options: --finetune was 30 and is 31; --seed was not given"
    ):
        Pipeline(task(whole[0], finetune=31, seed=5))
    other = tmp_path / "train_test.prototxt"
    other.write_text(MODEL.read_text().replace("num_output: 32", "num_output: 31"))
    with pytest.raises(UsageError, match=r"--model was train_test.prototxt \(.*\) and is train_test.prototxt \("):
        Pipeline(task(whole[0], model=str(other)))


def test_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(UsageError, match="is not empty, and does not hold a run of sslnet compress"):
        Pipeline(task(tmp_path))
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(UsageError, match=r"cannot be read as JSON"):
        Pipeline(task(tmp_path))


def test_trained_weights_are_the_baseline(whole: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    weights = whole[0] / "1_baseline.caffemodel"
    results = Pipeline(task(tmp_path / "a", weights=str(weights), baseline_iterations=None, finetune=0)).run()
    assert results["baseline"] == whole[1]["baseline"]
    assert results["sparsify"] == whole[1]["sparsify"]
    assert results["test"]["error"] == pytest.approx(results["sparsify"]["error"])


def test_solver_says_how_to_train(tmp_path: Path) -> None:
    overrides = ("max_iter=50", "stepvalue=40,45")
    one = Pipeline(Task(Targets("flops", 0.9), str(tmp_path / "a"), solver=str(SOLVER), overrides=overrides))
    assert [one.iterations(stage) for stage in ("baseline", "sparsify", "finetune")] == [50, 50, 25]
    one.run()
    solvers = {
        stage: prototxt.read_solver(str(next((tmp_path / "a").glob(f"?_{stage}_solver.prototxt")))).message
        for stage in ("baseline", "sparsify", "finetune")
    }
    assert [solver.breadth_decay for solver in solvers.values()] == pytest.approx([0, 0.01, 0])
    assert list(solvers["finetune"].stepvalue) == [20, 22]


def test_net_without_accuracy_is_compared_by_its_loss(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "net.prototxt"
    model.write_text(DUMMY.format(rule="", loss=""))
    options = ["--iterations", "30", "--finetune", "3", "--baseline-iterations", "3", "--output", f"{tmp_path}/a"]
    assert main(["compress", "--model", str(model), "--target-params", "0.9", "--cut", *options]) == 0
    assert "test loss" in capsys.readouterr().out
    sparse = prototxt.read_net(str(tmp_path / "a" / "2_sparsify.prototxt")).message
    groups = {layer.name: [str(spec) for param in layer.param for spec in param.group_lasso] for layer in sparse.layer}
    assert len(groups["conv1"]) == 1
    assert not groups["ip"]
    assert "group_lasso" not in (tmp_path / "a" / "3_compact.prototxt").read_text()


def layer(kind: str, name: str, bottom: str, more: str = "", top: str = "") -> str:
    bottoms = " ".join(f'bottom: "{word}"' for word in bottom.split())
    return f'layer {{ name: "{name}" type: "{kind}" {bottoms} top: "{top or name}" {more} }}\n'


def test_groups_are_added_to_all_but_outputs() -> None:
    """conv1 is read by a head and by what follows, conv2 is added to conv1, head1 and head2 feed losses, frozen is frozen."""
    text = 'input: "x" input_dim: [2, 3, 9, 9] input: "label" input_dim: [2, 1, 1, 1]\n' + "".join(
        [
            layer("Convolution", "frozen", "x", "param { lr_mult: 0 }"),
            layer("Convolution", "conv1", "frozen"),
            layer("ReLU", "relu1", "conv1", top="conv1"),
            layer("InnerProduct", "head1", "conv1"),
            layer("SoftmaxWithLoss", "loss1", "head1 label"),
            layer("Convolution", "conv2", "conv1"),
            layer("Eltwise", "sum", "conv1 conv2"),
            layer("Pooling", "pool", "sum"),
            layer("InnerProduct", "head2", "pool"),
            layer("ReLU", "relu2", "head2", top="head2"),
            layer("SoftmaxWithLoss", "loss2", "head2 label"),
        ]
    )
    definition = prototxt.parse(text, pb.NetParameter)
    assert add_groups(definition, {"phase": pb.TRAIN, "level": 0, "stages": ()}) == ["conv1", "conv2"]
    assert declared(definition.message) == {"group_lasso_decay"}
    solver = pb.SolverParameter()
    set_strengths(solver, definition.message)
    assert solver.group_lasso_scale_by_size
    assert solver.group_lasso_decay == pytest.approx(0.001)
    solver = pb.SolverParameter(group_lasso_decay=0.5)
    set_strengths(solver, definition.message)
    assert (solver.group_lasso_decay, solver.group_lasso_scale_by_size) == (0.5, False)


def test_the_baseline_teaches_when_asked_to(whole: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    results = Pipeline(task(one, teach=True)).run()
    assert {stage: stripped(results)[stage] for stage in ("baseline", "sparsify", "compact")} == {
        stage: whole[1][stage] for stage in ("baseline", "sparsify", "compact")
    }
    assert results["finetune"]["worse"] != whole[1]["finetune"]["worse"]  # too short to be of use, both
    taught, alone = (
        read_weights(str(one / "4_finetune.caffemodel")),
        read_weights(str(whole[0] / "4_finetune.caffemodel")),
    )
    assert taught.keys() == alone.keys()
    assert not list(one.glob("*_taught*"))
    definition = prototxt.read_net(str(one / "4_finetune.prototxt")).message
    assert "teacher/loss" in [layer.name for layer in definition.layer]
    with pytest.raises(Kill):
        Pipeline(task(two, teach=True), Killer(40 + 240 + 17)).run()
    assert stripped(Pipeline(task(two, teach=True)).run()) == stripped(results)
    assert (two / "4_finetune.caffemodel").read_bytes() == (one / "4_finetune.caffemodel").read_bytes()
    with pytest.raises(UsageError, match="--teach was given and is not given"):
        Pipeline(task(two)).run()


def test_groups_are_those_of_the_scale_behind_normalisation() -> None:
    text = "".join(
        [
            layer("Convolution", "plain", "data"),
            layer("Scale", "scale0", "plain"),
            layer("Convolution", "conv1", "scale0"),
            layer("BatchNorm", "norm1", "conv1", top="conv1"),
            layer("Scale", "scale1", "conv1", top="conv1"),
            layer("ReLU", "relu1", "conv1", top="conv1"),
            layer("Convolution", "conv2", "conv1"),
            layer("BatchNorm", "norm2", "conv2"),
            layer("ReLU", "relu2", "norm2"),
            layer("InnerProduct", "ip1", "relu2"),
            layer("BatchNorm", "norm3", "ip1"),
            layer("Scale", "scale3", "norm3"),
            layer("InnerProduct", "ip2", "scale3"),
            layer("SoftmaxWithLoss", "loss", "ip2 label"),
        ]
    )
    definition = prototxt.parse(text, pb.NetParameter)
    assert add_groups(definition, {"phase": pb.TRAIN, "level": 0, "stages": ()}) == ["plain", "conv1", "conv2", "ip1"]
    asked = [x.name for x in definition.message.layer for spec in x.param if spec.group_lasso]
    assert asked == ["plain", "scale1", "conv2", "scale3"]


def test_command_tells_and_writes_the_outcome(
    whole: tuple[Path, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = ["--iterations", "20", "--finetune", "2", "--output", f"{tmp_path}/a"]
    weights = ["--weights", str(whole[0] / "1_baseline.caffemodel")]
    command = ["compress", "--model", str(MODEL), *weights, "--target-flops", "0.01", *short]
    assert main(command) == 1, "the target was not met"
    printed = capsys.readouterr().out
    for words in (
        "FLOPs per image",
        "backward ms, batch 64",
        "the target was not met: 100.0 % of the FLOPs remain, not 1 %; try more iterations, --cut, which removes",
        "not known + 20 + 2",
    ):
        assert words in printed
    assert f"sslnet export --model {tmp_path}/a/3_compact_deploy.prototxt --weights {tmp_path}/a/4_fin" in printed
    assert (tmp_path / "a" / "report.txt").read_text() in printed
    assert main([*command, "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert result == json.loads((tmp_path / "a" / "report.json").read_text())
    assert result["baseline"]["parameters"] == 35_914
    assert not result["target"]["met"]
    assert result["before_finetuning"]["iterations"] == {"baseline": None, "sparsify": 20}


def test_controls_are_trained_for_as_long_and_go_on(
    whole: tuple[Path, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Added to a finished folder: only the controls are trained. The dense one is the baseline trained on for 240 + 30
    iterations, the other begins with new weights: both as a solver of their own would train them."""
    folder = tmp_path / "whole"
    shutil.copytree(whole[0], folder)
    with pytest.raises(Kill):
        Pipeline(task(folder, controls=True), Killer(270 + 50)).run()
    results = Pipeline(task(folder, controls=True), Killer(270 + 310 - 50 + 1)).run()
    assert {name: results[name] for name in whole[1] if name != "time"} == stripped(whole[1])
    assert (results["dense_control"]["iterations"], results["scratch_control"]["iterations"]) == (270, 310)
    small, scratch = (read_weights(str(folder / f"{name}.caffemodel")) for name in ("3_compact", "6_scratch_control"))
    assert {k: [b.shape for b in v] for k, v in scratch.items()} == {k: [b.shape for b in v] for k, v in small.items()}
    solver = prototxt.read_solver(str(folder / "5_dense_control_solver.prototxt"))
    assert (solver.message.max_iter, solver.message.breadth_decay) == (270, 0)
    again = Solver(solver, weights=[str(folder / "1_baseline.caffemodel")], lean=True)
    again.solve()
    dense = read_weights(str(folder / "5_dense_control.caffemodel"))
    assert all((dense[name][0] == params[0].data).all() for name, params in again.net.params.items())
    first = Solver(prototxt.read_solver(str(folder / "6_scratch_control_solver.prototxt")), lean=True)
    first.solve()
    assert all((scratch[name][0] == params[0].data).all() for name, params in first.net.params.items())
    result = run_task(task(folder, controls=True))
    assert result.report["scratch_control"]["iterations"] == {"scratch_control": 310}
    assert result.report["dense_control"]["iterations"] == {"baseline": 40, "dense_control": 270}
    assert "control: baseline, trained on" in result.training.text()
    rows = [line.split("  ")[-1].strip() for line in result.training.text().splitlines()]
    assert ("40 + 240" if results["finetune"]["worse"] else "40 + 240 + 30") in rows
    assert "dense_control" not in run_task(task(folder)).report


HIDDEN = """
layer {{ name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {{
        shape {{ dim: 4 dim: 2 dim: 12 dim: 12 }} shape {{ dim: 4 }} data_filler {{ type: "gaussian" std: 1 }}
        data_filler {{ type: "constant" value: 1 }} }} }}
layer {{ name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
        convolution_param {{ num_output: 8 kernel_size: 3 pad: 1 weight_filler {{ type: "msra" }} }} }}
layer {{ name: "conv2" type: "{kind}" bottom: "conv1" top: "conv2"
        convolution_param {{ num_output: 16 kernel_size: 3 pad: 1 {group} weight_filler {{ type: "msra" }} }} }}
layer {{ name: "pool" type: "Pooling" bottom: "conv2" top: "pool" pooling_param {{ pool: AVE global_pooling: true }} }}
layer {{ name: "ip1" type: "InnerProduct" bottom: "pool" top: "ip1"
        inner_product_param {{ num_output: 20 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
        inner_product_param {{ num_output: 2 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }}
"""


def test_own_groups_are_weighed_by_what_they_save(tmp_path: Path) -> None:
    """conv1: 2 * 9 * 144 multiply-adds a filter and 9 * 16 * 144 of its reader; conv2: 8 * 9 * 144, 20 and the pooling. ip1 saves 380 of
    198,000: next to nothing. Of parameters, it is worth its groups."""
    model = tmp_path / "hidden.prototxt"
    model.write_text(HIDDEN.format(kind="Convolution", group=""))
    told: list[str] = []
    changes: dict[str, Any] = {"model": str(model), "overrides": (), "iterations": 12, "finetune": 0}
    Pipeline(task(tmp_path / "a", **changes), tell=told.append).run()
    assert "no groups for ip1: there are next to no FLOPs to save" in told
    message = prototxt.read_net(str(tmp_path / "a/2_sparsify.prototxt")).message
    groups = {x.name: x.param[0].group_lasso[0] for x in message.layer if x.param and x.param[0].group_lasso}
    assert list(groups) == ["conv1", "conv2"]
    norms = {}
    for name, (weights, bias) in ((n, read_weights(str(tmp_path / "a/1_baseline.caffemodel"))[n]) for n in groups):
        norms[name] = np.sqrt((weights**2).reshape(len(weights), -1).sum(axis=1) + bias**2).mean()
    # a FLOP of pooling is half a multiply-add
    ratio = 8 * (9 * 144 * (2 + 16)) / (16 * (8 * 9 * 144 + 20 + 144 / 2))
    found = groups["conv1"].decay_mult / groups["conv2"].decay_mult * norms["conv2"] / norms["conv1"]
    assert found == pytest.approx(ratio**0.5, rel=1e-4)
    params = Pipeline(Task(Targets("params", 0.7), str(tmp_path / "b"), model=str(model)))
    assert params.own_groups
    definition = params._sparse_definition(str(tmp_path / "a/1_baseline.caffemodel"))
    assert [x.name for x in definition.message.layer if x.param and x.param[0].group_lasso] == ["conv1", "conv2", "ip1"]


def test_floor_keeps_a_tenth_of_each_layer_and_gives_way_to_the_target(tmp_path: Path) -> None:
    model = tmp_path / "hidden.prototxt"
    model.write_text(HIDDEN.format(kind="Convolution", group=""))
    changes: dict[str, Any] = {"model": str(model), "overrides": (), "iterations": 60, "finetune": 0}
    one = Task(Targets("params", 0.25, cut=True), str(tmp_path / "a"), model=str(model), **SHORT | {"finetune": 0})
    Pipeline(one).run()
    small = prototxt.read_net(str(tmp_path / "a/3_compact.prototxt")).message
    assert {x.name: x.inner_product_param.num_output for x in small.layer if x.type == "InnerProduct"}["ip1"] >= 2
    pipeline = Pipeline(task(tmp_path / "b", **changes))
    for target, floor in ((0.3, 0.1), (0.0215, 0.05)):
        controller = StrengthController(Targets("params", target), floor=0.1)
        controller.start(pipeline._sparse_solver(pipeline._sparse_definition()))
        assert controller.floor == floor


@pytest.mark.parametrize("kind", ["Convolution", "Deconvolution"])
def test_convolutions_with_groups_lose_equal_places_of_all(kind: str, tmp_path: Path) -> None:
    model = tmp_path / "grouped.prototxt"
    model.write_text(HIDDEN.format(kind=kind, group="group: 2"))
    one = Task(Targets("flops", 0.2, cut=True), str(tmp_path / "a"), model=str(model), **SHORT | {"finetune": 0})
    results = Pipeline(one).run()
    before, after = results["compact"]["flops"]
    assert results["sparsify"]["met"]
    assert after <= 0.21 * before
    small = prototxt.read_net(str(tmp_path / "a/3_compact.prototxt")).message
    grouped = next(layer for layer in small.layer if layer.name == "conv2").convolution_param
    assert grouped.group == 2
    assert grouped.num_output < 16


def test_weights_without_fillers_are_not_trained_from_zero() -> None:
    text = DUMMY.format(rule="", loss="").replace(
        'weight_filler {{ type: "xavier" }}'.replace("{{", "{").replace("}}", "}"), ""
    )
    message = with_fillers(prototxt.parse(text, pb.NetParameter).message)
    assert message.layer[1].convolution_param.weight_filler.type == "msra"
    assert message.layer[3].inner_product_param.weight_filler.type == "msra"
    known = with_fillers(prototxt.parse(DUMMY.format(rule="", loss=""), pb.NetParameter).message)
    assert known.layer[1].convolution_param.weight_filler.type == "xavier"


@pytest.mark.parametrize(
    "path, folder",
    [("models/lenet/train_test.prototxt", "lenet_compress"), ("solvers/lenet_ssl.prototxt", "lenet_ssl_compress")],
)
def test_default_folder_has_the_name_of_the_net(path: str, folder: str) -> None:
    assert default_folder(path) == folder


@pytest.mark.parametrize(
    "options, message",
    [
        (["--model", "M"], "give a target: --target-flops, --target-params or"),
        (
            ["--model", "M", "--target-flops", "0.5", "--target-params", "0.5"],
            "only one of --target-flops, --target-params",
        ),
        (["--model", "M", "--target-flops", "1"], "--target-flops must lie between 0 and 1, not 1"),
        (["--target-flops", "0.5"], "give the net with"),
        (["--model", "M", "--target-flops", "0.5", "--finetune", "-1"], "--finetune must be 0 or more"),
        (["--solver", "S", "--target-flops", "0.5", "--base-lr", "1"], "--base-lr is for runs without --solver"),
        (
            ["--model", "M", "--weights", "w", "--target-flops", "0.5", "--baseline-iterations", "5"],
            "--baseline-iterations is for runs without --weights",
        ),
        (["--model", "M", "--weights", "gone.caffemodel", "--target-flops", "0.5"], "gone.caffemodel"),
        (["--solver", "S", "--target-flops", "0.5", "--set", "group_lasso_update=SUBGRADIENT"], "no parameter of the"),
        (["--solver", "S", "--target-flops", "0.5", "--set", "max_iter="], "the solver has no max_iter"),
    ],
)
def test_bad_options_are_one_clear_error(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [{"M": str(MODEL), "S": str(SOLVER)}.get(word, word) for word in options]
    assert main(["compress", *words, "--output", f"{tmp_path}/a"]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    "text, message",
    [
        (DUMMY.format(rule="include { phase: TRAIN }", loss="include { phase: TRAIN }"), "has no test data"),
        (DUMMY.format(rule="", loss="include { phase: TRAIN }"), "neither an Accuracy nor a loss in phase TEST"),
        (MODEL.read_text().replace('"digits/test" backend: BUILTIN', '"nowhere_lmdb" backend: LMDB'), "nowhere_lmdb"),
    ],
)
def test_net_that_cannot_be_tested_is_one_clear_error(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "net.prototxt"
    model.write_text(text)
    assert main(["compress", "--model", str(model), "--target-flops", "0.5", "--output", f"{tmp_path}/a"]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


def test_net_waiting_for_data_has_no_test_data(tmp_path: Path) -> None:
    model = tmp_path / "net.prototxt"
    by_hand = 'layer { name: "in" type: "Input" top: "data" top: "label" include { phase: TEST } input_param { '
    by_hand += "shape { dim: 4 dim: 2 dim: 6 dim: 6 } shape { dim: 4 } } }"
    model.write_text(by_hand + DUMMY.format(rule="include { phase: TRAIN }", loss=""))
    with pytest.raises(UsageError, match="has no test data: no data layer fills data, label"):
        Pipeline(Task(Targets("flops", 0.5), str(tmp_path / "a"), model=str(model)))


@pytest.mark.parametrize(
    ("stage", "result"),
    [
        ("baseline", {"error": None}),
        ("baseline", {"error": "low", "loss": 1.0}),
        ("sparsify", {"error": 0.1, "loss": 1.0, "met": 1, "left": 0.3, "missed": ""}),
        ("compact", {"deploy": True, "notes": [1], "parameters": [1, 2], "flops": [1.0, 2.0]}),
        ("compact", {"deploy": True, "notes": [], "parameters": [1], "flops": [1.0, 2.0]}),
        ("finetune", {"iterations": -1}),
        ("time", []),
        ("dance", {}),
    ],
)
def test_damaged_state_is_one_error(
    stage: str, result: Any, whole: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    state = json.loads((whole[0] / "state.json").read_text())
    state["stages"][stage] = result
    (tmp_path / "state.json").write_text(json.dumps(state))
    with pytest.raises(UsageError, match=r"state\.json: error: is damaged, or no state of sslnet compress"):
        Pipeline(task(tmp_path))
