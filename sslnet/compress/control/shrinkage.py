"""Rates at which the norms of groups shrink, to predict when they become zero."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sslnet.compress.control.penalty_handles import PenaltyHandle, thinned

MEMORY = 0.7
"""Decay factor of the moving average of rates, from check to check."""


def all_norms(handles: Sequence[PenaltyHandle]) -> np.ndarray:
    """Norms of the groups of all handles, float64."""
    return np.concatenate([handle.norms() for handle in handles] or [np.zeros(0)])


class Shrinkage:
    """Norms of all groups at the last check, and their rates: a moving average of the decrease per iteration.

    norms, rates  (groups) float64
    checks        number of checks in the average
    """

    def __init__(self, norms: np.ndarray, rates: np.ndarray | None = None, checks: int = 0) -> None:
        self.norms = norms
        self.rates = np.zeros_like(norms) if rates is None else rates
        self.checks = checks

    def update(self, norms: np.ndarray, iterations: int) -> None:
        """Adds the norms of a check.  iterations: number since the last check"""
        self.rates = MEMORY * self.rates + (1 - MEMORY) * (self.norms - norms) / iterations
        self.norms = norms
        self.checks += 1

    def zero_within(self, iterations: float) -> np.ndarray:
        """Mask of the groups, not zero yet, that become zero within ``iterations`` at the current rates."""
        rates = self.rates / (1 - MEMORY**self.checks)
        zero: np.ndarray = (self.norms > 0) & (self.norms <= rates * iterations)
        return zero


def split_by_handle(flags: np.ndarray, handles: Sequence[PenaltyHandle]) -> list[np.ndarray]:
    """Splits flags of all groups into one array per handle."""
    return np.split(flags, np.cumsum([handle.count for handle in handles])[:-1])


def lifetimes(handle: PenaltyHandle, rate: float) -> np.ndarray | None:
    """Iterations until each group becomes zero by its penalty alone, at the learning rate ``rate``: (groups); None if the
    update rule gives no such prediction."""
    speeds = handle.speeds(rate)
    if speeds is None:
        return None
    with np.errstate(divide="ignore"):
        result: np.ndarray = handle.norms() / speeds
    return result


def relative_norms(handle: PenaltyHandle, floor: float = 0.0) -> np.ndarray:
    """Norm over strength of each group, the order in which the penalty zeroes them: (groups); infinite for the largest
    groups of each kind, which must remain.  floor: their fraction; at least one"""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.where(handle.strengths() > 0, handle.norms() / handle.strengths(), np.inf)
    if floor:
        found[handle.largest(floor)] = np.inf
    for kind in np.split(found, np.cumsum(handle.sizes)[:-1]):
        kind[kind.argmax()] = np.inf
    return found


def time_to_target(handles: Sequence[PenaltyHandle], times: Sequence[np.ndarray], is_met: Callable[[], bool]) -> float:
    """The earliest time at which the target is met, if each group becomes zero at the given time.

    times   (groups) for each handle; infinite: never
    is_met  called while all groups with times up to a candidate are zero
    returns the largest finite time if the target is never met, 0 if no time is finite
    """
    distinct = np.unique(np.concatenate(times))
    distinct = distinct[np.isfinite(distinct)]
    low, high = 0, len(distinct) - 1
    while low < high:
        middle = (low + high) // 2
        with thinned(handles, [time > distinct[middle] for time in times]):
            low, high = (low, middle) if is_met() else (middle + 1, high)
    return float(distinct[high]) if len(distinct) else 0.0
