"""How fast groups shrink, which predicts when they become zero."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sslnet.compress.control.penalty_handles import Lever, thinned

MEMORY = 0.7
"""Weight of the rates so far in the moving average, from check to check."""


def all_norms(handles: Sequence[Lever]) -> np.ndarray:
    """(groups of all handles) float64"""
    return np.concatenate([handle.norms() for handle in handles] or [np.zeros(0)])


class Shrinkage:
    """The norms of all groups at the last check, and their rates: a moving average of how much they shrink an iteration.

    norms, rates  (groups) float64
    checks        how many went into the average
    """

    def __init__(self, norms: np.ndarray, rates: np.ndarray | None = None, checks: int = 0) -> None:
        self.norms = norms
        self.rates = np.zeros_like(norms) if rates is None else rates
        self.checks = checks

    def update(self, norms: np.ndarray, iterations: int) -> None:
        """Takes in the norms of a check, so many iterations after the last one."""
        self.rates = MEMORY * self.rates + (1 - MEMORY) * (self.norms - norms) / iterations
        self.norms = norms
        self.checks += 1

    def zero_within(self, iterations: float) -> np.ndarray:
        """(groups) bool: those not zero yet that will be if they go on shrinking at these rates."""
        rates = self.rates / (1 - MEMORY**self.checks)
        zero: np.ndarray = (self.norms > 0) & (self.norms <= rates * iterations)
        return zero


def split_by_handle(flags: np.ndarray, handles: Sequence[Lever]) -> list[np.ndarray]:
    """Flags of all groups as one array a handle."""
    return np.split(flags, np.cumsum([handle.count for handle in handles])[:-1])


def lifetimes(handle: Lever, rate: float) -> np.ndarray | None:
    """(groups) iterations until each becomes zero if nothing but its penalty moves it, at the learning rate ``rate``; None
    where that cannot be said."""
    speeds = handle.speeds(rate)
    if speeds is None:
        return None
    with np.errstate(divide="ignore"):
        result: np.ndarray = handle.norms() / speeds
    return result


def relative_norms(handle: Lever) -> np.ndarray:
    """(groups) norm over strength: the order in which the penalty would zero them. Infinite for the largest of each kind,
    which is to stay."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.where(handle.strengths() > 0, handle.norms() / handle.strengths(), np.inf)
    for kind in np.split(found, np.cumsum(handle.sizes)[:-1]):
        kind[kind.argmax()] = np.inf
    return found


def time_to_target(handles: Sequence[Lever], times: Sequence[np.ndarray], is_met: Callable[[], bool]) -> float:
    """The smallest of the times at which the target is met if each group becomes zero at its own.

    times   (groups) for each handle; infinite: never
    is_met  asked while the groups of up to some time are zero
    returns the largest finite time where it is never met, 0 where there is none
    """
    distinct = np.unique(np.concatenate(times))
    distinct = distinct[np.isfinite(distinct)]
    low, high = 0, len(distinct) - 1
    while low < high:
        middle = (low + high) // 2
        with thinned(handles, [time > distinct[middle] for time in times]):
            low, high = (low, middle) if is_met() else (middle + 1, high)
    return float(distinct[high]) if len(distinct) else 0.0
