"""Statistics: measures the means and variances of BatchNorm layers anew, in one pass over the calibration images.

Ref: Ioffe, Szegedy 2015; He et al. 2018 (re-estimation after pruning)
"""

from __future__ import annotations

import numpy as np

from sslnet.compress.pruning.repair.walk import Walk
from sslnet.errors import UsageError
from sslnet.layers.batch_norm import BatchNorm
from sslnet.net.net import Net


def check_statistics(net: Net) -> None:
    """raises UsageError if the net has no BatchNorm that uses saved statistics"""
    if not any(isinstance(layer, BatchNorm) and layer.use_global_stats for layer in net.layers):
        raise UsageError(
            "the repair statistics needs BatchNorm layers, and the net has none",
            hint="least-squares and mean are for all nets",
        )


def measure_statistics(net: Net) -> None:
    """Overwrites the statistics of all BatchNorm layers by those of the images in the net, from the first layer on.

    net   a calibration net, filled with images
    """
    walk = Walk(net)
    for i, layer in enumerate(net.layers):
        if not isinstance(layer, BatchNorm) or not layer.use_global_stats:
            continue
        walk.before(i)
        data = net.bottoms[i][0].data
        axes = tuple(axis for axis in range(data.ndim) if axis != 1)
        layer.blobs[0].data[...] = data.mean(axis=axes, dtype=np.float64)
        layer.blobs[1].data[...] = data.var(axis=axes, dtype=np.float64)
        layer.blobs[2].data[...] = 1
