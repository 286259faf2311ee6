"""Ctrl-C and hang-ups: what they ask a solver for, and what that does to a run."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import sslnet
from sslnet import cli
from sslnet.cli.signals import Ended, ended_by_signals, signal_effects

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="signals of POSIX")

NET = """\
name: "small"
layer { name: "digits" type: "Data" top: "data" top: "label"
  transform_param { scale: 0.0625 } data_param { source: "digits/train" backend: BUILTIN batch_size: 8 } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
SOLVER = """\
net: "net.prototxt" base_lr: 0.01 lr_policy: "fixed" display: 10 max_iter: 1000000000 snapshot_prefix: "run/small" random_seed: 1
"""


def test_first_interrupt_asks_to_stop_and_the_second_interrupts() -> None:
    asked: list[str] = []
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt), signal_effects(asked.append, said.append):
        os.kill(os.getpid(), signal.SIGINT)
        assert asked == ["stop"]
        os.kill(os.getpid(), signal.SIGINT)
    assert asked == ["stop"]
    assert len(said) == 1


def test_hang_up_asks_for_a_snapshot_each_time() -> None:
    asked: list[str] = []
    with signal_effects(asked.append, lambda text: None):
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGHUP)
    assert asked == ["snapshot", "snapshot"]


def test_effects_can_be_chosen() -> None:
    asked: list[str] = []
    with signal_effects(asked.append, lambda text: None, sigint="none", sighup="stop"):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGHUP)
    assert asked == ["stop"]


def test_request_to_end_stops_and_is_patient_when_it_comes_again() -> None:
    asked: list[str] = []
    with signal_effects(asked.append, lambda text: None, sigint="none"):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
    assert asked == ["stop", "stop"]


def test_signals_mean_what_they_meant_before_afterwards() -> None:
    before = signal.getsignal(signal.SIGINT)
    with signal_effects(lambda action: None, lambda text: None):
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


def wait_for(condition: Callable[[], bool], seconds: float = 100) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def test_run_snapshots_on_a_hang_up_and_stops_on_ctrl_c_so_that_it_can_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    command = [sys.executable, "-m", "sslnet", "train", "--solver", "solver.prototxt", "--threads", "1"]
    environment = os.environ | {"PYTHONPATH": str(Path(sslnet.__file__).parent.parent)}
    metrics = tmp_path / "run" / "metrics.jsonl"

    def kinds() -> list[str]:
        lines = metrics.read_text().splitlines() if metrics.exists() else []
        return [json.loads(line)["type"] for line in lines if line.endswith("}")]

    with open(tmp_path / "out", "w") as out, open(tmp_path / "err", "w") as err:
        run = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=out, stderr=err)
        try:
            wait_for(lambda: "train" in kinds() or run.poll() is not None)
            run.send_signal(signal.SIGHUP)
            wait_for(lambda: "snapshot" in kinds() or run.poll() is not None)
            run.send_signal(signal.SIGINT)
            assert run.wait(timeout=100) == 130
        finally:
            run.kill()
    assert kinds().count("snapshot") == 2
    text = (tmp_path / "out").read_text()
    (line,) = re.findall(r"^  (sslnet train .*)$", text, flags=re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    reached = int(re.search(r"_iter_(\d+)\.solverstate", line)[1])
    assert cli.main([*shlex.split(line)[1:], "--set", f"max_iter={reached + 3}", "--threads", "1"]) == 0
    assert (tmp_path / "run" / f"small_iter_{reached + 3}.caffemodel").exists()


def test_stop_interrupts_at_once_where_nothing_would_be_lost() -> None:
    asked: list[str] = []
    with pytest.raises(KeyboardInterrupt), signal_effects(asked.append, lambda text: None, at_once=lambda: True):
        os.kill(os.getpid(), signal.SIGHUP)
        assert asked == ["snapshot"]
        os.kill(os.getpid(), signal.SIGINT)
    assert asked == ["snapshot"]


EXTRACT = "extract --model net.prototxt --weights w.caffemodel --blobs ip --iterations 1000000 --output"


@pytest.mark.parametrize("output", ["out.h5", "out_lmdb"])
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGHUP", 129)])
def test_command_that_is_ended_leaves_no_temporary_file(name: str, code: int, output: str, tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(NET)
    sslnet.Net(str(tmp_path / "net.prototxt"), phase=0).save(str(tmp_path / "w.caffemodel"))
    before = {path.name for path in tmp_path.iterdir()}
    command = [sys.executable, "-m", "sslnet", *EXTRACT.split(), output]
    environment = os.environ | {"PYTHONPATH": str(Path(sslnet.__file__).parent.parent)}
    run = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: len(list(tmp_path.iterdir())) > len(before) or run.poll() is not None)
        time.sleep(0.2)
        run.send_signal(getattr(signal, name))
        _, said = run.communicate(timeout=100)
    finally:
        run.kill()
    assert (run.returncode, said.splitlines()[-1]) == (code, f"ended by {name}")
    assert {path.name for path in tmp_path.iterdir()} == before


def test_signals_that_are_ignored_stay_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with ended_by_signals() as received:
            os.kill(os.getpid(), signal.SIGHUP)
        assert received == []
    finally:
        signal.signal(signal.SIGHUP, before)


def test_request_to_end_interrupts_where_nobody_has_decided_otherwise() -> None:
    with pytest.raises(Ended, match="SIGTERM"), ended_by_signals():
        with signal_effects(lambda action: None, lambda text: None):
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_signals_are_left_alone_outside_the_main_thread() -> None:
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(cli.main, ["--version"]).result() == 0


class Dying:
    def __init__(self, act: Callable[[], None]) -> None:
        self.act = act

    def __del__(self) -> None:
        self.act()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_signal_that_comes_while_an_object_goes_is_not_lost(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    number = getattr(signal, name)
    with pytest.raises(KeyboardInterrupt), ended_by_signals() as received:
        dying = Dying(lambda: os.kill(os.getpid(), number))
        del dying
        assert received == []
        time.sleep(10)
    assert received == [number]
    assert "Exception ignored" not in capfd.readouterr().err


def test_second_signal_does_not_disturb_the_clearing_up() -> None:
    cleared = []
    with pytest.raises(Ended, match="SIGTERM"), ended_by_signals() as received:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.05)
            cleared.append(True)
    assert cleared == [True]
    assert received == [signal.SIGTERM]
