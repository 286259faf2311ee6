"""tools/bench measures what it is asked to and writes it down; how fast that is, is not a test."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BENCH = ROOT / "tools" / "bench"
QUICK = ["--threads", "1", "--seconds", "0", "--rounds", "1"]
TINY = {
    "convs": ["--shapes", "digits1", "digits2"],
    "nets": ["--nets", "lenet-b64", "--layers"],
    "inference": ["--models", "lenet", "--batches", "1"],
    "layers": ["--layers", "softmax-loss-10", "relu"],
    "optimiser": ["--model", "digits", "--kinds", "sgd", "sgd-rows-columns", "adam"],
    "memory": ["--nets", "lenet-b64"],
    "quantized": ["--shapes", "lenet2", "--batches", "1"],
    "sparse": ["--convs", "conv5", "--batches", "1"],
}
"""What each section is asked for here: options that make it small."""


PAGE = (
    "before\n<!-- measured: tools/bench goals --write writes what stands from here -->\nold\n<!-- to here -->\nafter\n"
)
DRIVER = """
import json, sys
sys.path[:0] = sys.argv[1:3]
from benchmarks.command import main
codes = []
for command in json.loads(sys.argv[3]):
    try:
        codes.append(main(command))
    except SystemExit as error:
        codes.append(str(error))
print(json.dumps(codes), file=sys.stderr)
"""
"""Several commands in one process: most of the time of a small one is its imports."""


def run(*commands):
    """What the commands return, or say when they stop, one after the other; what they print."""
    given = json.dumps([list(map(str, command)) for command in commands])
    arguments = [sys.executable, "-c", DRIVER, str(ROOT), str(ROOT / "tools"), given]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stderr.splitlines()[-1]), done.stdout


def rows_of(path, section):
    (sections,) = json.loads(path.read_text()).values()
    return sections[section]["rows"]


@pytest.fixture(scope="module")
def benchmarks():
    """The package of the command, which is not installed."""
    sys.path.insert(0, str(ROOT / "tools"))
    yield importlib.import_module("benchmarks")
    sys.path.remove(str(ROOT / "tools"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The folder of a run of every section, and of goals with a page, with nobody to compare with."""
    folder = tmp_path_factory.mktemp("alone")
    commands = [[name, "--alone", *QUICK, *TINY[name], "--json", folder / f"{name}.json"] for name in TINY]
    (folder / "page.md").write_text(PAGE)
    layers = ["layers", "--alone", *QUICK, *TINY["layers"], "--json", folder / "page.json"]
    commands += [layers, ["goals", "--alone", "--only", "--write", folder / "page.md"]]
    codes, printed = run(*commands)
    assert codes == [0] * len(commands)
    (folder / "printed").write_text(printed)
    return folder


@pytest.fixture(scope="module")
def beside(tmp_path_factory):
    """The same of the sections that have somebody to compare with."""
    folder = tmp_path_factory.mktemp("beside")
    names = [name for name in TINY if name not in ("quantized", "sparse")]
    codes, _ = run(*([name, *QUICK, *TINY[name], "--json", folder / f"{name}.json"] for name in names))
    assert codes == [0] * len(names)
    return folder


def test_tiny_settings_are_there_for_every_section(benchmarks):
    from benchmarks.sections import SECTIONS

    assert set(TINY) == set(SECTIONS)


@pytest.mark.parametrize("section", TINY)
def test_section_runs_alone(section, alone):
    rows = rows_of(alone / f"{section}.json", section)
    assert rows
    assert all(row["times"]["ours"]["median"] >= 0 and row["threads"] == 1 for row in rows)
    assert not any(name in row["times"] for row in rows for name in ("torch", "channels_last", "onnxruntime"))


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch")
@pytest.mark.parametrize("section", [name for name in TINY if name not in ("quantized", "sparse")])
def test_section_runs_beside_its_peers(section, beside):
    rows = [row for row in rows_of(beside / f"{section}.json", section) if "layer" not in row]
    assert rows
    assert all(row["ratio"] > 0 and row["against"] in row["times"] for row in rows)


def test_convs_measures_every_shape_and_pass(alone):
    # digits1 is a first layer: it needs no gradient of its input.
    assert {(row["what"], row["part"]) for row in rows_of(alone / "convs.json", "convs")} == {
        (s, p) for s in ("digits1", "digits2") for p in ("forward", "input", "weights")
    } - {("digits1", "input")}


def test_a_line_is_printed_for_every_row(alone):
    printed = (alone / "printed").read_text()
    assert printed.count("softmax-loss-10  ") == 2 * 2  # forward and backward, in two runs


def test_goals_writes_the_page_between_its_markers(alone):
    text = (alone / "page.md").read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "| softmax-loss-10 | forward |" in text
    assert rows_of(alone / "page.json", "layers")


def test_refusals(tmp_path):
    page, other = tmp_path / "page.md", tmp_path / "other.json"
    page.write_text("mine\n")
    other.write_text('{"rows": 3}')
    small = ["convs", "--alone", *QUICK, "--shapes", "digits1"]
    codes, _ = run(["goals", "--only", "--write", page], [*small, "--compare", other], [*small, "--json", other])
    assert "must stand in it" in codes[0]
    assert "not a file that tools/bench wrote" in codes[1]
    assert "not a file that tools/bench wrote" in codes[2]
    assert page.read_text() == "mine\n" and other.read_text() == '{"rows": 3}'


def test_compare_tells_what_changed_beyond_noise(benchmarks):
    from benchmarks.record import compare

    def row(what, low, median, high):
        return {
            "what": what,
            "part": "p",
            "threads": 1,
            "times": {"ours": {"low": low, "median": median, "high": high}},
        }

    old = [row("same", 1.0, 1.1, 1.2), row("slow", 1.0, 1.1, 1.2), row("fast", 1.0, 1.1, 1.2), row("gone", 1, 1, 1)]
    new = [row("same", 1.1, 1.3, 1.5), row("slow", 2.0, 2.2, 2.4), row("fast", 0.5, 0.6, 0.7), row("new", 1, 1, 1)]
    lines = compare(old, new)
    assert [line.split()[0] for line in lines] == ["same", "slow", "fast"]
    assert [line.split()[-1] for line in lines] == ["same", "SLOWER", "faster"]


def test_turns_take_every_contestant_as_often(benchmarks):
    from benchmarks.turns import summary, take_turns

    calls = []
    times = take_turns({"ours": lambda: calls.append("ours"), "other": lambda: calls.append("other")}, 0, threads=2)
    assert len(times["ours"]) == len(times["other"]) == 5
    row = summary({"ours": [1.0, 2.0, 3.0], "slow": [4.0, 4.0, 4.0], "fast": [2.0, 2.0, 2.0]})
    assert row["against"] == "fast"
    assert row["ratio"] == 1.0 and row["ratio_best"] == 0.5
    assert row["times"]["ours"]["median"] == 2000


def test_interrupt_leaves_what_was_measured(tmp_path):
    out = tmp_path / "result.json"
    command = [sys.executable, str(BENCH), "convs", "--alone", "--threads", "1", "--seconds", "0.2", "--json", str(out)]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 100
        while not out.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        run.send_signal(signal.SIGINT)
        _, errors = run.communicate(timeout=100)
    finally:
        run.kill()
    assert run.returncode == 130, errors
    assert "interrupted; what was measured is in" in errors
    assert rows_of(out, "convs")


def test_bench_can_be_run_as_a_command():
    assert os.access(BENCH, os.X_OK)
