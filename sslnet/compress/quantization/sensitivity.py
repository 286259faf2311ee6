"""What each layer costs when it alone is quantised, and a choice of bits per layer for a target of the error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.compress.pruning.calibration import batches, fill
from sslnet.compress.quantization.bit_widths import BitWidths
from sslnet.compress.quantization.quantize import Calibration, Quantized
from sslnet.errors import RunError
from sslnet.net.input_layers import with_inputs
from sslnet.net.net import Net

HIGH_BITS = 8


@dataclass(frozen=True)
class LayerCost:
    """One layer quantised alone.

    change   root mean square of the change of the net's outputs on the calibration images, by that of the outputs less
             their mean
    saved    bytes of its blobs that become superfluous
    """

    name: str
    bits: BitWidths
    change: float
    saved: int


def sweep(
    calibration: Calibration, bits: BitWidths, layers: Mapping[str, BitWidths | None], *, method: str,
    rounding: str | None, tell: Callable[[str], object] = lambda text: None,
) -> list[LayerCost]:  # fmt: skip
    """The cost of each layer, in the order of the net."""
    outputs = _outputs(calibration, None)
    found = []
    names = list(calibration.candidates())
    for number, name in enumerate(names, 1):
        width = layers.get(name, bits)
        if width is None:
            continue
        tell(f"{name} alone ({number} of {len(names)})")
        alone = {other: None for other in names if other != name} | {name: width}
        result = calibration.quantize(bits, alone, method=method, rounding=rounding)
        before, after = next(row.parameters for row in result.layers if row.name == name)
        found.append(LayerCost(name, width, _change(outputs, _outputs(calibration, result)), before - after))
    return found


def choose_bits(
    calibration: Calibration, bits: BitWidths, layers: Mapping[str, BitWidths | None], costs: list[LayerCost],
    error: Callable[[Quantized], float], most: float, high: int, *, method: str, rounding: str | None,
    tell: Callable[[str], object] = lambda text: None,
) -> Quantized:  # fmt: skip
    """The net with as few layers of ``high`` bits of weights as an error of at most ``most`` needs: those that cost most.

    layers   widths that are given: they stay;  error: of a quantised net
    raises   RunError if the error is larger even with all of them
    """
    order = [c.name for c in sorted(costs, key=lambda cost: -cost.change) if c.name not in layers]
    tried: dict[int, tuple[Quantized, float]] = {}

    def at(count: int) -> float:
        if count not in tried:
            raised = {name: BitWidths(high, bits.activations) for name in order[:count]}
            result = calibration.quantize(bits, {**raised, **layers}, method=method, rounding=rounding)
            tried[count] = result, error(result)
            tell(f"{count} of {len(order)} layers with {high} bits: error {100 * tried[count][1]:.2f} %")
        return tried[count][1]

    low, end = 0, len(order)
    if at(end) > most:
        raise RunError(
            f"the error is {100 * at(end):.2f} % with weights of {high} bits in all layers, the target is {100 * most:.2f} %",
            hint="more calibration images, or a layer in float: --layers NAME=float",
        )
    while low < end:
        middle = (low + end) // 2
        if at(middle) <= most:
            end = middle
        else:
            low = middle + 1
    at(low)
    return tried[low][0]


def _outputs(calibration: Calibration, result: Quantized | None) -> list[np.ndarray]:
    """The outputs of the float net, or a quantised one, on the calibration images; not those that are measures or labels."""
    net, images = calibration.net, calibration.images
    names = _compared(net)
    if result is not None:
        shapes = {name: net.blobs[name].shape for name in net.inputs}
        definition = with_inputs(calibration.definition.with_message(result.message), shapes)
        state = calibration.state
        net = Net(definition, phase=pb.TEST, level=state.level, stages=state.stages, seed=calibration.seed)
        net.copy_from(result.weights)
    rows: list[list[np.ndarray]] = [[] for _ in names]
    for first in batches(calibration.net, images):
        if result is not None:
            fill(net, images, first)
        net.forward()
        for name, row in zip(names, rows):
            row.append(np.array(net.blobs[name].data, np.float64))
    return [np.concatenate(row) for row in rows]


def _compared(net: Net) -> list[str]:
    """Blobs that losses and measures are computed from, and other outputs, without labels."""
    found: dict[str, None] = {}
    sources = {name for layer, names in zip(net.layers, net.top_names) if layer.IS_SOURCE for name in names}
    sources |= {
        name for layer, tops, bottoms in zip(net.layers, net.top_names, net.bottom_names)
        if layer.TYPE == "Split" and bottoms[0] in sources for name in tops
    }  # fmt: skip
    for layer, bottoms, tops in zip(net.layers, net.bottom_names, net.top_names):
        if not layer.DEPLOYED:
            found.update(dict.fromkeys(name for name in bottoms if name not in sources))
        else:
            found.update(dict.fromkeys(name for name in tops if name in net.outputs and name not in sources))
    return list(found)


def _change(before: list[np.ndarray], after: list[np.ndarray]) -> float:
    error = sum(float(((a - b) ** 2).sum()) for a, b in zip(before, after, strict=True))
    size = sum(float(((a - a.mean(axis=0)) ** 2).sum()) for a in before)
    return float(np.sqrt(error / size)) if size else 0.0
