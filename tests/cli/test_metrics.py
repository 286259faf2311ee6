"""metrics.jsonl: one object a line, continued by a resumed run, set aside by a new one."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sslnet.cli import metrics as writer
from sslnet.cli.metrics import NAME, Metrics, header, lines_before
from sslnet.errors import UsageError
from sslnet.files import MOST_BYTES
from sslnet.report import metrics_file

HEADER = {"snapshot_prefix": "run/net", "seed": 1}


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def run(folder: Path, iterations: range, resumed: int | None = None, **fields: Any) -> None:
    metrics = Metrics(folder / NAME, HEADER | fields, resumed)
    for iteration in iterations:
        metrics.write("train", iteration=iteration, loss=1.0 / (iteration + 1))
    metrics.close()


def test_metrics_start_with_the_run(tmp_path: Path) -> None:
    run(tmp_path, range(2))
    assert [record["type"] for record in records(tmp_path / NAME)] == ["run", "train", "train"]


def test_metrics_of_a_resumed_run_replace_those_from_its_iteration_on(tmp_path: Path) -> None:
    run(tmp_path, range(0, 50, 10))
    run(tmp_path, range(20, 40, 10), resumed=20)
    found = [(record["type"], record["iteration"]) for record in records(tmp_path / NAME)]
    assert found == [("run", 0), ("train", 0), ("train", 10), ("resume", 20), ("train", 20), ("train", 30)]


def test_metrics_of_a_new_run_leave_the_old_ones(tmp_path: Path) -> None:
    run(tmp_path, range(3))
    old = (tmp_path / NAME).read_text()
    run(tmp_path, range(1))
    run(tmp_path, range(2))
    assert (tmp_path / "metrics.1.jsonl").read_text() == old
    assert len(records(tmp_path / "metrics.2.jsonl")) == 2
    assert len(records(tmp_path / NAME)) == 3


def test_runs_that_start_at_the_same_moment_lose_no_line(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda seed: run(tmp_path, range(5), seed=seed), range(40)))
    files = [records(path) for path in tmp_path.glob("metrics*.jsonl")]
    assert sorted(lines[0]["seed"] for lines in files) == list(range(40))
    assert {len(lines) for lines in files} == {6}


def test_metrics_of_another_run_are_not_continued(tmp_path: Path) -> None:
    run(tmp_path, range(3), snapshot_prefix="run/other")
    run(tmp_path, range(5, 6), resumed=5)
    assert len(records(tmp_path / "metrics.1.jsonl")) == 4
    assert [record["type"] for record in records(tmp_path / NAME)] == ["run", "train"]


def test_metrics_are_continued_beside_a_link_not_through_it(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    run(tmp_path / "other", range(3))
    before = (tmp_path / "other" / NAME).read_bytes()
    (tmp_path / NAME).symlink_to(tmp_path / "other" / NAME)
    run(tmp_path, range(1, 2), resumed=1)
    assert (tmp_path / "other" / NAME).read_bytes() == before
    assert not (tmp_path / NAME).is_symlink() and len(records(tmp_path / NAME)) == 4


def test_metrics_of_long_runs_are_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = []

    def read(path: object, limit: int, **options: object) -> str:
        limits.append(limit)
        return ""

    for module in (writer, metrics_file):
        monkeypatch.setattr(module, "read_text", read)
    lines_before(tmp_path / NAME, 1, "run/net")
    with pytest.raises(UsageError):
        metrics_file.read_metrics(str(tmp_path / NAME))
    assert limits == [MOST_BYTES, MOST_BYTES]  # an iteration of a large net has 45 KB: no bound of a few hundred MiB


def test_half_a_line_of_a_killed_run_is_dropped(tmp_path: Path) -> None:
    run(tmp_path, range(3))
    with open(tmp_path / NAME, "a") as file:
        file.write('{"type": "train", "itera')
    run(tmp_path, range(3, 4), resumed=3)
    assert [record["iteration"] for record in records(tmp_path / NAME)] == [0, 0, 1, 2, 3, 3]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_json_does_not_know_become_null(tmp_path: Path, value: float) -> None:
    metrics = Metrics(tmp_path / NAME, HEADER)
    metrics.write("train", iteration=1, loss=value, outputs={"loss": [value]})
    metrics.close()
    assert records(tmp_path / NAME)[1] == {"type": "train", "iteration": 1, "loss": None, "outputs": {"loss": [None]}}


def test_header_tells_seed_versions_and_solver() -> None:
    fields = header("base_lr: 0.01\n", "run/net", 7)
    assert fields["seed"] == 7
    assert fields["solver"] == "base_lr: 0.01\n"
    assert {"sslnet", "python", "numpy", "numba", "threads", "time"} <= set(fields)
