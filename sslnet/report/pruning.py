"""The tables of a net whose channels were pruned: its layers, and several criteria side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sslnet.report.tables import Table
from sslnet.report.units import digits, percent

if TYPE_CHECKING:
    from sslnet.compress.evaluation import Score
    from sslnet.compress.pruning.compare_criteria import ComparedCriterion
    from sslnet.compress.pruning.prune_channels import PruneResult


def pruned_table(result: PruneResult) -> Table:
    """A row for each family of coupled channels: the layers that make it, and its channels before and after."""
    table = Table("Channels", "layers", "channels left", "part", left=(0,))
    names = result.channels.net.layer_names
    for family, (before, after) in zip(result.channels.families, result.widths.values()):
        makers = [names[i] for i in family.makers]
        words = ", ".join(makers[:3]) + (f" and {len(makers) - 3} more" if len(makers) > 3 else "")
        table.add(words, f"{after} of {before}", percent(after / before))
    table.note(f"{percent(result.flops)} of the FLOPs and {percent(result.parameters)} of the parameters are left")
    if result.time is not None:
        table.note(f"{percent(result.time)} of the time, estimated; sslnet time measures the compacted net")
    if result.error is not None:
        table.note(
            f"the outputs differ by {percent(result.error)} of their variance on {result.images} training images, "
            f"repair: {result.repair}"
        )
    return table


def criteria_table(rows: Sequence[ComparedCriterion], whole: Score | None) -> Table:
    """A row for each criterion: what is left, the difference of the outputs, and error and loss on the test data.

    whole  the score of the whole net; None if nothing was tested
    """
    tested = [] if whole is None else _heads(whole)
    table = Table("Criteria", "criterion", "FLOPs\nleft", "parameters\nleft", "outputs\ndiffer by", *tested)
    if whole is not None:
        table.add("(whole net)", percent(1.0), percent(1.0), None, *_cells(whole))
    for row in rows:
        found = row.result
        cells = [] if row.score is None else _cells(row.score)
        table.add(found.by, percent(found.flops), percent(found.parameters), percent(found.error), *cells)
    if rows:
        first = rows[0].result
        table.note(
            f"repair: {first.repair}; shares: {first.share_out}; outputs differ: squared difference as a part of their "
            "variance, on training images"
        )
    return table


def _heads(score: Score) -> list[str]:
    return [*(["test\nerror"] if score.error is not None else []), *(["test\nloss"] if score.loss is not None else [])]


def _cells(score: Score) -> list[str]:
    return [
        *([f"{100 * score.error:.2f} %"] if score.error is not None else []),
        *([digits(score.loss)] if score.loss is not None else []),
    ]


def pruned_record(result: PruneResult) -> dict[str, Any]:
    """The result as a JSON object."""
    return {
        "by": result.by,
        "repair": result.repair,
        "share_out": result.share_out,
        "images": result.images,
        "flops": result.flops,
        "parameters": result.parameters,
        "time": result.time,
        "error": result.error,
        "channels": {name: {"before": before, "after": after} for name, (before, after) in result.widths.items()},
        "layers": [{"name": layer.name, "before": layer.before, "after": layer.after} for layer in result.layers],
    }
