"""Least squares: refits the layers behind removed channels, one after the other, so that they give what they gave before.

In one pass from the first layer to the last, each layer with weights that reads something changed is fitted to what it gave
in the whole net at sampled positions of the calibration images (``fit``); behind residual sums, to what makes the sum right
(``streams``). The next layers then read what the fitted ones give. Needs no labels.

Ref: He, Zhang, Sun 2017, "Channel Pruning for Accelerating Very Deep Neural Networks"; Luo, Wu, Lin 2017, "ThiNet"
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sslnet.compress.pruning.channels import CoupledChannels
from sslnet.compress.pruning.linear_layer import LinearLayer, find_shared, is_linear
from sslnet.compress.pruning.repair.fit import fit
from sslnet.compress.pruning.repair.put import has_shift, put_fit
from sslnet.compress.pruning.repair.streams import Stream, find_stream, target
from sslnet.compress.pruning.repair.walk import Walk
from sslnet.net.net import Net


@dataclass(frozen=True)
class LayerRepair:
    """What least squares did to one layer.

    before, after  squared error of its output on the calibration images with the old weights and with those that it has
                   now, as parts of the variance of the target
    """

    name: str
    before: float
    after: float


class LeastSquares:
    """Use: ``record`` with the whole net, then any number of times ``repair`` with a pruned one.

    net   a calibration net, filled with images, that shares the parameters to be repaired
    """

    def __init__(self, channels: CoupledChannels, net: Net, seed: int = 0) -> None:
        self.channels, self.net = channels, net
        shared = find_shared(net)
        self.layers = [LinearLayer(net, i) for i in range(len(net.layers)) if is_linear(net, i) and i not in shared]
        images = net.blobs[net.inputs[0]].shape[0]
        self.places = {
            layer.number: layer.draw_places(images, np.random.default_rng((seed, layer.number)))
            for layer in self.layers
        }
        self.streams: dict[int, Stream | None] = {
            layer.number: find_stream(channels, net, layer.number) for layer in self.layers
        }
        self._own: dict[int, np.ndarray] = {}
        self._sums: dict[int, np.ndarray] = {}

    def record(self) -> None:
        """Runs the whole net and keeps the targets."""
        walk = Walk(self.net)
        sums = {stream.sum: i for i, stream in self.streams.items() if stream is not None}
        linear = {layer.number: layer for layer in self.layers}
        for i in sorted({*linear, *sums}):
            if i in linear:
                layer, places = linear[i], self.places[i]
                walk.through(i)
                self._own[i] = layer.values(self.net.tops[i][0].data, places)
            else:
                walk.through(i)
                maker = linear[sums[i]]
                self._sums[maker.number] = maker.values(self.net.tops[i][0].data, self.places[maker.number])
        walk.before(len(self.net.layers))

    def repair(self, gone: np.ndarray, *, only_bias: bool = False) -> list[LayerRepair]:
        """Refits all layers that read something changed.  [overwrites parameters]

        gone       (units) bool, already cleared
        only_bias  keeps the weights, so that each layer gives the mean that it gave in the whole net
        """
        walk, result = Walk(self.net), []
        linear = {layer.number: layer for layer in self.layers}
        changed: set[str] = set()
        flags = np.append(gone, False)
        for i in range(len(self.net.layers)):
            dirty = any(name in changed for name in self.net.bottom_names[i])
            if dirty and i in linear:
                walk.before(i)
                result.append(self._refit(linear[i], flags, only_bias))
            if dirty or flags[self.channels.tops[i]].any():
                changed.update(self.net.top_names[i])
            else:
                changed.difference_update(self.net.top_names[i])
        return result

    def output_error(self) -> float:
        """Runs the net as it is now; the squared difference between its outputs and those of the whole net, as a part of
        their variance: at the sampled positions of the layers whose outputs all stay."""
        walk, difference, variance = Walk(self.net), 0.0, 0.0
        for layer in self.layers:
            if (self.channels.tops[layer.number] < 0).all():
                walk.through(layer.number)
                now = layer.values(self.net.tops[layer.number][0].data, self.places[layer.number])
                before = self._own[layer.number].astype(np.float64)
                difference += float(np.square(now - before).sum())
                variance += float(np.square(before - before.mean(axis=1, keepdims=True)).sum())
        return difference / max(variance, 1e-30)

    def _refit(self, layer: LinearLayer, gone: np.ndarray, only_bias: bool) -> LayerRepair:
        i, places = layer.number, self.places[layer.number]
        lost_rows = gone[self.channels.tops[i]].reshape(layer.groups, layer.outputs)
        lost_columns = gone[self.channels.bottoms[i]][layer.channel]
        groups = np.flatnonzero(~lost_rows.all(axis=1))
        rows = np.flatnonzero(~lost_rows[groups].all(axis=0))  # the same in all groups, but in a depthwise convolution
        columns = np.flatnonzero(~lost_columns[groups].all(axis=0))
        x = layer.inputs(self.net.bottoms[i][0].data, places)[groups][:, :, columns]
        y = self._target(layer)[groups][:, :, rows]
        weights, bias = layer.matrix(), layer.bias()
        old = weights[groups][:, columns][:, :, rows]
        shift = has_shift(self.channels, self.net, layer)
        found = fit(x, y, old, bias[groups][:, rows], intercept=shift, only_bias=only_bias)
        part = weights[groups]
        part[:, columns[:, None], rows] = found.weights
        weights[groups] = part
        bias[groups[:, None], rows] = found.bias
        put_fit(self.channels, self.net, layer, weights, bias)
        return LayerRepair(layer.name, found.before, found.after)

    def _target(self, layer: LinearLayer) -> np.ndarray:
        """Samples of what the layer should give: (groups, samples, outputs)."""
        i, stream = layer.number, self.streams[layer.number]
        own = self._own[i]
        if stream is None or i not in self._sums:
            return own
        return target(self.net, stream, layer, self._sums[i], own, self.places[i])
