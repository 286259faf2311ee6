"""The tables of ``sslnet compress``: the baseline and the small net side by side, and the training behind each figure."""

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
    compact, time = results["compact"], results["time"]
    before, after = results["baseline"], results["test"]
    table = Table("Compressed", "", "baseline", "small net", "ratio")
    measure = measure_of(before)
    if measure is None:
        table.add("outputs differ by", None, f"{100 * after['difference']:.1f} %", None)
    else:
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
    threads = "1 thread" if time["threads"] == 1 else f"{time['threads']} threads"
    table.note(f"times are medians of runs in turns, {threads}, phase TRAIN")
    for note in compact["notes"]:
        table.note(note)
    return table


def measure_of(score: dict[str, Any]) -> str | None:
    """What nets are compared by: error, loss, or None."""
    return next((name for name in ("error", "loss") if score[name] is not None), None)


TRAINED = {
    "baseline": "baseline",
    "before_finetuning": "before fine-tuning",
    "small": "small net",
    "dense_control": "control: baseline, trained on",
    "scratch_control": "control: small net, from scratch",
}
"""The nets of a report that were tested, and what a reader calls them."""


def training_table(report: dict[str, Any]) -> Table:
    """A row for each net that was tested: its error or loss, and the iterations behind it.

    report  as ``sslnet.api.compress.report_of`` makes it
    """
    measure = measure_of(report["baseline"])
    heads = [f"test {measure}"] if measure else []
    table = Table("Training behind each figure", "net", *heads, "iterations")
    for name, words in TRAINED.items():
        if name not in report:
            continue
        figure = report[name]
        behind = [part for k, part in enumerate(figure["iterations"].values()) if part != 0 or k == 0]
        parts = ["not known" if part is None else f"{part:,}" for part in behind]
        scores = [score_text(figure["error"], figure["loss"])] if measure else []
        table.add(words, *scores, " + ".join(parts))
    method = report["method"]
    table.note(f"method: {method['name']}: {method['reason']}")
    if "base_lr" in method:
        table.note(f"learning rate {method['base_lr']:.3g}, found by trials")
    if "worse_after_finetuning" in report:
        worse = report["worse_after_finetuning"]
        score = score_text(worse["error"], worse["loss"])
        table.note(f"fine-tuning made the net worse (test {measure} {score}), so it is kept as it was before")
    if report["baseline"]["iterations"]["baseline"] is None:
        text = "how long the given weights were trained is not known"
        if "scratch_control" in report:
            text += ", and not part of the control: say it with --baseline-iterations"
        table.note(text)
    return table
