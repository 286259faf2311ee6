"""Sensitivity: how far the outputs of the net move when a family loses channels, and the best shares for a FLOPs target.

For each family a curve is measured: some of its channels are taken away, the layers that read it get the weights that least
squares gives them, and the net runs on some calibration images. The error is the squared difference of the outputs as a
part of their variance, without labels. Between the measured points the curve follows the reconstruction loss of the readers.
Dynamic programming over the families then finds the numbers of channels with the smallest sum of errors whose FLOPs meet the
target; the cost of a family depends on the others, so that this is repeated from the solution found.

Ref: Frantar, Alistarh 2022, "SPDY: Accurate Pruning with Speedup Guarantees"
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sslnet.compress.pruning.channels import CoupledChannels, Family
from sslnet.compress.pruning.importance.reconstruction import GreedyRemoval, Reconstruction, levels_of
from sslnet.compress.pruning.linear_layer import LinearLayer
from sslnet.compress.pruning.repair.put import put_fit
from sslnet.compress.pruning.repair.walk import Walk
from sslnet.compress.pruning.selection import too_low
from sslnet.net.net import Net

OPTIONS = 40
"""Largest number of widths of a family that the search tells apart."""
BUDGETS = 1000
"""Steps in which dynamic programming counts FLOPs."""
ROUNDS = 12
"""Number of repetitions of the search."""


class Curves:
    """The error of the outputs by the number of units that each family has lost.

    orders  for each family its units in the order in which they go
    errors  for each family (units + 1) float64, not decreasing
    """

    def __init__(self, channels: CoupledChannels, orders: Sequence[np.ndarray], errors: Sequence[np.ndarray]) -> None:
        self.channels, self.orders, self.errors = channels, list(orders), list(errors)

    def gone(self, numbers: Sequence[int]) -> np.ndarray:
        """The units that go when each family loses so many: (units) bool."""
        gone = np.zeros(self.channels.count, np.bool_)
        for order, number in zip(self.orders, numbers):
            gone[order[:number]] = True
        return gone


def measure_curves(channels: CoupledChannels, net: Net, tool: Reconstruction, scores: np.ndarray) -> Curves:
    """Measures the curves of all families, whose units go by their scores, the lowest first.

    net   a calibration net that is filled with images; its parameters are those of the whole net, before and after
    tool  has seen the calibration images
    """
    walk = Walk(net)
    walk.before(len(net.layers))
    ends = [i for i in range(len(net.layers)) if net.layers[i].blobs and _gives_outputs(channels, i)]
    whole = {i: net.tops[i][0].data.copy() for i in ends}
    removals: dict[int, GreedyRemoval] = {}
    orders: list[np.ndarray] = []
    errors: list[np.ndarray] = [np.empty(0)] * len(channels.families)
    for number, family in enumerate(channels.families):
        order = family.units[np.argsort(scores[family.units], kind="stable")]
        removals[number] = tool.remove(family, order, keep=levels_of(family))
        orders.append(order)
    # From the last family to the first: what lies before the readers of one is as in the whole net.
    starts = [min(channels.readers_of(family), default=0) for family in channels.families]
    for number in sorted(range(len(starts)), key=lambda k: -starts[k]):
        family, removal = channels.families[number], removals[number]
        measured = [
            _measure(channels, net, tool, family, removal.weights[level], starts[number], whole)
            for level in sorted(removal.weights)
        ]
        errors[number] = _curve(removal.losses, sorted(removal.weights), measured)
    return Curves(channels, orders, errors)


def _gives_outputs(channels: CoupledChannels, i: int) -> bool:
    """Whether layer i has weights and only outputs that must stay, which no unit can be read through."""
    reads = len(channels.bottoms[i]) > 0 and (channels.bottoms[i] >= 0).any()
    return bool(reads and len(channels.tops[i]) and (channels.tops[i] < 0).all())


def _measure(
    channels: CoupledChannels,
    net: Net,
    tool: Reconstruction,
    family: Family,
    weights: dict[int, np.ndarray],
    start: int,
    whole: dict[int, np.ndarray],
) -> float:
    """Error of the outputs with these weights of the readers of a family."""
    layers = [tool.layer(i) for i in weights]
    before = [(blob, blob.data.copy()) for layer in net.layers[start:] for blob in layer.blobs]
    try:
        for layer in layers:
            _put(channels, net, tool, layer, weights[layer.number])
        names = net.layer_names
        net.forward(start=names[start], end=names[-1])
    finally:
        for blob, values in before:
            blob.data[...] = values
    difference = variance = 0.0
    for i, values in whole.items():
        difference += float(np.square(net.tops[i][0].data - values).sum(dtype=np.float64))
        variance += float(np.square(values - values.mean(axis=0)).sum(dtype=np.float64))
    return difference / max(variance, 1e-30)


def _put(channels: CoupledChannels, net: Net, tool: Reconstruction, layer: LinearLayer, weights: np.ndarray) -> None:
    change = layer.matrix() - weights
    bias = layer.bias() + np.einsum("gc,gco->go", tool.mean_inputs(layer.number), change)
    put_fit(channels, net, layer, weights, bias)


def _curve(losses: np.ndarray, levels: Sequence[int], measured: Sequence[float]) -> np.ndarray:
    """(units + 1) the curve through the measured points, in the shape of the losses between and beyond them."""
    shape = np.concatenate([[0.0], np.maximum(losses, 1e-12)])
    points = [(level, np.log(max(error, 1e-12) / shape[level])) for level, error in zip(levels, measured) if level]
    if not points:
        return shape
    places, ratios = zip(*points)
    ratio = np.exp(np.interp(np.arange(len(shape)), places, ratios))
    curve: np.ndarray = np.maximum.accumulate(shape * ratio)
    return curve


# -- the shares --------------------------------------------------------------------------------------------------------


def share_out_by(curves: Curves, stays: np.ndarray, target: float, multiple: int = 1) -> np.ndarray:
    """The units to remove so that at most ``target`` of the cost is left, of FLOPs, parameters or time: (units) bool.

    stays     (units) bool: those that must stay; the others of a family go by its order
    multiple  each family keeps a multiple of so many units, or all

    raises UsageError if more are left without all units that may go
    """
    channels = curves.channels
    whole = channels.cost()
    options = [_options(order, stays, multiple) for order in curves.orders]
    fewest = [int(numbers[-1]) for numbers in options]
    least = channels.cost(curves.gone(fewest)) / whole
    if least > target:
        raise too_low(channels, target, least)
    numbers, budget = [0] * len(options), target
    best, best_error = fewest, _error(curves, fewest)
    for _ in range(ROUNDS):
        costs = [_costs(curves, numbers, f, options[f]) / whole for f in range(len(options))]
        now = channels.cost(curves.gone(numbers)) / whole
        numbers = _search(curves, options, costs, budget - now)
        left = channels.cost(curves.gone(numbers)) / whole
        if left <= target and _error(curves, numbers) < best_error:
            best, best_error = numbers, _error(curves, numbers)
        budget += 0.7 * (target - left)
    return curves.gone(_fill(curves, options, best, target * whole))


def _options(order: np.ndarray, stays: np.ndarray, multiple: int) -> np.ndarray:
    """Numbers of units that a family may lose, sorted, from 0 on."""
    most = int(np.argmax(stays[order])) if stays[order].any() else len(order)
    numbers: np.ndarray = np.arange(most + 1)
    numbers = numbers[(numbers == 0) | ((len(order) - numbers) % multiple == 0)]
    if len(numbers) > OPTIONS:
        numbers = numbers[np.unique(np.linspace(0, len(numbers) - 1, OPTIONS).round().astype(int))]
    return numbers


def _error(curves: Curves, numbers: Sequence[int]) -> float:
    return float(sum(errors[number] for errors, number in zip(curves.errors, numbers)))


def _costs(curves: Curves, numbers: Sequence[int], f: int, options: np.ndarray) -> np.ndarray:
    """Cost of the net by the number of units that family f loses, less those now; the others stay as they are.

    Linear in that number, but for steps of blobs that several families share.
    """
    ends = []
    for number in (0, int(options[-1])):
        trial = list(numbers)
        trial[f] = number
        ends.append(curves.channels.cost(curves.gone(trial)))
    slope = (ends[1] - ends[0]) / max(1, int(options[-1]))
    costs: np.ndarray = slope * (options - numbers[f])
    return costs


def _search(curves: Curves, options: Sequence[np.ndarray], costs: Sequence[np.ndarray], budget: float) -> list[int]:
    """The options with the smallest sum of errors whose costs add up to at most ``budget``, by dynamic programming.

    costs  of each option, as parts of the whole net's; those that save cost less than 0
    """
    lows = [float(cost.min()) for cost in costs]
    room = max(budget - sum(lows), 0.0)
    unit = max(room, 1e-12) / BUDGETS
    table = np.zeros(BUDGETS + 1)
    choices = []
    for f, cost in enumerate(costs):
        steps = np.ceil((cost - lows[f]) / unit - 1e-9).astype(np.int64)
        tables = np.full((len(steps), BUDGETS + 1), np.inf)
        for k, step in enumerate(steps.tolist()):
            if step <= BUDGETS:
                tables[k, step:] = table[: BUDGETS + 1 - step] + curves.errors[f][options[f][k]]
        choice = np.argmin(tables, axis=0)
        table = tables[choice, np.arange(BUDGETS + 1)]
        choices.append((choice, steps))
    numbers, left = [], BUDGETS
    for f in range(len(costs) - 1, -1, -1):
        choice, steps = choices[f]
        k = int(choice[left])
        numbers.append(int(options[f][k]))
        left -= int(steps[k])
    return numbers[::-1]


def _fill(curves: Curves, options: Sequence[np.ndarray], numbers: Sequence[int], most: float) -> list[int]:
    """Gives units back where the FLOPs allow it, each time those that save the most error for their FLOPs."""
    channels, result = curves.channels, list(numbers)
    while True:
        now, found = channels.cost(curves.gone(result)), []
        for f, number in enumerate(result):
            place = int(np.searchsorted(options[f], number))
            if place:
                trial = list(result)
                trial[f] = int(options[f][place - 1])
                cost = channels.cost(curves.gone(trial))
                if cost <= most:
                    gain = float(curves.errors[f][number] - curves.errors[f][trial[f]])
                    found.append((gain / max(cost - now, 1), trial))
        if not found:
            return result
        result = max(found, key=lambda pair: pair[0])[1]
