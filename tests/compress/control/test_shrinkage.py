"""Rates of shrinkage, and what they predict, by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sslnet.compress.control.shrinkage import (
    Shrinkage,
    all_norms,
    lifetimes,
    relative_norms,
    split_by_handle,
    time_to_target,
)

Make = Callable[..., Any]


def test_first_rate_is_the_change_of_the_first_check() -> None:
    groups = Shrinkage(np.array([10.0, 4.0, 0.0, 3.0]))
    groups.update(np.array([7.0, 3.0, 0.0, 3.0]), 3)
    assert groups.zero_within(7.1).tolist() == [True, False, False, False]  # 7 at 1 an iteration, 3 at a third
    assert groups.zero_within(9.1).tolist() == [True, True, False, False]


def test_rates_are_a_moving_average() -> None:
    groups = Shrinkage(np.array([10.0]))
    groups.update(np.array([8.0]), 2)
    groups.update(np.array([8.0]), 2)
    np.testing.assert_allclose(groups.rates, [0.7 * 0.3])  # 1, then 0, of which 0.3 each goes in
    rate = 0.21 / (1 - 0.49)
    assert not groups.zero_within(0.99 * 8 / rate)[0] and groups.zero_within(1.01 * 8 / rate)[0]


def test_group_that_grows_is_not_predicted_to_become_zero() -> None:
    groups = Shrinkage(np.array([1.0]))
    groups.update(np.array([2.0]), 1)
    assert not groups.zero_within(1e9).any()


def test_norms_of_all_handles_and_back(rows_handle: Make) -> None:
    handles = [rows_handle(np.diag([3.0, 4.0]), [1, 1], [2]), rows_handle(np.array([[3.0, 4.0]]), [1], [1])]
    norms = all_norms(handles)
    assert norms.tolist() == [3, 4, 5]
    assert [part.tolist() for part in split_by_handle(norms, handles)] == [[3, 4], [5]]
    assert all_norms([]).tolist() == []


def test_lifetime_is_norm_over_speed(rows_handle: Make) -> None:
    times = lifetimes(rows_handle(np.diag([3.0, 4.0, 1.0]), [1, 2, 0], [3]), 0.5)
    assert times is not None and times.tolist() == [6, 4, np.inf]


def test_largest_group_of_each_kind_stays(rows_handle: Make) -> None:
    order = relative_norms(rows_handle(np.diag([3.0, 4.0, 1.0, 2.0, 5.0]), [1, 1, 1, 2, 0], [2, 3]))
    assert order.tolist() == [3, np.inf, 1, 1, np.inf]  # without strength, nothing ever becomes zero


@pytest.mark.parametrize("most, time", [(5, 1), (4, 1), (3, 2), (2, 2), (1, 5), (0, 5)])
def test_time_to_target(rows_handle: Make, most: int, time: float) -> None:
    """Five groups, of which one never becomes zero; the target: that at most so many are not zero."""
    one, two = rows_handle(np.eye(3), [1] * 3, [3]), rows_handle(np.eye(2), [1] * 2, [2])
    times = [np.array([1.0, 2.0, np.inf]), np.array([5.0, 2.0])]

    def is_met() -> bool:
        return int(one.matrix.any(axis=1).sum() + two.matrix.any(axis=1).sum()) <= most

    assert time_to_target([one, two], times, is_met) == time
    assert one.matrix.any(axis=1).all() and two.matrix.any(axis=1).all()


def test_no_time_where_no_group_becomes_zero(rows_handle: Make) -> None:
    assert time_to_target([rows_handle(np.eye(2), [1, 1], [2])], [np.full(2, np.inf)], lambda: True) == 0
