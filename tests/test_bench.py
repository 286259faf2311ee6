"""tools/bench measures what it is asked to and writes it down; how fast that is, is not a test."""

import json
import os
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).resolve().parents[1] / "tools" / "bench"
QUICK = ["--alone", "--threads", "1", "--seconds", "0", "--rounds", "1"]


def bench(*options, timeout=200):
    return subprocess.run([sys.executable, str(BENCH), *options], capture_output=True, text=True, timeout=timeout)


def rows_of(path, section):
    (sections,) = json.loads(path.read_text()).values()
    return sections[section]["rows"]


def test_convs_writes_a_row_for_every_shape_and_pass(tmp_path):
    out = tmp_path / "result.json"
    done = bench("convs", *QUICK, "--shapes", "digits1", "digits2", "--json", str(out))
    assert done.returncode == 0, done.stderr
    rows = rows_of(out, "convs")
    # digits1 is a first layer: it needs no gradient of its input.
    assert {(row["what"], row["part"]) for row in rows} == {
        (s, p) for s in ("digits1", "digits2") for p in ("forward", "input", "weights")
    } - {("digits1", "input")}
    assert all(row["times"]["ours"]["median"] > 0 and row["gflops"] > 0 for row in rows)
    assert {row["threads"] for row in rows} == {1}
    assert len(done.stdout.splitlines()) == 2 + len(rows) + 1


def test_bench_can_be_run_as_a_command():
    assert os.access(BENCH, os.X_OK)
