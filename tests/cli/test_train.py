"""``sslnet train`` from its command line: a run on the built-in digits, its log, its files, resuming, broken input."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import sslnet
from sslnet import cli, prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.cli.metrics import Metrics
from sslnet.cli.train import is_learned_zero
from sslnet.solver.measure_training import measure_training
from sslnet.solver.solver import Solver

NET = """\
name: "small"
layer { name: "digits" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  transform_param { scale: 0.0625 } data_param { source: "digits/train" backend: BUILTIN batch_size: 32 } }
layer { name: "digits" type: "Data" top: "data" top: "label" include { phase: TEST }
  transform_param { scale: 0.0625 } data_param { source: "digits/test" backend: BUILTIN batch_size: 359 } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  param { breadth_decay_mult: 1 } param { lr_mult: 2 }
  convolution_param { num_output: 6 kernel_size: 3 weight_filler { type: "msra" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""

SOLVER = """\
net: "net.prototxt"
breadth_decay: 0.001
test_iter: 1
test_interval: 10
base_lr: 0.05
lr_policy: "step"
gamma: 0.5
stepsize: 15
momentum: 0.9
display: 5
max_iter: 20
snapshot: 10
snapshot_prefix: "run/small"
random_seed: 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the net and its solver."""
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(*arguments: str) -> int:
    return cli.main(["train", "--solver", "solver.prototxt", "--threads", "1", *arguments])


def metrics(folder: Path, kind: str) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    return [record for record in records if record["type"] == kind]


def parse_log(text: str) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """What Caffe's parse_log finds: rows of train and test outputs with the iteration and rate last seen, each line timed.

    The patterns are those of BVLC Caffe 1.0, tools/extra/parse_log.py and extract_seconds.py.
    """
    rows: dict[str, list[dict[str, float]]] = {"Train": [], "Test": []}
    iteration, rate = -1.0, float("nan")
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if "Solving" in line)
    for line in lines[start:]:
        words = line.strip().split()
        month, day = int(words[0][1:3]), int(words[0][3:])
        clock, micro = words[1].rsplit(".", 1)
        assert (
            1 <= month <= 12
            and 1 <= day <= 31
            and len([int(part) for part in clock.split(":")]) == 3
            and int(micro) >= 0
        )
        if match := re.search(r"Iteration (\d+)", line):
            iteration = float(match[1])
        if match := re.search(r"lr = ([-+]?[0-9]*\.?[0-9]+([eE]?[-+]?[0-9]+)?)", line):
            rate = float(match[1])
        for kind, found in rows.items():
            if match := re.search(kind + r" net output #(\d+): (\S+) = ([\.\deE+-]+)", line):
                if match[1] == "0":
                    found.append({"NumIters": iteration, "LearningRate": rate})
                found[-1][match[2]] = float(match[3])
    return rows["Train"], rows["Test"]


def test_train_learns_and_says_what_is_left(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--set", "max_iter=60") == 0
    out = capsys.readouterr().out
    assert float(re.search(r"test error: ([\d.]+) %", out)[1]) < 20
    assert re.search(r"^conv +6 x 1 x 3 x 3 +\d+ of 6", out, flags=re.MULTILINE)
    assert re.search(r"^ip ", out, flags=re.MULTILINE)


def next_commands(text: str) -> list[list[str]]:
    return [shlex.split(line)[1:] for line in text.split("next:")[1].splitlines() if line.startswith("  sslnet ")]


@pytest.mark.parametrize("strength, dead", [(0.0, False), (100.0, True)])
def test_scales_that_a_group_lasso_has_set_to_zero_are_to_be_removed(strength: float, dead: bool) -> None:
    net = """layer { name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {
            shape { dim: 3 dim: 4 } shape { dim: 3 } data_filler { type: "gaussian" } data_filler { type: "constant" } } }
        layer { name: "scale" type: "Scale" bottom: "data" top: "scale" scale_param { bias_term: true }
            param { group_lasso { group: LAYER } } }
        layer { name: "loss" type: "SoftmaxWithLoss" bottom: "scale" bottom: "label" top: "loss" }"""
    param = pb.SolverParameter(base_lr=0.1, lr_policy="fixed", group_lasso_decay=strength)
    param.net_param.CopyFrom(prototxt.parse(net, pb.NetParameter).message)
    solver = Solver(param)
    solver.step(2)
    assert any(map(is_learned_zero, measure_training(solver).layers)) == dead


def test_sparse_run_ends_with_commands_that_remove_what_is_zero_and_time_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("--set", "max_iter=200", "--set", "breadth_decay=0.08", "--set", "stepsize=1000") == 0
    commands = next_commands(capsys.readouterr().out)
    assert [command[0] for command in commands] == ["compact", "time", "test"]
    for command in commands:
        few = ["--iterations", "2"] if command[0] == "time" else []
        assert cli.main([*command, "--threads", "1", *few]) == 0


def test_dense_run_ends_without_the_command_that_removes_zeros(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train() == 0
    assert [command[0] for command in next_commands(capsys.readouterr().out)] == ["time", "test"]


def test_log_is_read_by_caffes_parse_log(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train() == 0
    rows, tests = parse_log(capsys.readouterr().err)
    assert [row["NumIters"] for row in rows] == [0, 5, 10, 15]
    assert [row["LearningRate"] for row in rows[1:]] == [0.05, 0.05, 0.05]
    assert all(row["loss"] > 0 for row in rows)
    assert [row["NumIters"] for row in tests] == [0, 10, 20]
    assert all(0 <= row["accuracy"] <= 1 and row["loss"] > 0 for row in tests)


def test_output_with_the_results_in_it_is_read_by_caffes_parse_log(folder: Path) -> None:
    command = [sys.executable, "-m", "sslnet", "train", "--solver", "solver.prototxt"]
    environment = os.environ | {"PYTHONPATH": str(Path(sslnet.__file__).parent.parent)}
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True
    )
    rows, tests = parse_log(done.stdout)
    assert (len(rows), len(tests)) == (4, 3)
    assert "test error: " in done.stdout


def test_metrics_tell_what_the_log_tells(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train() == 0
    rows, tests = parse_log(capsys.readouterr().err)
    records = metrics(folder, "train")
    assert [record["iteration"] for record in records[: len(rows)]] == [row["NumIters"] for row in rows]
    assert [record["outputs"]["loss"] for record in records[: len(rows)]] == pytest.approx(
        [row["loss"] for row in rows], rel=1e-5
    )
    found = metrics(folder, "test")
    assert [record["outputs"]["accuracy"] for record in found] == pytest.approx(
        [row["accuracy"] for row in tests], rel=1e-5
    )
    assert {"conv[0]", "ip[0]"} <= set(records[0]["sparsity"])
    assert records[0]["penalty"] == pytest.approx(records[0]["sparsity"]["conv[0]"]["group_lasso"])
    assert records[0]["sparsity"]["conv[0]"]["filters"] == {"kept": 6, "total": 6}
    assert [record["sparsity"].keys() for record in metrics(folder, "snapshot")] == [records[0]["sparsity"].keys()] * 2
    (header,) = metrics(folder, "run")
    assert header["seed"] == 3
    assert "base_lr: 0.05" in header["solver"]


def test_log_has_tables_at_displays_and_snapshots(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train() == 0
    captured = capsys.readouterr()
    titles = [line for line in captured.err.splitlines() if line.endswith("     Sparsity")]
    assert len(titles) == len([0, 5, 10, 15]) + len([10]), "each display but the last, each snapshot but the last"
    assert len(re.findall(r"^Sparsity$", captured.out, flags=re.MULTILINE)) == 1


def test_zero_columns_alone_can_be_removed_too(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = NET.replace("param { breadth_decay_mult: 1 }", "param { group_lasso { group: SHAPE } }")
    (folder / "net.prototxt").write_text(net)
    assert train("--set", "breadth_decay=0", "--set", "group_lasso_decay=0.3", "--set", "max_iter=60") == 0
    out = capsys.readouterr().out
    assert re.search(r"^conv +6 x 1 x 3 x 3 +6 of 6 +1 of 1 +[0-8] of 9", out, flags=re.MULTILINE)
    assert [command[0] for command in next_commands(out)] == ["compact", "time", "test"]


COUPLED = """\
name: "coupled"
layer { name: "digits" type: "Data" top: "data" top: "label"
  transform_param { scale: 0.0625 } data_param { source: "digits/train" backend: BUILTIN batch_size: 32 } }
layer { name: "one" type: "Convolution" bottom: "data" top: "one" param { group_lasso { group: FILTER couple: true } }
  convolution_param { num_output: 6 kernel_size: 3 weight_filler { type: "msra" } } }
layer { name: "two" type: "Convolution" bottom: "data" top: "two"
  convolution_param { num_output: 6 kernel_size: 3 weight_filler { type: "msra" } } }
layer { name: "sum" type: "Eltwise" bottom: "one" bottom: "two" top: "sum" }
layer { name: "ip" type: "InnerProduct" bottom: "sum" top: "ip"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


def test_coupled_groups_are_told_of_by_layer(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "net.prototxt").write_text(COUPLED)
    (folder / "solver.prototxt").write_text(
        SOLVER.replace("breadth_decay: 0.001", "group_lasso_decay: 0.001").replace(
            "test_iter: 1\ntest_interval: 10\n", ""
        )
    )
    assert train() == 0
    captured = capsys.readouterr()
    assert "Coupled groups, channel by channel:\n" in captured.err and "] one: coupled with two\n" in captured.err
    assert re.search(r"^one +6 of 6 +0\.\d+$", captured.out, flags=re.MULTILINE)
    assert "one: coupled with two" in captured.out
    (*_, record) = metrics(folder, "train")
    assert record["coupled"]["one"]["groups"] == {"kept": 6, "total": 6}
    assert record["coupled"]["one"]["group_lasso"] == pytest.approx(record["penalty"])


def test_set_overrides_the_solver(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--set", "max_iter=3", "--set", "snapshot_prefix=run/other") == 0
    assert (folder / "run" / "other_iter_3.caffemodel").exists()


def test_run_without_snapshots_still_keeps_its_metrics(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--set", "max_iter=1", "--set", "snapshot=0", "--set", "snapshot_after_train=false") == 0
    assert [path.name for path in (folder / "run").iterdir()] == ["metrics.jsonl"]
    assert "no snapshot was written" in capsys.readouterr().out


def test_set_of_an_unknown_field_is_bad_input(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--set", "base_lrr=3") == 2
    assert "--set base_lrr=3" in capsys.readouterr().err


def test_resumed_run_is_the_run_that_was_never_interrupted(folder: Path) -> None:
    assert train() == 0
    whole = (folder / "run" / "small_iter_20.caffemodel").read_bytes()
    history = metrics(folder, "train")
    (folder / "run" / "small_iter_20.caffemodel").unlink()
    assert train("--snapshot", "run/small_iter_10.solverstate") == 0
    assert (folder / "run" / "small_iter_20.caffemodel").read_bytes() == whole
    resumed = metrics(folder, "train")
    assert [(r["iteration"], r["outputs"]) for r in resumed] == [(r["iteration"], r["outputs"]) for r in history]
    assert [record["iteration"] for record in metrics(folder, "resume")] == [10]


def test_weights_start_from_a_trained_net(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train() == 0
    before = parse_log(capsys.readouterr().err)[1][-1]["accuracy"]
    assert train("--weights", "run/small_iter_20.caffemodel", "--set", "snapshot_prefix=run2/small") == 0
    after = parse_log(capsys.readouterr().err)[1][0]["accuracy"]
    assert after == before


def test_weights_and_snapshot_together_are_bad_input(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--weights", "a.caffemodel", "--snapshot", "a.solverstate") == 2
    assert "--snapshot" in capsys.readouterr().err


def test_caffes_spelling_trains(folder: Path) -> None:
    assert cli.main(["train", "-solver", "solver.prototxt", "-gpu", "0", "--set", "max_iter=1"]) == 0


BROKEN = {
    "cut-off prototxt": (lambda net, solver: (net[: len(net) // 2], solver), 2, r"net\.prototxt:\d+:\d+: error: "),
    "unknown field": (lambda net, solver: (net.replace("num_output: 6", "num_ouput: 6"), solver), 2, r'did you mean "num_output"\?'),
    "unknown type": (lambda net, solver: (net.replace('"ReLU"', '"Relu"'), solver), 2, r'did you mean "ReLU"\?'),
    "unknown solver field": (lambda net, solver: (net, solver + "base_lrr: 1\n"), 2, r"solver\.prototxt:15:1: error: "),
    "missing net": (lambda net, solver: (net, solver.replace("net.prototxt", "nett.prototxt")), 2, r"nett\.prototxt"),
    "missing LMDB": (lambda net, solver: (net.replace('"digits/train" backend: BUILTIN', '"no_lmdb" backend: LMDB'), solver), 2, r"no_lmdb"),
    "decay nobody takes up": (lambda net, solver: (net.replace("breadth_decay_mult: 1", ""), solver), 2, r"breadth_decay is 0.001"),
    "label out of range": (lambda net, solver: (net.replace("num_output: 10", "num_output: 7"), solver), 1, r"label"),
    "loss not finite": (lambda net, solver: (net, solver.replace("base_lr: 0.05", "base_lr: 1e30")), 1, r"loss"),
}  # fmt: skip


@pytest.mark.parametrize("case", list(BROKEN))
def test_broken_input_ends_with_one_message_and_overwrites_nothing(
    case: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, code, message = BROKEN[case]
    net, solver = change(NET, SOLVER)
    (folder / "net.prototxt").write_text(net)
    (folder / "solver.prototxt").write_text(solver)
    (folder / "run").mkdir()
    for name in ("small_iter_10.caffemodel", "small_iter_20.caffemodel"):
        (folder / "run" / name).write_bytes(b"precious")
    assert train("--set", "snapshot=0") == code
    captured = capsys.readouterr()
    assert len(re.findall(r"(?<!-)\berror: ", captured.err)) == 1
    assert re.search(message, captured.err)
    assert "Traceback" not in captured.err
    assert (folder / "run" / "small_iter_10.caffemodel").read_bytes() == b"precious"
    assert (folder / "run" / "small_iter_20.caffemodel").read_bytes() == b"precious"


@pytest.mark.parametrize("size", [0, 1, 100, -10])
@pytest.mark.parametrize("option", ["--weights", "--snapshot"])
def test_cut_off_weights_or_snapshot_are_bad_input(
    option: str, size: int, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("--set", "max_iter=1") == 0
    capsys.readouterr()
    file = folder / "run" / ("small_iter_1.caffemodel" if option == "--weights" else "small_iter_1.solverstate")
    content = file.read_bytes()
    cut = folder / ("cut" + file.suffix)
    cut.write_bytes(content[:size])
    assert train(option, str(cut)) == 2
    assert capsys.readouterr().err.count("error: ") == 1
    assert file.read_bytes() == content


def test_weights_of_another_shape_are_bad_input(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--set", "max_iter=1") == 0
    (folder / "net.prototxt").write_text(NET.replace("num_output: 6", "num_output: 7"))
    capsys.readouterr()
    assert train("--weights", "run/small_iter_1.caffemodel") == 2
    error = capsys.readouterr().err
    assert error.count("error: ") == 1
    assert '"conv"' in error and "6 x 1 x 3 x 3" in error and "7 x 1 x 3 x 3" in error


# -- certificate -------------------------------------------------------------------------------------------------------


def test_certificate_tells_of_each_penalised_parameter(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--certificate", "3") == 0
    out = capsys.readouterr().out
    table = out[out.index("Certificate (3 batches)") :].splitlines()
    assert table[1].split()[:3] == ["of", "groups", "left"]
    assert re.match(r"conv\[0\] +FILTER +\d of 6 +[\d.]+ % +[\d.]+x the present$", table[3])
    assert "KKT residual" in table[4]
    (record,) = metrics(folder, "certificate")
    (penalty,) = record["penalties"]
    (groups,) = penalty["groups"]
    assert (record["iteration"], record["batches"], groups["name"], len(groups["residuals"])) == (20, 3, "conv[0]", 6)
    assert penalty["lambda_max"] > 0


def test_certificate_of_coupled_groups_and_its_caveats(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "net.prototxt").write_text(COUPLED)
    more = 'regularization_type: "L1" weight_decay: 1e-5'
    settings = SOLVER.replace("breadth_decay: 0.001", f"group_lasso_decay: 0.001 {more}")
    (folder / "solver.prototxt").write_text(settings.replace("test_iter: 1\ntest_interval: 10\n", ""))
    assert train("--certificate", "2") == 0
    out = capsys.readouterr().out
    assert re.search(r"^one +coupled +6 of 6 +[\d.]+ % +[\d.,]+x the present$", out, flags=re.MULTILINE)
    assert "L1 weight decay counts as 0" in out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--certificate", "0"], "--certificate must be at least 1 batch, not 0"),
        (
            ["--certificate", "1", "--set", "breadth_decay=0"],
            "--certificate: no parameter of the net that is trained has a group lasso",
        ),
        (["--certificate", "1", "--target-flops", "0.5"], "--certificate and --target-flops exclude each other"),
    ],
)
def test_certificate_that_cannot_be_had_is_said_before_the_run(
    arguments: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(*arguments) == 2
    assert message in capsys.readouterr().err
    assert not (folder / "run").exists()


@pytest.mark.parametrize(
    ("option", "file", "other"),
    [
        ("--weights", "a.caffemodel,run/x_iter_1.solverstate", "use --snapshot to continue from it"),
        ("--weights", "x_iter_1.solverstate.h5", "use --snapshot to continue from it"),
        ("--snapshot", "x_iter_1.caffemodel", "use --weights to start from them"),
    ],
)
def test_other_file_of_a_snapshot_names_its_option(
    option: str, file: str, other: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", "--solver", "solver.prototxt", option, file]) == 2
    assert other in capsys.readouterr().err


# -- where the log and the metrics go ------------------------------------------------------------------------------------


def results(text: str) -> list[str]:
    """The lines of the outcome, without the pace of the machine."""
    return [line for line in text.splitlines() if not line.startswith("snapshot:")]


def measured(folder: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what is of one process."""
    records = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in r.items() if k != "seconds"} for r in records if r["type"] not in ("run", "resume")]


@pytest.mark.parametrize("options", [[], ["--set", "display=0"], ["--set", "test_interval=7", "--set", "max_iter=13"]])
def test_run_resumed_behind_its_last_test_ends_as_the_whole_one(
    options: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--set", "max_iter=13", "--set", "snapshot=12", "--set", "test_interval=5", *options]
    assert train(*options) == 0
    whole, lines = measured(folder), results(capsys.readouterr().out)
    assert lines[0].startswith("test error: ")
    assert train(*options, "--snapshot", "run/small_iter_12.solverstate") == 0
    assert results(capsys.readouterr().out) == lines
    assert measured(folder) == whole


def test_run_that_never_tests_has_no_last_test(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--set", "max_iter=4", "--set", "test_interval=5", "--set", "test_initialization=false"]
    assert train(*options) == 0
    assert "test error" not in capsys.readouterr().out


def shell(script: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Runs a script of bash in which $TRAIN trains."""
    command = [sys.executable, "-m", "sslnet", "train", "--solver", "solver.prototxt", "--threads", "1", *options]
    environment = os.environ | {"PYTHONPATH": str(Path(sslnet.__file__).parent.parent), "TRAIN": shlex.join(command)}
    done = subprocess.run(["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    return done


def test_run_whose_reader_goes_stops_with_a_snapshot(folder: Path) -> None:
    done = shell("eval $TRAIN 2>&1 | head -1; echo ${PIPESTATUS[0]}", folder, "--set", "max_iter=1000000")
    first, code = done.stdout.splitlines()
    assert (first[-len("sslnet 0.1.0") :].split()[0], code, done.stderr) == ("sslnet", "141", "")
    (state,) = (folder / "run").glob("*.solverstate")
    assert train("--snapshot", str(state), "--set", f"max_iter={int(state.stem.rpartition('_')[2]) + 3}") == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device that is always full")
def test_run_whose_log_cannot_be_written_goes_on(folder: Path) -> None:
    done = shell("eval $TRAIN 2>/dev/full; echo $?", folder)
    assert done.stdout.splitlines()[0].startswith("test error: ")
    assert done.stdout.splitlines()[-1] == "0"
    assert (folder / "run" / "small_iter_20.solverstate").exists()


@pytest.mark.parametrize("failing", ["open", "write"])
def test_run_goes_on_without_metrics_where_the_disk_is_full(
    failing: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    write = Metrics.write

    def fails(self: Metrics, kind: str, **fields: Any) -> None:
        if kind == ("run" if failing == "open" else "test"):
            raise full
        write(self, kind, **fields)

    monkeypatch.setattr(Metrics, "write", fails)
    assert train() == 0
    printed = capsys.readouterr()
    words = "the metrics are incomplete: run/metrics.jsonl cannot be written: No space left on device"
    assert printed.out.splitlines()[-1] == f"warning: {words}"
    assert printed.err.count(words) == 1
    assert (folder / "run" / "small_iter_20.solverstate").exists()


# -- names as an attacker chooses them -----------------------------------------------------------------------------------

EVIL = r"a\nIteration 7, loss = 0 \033]0;owned\007\302\233[31m\342\200\256"


def test_names_reach_the_log_and_the_results_as_escapes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (
        NET.replace('name: "small"', f'name: "{EVIL}"').replace('"loss"', f'"{EVIL}"').replace('"conv"', f'"c{EVIL}"')
    )
    (folder / "net.prototxt").write_text(text)
    assert train("--set", "max_iter=5", "--set", "display=1") == 0
    for text in capsys.readouterr():
        lines = text.removesuffix("\n").split("\n")
        assert all(line.isprintable() for line in lines)
        assert not any(line.partition("] ")[2].startswith("Iteration 7") or line.startswith("Iter") for line in lines)


def test_names_reach_a_terminal_as_escapes(folder: Path) -> None:
    pty = pytest.importorskip("pty")
    (folder / "net.prototxt").write_text(NET.replace('"small"', f'"{EVIL}"').replace('"conv"', f'"c{EVIL}"'))
    command = [sys.executable, "-m", "sslnet", "train", "--solver", "solver.prototxt", "--threads", "1"]
    environment = os.environ | {"PYTHONPATH": str(Path(sslnet.__file__).parent.parent), "TERM": "xterm"}
    ours, theirs = pty.openpty()
    run = subprocess.Popen(command, cwd=folder, env=environment, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # EIO: the run is over
        while piece := os.read(ours, 65536):
            shown += piece
    os.close(ours)
    assert run.wait(timeout=100) == 0
    text = shown.decode()
    assert "\x1b[" in text  # the bar and the table's colours
    assert r"\x1b]0;owned\x07\x9b[31m\u202e" in text
    assert not re.search("\x1b\\]|\x07|\x9b|\u202e", text)
    assert not re.search(r"^Iteration 7, loss", text, flags=re.MULTILINE)
