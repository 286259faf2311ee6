"""A path of strengths: smaller nets along it, the same points after an interruption, and none of another path."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.cli import main
from sslnet.cli.path import parse_strengths
from sslnet.compress.pipeline.regularization_path import Path as Curve
from sslnet.compress.pipeline.regularization_path import PathPlan, Point, _point, follow
from sslnet.compress.pipeline.schedule import fit_schedule
from sslnet.compress.pipeline.training import Stopped
from sslnet.errors import UsageError, WeightsError
from sslnet.net.net import Net
from sslnet.solver.solver import Solver

from ..support.monitors import Kill, Killer

DIGITS = Path(__file__).parents[2] / "solvers" / "digits_ssl.prototxt"


def plan(prefix: Path, *factors: float, finetune: int = 6, iterations: int = 40) -> PathPlan:
    return PathPlan(prototxt.read_solver(DIGITS), None, factors, iterations, finetune, str(prefix), runs=1)


def stripped(curve: Curve) -> list[tuple]:
    return [(point.factor, point.error, point.loss, point.flops, point.parameters) for point in curve.points]


def test_stronger_penalties_leave_less(tmp_path: Path) -> None:
    curve = follow(plan(tmp_path / "a", 0.1, 8, iterations=150))
    assert [point.factor for point in curve.points] == [None, 0.1, 8]
    assert curve.points[0].parameters == 35_914
    assert curve.points[2].flops < curve.points[1].flops
    assert curve.points[2].parameters < curve.points[1].parameters
    assert curve.measure == "error"
    point = curve.points[2]
    assert point.weights == f"{tmp_path}/a_point_2_finetuned.caffemodel"
    net = Net(DIGITS.parents[1] / "models/digits/train_test.prototxt", point.weights, pb.TEST)
    net.forward()
    assert 1 - float(net.blobs["accuracy"].data.item()) == pytest.approx(point.error)


@pytest.mark.parametrize("after", [20, 43, 60])
def test_path_that_was_killed_goes_on_with_the_same_points(after: int, tmp_path: Path) -> None:
    """In the first point, in its fine-tuning, in the second point."""
    whole = follow(plan(tmp_path / "whole", 1, 10))
    with pytest.raises(Kill):
        follow(plan(tmp_path / "killed", 1, 10), Killer(after))
    again = follow(plan(tmp_path / "killed", 1, 10))
    assert stripped(again) == stripped(whole)
    for k in (1, 2):
        ours, theirs = ((tmp_path / f"{name}_point_{k}.caffemodel").read_bytes() for name in ("whole", "killed"))
        assert ours == theirs


def test_path_goes_on_behind_its_end_without_doing_points_again(tmp_path: Path) -> None:
    first = follow(plan(tmp_path / "a", 1))
    told: list[str] = []
    longer = follow(plan(tmp_path / "a", 1, 10), tell=told.append)
    assert len(told) == 1
    assert "point 2 of 2, strengths x 10" in told[0]
    assert longer.points[:2] == first.points


def test_request_to_stop_ends_the_path(tmp_path: Path) -> None:
    class Watch:
        def __init__(self, solver: Solver) -> None:
            self.solver = solver

        def __enter__(self) -> None:
            self.solver.request("stop")

        def __exit__(self, *exception: object) -> None: ...

    with pytest.raises(Stopped):
        follow(plan(tmp_path / "a", 1), watch=Watch)
    assert not (tmp_path / "a_point_1.json").exists()


@pytest.mark.parametrize("change", [lambda p: plan(p, 1, iterations=7), lambda p: plan(p, 2)])
def test_files_of_another_path_are_an_error(change: Callable[[Path], PathPlan], tmp_path: Path) -> None:
    follow(plan(tmp_path / "a", 1, iterations=2, finetune=0))
    with pytest.raises(UsageError, match=r"a_point_[01]\.json belongs to another path"):
        follow(change(tmp_path / "a"))


def test_path_ends_where_nothing_is_left(tmp_path: Path) -> None:
    curve = follow(plan(tmp_path / "a", 1e4, 1e5, finetune=0, iterations=2))
    assert len(curve.points) == 1
    assert curve.ended.startswith("strengths x 1e+04 and more remove the whole net: ")
    assert follow(plan(tmp_path / "a", 1e4, 1e5, finetune=0, iterations=2)) == curve


@pytest.mark.parametrize("loss", [math.inf, math.nan, 1.5])
def test_point_of_a_net_that_diverged_is_read_back(loss: float) -> None:
    point = Point(1, None, loss, 2, 3, 4, 5, "w")
    back = _point(json.loads(json.dumps(asdict(point))), "p.json")
    assert repr(back) == repr(Point(1.0, None, loss, 2.0, 3, 4.0, 5.0, "w"))
    assert Curve([back, Point(2, None, 0.5, 2, 3, 4, 5)]).best("flops") == [False, True]


def test_best_are_the_points_that_no_other_beats() -> None:
    points = [Point(1.0, error, 0.0, flops, 1, 1, 1) for error, flops in ((1, 9), (2, 9), (2, 3), (2, 3), (3, 1))]
    assert Curve(points).best("flops") == [True, False, True, True, True]
    assert Curve(points).best("parameters") == [True, False, False, False, False]


def test_schedule_falls_as_before() -> None:
    from sslnet.solver.lr_policies import learning_rate

    for text in ("step", "exp", "inv", "poly", "sigmoid"):
        long = prototxt.parse(
            f'base_lr: 1 lr_policy: "{text}" gamma: 0.99 power: 0.7 stepsize: 200 max_iter: 1000', pb.SolverParameter
        ).message
        short = pb.SolverParameter()
        short.CopyFrom(long)
        fit_schedule(short, 100)
        for k in (0, 19, 50, 99):
            assert learning_rate(short, k, 0)[0] == pytest.approx(learning_rate(long, 10 * k, 0)[0], rel=1e-4)


@pytest.mark.parametrize(
    "text, factors",
    [("0.1:10:3", [0.1, 1, 10]), ("2:2:1", [2]), ("3,1,2", [1, 2, 3]), ("5", [5])],
)
def test_strengths_are_read(text: str, factors: list[float]) -> None:
    np.testing.assert_allclose(parse_strengths(text), factors)


@pytest.mark.parametrize("text", ["", "a", "1:2", "1:2:x", "0:1:3", "3:1:4", "1:1:2", "1:2:0", "-1,2", "nan", "inf"])
def test_strengths_that_make_no_sense_are_an_error(text: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--strengths"):
        parse_strengths(text)


def test_command_writes_table_csv_json_and_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    options = ["--strengths", "1,10", "--iterations", "20", "--output", f"{tmp_path}/a", "--plot", f"{tmp_path}/a.svg"]
    assert main(["path", "--solver", str(DIGITS), *options]) == 0
    printed = capsys.readouterr().out
    assert "x 10.0" in printed
    assert f"{tmp_path}/a.csv" in printed
    assert "sslnet compact --model" in printed
    result = json.loads((tmp_path / "a.json").read_text())
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    assert [point["error"] for point in result["points"]] == [float(row["error"]) for row in rows]
    assert "<svg" in (tmp_path / "a.svg").read_text()
    assert main(["path", "--solver", str(DIGITS), *options, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["points"] == result["points"]


@pytest.mark.parametrize(
    "options, message",
    [
        (["--iterations", "0"], "--iterations must be 1 or more, not 0"),
        (["--finetune", "-1"], "--finetune must be 0 or more, not -1"),
        (["--weights", "nowhere.caffemodel"], 'there is no file "nowhere.caffemodel"'),
        (["--set", "group_lasso_update=SUBGRADIENT"], "no parameter of the net has a group lasso with proximal"),
    ],
)
def test_bad_options_are_one_clear_error(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["path", "--solver", str(DIGITS), "--output", f"{tmp_path}/a", *options]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "record",
    [
        "[]",
        '{"point": [1]}',
        '{"point": {"factor": 1, "error": "low", "loss": {}, "flops": 1, "parameters": 1, "seconds": 1, "speedup": 1}}',
        '{"point": {"factor": 1, "error": 0.1, "flops": 1, "parameters": 1.5, "seconds": 1, "speedup": 1}}',
        '{"point": {"factor": 1, "loss": 1' + "0" * 400 + ', "flops": 1, "parameters": 1, "seconds": 1, "speedup": 1}}',
        '{"ended": 7}',
        "{",
    ],
)
def test_damaged_point_is_one_error(record: str, tmp_path: Path) -> None:
    first = plan(tmp_path / "a", 1, iterations=2, finetune=0)
    if record.startswith('{"'):
        record = json.dumps({"mark": first.mark(), "factor": None} | json.loads(record))
    (tmp_path / "a_point_0.json").write_text(record)
    with pytest.raises(
        (WeightsError, UsageError), match=r"a_point_0\.json.*(damaged|cannot be read as JSON|another path)"
    ):
        follow(first)
