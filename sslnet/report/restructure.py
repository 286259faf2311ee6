"""The table of a restructured net: what became of each layer, and the measured times of both nets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from sslnet.report.compaction import totals
from sslnet.report.tables import Table
from sslnet.report.units import count, factor, milliseconds, percent

if TYPE_CHECKING:
    from sslnet.compress.restructure.restructure import Restructured
    from sslnet.timing.layerwise import NetTime, Timing


def restructure_table(result: Restructured, timing: Timing | None) -> Table:
    """A row for each replaced layer, the layers in its place taken together; times where they were measured."""
    times = () if timing is None else ("time ms", "speedup")
    table = Table("Restructured", "layer", "form", "start", "parameters", "FLOPs per image", *times, left=(0, 1, 2))
    for layer in result.layers:
        seconds = None if timing is None else layer_seconds(timing, layer.name, layer.names)
        start = "fillers" if layer.error is None else f"factors, error {layer.error:.3f}"
        table.add(layer.name, layer.form, start, *map(_change, (layer.parameters, layer.flops)), *_times(seconds))
    before, after = totals(result.sizes)
    whole = None if timing is None else (timing.nets[0].seconds, timing.nets[1].seconds)
    table.foot(
        "whole net", "", "", _change((before.parameters, after.parameters)), _change((before.flops, after.flops)),
        *_times(whole),
    )  # fmt: skip
    ratios = ((before.parameters, after.parameters), (before.flops, after.flops))
    table.foot("ratio", "", "", *(factor(a / b) if b else "" for a, b in ratios), *([""] * len(times)))
    table.note("parameters of a layer: without biases; FLOPs of the whole net: for its batch; a multiply-add is two")
    if timing is not None:
        passes = "forward and backward" if timing.nets[0].backward else "forward"
        table.note(f"time: {passes}, medians of {timing.iterations} runs of both nets in turns")
    if any(layer.error is not None for layer in result.layers):
        table.note("error: norm of the change of the weights, relative to their norm")
    if result.difference is not None:
        table.note(
            f"largest difference from the net: {result.difference.relative:.3g} of the largest output "
            f"(on {result.difference.inputs})"
        )
    for note in (*result.notes, *warnings(result, timing)):
        table.note(note)
    return table


def warnings(result: Restructured, timing: Timing | None) -> list[str]:
    """A sentence for each layer, and for the net, with less FLOPs that is not faster."""
    if timing is None:
        return []
    slower = [
        (layer.name, layer.flops, layer_seconds(timing, layer.name, layer.names))
        for layer in result.layers
    ]  # fmt: skip
    before, after = totals(result.sizes)
    slower.append(("the net", (before.flops, after.flops), (timing.nets[0].seconds, timing.nets[1].seconds)))
    return [
        f"warning: {name} has {percent(flops[1] / flops[0])} of its FLOPs, but takes {percent(times[1] / times[0])} of its time"
        for name, flops, times in slower
        if flops[1] < flops[0] and times[1] >= times[0] > 0
    ]


def layer_seconds(timing: Timing, name: str, names: Iterable[str]) -> tuple[float, float]:
    """Seconds of a layer, and of those in its place."""
    return _sum(timing.nets[0], [name]), _sum(timing.nets[1], names)


def _sum(net: NetTime, names: Iterable[str]) -> float:
    wanted = set(names)
    return sum(layer.seconds for layer in net.layers if layer.name in wanted)


def _change(pair: tuple[int, int]) -> str:
    return f"{count(pair[0])} -> {count(pair[1])}"


def _times(pair: tuple[float, float] | None) -> list[str]:
    if pair is None:
        return []
    return [f"{milliseconds(pair[0])} -> {milliseconds(pair[1])}", factor(pair[0] / pair[1]) if pair[1] else ""]
