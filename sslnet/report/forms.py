"""Times of layers with zero weights in several forms: tables, and bars of speedups with the limits by multiply-adds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sslnet.report.tables import Table
from sslnet.report.units import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from sslnet.timing.layerwise import Spread
    from sslnet.timing.sparse_forms import FormTimes, FormTiming

NAMES = {"csr": "CSR"}
"""The displayed names of forms that differ from their own."""
SUM, WHOLE = "all layers", "whole net"
COLOURS = {"kept": "#0072b2", "csr": "#e69f00", "direct": "#009e73"}
BAR = 0.8
"""Width of all bars of a layer."""
FAR = 2.5
"""The ratio to the highest bar beyond which a limit is marked at the upper edge."""


def form_tables(timing: FormTiming) -> list[Table]:
    """The forward pass, whole layers beside the products alone; the backward pass, where there is one."""
    tables = [_forward(timing)]
    if any(form.backward for row in timing.layers for form in row.forms.values()):
        tables.append(_backward(timing))
    return tables


def _forward(timing: FormTiming) -> Table:
    table = Table(
        f"Forward: {_title(timing)}",
        *("layer", "form", "kernel"),
        *("\nms", "\nquartiles", "\nspeedup", "FLOP\nlimit", "share\nof peak"),
        *("GEMM\nms", "GEMM\nquartiles", "GEMM\nspeedup", "GEMM\nof peak"),
        left=(0, 1, 2),
        drop=[11, 9, 2, 4, 7],
    )
    for row in timing.layers:
        for form, time in row.forms.items():
            table.add(
                row.name if form == "dense" else "",
                _name(form),
                time.kernel or None,
                *_cells(row, form, "forward"),
                _times(row.limit(form)),
                _of_peak(time.rate("forward"), timing),
                *_cells(row, form, "product"),
                _of_peak(time.rate("product"), timing),
            )
    for form in [*timing.whole.forms, "fastest"]:
        table.foot(
            SUM if form == "dense" else "", _name(form), "",
            *_total(timing, form, "forward"), _times(timing.limit(form)), "", *_total(timing, form, "product"), "",
        )  # fmt: skip
    for form in timing.whole.forms:
        table.foot(
            WHOLE if form == "dense" else "", _name(form), "",
            *_cells(timing.whole, form, "forward"), _times(timing.whole.limit(form)), "", "", "", "", "",
        )  # fmt: skip
    table.note("kept: rows and columns that are not zero; CSR, direct: single weights, from lowered pixels or images")
    table.note(
        f"medians and quartiles of {timing.iterations} runs; speedup: over dense; FLOP limit: ratio of multiply-adds"
    )
    table.note("whole layers, lowering included, weights packed once; of peak: by the form's own multiply-adds")
    table.note("GEMM: the matrix product alone, by NumPy's BLAS or SciPy's CSR, of data lowered beforehand;")
    table.note(f"      half of its runs lie within {_spread_words(timing)}")
    table.note("all layers: their sum, layers without the form run dense; fastest: each layer in its fastest form")
    if any(row.forms["dense"].kernel.startswith("winograd") for row in timing.layers):
        table.note("Winograd's transforms need fewer multiply-adds than are counted; SSLNET_WINOGRAD=0 disables them")
    return table


def _backward(timing: FormTiming) -> Table:
    table = Table(
        f"Backward: {_title(timing)}",
        *("layer", "form", "ms", "quartiles", "speedup", "FLOP limit", "share of peak"),
        left=(0, 1),
        drop=[3, 6],
    )
    for row in timing.layers:
        for form, time in row.forms.items():
            if time.backward is not None:
                table.add(
                    row.name if form == "dense" else "",
                    _name(form),
                    *_cells(row, form, "backward"),
                    _times(row.limit(form)),
                    _of_peak(time.rate("backward"), timing),
                )
    present = [form for form, time in timing.whole.forms.items() if time.backward is not None]
    for form in present:
        label = SUM if form == "dense" else ""
        table.foot(label, form, *_total(timing, form, "backward"), _times(timing.limit(form)), "")
    for form in present:
        label = WHOLE if form == "dense" else ""
        table.foot(label, form, *_cells(timing.whole, form, "backward"), _times(timing.whole.limit(form)), "")
    table.note(
        f"gradients of weights, bias and input, weights packed in every pass; medians of {timing.iterations} runs"
    )
    table.note("kept: rows and columns that are not zero; single weights (CSR, direct) have no gradients of their own")
    return table


def _title(timing: FormTiming) -> str:
    name = f"{timing.model} ({timing.name})" if timing.model and timing.name else timing.model or timing.name
    threads = "1 thread" if timing.threads == 1 else f"{timing.threads} threads"
    return f"{name}, {timing.phase}, batch {timing.batch}, {threads}"


def _cells(row: FormTimes, form: str, part: str) -> list[str | None]:
    """Milliseconds, quartiles, speedup."""
    spread: Spread | None = getattr(row.forms[form], part)
    if spread is None:
        return [None, None, None]
    low, median, high = (_ms(seconds, spread.median) for seconds in (spread.low, spread.median, spread.high))
    return [median, f"{low}-{high}", _times(row.speedup(form, part))]


def _total(timing: FormTiming, form: str, part: str) -> list[str | None]:
    seconds = timing.total(form, part)
    return [None if seconds is None else _ms(seconds, seconds), "", _times(timing.speedup(form, part))]


def _ms(seconds: float, like: float) -> str:
    """Milliseconds with two decimals, three where what they are like is below a tenth."""
    return f"{1e3 * seconds:.2f}" if like >= 1e-4 else f"{1e3 * seconds:.3f}"


def _times(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f}x"


def _of_peak(rate: float | None, timing: FormTiming) -> str | None:
    return percent(rate / timing.peak) if rate is not None else None


def _name(form: str) -> str:
    return NAMES.get(form, form)


def _spread_words(timing: FormTiming) -> str:
    """The distance of the products' quartiles from their medians, which narrow tables do not show."""
    spreads = [time.product for row in timing.layers for time in row.forms.values() if time.product is not None]
    widths = sorted((s.high - s.low) / 2 / s.median for s in spreads if s.median) or [0.0]
    return f"{percent(widths[len(widths) // 2])} of the median, in the worst layer {percent(widths[-1])}"


def plot_forms(timings: Sequence[FormTiming], file: str | Path) -> None:
    """Speedups over dense, layer by layer, a bar a form; a mark where the multiply-adds that are left would put it.

    Ref: Wen et al. 2016, figure 1 and table 4
    """
    from sslnet.report.plots import figure

    backward = any(row.forms["dense"].backward for timing in timings for row in timing.layers)
    most = max(len(timing.layers) for timing in timings)
    size = (min(max(5.0, 1.5 + 1.1 * most), 40.0), 3.4)
    with figure(file, len(timings), 2 if backward else 1, size) as axes:
        for k, timing in enumerate(timings):
            threads = "1 thread" if timing.threads == 1 else f"{timing.threads} threads"
            where = f"batch {timing.batch}, {threads}"
            _draw(axes[2 * k if backward else k], timing, ("forward", "product"), f"forward, {where}")
            if backward:
                _draw(axes[2 * k + 1], timing, ("backward",), f"backward, {where}")


def _draw(ax: Axes, timing: FormTiming, parts: Sequence[str], title: str) -> None:
    """Bars of the layers that have zeros, of all layers together, and of the whole net."""
    columns: list[tuple[str, FormTimes | FormTiming]] = [
        *((row.name, row) for row in timing.layers if len(row.forms) > 1),
        (SUM, timing),
        (WHOLE, timing.whole),
    ]
    wanted = [(form, part) for form in COLOURS for part in parts]
    columns = [(name, times) for name, times in columns if any(times.speedup(*kind) for kind in wanted)]
    kinds = [kind for kind in wanted if any(times.speedup(*kind) for _, times in columns)]
    if not kinds:
        return
    width, highest = BAR / max(len(kinds), 2), 1.0
    marks: list[tuple[float, float, float]] = []
    for n, (form, part) in enumerate(kinds):
        label = f"{_name(form)}, GEMM alone" if part == "product" else _name(form)
        style: dict[str, Any] = {"fill": False, "hatch": "////"} if part == "product" else {}
        for place, (_, times) in enumerate(columns):
            speedup, limit = times.speedup(form, part), times.limit(form)
            if not speedup:
                continue
            x = place + (n - len(kinds) / 2) * width
            ax.bar(x, speedup, width, color=COLOURS[form], edgecolor=COLOURS[form], align="edge", label=label, **style)
            label, highest = "", max(highest, speedup)
            if limit is not None:
                marks.append((x, x + width, limit))
    mark_limits(ax, marks, FAR * highest, "limit by multiply-adds")
    ax.axhline(1, color="grey", linewidth=0.8, linestyle=":")
    names = [name for name, _ in columns]
    ax.set_xticks(range(len(names)), names, rotation=30 if max(map(len, names)) > 10 else 0)
    ax.set(title=title, ylabel="speedup over dense")
    ax.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))


def mark_limits(ax: Axes, marks: list[tuple[float, float, float]], top: float, words: str) -> None:
    """A line over all neighbours, (left, right, limit), of the same limit, and its number; at ``top`` those above it."""
    joined: list[list[float]] = []
    for left, right, limit in sorted(marks):
        if joined and joined[-1][2] == limit and abs(joined[-1][1] - left) < 1e-6:
            joined[-1][1] = right
        else:
            joined.append([left, right, limit])
    for n, (left, right, limit) in enumerate(joined):
        y, arrow = (limit, "") if limit <= top else (top, "\u2191")
        ax.plot([left, right], [y, y], color="black", linewidth=1.5, label="" if n else words)
        text = f"{limit:.1f}{arrow}"
        number = ax.annotate(text, ((left + right) / 2, y), (0, 3), textcoords="offset points", ha="center", fontsize=7)
        number.set_bbox({"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5})
    ax.margins(y=0.08)
