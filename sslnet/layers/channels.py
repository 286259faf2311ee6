"""Which values of a blob compaction calls a channel: an index of axis 1, or of axis 0 when there is no other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sslnet.blob import Blob
from sslnet.layers.base import BoolVector


def channel_axis(blob: Blob) -> int:
    return min(1, blob.num_axes - 1)


def channel_count(shape: Sequence[int]) -> int:
    """Channels of a blob: the size of axis 1, of axis 0 where there is no other, 1 for a scalar."""
    return shape[1] if len(shape) > 1 else shape[0] if shape else 1


def all_channels(blob: Blob) -> BoolVector:
    """True for every channel of the blob: none of them may go."""
    return np.ones(channel_count(blob.shape), bool)
