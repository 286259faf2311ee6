"""The tables of layer-wise time: one net, or two nets side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from sslnet.report.tables import Table
from sslnet.report.units import count, digits, factor, left, milliseconds, percent, size

if TYPE_CHECKING:
    from sslnet.timing import LayerTime, NetTime, Spread, Timing


def timing_table(timing: Timing) -> Table:
    """The table of one net, or of the first two."""
    table = _one(timing.nets[0], timing.peak) if len(timing.nets) == 1 else _two(timing.nets[0], timing.nets[1])
    threads = "1 thread" if timing.threads == 1 else f"{timing.threads} threads"
    table.note(f"medians of {timing.iterations} runs, {threads}; FLOPs of a forward pass, a multiply-add is two")
    table.note(_spread_note(timing))
    table.note(_memory_note(timing.nets))
    return table


def _one(net: NetTime, peak: float) -> Table:
    heads = [
        "layer",
        "type",
        "kernel",
        "forward ms",
        "backward ms",
        "share",
        "FLOPs",
        "GFLOP/s",
        "of peak",
        "filters left",
        "columns left",
    ]
    table = Table(_title(net), *heads, left=(0, 1, 2), drop=[1, 10, 2, 6, 9, 8, 7])
    layers_seconds = sum(layer.seconds for layer in net.layers)
    for layer in net.layers:
        table.add(
            layer.name,
            layer.type,
            "not timed" if layer.source else layer.kernel,
            _milliseconds(layer.forward),
            _milliseconds(layer.backward),
            None if layer.source else percent(layer.seconds / layers_seconds if layers_seconds else None),
            count(layer.flops) if layer.flops else None,
            digits(layer.rate / 1e9) if layer.rate else None,
            percent(layer.rate / peak) if layer.rate else None,
            left(layer.filters.kept, layer.filters.total) if layer.filters else None,
            left(layer.columns.kept, layer.columns.total) if layer.columns else None,
        )
    table.foot(
        "sum of layers", "", "", milliseconds(_sum(net, "forward")), milliseconds(_sum(net, "backward")),
        "", count(net.flops), "", "", "", "",
    )  # fmt: skip
    table.foot(
        "whole net", "", "", _milliseconds(net.forward), _milliseconds(net.backward),
        "", "", digits(net.flops / net.forward.median / 1e9), percent(net.flops / net.forward.median / peak), "", "",
    )  # fmt: skip
    return table


def _two(first: NetTime, second: NetTime) -> Table:
    """Layers matched by name. The FLOP ratio is how many times fewer operations the second has."""
    backward = any(layer.backward for net in (first, second) for layer in net.layers)
    directions = ("forward", "backward") if backward else ("forward",)
    heads = [f"{direction}\n{what}" for direction in directions for what in ("A ms", "B ms", "speedup")]
    table = Table(
        f"A: {_title(first)}\nB: {_title(second)}",
        *("layer", "kernel A", "kernel B", *heads, "FLOP\nratio"),
        left=(0, 1, 2),
        drop=[1, 2, 6, 7, 3, 4] if backward else [1, 2, 3, 4],
    )
    theirs = {layer.name: layer for layer in second.layers}
    ours = {layer.name: layer for layer in first.layers}
    order = [*theirs, *ours] if len(theirs) > len(ours) else [*ours, *theirs]
    for name in dict.fromkeys(order):
        a, b = ours.get(name), theirs.get(name)
        if any(layer is not None and layer.source for layer in (a, b)):
            continue
        cells = [cell for direction in directions for cell in _pair(a, b, direction)]
        kernels = (layer.kernel if layer else None for layer in (a, b))
        table.add(name, *kernels, *cells, factor(a.flops / b.flops) if a and b and a.flops and b.flops else None)
    ratio = factor(first.flops / second.flops) if second.flops else None
    for label, part in (("sum of layers", _sum), ("whole net", _whole)):
        cells = []
        for direction in directions:
            times = part(first, direction), part(second, direction)
            cells += [*map(milliseconds, times), _speedup(*times)]
        table.foot(label, "", "", *cells, ratio)
    table.note("speedup: time of A by time of B; FLOP ratio: FLOPs of A by FLOPs of B")
    if first.batch != second.batch:
        table.note(f"A runs {first.batch} images, B {second.batch}: --batch gives both the same")
    return table


def _title(net: NetTime) -> str:
    name = f"{net.model} ({net.name})" if net.model and net.name else net.model or net.name
    return f"{name}, {net.phase}, batch {net.batch}"


def _pair(a: LayerTime | None, b: LayerTime | None, direction: str) -> list[str | None]:
    spreads: list[Spread | None] = [getattr(layer, direction) if layer else None for layer in (a, b)]
    times = [spread.median if spread else None for spread in spreads]
    return [*map(_milliseconds, spreads), _speedup(*times)]


def _speedup(before: float | None, after: float | None) -> str | None:
    return factor(before / after) if before and after else None


def _milliseconds(spread: Spread | None) -> str | None:
    return None if spread is None else milliseconds(spread.median)


def _spread_note(timing: Timing) -> str:
    """How far the quartiles lie from the medians, in most layers and in the worst."""
    spreads = [
        s for net in timing.nets for layer in net.layers for s in (layer.forward, layer.backward) if s is not None
    ]
    widths = sorted((s.high - s.low) / 2 / s.median for s in spreads if s.median)
    if not widths:
        return "nothing was timed"
    return f"half the runs lie within {percent(widths[len(widths) // 2])} of the median (worst layer: {percent(widths[-1])})"


def _memory_note(nets: Sequence[NetTime]) -> str:
    """What each net takes; of several with the letters that they have in the table."""
    parts = []
    for letter, net in zip("AB", nets):
        memory = net.memory
        words = (
            f"{size(memory.blobs)} for blobs, {size(memory.params)} for parameters, {size(memory.layers)} inside layers"
        )
        parts.append(f"{letter} {words}" if len(nets) > 1 else words)
    return f"memory: {'; '.join(parts)}"


def _sum(net: NetTime, direction: str) -> float | None:
    return _total(getattr(layer, direction) for layer in net.layers)


def _whole(net: NetTime, direction: str) -> float | None:
    return _total([getattr(net, direction)])


def _total(spreads: Iterable[Spread | None]) -> float | None:
    medians = [spread.median for spread in spreads if spread is not None]
    return sum(medians) if medians else None
