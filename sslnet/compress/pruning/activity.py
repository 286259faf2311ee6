"""Activity: how often a channel is not zero, measured on images (1 - APoZ, the average percentage of zeros).

Ref: Hu, Peng, Tai, Tang 2016, "Network Trimming: A Data-Driven Neuron Pruning Approach towards Efficient Deep Architectures"
"""

from __future__ import annotations

import numpy as np

from sslnet.compress.pruning.calibration import CalibrationSet, batches, calibration_net
from sslnet.compress.pruning.channels import CoupledChannels
from sslnet.layers.channels import channel_axis
from sslnet.layers.prelu import PReLU
from sslnet.layers.relu import ReLU
from sslnet.layers.relu6 import ReLU6
from sslnet.net.net import Net

BATCH = 100
"""Images that run at once; what is left over after whole batches is not used."""


def measure_activity(channels: CoupledChannels, images: CalibrationSet) -> np.ndarray:
    """For each unit, (units) float64 from 0 to 1: the part of its places, over all images, at which it is not zero.

    Channels are looked at behind their ReLU (ReLU6, PReLU); without one, where a layer with weights reads them. Of a unit
    that is seen in several places, as in a residual stream, the most active counts: 0 then means that nothing of it is
    ever active.
    """
    net = calibration_net(channels.net, images, min(images.count, BATCH), separate=True)
    sites = _sites(channels, net)
    active, places = np.zeros((len(sites), channels.count)), np.zeros(len(sites))
    for _ in batches(net, images):
        net.forward()
        for k, (name, units) in enumerate(sites):
            blob = net.blobs[name]
            axis = channel_axis(blob)
            others = tuple(n for n in range(blob.num_axes) if n != axis)
            counts = np.count_nonzero(blob.data, axis=others)
            inside = units >= 0
            np.maximum.at(total := np.zeros(channels.count), units[inside], counts[inside])
            active[k] += total
            places[k] += blob.count // blob.shape[axis]
    shares = active / np.maximum(places, 1)[:, None]
    result: np.ndarray = shares.max(axis=0, initial=0)
    return result


def _sites(channels: CoupledChannels, net: Net) -> list[tuple[str, np.ndarray]]:
    """Blobs of the calibration net, and the units of their channels, at which units are looked at."""
    numbers = {layer.name: i for i, layer in enumerate(net.layers)}
    found: list[tuple[str, np.ndarray]] = []
    seen = np.zeros(channels.count, np.bool_)
    for i, layer in enumerate(channels.net.layers):
        if isinstance(layer, ReLU | ReLU6 | PReLU) and layer.name in numbers and (channels.tops[i] >= 0).any():
            found.append((net.top_names[numbers[layer.name]][0], channels.tops[i]))
            seen[channels.tops[i][channels.tops[i] >= 0]] = True
    for i in channels.readers:
        units = channels.bottoms[i]
        unseen = np.where((units >= 0) & ~seen[units], units, -1)
        if (unseen >= 0).any():
            found.append((net.bottom_names[numbers[channels.net.layers[i].name]][0], unseen))
    return found
