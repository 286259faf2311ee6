"""The watch over the loss, by hand."""

from __future__ import annotations

import math

import pytest

from sslnet.compress.control.loss_watch import LossWatch


def test_loss_is_smoothed_over_20_iterations() -> None:
    watch = LossWatch()
    watch.update(2.0, 1000, lambda: 3.0)
    assert (watch.smoothed, watch.lowest, watch.collapsed) == (2.0, 2.0, 3.0)
    watch.update(4.0, 1000, lambda: math.nan)  # asked for once only
    assert (watch.smoothed, watch.lowest, watch.collapsed) == (pytest.approx(2.1), 2.0, 3.0)
    watch.update(0.1, 1000, lambda: math.nan)
    assert watch.smoothed == watch.lowest == pytest.approx(2.0)


def test_short_runs_smooth_over_fewer() -> None:
    watch = LossWatch(2.0, 2.0, 3.0)
    watch.update(4.0, 100, lambda: math.nan)
    assert watch.smoothed == pytest.approx(2.4)


@pytest.mark.parametrize("smoothed, risen", [(1.0, False), (1.69, False), (1.71, True)])
def test_a_third_of_what_was_learned_may_be_lost(smoothed: float, risen: bool) -> None:
    assert LossWatch(smoothed, 1.0, 3.0).has_risen is risen


def test_a_net_that_has_learned_nothing_has_nothing_to_lose() -> None:
    assert LossWatch(2.0, 1.9, 1.5).has_risen
    assert not LossWatch(1.9, 1.9, 1.5).has_risen
