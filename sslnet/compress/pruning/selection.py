"""Selection: which channels go so that the net keeps a given part of its FLOPs, from scores of all channels.

uniform  the same share of each family goes, its lowest scores first
flops    one ranking of all families: score over the FLOPs that the channel saves
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sslnet.compress.pruning.channels import Channels
from sslnet.errors import UsageError

SHARE_OUT = ("uniform", "flops", "sensitivity")
"""Ways to share out the removals between the families."""


def uniform_order(channels: Channels, scores: np.ndarray) -> np.ndarray:
    """Units in the order in which they go: each family at the same pace, its lowest scores first."""
    pace = np.zeros(channels.count)
    for family in channels.families:
        rank = np.argsort(np.argsort(scores[family.units], kind="stable"), kind="stable")
        pace[family.units] = (rank + 0.5) / len(family)
    return np.argsort(pace, kind="stable")


def flops_order(channels: Channels, scores: np.ndarray, in_loss: bool) -> np.ndarray:
    """Units in the order in which they go: by score over the FLOPs saved.

    in_loss  whether scores compare between families as they are; if not, each is divided by the norm of its family's
    """
    worth = scores.astype(np.float64)
    for family in channels.families if not in_loss else ():
        worth[family.units] /= max(float(np.linalg.norm(worth[family.units])), 1e-30)
    return np.argsort(worth / np.maximum(channels.flops_saved, 1e-30), kind="stable")


def cut_to(channels: Channels, order: np.ndarray, stays: np.ndarray, target: float) -> np.ndarray:
    """The fewest units from the front of ``order`` without which at most ``target`` of the FLOPs are left: (count) bool.

    raises UsageError if more are left without all units that may go
    """
    order = order[~stays[order]]
    whole = channels.flops()

    def left(number: int) -> float:
        return channels.flops(_first(channels, order, number)) / whole

    if left(len(order)) > target:
        raise too_low(channels, target, left(len(order)))
    low, high = 0, len(order)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if left(middle) <= target else (middle + 1, high)
    return _first(channels, order, low)


def too_low(channels: Channels, target: float, least: float) -> UsageError:
    """An error for a target below what removing all that may go would leave."""
    return UsageError(
        f"{target:.3g} of the FLOPs cannot be reached: {least:.3g} are left with the fewest channels",
        hint="a higher target, or a lower floor",
    )


def round_up(
    channels: Channels,
    gone: np.ndarray,
    scores: np.ndarray,
    multiple: int,
    fits: Callable[[np.ndarray], bool] = lambda gone: True,
) -> np.ndarray:
    """The same units without the best of them, so that each family keeps a multiple of ``multiple`` units, or all.

    fits  says whether a selection may be used; families are left as they are where it may not
    """
    result = gone.copy()
    for family in channels.families:
        removed = family.units[result[family.units]]
        if not len(removed):
            continue
        kept = len(family) - len(removed)
        more = min(-kept % multiple, len(removed))
        best = removed[np.argsort(-scores[removed], kind="stable")[:more]]
        trial = result.copy()
        trial[best] = False
        result = trial if fits(trial) else result
    return result


def _first(channels: Channels, order: np.ndarray, number: int) -> np.ndarray:
    gone = np.zeros(channels.count, np.bool_)
    gone[order[:number]] = True
    return gone
