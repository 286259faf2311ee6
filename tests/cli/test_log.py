"""The lines of a run: glog's shape where no terminal is, results plain unless they go into the log's own file."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from sslnet.cli.log import RunLog, loss_part, number, prefix

GLOG = re.compile(r"[IWEF]\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ \S+\] (.*)")

SCRIPT = "from sslnet.cli.log import RunLog; log = RunLog(); log('one', 'two'); log.result('three', 'four')"


def test_prefix_is_that_of_glog() -> None:
    assert GLOG.fullmatch(prefix() + "text")


def test_every_line_of_the_log_is_stamped(capsys: pytest.CaptureFixture[str]) -> None:
    RunLog()("Solving net", "Learning Rate Policy: fixed")
    lines = capsys.readouterr().err.splitlines()
    assert [GLOG.fullmatch(line)[1] for line in lines] == ["Solving net", "Learning Rate Policy: fixed"]


def test_results_on_a_stdout_of_their_own_are_plain() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout == "three\nfour\n"
    assert all(GLOG.fullmatch(line) for line in done.stderr.splitlines())


def test_results_in_the_same_file_as_the_log_are_stamped() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True
    )
    assert [GLOG.fullmatch(line)[1] for line in done.stdout.splitlines()] == ["one", "two", "three", "four"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (1e-05, "1e-05"), (0.953125, "0.953125"), (55.0800001, "55.08"), (1234567.0, "1.23457e+06")],
)
def test_numbers_have_the_six_digits_of_cpp_streams(value: float, text: str) -> None:
    assert number(value) == text


def test_outputs_that_count_in_the_loss_say_how_much() -> None:
    assert loss_part(0.25, 2.0) == " (* 2 = 0.5 loss)"
    assert loss_part(0.25, 0.0) == ""
