"""The schedule of a run with a target, by hand."""

from __future__ import annotations

import math

import pytest

from sslnet.compress.control import schedule


@pytest.mark.parametrize("max_iter, interval", [(10, 3), (900, 3), (3000, 10), (30_299, 100)])
def test_there_are_300_checks_but_not_more_than_every_third_iteration(max_iter: int, interval: int) -> None:
    assert schedule.check_interval(max_iter) == interval


def test_remaining_follows_a_power_of_the_target_and_ends_a_little_below_it() -> None:
    assert schedule.scheduled_log(0.25, 0) == 0
    assert math.exp(schedule.scheduled_log(0.25, 0.3)) == pytest.approx(math.sqrt(0.95 * 0.25))
    assert math.exp(schedule.scheduled_log(0.25, 0.6)) == pytest.approx(0.95 * 0.25)
    assert math.exp(schedule.scheduled_log(0.25, 0.9)) == pytest.approx(0.95 * 0.25)


def test_on_schedule_nothing_changes() -> None:
    now, soon = (math.exp(schedule.scheduled_log(0.3, passed)) for passed in (0.2, 0.26))
    assert schedule.log_factor_change(0.3, 0.2, now, soon) == pytest.approx(0, abs=1e-12)


def test_change_weighs_what_remains_and_what_is_predicted() -> None:
    """Half the learning time is over: both count one half. log 0.475 = -0.744440, so that now 0.372220 is too much, soon
    0.693147 - 0.446664 too little, and 1.5 / 2 of the sum is the change."""
    assert schedule.log_factor_change(0.5, 0.3, 1.0, 0.5) == pytest.approx(0.75 * (0.372220 - 0.246483), abs=1e-5)


def test_prediction_does_not_count_at_the_end() -> None:
    twice = 2 * 0.95 * 0.1
    assert schedule.log_factor_change(0.1, 0.6, twice, 1.0) == pytest.approx(1.5 * math.log(2))
    assert schedule.log_factor_change(0.1, 0.7, twice, 0.0) == pytest.approx(1.5 * math.log(2))


def test_a_net_that_will_be_cut_in_two_counts_as_a_tenth_of_the_target() -> None:
    assert schedule.log_factor_change(0.2, 0.1, 0.5, 0.0) == schedule.log_factor_change(0.2, 0.1, 0.5, 0.02)


@pytest.mark.parametrize(
    "iterations, max_iter, factor",
    [
        (600, 1000, 1.0),  # the strengths as given meet the target at the end of the learning time
        (1200, 1000, 2.0),
        (60, 1000, 0.3),  # 0.1 would do; a start at 0.3 is at most ten times as fast
        (6, 1000, 0.1),
        (100, 10, 2.0),  # no group is to become zero within less than 50 iterations
    ],
)
def test_first_factor(iterations: float, max_iter: int, factor: float) -> None:
    assert math.exp(schedule.first_log_factor(iterations, max_iter)) == pytest.approx(factor)


def test_strengths_change_by_a_bounded_factor() -> None:
    assert schedule.largest_change(1000) == pytest.approx(3 * 0.0105)
    assert schedule.largest_change(30) == pytest.approx(3 * 0.05)


@pytest.mark.parametrize(
    "remaining, needed",
    [(math.sqrt(0.1), 2700), (0.1, 1700), (0.95, 14_000)],  # 800 / 0.6 times 2, 1.25 and 10, rounded up to two digits
)
def test_iterations_needed(remaining: float, needed: int) -> None:
    assert schedule.iterations_needed(800, 0.1, remaining) == needed
