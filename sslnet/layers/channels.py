"""Which values of a blob compaction calls a channel: an index of axis 1, or of axis 0 when there is no other."""

from __future__ import annotations

import numpy as np

from sslnet.blob import Blob
from sslnet.layers.base import BoolVector


def channel_axis(blob: Blob) -> int:
    return min(1, blob.num_axes - 1)


def all_channels(blob: Blob) -> BoolVector:
    """True for every channel of the blob: none of them may go."""
    return np.ones(blob.shape[channel_axis(blob)] if blob.num_axes else 1, bool)
