"""The tables of a quantised net: of its layers, of what each layer costs, and of error and time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sslnet.report.tables import Table
from sslnet.report.units import count, digits, factor, milliseconds, size

if TYPE_CHECKING:
    from sslnet.compress.evaluation import Score
    from sslnet.compress.quantization.measure import Speed
    from sslnet.compress.quantization.quantize import Quantized
    from sslnet.compress.quantization.sensitivity import LayerCost


def quantization_table(result: Quantized) -> Table:
    """A row for each layer with weights: bits, range of the values that it writes, signal to noise, bytes."""
    table = Table(
        "Quantised", "layer", "bits", "range", "rounding", "signal to noise", "bytes", left=(0, 1, 2, 3), drop=(3,)
    )
    for layer in result.layers:
        before, after = layer.parameters
        table.add(
            layer.name,
            str(layer.bits) if layer.bits else "float",
            f"{layer.range[0]:.4g} to {layer.range[1]:.4g}" if layer.range else "float",
            layer.rounding,
            _decibels(layer.noise),
            f"{count(before)} -> {count(after)}" if before != after else count(before),
        )
    total = [sum(layer.parameters[side] for layer in result.layers) for side in (0, 1)]
    table.foot("whole net", "", "", "", "", f"{count(total[0])} -> {count(total[1])}")
    table.foot("ratio", "", "", "", "", factor(total[0] / total[1] if total[1] else None))
    table.note(
        "bits: of weights / activations; range: of the values that the layer writes as bytes, from "
        f"{result.images} images; signal to noise: of its outputs, for the change of its weights"
    )
    if result.folded:
        table.note(f"folded into the layer before: {_names(result.folded)}")
    if result.islands:
        islands = [f"{name} ({kind})" for name, kind in result.islands]
        table.note(f"float between quantised layers, with conversions on both sides: {_names(islands)}")
    for note in result.notes:
        table.note(note)
    return table


def cost_table(costs: Sequence[LayerCost]) -> Table:
    """A row for each layer, quantised alone: the change of the net's outputs, and the bytes that it saves."""
    table = Table("Each layer quantised alone", "layer", "bits", "change of the outputs", "bytes saved", left=(0, 1))
    for cost in costs:
        table.add(cost.name, str(cost.bits), f"{100 * cost.change:.3g} %", size(cost.saved))
    table.note("change: root mean square on the calibration images, relative to that of the outputs less their mean")
    return table


def comparison_table(scores: tuple[Score, Score] | None, speeds: Sequence[Speed]) -> Table:
    """Error, loss and time before and after."""
    table = Table("Before and after", "", "float", "quantised", "change")
    if scores is not None:
        before, after = scores
        if before.error is not None and after.error is not None:
            table.add(
                "test error", f"{100 * before.error:.2f} %", f"{100 * after.error:.2f} %",
                f"{100 * (after.error - before.error):+.2f} points",
            )  # fmt: skip
        if before.loss is not None and after.loss is not None:
            table.add("test loss", digits(before.loss, 4), digits(after.loss, 4), f"{after.loss - before.loss:+.4f}")
    for speed in speeds:
        images = "1 image" if speed.batch == 1 else f"{speed.batch} images"
        table.add(
            f"ms, {images}", milliseconds(speed.before), milliseconds(speed.after),
            f"{speed.ratio:.2f} of the float net's",
        )  # fmt: skip
    if scores is None:
        table.note("no test data with an Accuracy or a loss: the error was not measured")
    slower = [speed for speed in speeds if speed.ratio > 1]
    if slower:
        batches = " and ".join(str(speed.batch) for speed in slower)
        table.note(
            f"The quantised net is SLOWER than the float net here, with batches of {batches}: it makes the file smaller, not "
            "the net faster. `sslnet time --compare` shows the layers."
        )
    if speeds:
        threads = speeds[0].threads
        table.note(
            f"time: forward pass of the deployed nets on random inputs, {threads} thread{'s' * (threads > 1)}, in turns"
        )
    return table


def _decibels(noise: float | None) -> str | None:
    if noise is None:
        return None
    return "exact" if noise == float("inf") else f"{noise:.1f} dB"


def _names(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
