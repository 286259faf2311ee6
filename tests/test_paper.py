"""tools/table1 and its siblings: recipes that can be run, a runner that goes on where it was, tables of what is recorded."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sslnet import cli, prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import RunError, UsageError
from sslnet.net.net import Net
from sslnet.net.weights import save_arrays
from sslnet.prototxt.lint import lint_solver

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

from benchmarks import sparse  # noqa: E402
from paper import alexnet, command, figures, tables  # noqa: E402
from paper.page import with_table  # noqa: E402
from paper.published import ALEXNET, TABLES  # noqa: E402
from paper.recipes import DATA, RECIPES, ROWS, Recipe, Tuning  # noqa: E402
from paper.record import Record  # noqa: E402
from paper.runner import Runner, Stopped  # noqa: E402
from paper.steps import Nets, Steps  # noqa: E402

STEPS = Steps(ROOT)
PENALTIES = ("breadth_decay", "kernel_shape_decay", "block_group_decay", "group_lasso_decay")
NET = {
    "error": 0.0097,
    "layers": {
        name: {"filters": [3, 20], "columns": [25, 50], "channels": [1, 2], "flops": 0.075}
        for name in ("conv1", "conv2", "conv3", "ip1", "ip2", "ip3")
    },
    "parameters": 1234,
    "nonzero": 1200,
    "bytes": 5000,
    "speedup": dict.fromkeys(("conv1", "conv2", "conv3", "ip1", "ip2", "ip3", "net"), 2.5),
    "batch": 64,
    "threads": 1,
    "machine": "some CPU",
    "date": "2026-01-01",
}


def strengths(solver: Any) -> list[float]:
    return [getattr(solver, name) for name in PENALTIES if getattr(solver, name)]


# -- what the paper says ---------------------------------------------------------------------------------------------------


def test_published_flops_are_what_the_published_sizes_leave() -> None:
    for row in TABLES["table1"].rows:
        filters, channels = row.figures["filters"], row.figures["channels"]
        flops = [100 * filters[0] / 20, 100 * filters[1] * channels[1] / (50 * 20)]
        assert flops == pytest.approx(row.figures["flops"], abs=0.05)
    for row in TABLES["table2"].rows:  # filters of conv1 are the channels of conv2
        columns, channels = row.figures["columns"], row.figures["channels"]
        flops = [100 * columns[0] * channels[1] / (25 * 20), 100 * columns[1] / 500]
        assert flops == pytest.approx(row.figures["flops"], abs=0.05)
    for row in TABLES["figure4"].rows:
        left, dense = row.figures["neurons"], TABLES["figure4"].rows[0].figures["neurons"]
        flops = [100 * left[i] * left[i + 1] / (dense[i] * dense[i + 1]) for i in range(3)]
        assert flops == pytest.approx(row.figures["flops"], abs=0.05)


def test_published_speedup_is_within_what_zeros_allow() -> None:
    # The product's speedup comes near the share of multiply-adds that are left, within the noise of their clock.
    for layers in ALEXNET.values():
        for layer in layers.values():
            assert layer.speedup < 1.1 / ((1 - layer.columns / 100) * (1 - layer.rows / 100))


def test_zeros_are_those_of_the_benchmark() -> None:
    for name, level in sparse.LAYERS.items():
        ours = ALEXNET["strong"][name]
        assert (level.columns, level.rows, level.weights) == pytest.approx(
            (ours.columns / 100, ours.rows / 100, ours.weights / 100)
        )
        assert (level.paper, level.paper_weights) == (ours.speedup, ours.weights_speedup)


# -- recipes ---------------------------------------------------------------------------------------------------------------


def test_every_published_row_has_a_recipe_of_the_same_place() -> None:
    assert set(ROWS) == set(TABLES)
    for name, rows in ROWS.items():
        assert len(rows) == len(TABLES[name].rows)
        assert not RECIPES[rows[0]].baseline
        assert all(RECIPES[row].baseline == rows[0] for row in rows[1:])


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_trains_a_net_that_exists_and_says_nothing_wrong(name: str) -> None:
    recipe = RECIPES[name]
    solver = prototxt.apply_overrides(prototxt.read_solver(ROOT / recipe.solver), list(recipe.overrides))
    net = prototxt.read_net(ROOT / solver.message.net)
    assert [str(note) for note in lint_solver(solver, net)] == []
    assert bool(strengths(solver.message)) == bool(recipe.baseline)
    dense = prototxt.read_net(ROOT / recipe.model / "train_test.prototxt")
    assert [(layer.name, layer.type) for layer in net.message.layer] == [
        (layer.name, layer.type) for layer in dense.message.layer
    ]
    assert DATA[recipe.model] in str(net.message)
    if recipe.tuning:
        tuning = prototxt.apply_overrides(
            prototxt.read_solver(ROOT / recipe.tuning.solver), list(recipe.tuning.overrides)
        )
        assert not strengths(tuning.message)


def test_files_of_the_paper_are_used() -> None:
    solvers = {recipe.solver for recipe in RECIPES.values()}
    solvers |= {recipe.tuning.solver for recipe in RECIPES.values() if recipe.tuning}
    assert {str(path.relative_to(ROOT)) for path in ROOT.glob("solvers/paper/*.prototxt")} <= solvers
    nets = {STEPS.net_of(solver) for solver in solvers} | {recipe.net for recipe in RECIPES.values()}
    assert {str(path.relative_to(ROOT)) for path in ROOT.glob("models/paper/*.prototxt")} <= nets


@pytest.mark.parametrize("name", RECIPES)
def test_commands_of_a_recipe_are_taken_by_their_parsers(name: str) -> None:
    for step in STEPS.of(name):
        cli.command_parser(step.words[0]).parse_args(step.words[1:])
        assert step.makes.startswith(step.folder)


@pytest.mark.parametrize("table, recipe", [("table1", "lenet1"), ("table3", "convnet1"), ("figure4", "mlp1")])
def test_dense_weights_stand_for_the_net_that_all_rows_come_from(table: str, recipe: str, tmp_path: Path) -> None:
    weights = tmp_path / "dense.caffemodel"
    weights.touch()
    assert command.dense_weights(table, argparse.Namespace(dense=weights)) == {recipe: str(weights)}


def test_dense_weights_that_are_there_are_not_trained(tmp_path: Path) -> None:
    steps = Steps(ROOT, {"lenet1": str(tmp_path / "dense.caffemodel")})
    assert [step.name for step in steps.of("lenet1")] == ["4_test"]
    assert str(tmp_path / "dense.caffemodel") in steps.of("lenet3")[-1].words


def test_recipe_without_tuning_takes_the_small_net(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RECIPES, "plain", Recipe("models/lenet", "solvers/paper/lenet2.prototxt", baseline="lenet1"))
    assert [step.name for step in STEPS.of("plain")] == ["1_train", "2_small", "4_test", "5_time"]
    assert STEPS.final("plain").weights == "plain/2_small/net.caffemodel"
    assert STEPS.needed("plain") == ["lenet1", "plain"]


def test_small_net_is_tuned_beside_its_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    tuning = Tuning("solvers/paper/lenet_tuning.prototxt", teacher="lenet1")
    recipe = Recipe("models/lenet", "solvers/paper/lenet2.prototxt", baseline="lenet1", tuning=tuning)
    monkeypatch.setitem(RECIPES, "taught", recipe)
    steps = {step.name: step for step in STEPS.of("taught")}
    assert list(steps) == ["1_train", "2_small", "3_teach", "3_tune", "4_test", "5_time"]
    teacher, small = STEPS.final("lenet1"), STEPS.final("taught")
    cli.command_parser("teach").parse_args(steps["3_teach"].words[1:])
    assert {teacher.deploy, teacher.weights, "taught/2_small/net.caffemodel"} < set(steps["3_teach"].reads)
    assert {"net=taught/3_teach/net.prototxt", "taught/3_teach/net.caffemodel"} < set(steps["3_tune"].words)
    assert steps["3_tune"].makes == small.weights
    assert small.model == "taught/2_small/net.prototxt"
    monkeypatch.setitem(RECIPES, "apart", replace(recipe, baseline="lenet2"))
    assert STEPS.needed("apart") == ["lenet1", "lenet2", "apart"]


def test_overrides_count(monkeypatch: pytest.MonkeyPatch) -> None:
    tuning = Tuning("solvers/paper/lenet_tuning.prototxt", ("max_iter=70",))
    recipe = Recipe("models/lenet", "solvers/paper/lenet2.prototxt", ("max_iter=50",), baseline="lenet1", tuning=tuning)
    monkeypatch.setitem(RECIPES, "short", recipe)
    assert STEPS.trained("short") == "short/1_train/net_iter_50.caffemodel"
    assert STEPS.final("short").weights == "short/3_tune/net_iter_70.caffemodel"


# -- the runner ------------------------------------------------------------------------------------------------------------


class Fake:
    """In place of sslnet: makes the files that a command would make."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.codes: dict[str, int] = {}

    def __call__(self, words: list[str], work: Path, output: Path | None) -> int:
        self.commands.append(words)
        code = self.codes.get(words[0], 0)
        if output is not None:
            output.write_text("{}")
        elif words[0] == "train":
            prefix = next(word.partition("=")[2] for word in words if word.startswith("snapshot_prefix="))
            solver = prototxt.read_solver(work / words[words.index("--solver") + 1]).message
            iterations = 100 if code else solver.max_iter
            for suffix in ("caffemodel", "solverstate"):
                (work / f"{prefix}_iter_{iterations}.{suffix}").write_text(str(len(self.commands)))
        elif not code:
            prefix = words[words.index("--output") + 1]
            net = (ROOT / "models/lenet/deploy.prototxt").read_text()
            for suffix in (".prototxt", "_deploy.prototxt", ".caffemodel"):
                (work / f"{prefix}{suffix}").write_text(net)
        return code


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A clone whose solvers may be changed."""
    clone = tmp_path / "clone"
    (clone / "solvers/paper").mkdir(parents=True)
    for path in ROOT.glob("solvers/**/lenet*.prototxt"):
        (clone / path.relative_to(ROOT)).write_text(path.read_text())
    (clone / "models").symlink_to(ROOT / "models")
    return clone


def all_steps(root: Path, name: str) -> list[Any]:
    steps = Steps(root)
    return [step for recipe in steps.needed(name) for step in steps.of(recipe)]


def test_runner_does_what_is_not_done_yet(root: Path, tmp_path: Path) -> None:
    fake = Fake()
    runner = Runner(root, tmp_path / "work", None, fake)
    runner.run(all_steps(root, "lenet2"))
    assert [words[0] for words in fake.commands] == ["train", "test", "train", "compact", "train", "test", "time"]
    Runner(root, tmp_path / "work", None, fake).run(all_steps(root, "lenet2"))
    assert len(fake.commands) == 7
    (tmp_path / "work/lenet2/5_time/time.json").unlink()
    runner.run(all_steps(root, "lenet2"))
    assert [words[0] for words in fake.commands[7:]] == ["time"]


def test_runner_does_not_take_files_of_another_recipe(root: Path, tmp_path: Path) -> None:
    runner = Runner(root, tmp_path / "work", None, fake := Fake())
    runner.run(all_steps(root, "lenet2"))
    solver = root / "solvers/paper/lenet2.prototxt"
    solver.write_text("# another comment\n" + solver.read_text())
    runner.run(all_steps(root, "lenet2"))
    assert len(fake.commands) == 7
    solver.write_text(solver.read_text().replace("gamma: 0.1", "gamma: 0.5"))
    with pytest.raises(UsageError, match=r"lenet2/1_train was made .* solvers/paper/lenet2.prototxt changed"):
        runner.run(all_steps(root, "lenet2"))


def test_interrupted_training_goes_on_from_its_snapshot(root: Path, tmp_path: Path) -> None:
    runner = Runner(root, tmp_path / "work", None, fake := Fake())
    runner.run(all_steps(root, "lenet2")[:-2])
    for path in (tmp_path / "work/lenet2/3_tune").glob("net_*"):
        path.unlink()
    fake.codes["train"] = 130
    with pytest.raises(Stopped):
        runner.run(all_steps(root, "lenet2"))
    assert "--weights" in fake.commands[-1]
    fake.codes.clear()
    runner.run(all_steps(root, "lenet2"))
    again = next(words for words in fake.commands if "--snapshot" in words)
    assert again[again.index("--snapshot") + 1] == "lenet2/3_tune/net_iter_100.solverstate"
    assert "--weights" not in again


def test_failed_command_ends_the_run_and_leaves_no_result(root: Path, tmp_path: Path) -> None:
    runner = Runner(root, tmp_path / "work", None, fake := Fake())
    fake.codes["test"] = 2
    with pytest.raises(RunError, match=r"lenet1/4_test: the command failed \(exit code 2\)"):
        runner.run(all_steps(root, "lenet1"))
    assert [path.name for path in (tmp_path / "work/lenet1/4_test").iterdir()] == ["step.json"]


def test_nets_trained_elsewhere_are_taken_as_they_are(root: Path, tmp_path: Path) -> None:
    weights = tmp_path / "work" / Steps(root).trained("lenet1")
    weights.parent.mkdir(parents=True)
    weights.write_text("trained before")
    Runner(root, tmp_path / "work", None, fake := Fake()).run(all_steps(root, "lenet1"))
    assert [words[0] for words in fake.commands] == ["test"]


def test_runner_refuses_a_folder_that_holds_something_else(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    with pytest.raises(UsageError, match="models is in the way"):
        Runner(ROOT, tmp_path, None)


# -- figures ---------------------------------------------------------------------------------------------------------------


def test_figures_are_those_of_the_final_net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").symlink_to(ROOT / "models")
    dense = Net(str(ROOT / "models/lenet/deploy.prototxt"), phase=pb.TEST)
    random = np.random.default_rng(1)
    for blobs in dense.params.values():
        for blob in blobs:
            blob.data[...] = random.standard_normal(blob.shape)
    dense.save(tmp_path / "dense.caffemodel")
    dense.params["conv1"][0].data[5:] = 0
    dense.params["conv2"][0].data[19:] = 0
    dense.params["conv2"][0].data[:, 4:] = 0
    (tmp_path / "lenet2/2_small").mkdir(parents=True)
    dense.save(tmp_path / "small.caffemodel")
    nets = {
        "lenet1": Nets("", "models/lenet/deploy.prototxt", "dense.caffemodel"),
        "lenet2": Nets("", "models/lenet/deploy.prototxt", "small.caffemodel"),
    }
    monkeypatch.setattr(STEPS, "final", nets.__getitem__)
    (tmp_path / "lenet2/4_test").mkdir()
    (tmp_path / "lenet2/4_test/test.json").write_text(json.dumps({"outputs": {"accuracy": 0.992, "loss": 0.03}}))
    found = figures.figures_of("lenet2", STEPS, tmp_path)
    assert found["error"] == pytest.approx(0.008)
    assert found["layers"]["conv1"] == {"filters": [5, 20], "columns": [25, 25], "channels": [1, 1], "flops": 0.25}
    assert found["layers"]["conv2"] == {"filters": [19, 50], "columns": [100, 500], "channels": [4, 20], "flops": 0.076}
    assert found["parameters"] == 431_080
    assert found["nonzero"] == 431_080 - 15 * 25 - (50 * 500 - 19 * 100)
    assert "speedup" not in found


def test_speedups_are_those_that_the_command_tells() -> None:
    timing = {
        "threads": 1,
        "nets": [{"batch": 64, "forward_ms": {"median": 4.0}}, {"batch": 64, "forward_ms": {"median": 2.0}}],
        "speedup": {"layers": {"conv1": {"time": 1.5}, "pool1": {"time": 9.0}}, "whole": {"time": 2.0}},
    }
    assert figures.speedups(timing, ["conv1"])["speedup"] == {"conv1": 1.5, "net": 2.0}


def test_record_keeps_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "paper.json"
    Record(path).add("nets", "lenet2", NET)
    Record(path).add("alexnet", "strong conv1 direct batch 1 threads 1", {"product": 2.0})
    content = Record(path)
    assert content.nets == {"lenet2": NET}
    assert list(content.alexnet) == ["strong conv1 direct batch 1 threads 1"]
    for wrong in ("[]", "{", '{"nets": 1}'):
        path.write_text(wrong)
        with pytest.raises(UsageError, match=r"paper\.json"):
            Record(path)


def test_recorded_figures_are_of_recipes_and_layers_that_exist() -> None:
    record = Record(ROOT / "docs/paper.json")
    assert set(record.nets) <= set(RECIPES)
    for name in record.alexnet:
        level, layer, way, _, batch, _, threads = name.split()
        assert name == alexnet.key(level, layer, way, int(batch), int(threads))
        assert layer in ALEXNET[level] and way in (*alexnet.L1, *alexnet.SSL)


# -- tables ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ROWS)
def test_table_shows_the_papers_figures_and_ours(name: str) -> None:
    table = tables.trained_table(name, {ROWS[name][1]: NET})
    lines = table.text().splitlines()
    rows = [line for line in lines if "sslnet" in line]
    assert len(rows) == 3
    assert "0.97 %" in rows[1] and "1,200" in rows[1]
    assert "0.97 %" not in rows[0] + rows[2]
    assert sum("paper " in line for line in lines) >= 3
    assert f"| {table.rows[0][0]} | paper |" in tables.markdown(table)


def test_table_words_figures_layer_by_layer() -> None:
    line = next(row for row in tables.trained_table("table3", {"convnet2": NET}).rows if row[2] == "0.97 %")
    assert line[3:6] == ["85 - 85 - 85", "50 - 50 - 50", "2.50 - 2.50 - 2.50"]
    assert tables.trained_table("figure4", {"mlp3": NET}).rows[5][3] == "25 - 3 - 3 - 3"


def test_numbers_have_three_figures_at_most() -> None:
    assert [tables.short(value) for value in (100, 784, 32.54, 7.6, 0.414, 9.05, 0)] == [
        "100", "784", "32.5", "7.6", "0.41", "9.05", "0",
    ]  # fmt: skip


def test_page_shows_what_is_recorded() -> None:
    page, record = ROOT / "docs/paper.md", Record(ROOT / "docs/paper.json")
    shown = {name: tables.trained_table(name, record.nets) for name in ROWS}
    for name, make in (("table4", alexnet.table4), ("figure1", alexnet.figure1)):
        shown[name] = make(record.alexnet, alexnet.parse(name, []))
    text = page.read_text()
    for name, table in shown.items():
        assert with_table(text, page, name, tables.markdown(table)) == text, f"run tools/{name} --write docs/paper.md"


def test_page_is_written_between_its_marks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, page = tmp_path / "paper.json", tmp_path / "page.md"
    Record(path).add("nets", "lenet2", NET)
    page.write_text("before\n<!-- table1 -->\nold\n<!-- /table1 -->\nafter\n")
    assert command.main("table1", ["--json", str(path), "--write", str(page)]) == 0
    text = page.read_text()
    assert text.startswith("before\n<!-- table1 -->\n\n| net |") and text.endswith("\n\n<!-- /table1 -->\nafter\n")
    assert "old" not in text and "0.97 %" in text
    assert command.main("table2", ["--json", str(path), "--write", str(page)]) == 2
    assert "<!-- table2 -->" in capsys.readouterr().err
    assert page.read_text() == text


# -- command lines ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ROWS)
def test_command_prints_what_is_recorded(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "paper.json"
    Record(path).add("nets", ROWS[name][2], NET)
    assert command.main(name, ["--json", str(path)]) == 0
    assert "0.97 %" in capsys.readouterr().out


def test_command_prints_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main("table1", ["--commands", "--rows", "lenet3"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(
        "# lenet1\nmkdir -p lenet1/1_train lenet1/4_test\nsslnet train --solver solvers/lenet.prototxt"
    )
    assert "lenet2" not in text


@pytest.mark.parametrize("name", ["table2", "figure4"])
def test_command_draws_the_nets_of_a_working_folder(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "picture.svg"
    options = ["--work", str(tmp_path), "--print", "--plot", str(picture)]
    assert command.main(name, options) == 2
    assert f"no net of tools/{name} has been trained" in capsys.readouterr().err
    weights = tmp_path / STEPS.trained(ROWS[name][1])
    weights.parent.mkdir(parents=True)
    arrays = {"conv1": [np.ones((4, 1, 5, 5), np.float32)], "ip1": [np.ones((3, 784), np.float32)]}
    save_arrays(arrays, weights, hdf5=False)
    assert command.main(name, options) == 0
    assert f"<!-- {TABLES[name].rows[1].name}" in picture.read_text()
    assert command.main(name, ["--plot", str(picture)]) == 2
    assert "--work DIR" in capsys.readouterr().err


def test_command_says_where_data_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main("table1", ["--work", str(tmp_path / "work"), "--data", str(tmp_path)]) == 2
    assert "sslnet data mnist --to" in capsys.readouterr().err
    assert command.main("table1", ["--dense", str(tmp_path / "none")]) == 2


@pytest.mark.parametrize("name", ["table4", "figure1"])
def test_alexnet_is_shown_by_level_layer_and_batch(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "paper.json"
    figures = {"product": 3.25, "dense": 1.5, "machine": "some CPU", "date": "2026-01-01"}
    for layer in ALEXNET["strong"]:
        for way in (*alexnet.L1, *alexnet.SSL):
            Record(path).add("alexnet", alexnet.key("strong", layer, way, 16, 1), figures)
    options = ["--plot", str(tmp_path / "bars.svg")] if name == "figure1" else []
    assert alexnet.main(name, ["--json", str(path), "--batches", "16", *options]) == 0
    text = capsys.readouterr().out
    assert text.count("3.25 (1.50)") == (15 if name == "table4" else 10)
    assert "97.2" in text and "some CPU (2026-01-01), 1 thread" in text
    if options:
        assert (tmp_path / "bars.svg").stat().st_size > 1000


def test_layer_of_alexnet_is_measured() -> None:
    options = argparse.Namespace(seconds=0.0, rounds=1, threads=1)
    found = alexnet.measure_layer("conv5", ALEXNET["strong"]["conv5"], "structure", 1, options)
    assert found["limit"] == pytest.approx(1 / (1 - 0.807), rel=0.01)
    assert found["product"] > 0 and found["dense"] > 0
