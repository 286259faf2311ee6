"""Selection: which channels go so that the net keeps a given part of its cost, from scores of all channels.

Cost is what ``CoupledChannels.counted`` says: FLOPs, parameters or time.

uniform  the same share of each family goes, its lowest scores first
flops    one ranking of all families: score over the FLOPs that the channel saves, or over what else the target counts

The third way, by measured sensitivity, is in ``sensitivity``.
"""

from __future__ import annotations

import numpy as np

from sslnet.compress.pruning.channels import CoupledChannels
from sslnet.errors import UsageError

SHARE_OUT = ("uniform", "flops", "sensitivity")
"""Ways to share out the removals between the families."""


def uniform_order(channels: CoupledChannels, scores: np.ndarray) -> np.ndarray:
    """Units in the order in which they go: each family at the same pace, its lowest scores first."""
    pace = np.zeros(channels.count)
    for family in channels.families:
        rank = np.argsort(np.argsort(scores[family.units], kind="stable"), kind="stable")
        pace[family.units] = (rank + 0.5) / len(family)
    return np.argsort(pace, kind="stable")


def flops_order(channels: CoupledChannels, scores: np.ndarray, in_loss: bool) -> np.ndarray:
    """Units in the order in which they go: by score over the cost saved.

    in_loss  whether scores compare between families as they are; if not, each is divided by the norm of its family's
    """
    worth = scores.astype(np.float64)
    for family in channels.families if not in_loss else ():
        worth[family.units] /= max(float(np.linalg.norm(worth[family.units])), 1e-30)
    return np.argsort(worth / np.maximum(channels.cost_saved, 1e-30), kind="stable")


def cut_to(
    channels: CoupledChannels,
    order: np.ndarray,
    stays: np.ndarray,
    target: float,
    scores: np.ndarray,
    multiple: int = 1,
) -> np.ndarray:
    """The fewest units from the front of ``order`` without which at most ``target`` of the cost is left: (count) bool.

    stays     (count) bool: units that must stay
    multiple  each family keeps a multiple of so many units, or all: the best of those that would go stay, too

    raises UsageError if more are left without all units that may go
    """
    order = order[~stays[order]]
    whole = channels.cost()

    def first(number: int) -> np.ndarray:
        gone = np.zeros(channels.count, np.bool_)
        gone[order[:number]] = True
        return round_up(channels, gone, scores, multiple) if multiple > 1 else gone

    least = channels.cost(first(len(order))) / whole
    if least > target:
        raise too_low(channels, target, least)
    low, high = 0, len(order)
    while low < high:
        middle = (low + high) // 2
        enough = channels.cost(first(middle)) <= target * whole
        low, high = (low, middle) if enough else (middle + 1, high)
    return first(low)


def too_low(channels: CoupledChannels, target: float, least: float) -> UsageError:
    """An error for a target below what removing all that may go would leave."""
    what = {"flops": "FLOPs", "params": "parameters", "time": "time"}[channels.counted]
    return UsageError(
        f"{target:.3g} of the {what} cannot be reached: {least:.3g} are left with the fewest channels",
        hint="a higher target, or a lower floor",
    )


def round_up(channels: CoupledChannels, gone: np.ndarray, scores: np.ndarray, multiple: int) -> np.ndarray:
    """The same units without the best of them, so that each family keeps a multiple of ``multiple`` units, or all."""
    result = gone.copy()
    for family in channels.families:
        removed = family.units[gone[family.units]]
        kept = len(family) - len(removed)
        more = min(-kept % multiple, len(removed))
        result[removed[np.argsort(-scores[removed], kind="stable")[:more]]] = False
    return result
