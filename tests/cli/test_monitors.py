"""What listens to a run: everything reaches everybody, a terminal gets a bar instead of Caffe's lines."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sslnet
from sslnet.cli.log import RunLog
from sslnet.cli.monitors import LogMonitor, Monitors, by_name, fields_of
from sslnet.solver.callbacks import Display, Monitor
from sslnet.sparsity.measure import CoupledSparsity, LayerSparsity, NonZero, Sparsity

EVENTS = [name for name in vars(Monitor) if name.startswith("on_")]


@pytest.mark.parametrize("event", EVENTS)
def test_monitors_tell_everybody(event: str) -> None:
    told = []

    class Listener(Monitor):
        pass

    setattr(Listener, event, lambda self, *args: told.append((self, args)))
    one, two = Listener(), Listener()
    count = getattr(Monitor, event).__code__.co_argcount - 1
    getattr(Monitors(one, two), event)(*range(count))
    assert told == [(one, tuple(range(count))), (two, tuple(range(count)))]


def display(**fields: object) -> Display:
    values = {
        "iteration": 100,
        "loss": 0.3125,
        "rate": 0.01,
        "outputs": [],
        "penalty": 0.0,
        "iterations": 100,
        "seconds": 4.0,
    }
    return Display(**(values | fields))


def logged(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line.split("] ", 1)[1] for line in capsys.readouterr().err.splitlines()]


def test_display_reads_as_in_caffes_log(capsys: pytest.CaptureFixture[str]) -> None:
    monitor = LogMonitor(RunLog())
    monitor.interval, monitor.last = 100, 1000
    monitor.on_display(display(outputs=[("loss", 0.25, 1.0), ("accuracy", 0.5, 0.0)]))
    assert logged(capsys) == [
        "Iteration 100 (25 iter/s, 4s/100 iters), loss = 0.3125",
        "    Train net output #0: loss = 0.25 (* 1 = 0.25 loss)",
        "    Train net output #1: accuracy = 0.5",
        "Iteration 100, lr = 0.01",
    ]


def test_last_display_tells_the_loss_alone_as_in_caffes_log(capsys: pytest.CaptureFixture[str]) -> None:
    monitor = LogMonitor(RunLog())
    monitor.interval, monitor.last = 100, 100
    monitor.on_display(display(outputs=[("loss", 0.25, 1.0)]))
    assert logged(capsys) == ["Iteration 100, loss = 0.3125"]


def test_outputs_of_several_values_become_lists() -> None:
    assert by_name([("loss", 0.5, 1.0), ("p", 0.1, 0.0), ("p", 0.9, 0.0)]) == {"loss": 0.5, "p": [0.1, 0.9]}


def sparsity(sought: bool = True) -> Sparsity:
    layer = LayerSparsity(
        "conv1[0]", "conv1", 0, "Convolution", (20, 1, 5, 5), NonZero(110, 500), NonZero(5, 20), NonZero(1, 1), NonZero(24, 25),
        NonZero(240, 1000), NonZero(120, 500), (), 0.5, 0.25,
    )  # fmt: skip
    return Sparsity([layer], [CoupledSparsity("conv1", NonZero(5, 20), ("conv1", "scale1"), (), 0.5)], sought)


def test_display_shows_tables_of_what_is_left_to_runs_that_seek_sparsity(capsys: pytest.CaptureFixture[str]) -> None:
    monitor = LogMonitor(RunLog())
    monitor.interval, monitor.last = 100, 1000
    monitor.on_display(display(sparsity=sparsity()))
    lines = logged(capsys)
    assert re.match(r"    conv1 +20 x 1 x 5 x 5  5 of 20 .* 0\.75$", lines[5])
    assert "    Coupled groups" in lines
    monitor.on_display(display(sparsity=sparsity(sought=False)))
    assert "    Filters left: conv1 5/20" in logged(capsys)


def test_metrics_have_everything_that_the_tables_show() -> None:
    found = fields_of(sparsity())
    assert found["sparsity"]["conv1[0]"] == {
        "elements": NonZero(110, 500),
        "filters": NonZero(5, 20),
        "channels": NonZero(1, 1),
        "columns": NonZero(24, 25),
        "parameters": NonZero(120, 500),
        "flops": NonZero(240, 1000),
        "group_lasso": 0.5,
        "weight_decay": 0.25,
    }
    assert found["coupled"]["conv1"]["makers"] == ("conv1", "scale1")
    assert fields_of(None) == {}


NET = """\
name: "small"
layer { name: "digits" type: "Data" top: "data" top: "label"
  transform_param { scale: 0.0625 } data_param { source: "digits/train" backend: BUILTIN batch_size: 8 } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" param { breadth_decay_mult: 1 }
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
SOLVER = """\
net: "net.prototxt" test_iter: 2 test_interval: 100 base_lr: 0.01 lr_policy: "fixed" display: 10 max_iter: 200
breadth_decay: 1e-4 snapshot_prefix: "run/small" random_seed: 1
"""


@pytest.mark.skipif(os.name != "posix", reason="terminals of POSIX")
def test_terminal_gets_a_bar_and_no_prefixes(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    text = under_terminal([sys.executable, "-m", "sslnet", "train", "--solver", "solver.prototxt"], tmp_path)
    assert re.search(r"small .* \d+/200 ", text)
    assert re.search(r"loss \S+  lr 0\.01  test error [\d.]+ %  filters ip \d+/10", text), "80 columns hold all of it"
    assert "Iteration 100, test: accuracy = " in text
    assert not re.search(r"I\d{4} \d\d:\d\d:\d\d", text)


def under_terminal(command: list[str], folder: Path) -> str:
    """What a command writes to a terminal, without the control sequences."""
    import pty

    ours, theirs = pty.openpty()
    package = str(Path(sslnet.__file__).parent.parent)
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "80", "PYTHONPATH": package}
    with subprocess.Popen(command, cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        chunks = []
        try:
            while chunk := os.read(ours, 65536):
                chunks.append(chunk)
        except OSError:  # how the end of a terminal shows
            pass
        assert process.wait(timeout=100) == 0
    os.close(ours)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", b"".join(chunks).decode())
