"""The table of ``sslnet compress``: the baseline and the small net side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sslnet.report.tables import Table
from sslnet.report.tradeoff import score_text
from sslnet.report.units import count, factor, milliseconds, size


def procedure_table(results: dict[str, Any]) -> Table:
    """A row for each quantity that is compared.

    results   of all stages, as ``sslnet.compress.pipeline.pipeline.Pipeline.run`` gives them
    """
    sparse, compact, time = results["sparsify"], results["compact"], results["time"]
    before, after = results["baseline"], results["test"]
    table = Table("Compressed", "", "baseline", "small net", "ratio")
    measure = "error" if before["error"] is not None else "loss"
    difference = after[measure] - before[measure]
    change = f"{100 * difference:+.2f} %" if measure == "error" else f"{difference:+.3g}"
    scores = [score_text(score["error"], score["loss"]) for score in (before, after)]
    table.add(f"test {measure}", *scores, change)
    rows: list[tuple[str, list[Any], Callable[[Any], str]]] = [
        ("parameters", compact["parameters"], count),
        ("FLOPs per image", compact["flops"], count),
        ("weights on disk", time["bytes"], size),
        (f"forward ms, batch {time['batch']}", time["forward"], milliseconds),
        (f"backward ms, batch {time['batch']}", time["backward"], milliseconds),
    ]
    if time["race"]:
        race = time["race"]
        rows.append((f"deployed ms, batch {race['batch']}", [race["whole"], race["small"]], milliseconds))
    for name, (ours, small), words in rows:
        table.add(name, words(ours), words(small), factor(ours / small) if ours and small else None)
    table.note(f"before fine-tuning: test {measure} {score_text(sparse['error'], sparse['loss'])}")
    threads = "1 thread" if time["threads"] == 1 else f"{time['threads']} threads"
    table.note(f"times are medians of runs in turns, {threads}, phase TRAIN")
    if not sparse["met"]:
        table.note(
            f"the target was not met: {sparse['missed']}; more --iterations may reach it; --cut removes the smallest groups"
        )
    for note in compact["notes"]:
        table.note(note)
    return table
