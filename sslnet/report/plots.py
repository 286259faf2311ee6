"""Figures by Matplotlib: opens them, lays them out, and writes them to a file."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sslnet.errors import UsageError, printable
from sslnet.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

FORMATS = (".png", ".pdf", ".svg")
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000", "#8C8C8C")
"""Of lines and bars, one after the other: people who do not see red and green apart tell them apart.

Ref: Okabe, Ito 2008, "Color universal design", without its yellow, with a grey
"""
MARKERS = ("o", "s", "^", "D", "v", "P")
STYLES = ("-", "--", ":", "-.")


def check_plot(path: str | Path) -> None:
    """raises UsageError when Matplotlib is not installed, or the file's name is that of no picture"""
    if Path(path).suffix not in FORMATS:
        raise UsageError(f"{path} must end in one of {', '.join(FORMATS)}")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UsageError("a plot needs Matplotlib", hint='pip install "sslnet[plot]"') from None


@contextlib.contextmanager
def figure(
    path: str | Path, rows: int = 1, columns: int = 1, size: tuple[float, float] = (3.6, 2.8)
) -> Iterator[list[Axes]]:
    """Gives the axes of a figure, row by row, to be drawn on, and writes it.

    size  inches of one of the axes
    """
    check_plot(path)
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context({"text.parse_math": False}):  # a dollar in the name of a layer begins no formula
        drawing = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
        FigureCanvasAgg(drawing)
        axes = drawing.subplots(rows, columns, squeeze=False).ravel().tolist()
        yield axes
        for ax in axes:
            if not ax.has_data():
                ax.set_visible(False)
        _escape_texts(drawing)
        with atomic_path(path) as temporary, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph")  # the font has not every letter: it draws a box
            drawing.savefig(temporary, format=Path(path).suffix[1:], dpi=120)


def _escape_texts(drawing: Figure) -> None:
    """Names may hold what is no text: an SVG file with a control character is none."""
    from matplotlib.text import Text

    for text in drawing.findobj(Text):
        text.set_text(printable(text.get_text(), keep="\n"))


def plain_log_axis(axis: Axis, words: Callable[[float], str]) -> None:
    """An axis on a log scale with ticks at 1, 2, 5, 10, 20, ..., in words of ours instead of powers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0), numticks=8))
    axis.set_major_formatter(FuncFormatter(lambda value, _: words(value)))
    axis.set_minor_formatter(NullFormatter())
    axis.set_tick_params(which="major", labelsize=8)
