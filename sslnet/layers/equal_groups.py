"""Compaction of layers with several groups, which must stay equal in size: a group is removed as a whole, or equal places
of all groups."""

from __future__ import annotations

import numpy as np


def matched_groups(bottom: np.ndarray, top: np.ndarray, group: int) -> tuple[np.ndarray, np.ndarray]:
    """Channels that a layer of several groups keeps, if it keeps these: equal places of all groups of which any is kept.

    bottom  (channels) bool;  top: (num_output) bool, both divided into ``group`` equal groups
    returns the same shapes
    """
    sides = [flags.reshape(group, -1) for flags in (bottom, top)]
    kept = np.concatenate(sides, axis=1).any(axis=1)
    below, above = (np.outer(kept, side.any(axis=0)).reshape(-1) for side in sides)
    return below, above
