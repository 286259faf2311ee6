"""Times of layers: the tables of one net or of two nets, and bar charts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sslnet.errors import printable
from sslnet.report.forms import FAR, mark_limits
from sslnet.report.tables import Table
from sslnet.report.units import count, digits, factor, left, milliseconds, percent, size

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from sslnet.timing.layerwise import LayerTime, NetTime, Spread, Timing


def timing_table(timing: Timing) -> Table:
    """The table of one net, or of the first two."""
    table = _one(timing.nets[0], timing.peak) if len(timing.nets) == 1 else _two(timing.nets[0], timing.nets[1])
    threads = _threads(timing)
    table.note(f"medians of {timing.iterations} runs, {threads}; FLOPs of a forward pass, a multiply-add is two")
    table.note(_spread_note(timing))
    table.note(_memory_note(timing.nets))
    return table


def _one(net: NetTime, peak: float | None) -> Table:
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
            percent(layer.rate / peak) if layer.rate and peak else None,
            left(layer.filters.kept, layer.filters.total) if layer.filters else None,
            left(layer.columns.kept, layer.columns.total) if layer.columns else None,
        )
    table.foot(
        "sum of layers", "", "", milliseconds(_sum(net, "forward")), milliseconds(_sum(net, "backward")),
        "", count(net.flops), "", "", "", "",
    )  # fmt: skip
    rate = net.flops / net.forward.median
    table.foot(
        "whole net", "", "", _milliseconds(net.forward), _milliseconds(net.backward),
        "", "", digits(rate / 1e9), percent(rate / peak) if peak else "", "", "",
    )  # fmt: skip
    return table


def _two(first: NetTime, second: NetTime) -> Table:
    """Layers matched by name. The FLOP ratio is how many times fewer operations the second has."""
    backward = any(layer.backward for net in (first, second) for layer in net.layers)
    directions = ("forward", "backward") if backward else ("forward",)
    heads = [f"{direction}\n{what}" for direction in directions for what in ("A ms", "B ms", "speedup")]
    table = Table(
        f"A: {_title(first)}",
        *("layer", "kernel A", "kernel B", *heads, "FLOP\nratio"),
        left=(0, 1, 2),
        drop=[1, 2, 6, 7, 3, 4] if backward else [1, 2, 3, 4],
    )
    table.title += "\n" + printable(f"B: {_title(second)}")  # the title of a table escapes the ends of lines in names
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
    table.note("speedup: time of A / time of B; FLOP ratio: FLOPs of A / FLOPs of B")
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
    """The distance of the quartiles from the medians: in the median layer and in the worst."""
    spreads = [
        s for net in timing.nets for layer in net.layers for s in (layer.forward, layer.backward) if s is not None
    ]
    widths = sorted((s.high - s.low) / 2 / s.median for s in spreads if s.median)
    if not widths:
        return "nothing was timed"
    return f"half the runs lie within {percent(widths[len(widths) // 2])} of the median (worst layer: {percent(widths[-1])})"


def _memory_note(nets: Sequence[NetTime]) -> str:
    """The memory of each net; of two nets with their letters in the table."""
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


def _threads(timing: Timing) -> str:
    return "1 thread" if timing.threads == 1 else f"{timing.threads} threads"


def plot_timings(timings: Sequence[Timing], file: str | Path) -> None:
    """Bars layer by layer: milliseconds of one net, or speedups of the second of two, with marks at the FLOP ratio."""
    from sslnet.report.plots import figure

    names = [_timed(timing) for timing in timings]
    size = (min(max(4.5, 1.5 + 0.5 * max(map(len, names))), 40.0), 3.4)
    with figure(file, len(timings), 1, size) as axes:
        for ax, timing, layers in zip(axes, timings, names):
            (_draw_one if len(timing.nets) == 1 else _draw_two)(ax, timing, layers)
            ax.set_title(f"batch {timing.nets[0].batch}, {_threads(timing)}")
            ticks = [*layers, "whole net"] if len(timing.nets) > 1 else layers
            ax.set_xticks(range(len(ticks)), ticks, rotation=40, ha="right", rotation_mode="anchor", fontsize=8)
            ax.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))


def _timed(timing: Timing) -> list[str]:
    """Layers that were timed, in all nets."""
    per_net = [[layer.name for layer in net.layers if not layer.source] for net in timing.nets]
    return [name for name in per_net[0] if all(name in names for names in per_net)]


def _draw_one(ax: Axes, timing: Timing, layers: Sequence[str]) -> None:
    by_name = {layer.name: layer for layer in timing.nets[0].layers}
    for place, name in enumerate(layers):
        for direction, shift, colour in _bars(timing):
            spread: Spread | None = getattr(by_name[name], direction)
            if spread is not None:
                low, high = 1e3 * (spread.median - spread.low), 1e3 * (spread.high - spread.median)
                label = direction if not place else ""
                ax.bar(place + shift, 1e3 * spread.median, 0.4, color=colour, label=label)
                ax.errorbar(place + shift, 1e3 * spread.median, [[low], [high]], color="black", linewidth=0.8)
    ax.set_ylabel("ms, median and quartiles")


def _draw_two(ax: Axes, timing: Timing, layers: Sequence[str]) -> None:
    first, second = timing.nets
    ours, theirs = ({layer.name: layer for layer in net.layers} for net in timing.nets)
    pairs: list[tuple[Any, Any]] = [(ours[name], theirs[name]) for name in layers]
    pairs.append((first, second))
    highest = 1.0
    marks: list[tuple[float, float, float]] = []
    for place, (a, b) in enumerate(pairs):
        for direction, shift, colour in _bars(timing):
            before, after = getattr(a, direction), getattr(b, direction)
            if before is not None and after is not None and after.median:
                speedup = before.median / after.median
                highest = max(highest, speedup)
                ax.bar(place + shift, speedup, 0.4, color=colour, label=direction if not place else "")
        if a.flops and b.flops:
            marks.append((place - 0.42, place + 0.42, a.flops / b.flops))
    mark_limits(ax, marks, FAR * highest, "FLOP ratio")
    ax.axhline(1, color="grey", linewidth=0.8, linestyle=":")
    ax.set_ylabel("speedup, time of A / time of B")


def _bars(timing: Timing) -> list[tuple[str, float, str]]:
    """Direction, shift and colour of the bars of a layer."""
    if all(net.backward is None for net in timing.nets):
        return [("forward", 0.0, "#0072b2")]
    return [("forward", -0.2, "#0072b2"), ("backward", 0.2, "#e69f00")]
