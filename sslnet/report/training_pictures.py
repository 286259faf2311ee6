"""Draws a training run from ``metrics.jsonl``: loss, test error and remaining parts of each layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sslnet.errors import printable
from sslnet.report.metrics_file import NetTest, Run, accuracy_errors, weight_blobs
from sslnet.report.plots import COLOURS, STYLES, figure, plain_log_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PARTS = ("filters", "columns", "channels", "elements")
"""The parts of a layer that can be drawn."""


@dataclass(frozen=True)
class PicturedTraining:
    title: str
    path: str
    run: Run


def plot_training(
    runs: Sequence[PicturedTraining], file: str | Path, *, of: str = "filters", accuracy: str | None = None
) -> None:
    """Draws three panels: loss, test error, remaining fraction of each layer. Runs differ by colour or line.

    of        one of PARTS
    accuracy  output that is an accuracy; None: those with "acc" in their name
    """
    with figure(file, 1, 3, (3.8, 3.2)) as (losses, errors, left):
        for i, training in enumerate(runs):
            name = training.title if len(runs) > 1 else ""
            _draw_losses(losses, training, name, COLOURS[i % len(COLOURS)])
            _draw_errors(errors, training, name, COLOURS[i % len(COLOURS)], accuracy)
            _draw_left(left, training, of, STYLES[i % len(STYLES)], with_labels=i == 0)
            if name:
                left.plot([], [], STYLES[i % len(STYLES)], color="#555555", label=name)
        losses.set(ylabel="loss", yscale="log")
        plain_log_axis(losses.yaxis, lambda value: f"{value:g}")
        errors.set(ylabel="test error (%)")
        left.set(ylabel=f"{of} left (%)", ylim=(-3, 103))
        for ax in (losses, errors, left):
            ax.set_xlabel("iteration")
            ax.grid(alpha=0.25, linewidth=0.6)
            handles, labels = ax.get_legend_handles_labels()
            if any(labels):
                ax.legend(handles, labels, fontsize=7)


def _draw_losses(ax: Axes, training: PicturedTraining, name: str, colour: str) -> None:
    points = _points([(display.iteration, display.loss) for display in training.run.displays])
    tests = _points([(test.iteration, _test_loss(test)) for test in training.run.tests])
    ax.plot(*points, color=colour, linewidth=0.9, alpha=0.6, label=_words(name, "training"))
    if tests[0]:
        ax.plot(
            *tests, "o-", color=colour if name else COLOURS[1], linewidth=1.2, markersize=3, label=_words(name, "test")
        )


def _test_loss(test: NetTest) -> float | None:
    """The weighted loss if it was measured, else the output of that name."""
    return test.loss if test.loss is not None else test.outputs.get("loss")


def _draw_errors(ax: Axes, training: PicturedTraining, name: str, colour: str, accuracy: str | None) -> None:
    """Draws a line for each output that is an accuracy, without the test before the first iteration, which would
    compress the scale."""
    tests = [test for test in training.run.tests if test.iteration] or training.run.tests
    errors = [accuracy_errors(test, accuracy, training.path) for test in tests]
    outputs = list(dict.fromkeys(output for found in errors for output in found))
    for j, output in enumerate(outputs):
        points = [(test.iteration, 100 * found[output]) for test, found in zip(tests, errors) if output in found]
        words = _words(name, output if len(outputs) > 1 else "")
        label = f"{words}: {points[-1][1]:.2f} %" if words else f"at the end {points[-1][1]:.2f} %"
        style = STYLES[j % len(STYLES)] if name else "-"
        own = colour if name else COLOURS[j % len(COLOURS)]
        ax.plot(*zip(*points), style, marker="o", color=own, linewidth=1.2, markersize=3, label=label)


def _draw_left(ax: Axes, training: PicturedTraining, of: str, style: str, with_labels: bool) -> None:
    """Draws a line per layer; layers differ by colour, many layers by a gradient from the first to the last."""
    found = [(display.iteration, weight_blobs(display.sparsity)) for display in training.run.displays]
    layers = list(dict.fromkeys(name for _, blobs in found for name in blobs))
    few = len(layers) <= len(COLOURS)
    for i, layer in enumerate(layers):
        points = [(iteration, blobs[layer][of].percent) for iteration, blobs in found if of in blobs.get(layer, {})]
        label = layer if with_labels and few else None
        if points:
            ax.plot(*zip(*points), style, color=_layer_colour(i, len(layers)), linewidth=1.2, label=label)
    if with_labels and not few:
        from matplotlib import colormaps
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize

        bar = ax.figure.colorbar(ScalarMappable(Normalize(1, len(layers)), colormaps["viridis"]), ax=ax)
        bar.set_ticks([1, len(layers)], labels=[printable(layers[0]), printable(layers[-1])], fontsize=7)


def _layer_colour(i: int, count: int) -> Any:
    if count <= len(COLOURS):
        return COLOURS[i]
    from matplotlib import colormaps

    return colormaps["viridis"](i / (count - 1))


def _points(found: Sequence[tuple[int, float | None]]) -> tuple[list[int], list[float]]:
    """Iterations and values at which they were measured."""
    known = [(x, y) for x, y in found if y is not None]
    return [x for x, _ in known], [y for _, y in known]


def _words(*parts: str) -> str | None:
    return ", ".join(part for part in parts if part) or None
