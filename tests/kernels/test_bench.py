"""tools/bench measures what it is asked to and writes it down; how fast that is, is not a test."""

import json
import os
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).resolve().parents[2] / "tools" / "bench"


def test_bench_writes_a_row_for_every_shape_and_pass(tmp_path):
    out = tmp_path / "result.json"
    options = ["--alone", "--threads", "1", "--seconds", "0", "--shapes", "digits1", "digits2", "--json", str(out)]
    done = subprocess.run([sys.executable, str(BENCH), *options], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    rows = {(row["shape"], row["pass"]) for row in result["rows"]}
    # digits1 is a first layer: it needs no gradient of its input.
    assert rows == {(s, p) for s in ("digits1", "digits2") for p in ("forward", "input", "weights")} - {
        ("digits1", "input")
    }
    assert all(row["ms"] > 0 and row["gflops"] > 0 and row["rounds"] >= 5 for row in result["rows"])
    assert result["threads"] == 1
    assert len(done.stdout.splitlines()) == 2 + len(rows)


def test_bench_can_be_run_as_a_command():
    assert os.access(BENCH, os.X_OK)
