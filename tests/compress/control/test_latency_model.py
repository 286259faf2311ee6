"""The latency model's table, by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sslnet.compress.control import latency_model
from sslnet.compress.control.estimate import RemainingPart
from sslnet.compress.control.latency_model import LatencyComparison, LatencyModel
from sslnet.errors import RunError


def model() -> LatencyModel:
    """Two layers and the rest: whole 4 + 2 + 1 s, with half of the groups 1 + 2 + 1 s."""
    return LatencyModel(np.array([[1.0, 1, 1], [0.5, 0.5, 1]]), np.array([[4.0, 2, 1], [1, 2, 1]]))


SOLVER = SimpleNamespace(batches=SimpleNamespace(agree=lambda make: make()))
"""What ``verify`` needs of a solver in one process."""


def parts(*matrix: float) -> list[RemainingPart]:
    return [RemainingPart(1.0, part) for part in matrix]


@pytest.mark.parametrize(
    "remaining, seconds",
    [((1, 1), 7.0), ((0.5, 0.5), 4.0), ((0.75, 1), 5.5), ((0.9, 0.6), 3.4 + 2 + 1), ((0.1, 0.1), 4.0)],
)
def test_times_are_interpolated(remaining: tuple[float, ...], seconds: float) -> None:
    assert model().remaining_time(parts(*remaining)) == pytest.approx(seconds / 7)


def test_benchmark_corrects_later_predictions(monkeypatch: pytest.MonkeyPatch) -> None:
    found, solver = parts(0.5, 0.5), SOLVER
    comparison = LatencyComparison(batch=2, threads=1, whole=7.0, small=3.0)
    monkeypatch.setattr(latency_model, "compare_latency", lambda *args: comparison)
    one = model()
    assert one.verify(solver, found, 2) is comparison
    assert one.remaining_time(found) == pytest.approx(3 / 7)
    assert one.remaining_time(parts(1, 1)) == pytest.approx(3 / 4)


def test_net_without_anything_left_corrects_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def compare(*args: Any) -> LatencyComparison:
        raise RunError("cut in two")

    monkeypatch.setattr(latency_model, "compare_latency", compare)
    one = model()
    assert one.verify(SOLVER, parts(0, 0), None) is None
    assert one.correction == 1


def test_state_comes_back() -> None:
    one = model()
    one.correction = 1.25
    two = LatencyModel.of_state({name: values.reshape(-1) for name, values in one.state().items()}, layers=2)
    np.testing.assert_array_equal(one.left, two.left)
    np.testing.assert_array_equal(one.seconds, two.seconds)
    assert two.correction == 1.25


def test_comparison_in_words() -> None:
    one = LatencyComparison(batch=8, threads=2, whole=0.012, small=0.004)
    assert one.speedup == pytest.approx(3)
    assert str(one) == "3.00 times as fast (12 ms and 4 ms, forward, batch 8, 2 threads)"
    assert "1 thread)" in str(LatencyComparison(8, 1, 2.0, 1.0))
