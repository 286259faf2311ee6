"""Statistics: measures the means and variances of BatchNorm layers anew, from images.

    measure_statistics   of the images in a calibration net, all at once
    renew_statistics     of any number of images, in batches

Ref: Ioffe, Szegedy 2015; He et al. 2018 (re-estimation after pruning)
"""

from __future__ import annotations

import numpy as np

from sslnet.compress.pruning.calibration import CalibrationSet, batches, calibration_net
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


def trained_statistics(net: Net) -> list[BatchNorm]:
    """The BatchNorm layers of a net in phase TEST whose statistics follow from training: not those with use_global_stats."""
    return [
        layer
        for layer in net.layers
        if isinstance(layer, BatchNorm) and layer.use_global_stats and not layer.param.batch_norm_param.use_global_stats
    ]


def renew_statistics(net: Net, images: CalibrationSet, batch: int) -> None:
    """Overwrites the statistics that follow from training by those of the images, in batches: the means over all batches
    and the variances within and between them, where each layer reads what its batch gives with the batch's statistics.

    net    in phase TEST;  batch: number of images of a batch; those beyond the last whole batch are left out
    """
    shown = calibration_net(net, images, min(batch, images.count))
    layers = trained_statistics(shown)
    means, squares = ([np.zeros(layer.channels) for layer in layers] for _ in range(2))
    count = 0
    for _ in batches(shown, images):
        measure_statistics(shown, layers)
        for k, layer in enumerate(layers):
            mean = layer.blobs[0].data.astype(np.float64)
            means[k] += mean
            squares[k] += layer.blobs[1].data + np.square(mean)
        count += 1
    for layer, mean, square in zip(layers, means, squares):
        layer.blobs[0].data[...] = mean / count
        layer.blobs[1].data[...] = np.maximum(square / count - np.square(mean / count), 0)


def measure_statistics(net: Net, layers: list[BatchNorm] | None = None) -> None:
    """Overwrites the statistics of BatchNorm layers by those of the images in the net, from the first layer on.

    net     a calibration net, filled with images
    layers  its layers to measure; None: all that use saved statistics
    """
    walk = Walk(net)
    for i, layer in enumerate(net.layers):
        if (
            not isinstance(layer, BatchNorm)
            or not layer.use_global_stats
            or (layers is not None and layer not in layers)
        ):
            continue
        walk.before(i)
        data = net.bottoms[i][0].data
        axes = tuple(axis for axis in range(data.ndim) if axis != 1)
        layer.blobs[0].data[...] = data.mean(axis=axes, dtype=np.float64)
        layer.blobs[1].data[...] = data.var(axis=axes, dtype=np.float64)
        layer.blobs[2].data[...] = 1
