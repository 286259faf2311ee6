"""``state.json``: the completed stages of a pipeline, their options and results."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

from sslnet.errors import UsageError
from sslnet.files import TEMPORARY, atomic_write
from sslnet.json_file import fields, items, number, read_json, whole

STATE, LOCK = "state.json", "in_use.lock"


def read_results(folder: str, options: Mapping[str, str]) -> dict[str, Any]:
    """Reads the results of the completed stages, by name.

    raises UsageError for a folder that was begun with other options, or contains something else
    """
    path = os.path.join(folder, STATE)
    if not os.path.exists(path):
        found = os.listdir(folder) if os.path.isdir(folder) else []
        if any(name != LOCK and not TEMPORARY.fullmatch(name) for name in found):
            raise UsageError(
                f"{folder} is not empty, and does not hold a run of sslnet compress", hint="choose another --output"
            )
        return {}
    state = fields(read_json(path, hint="choose another --output"))
    before, results = fields(state.get("options")), fields(state.get("stages"))
    if not before or not all(stage in KNOWN and KNOWN[stage](result) for stage, result in results.items()):
        raise UsageError("is damaged, or no state of sslnet compress", path=path, hint="choose another --output")
    changed = [name for name in {**before, **options} if before.get(name) != options.get(name)]
    if changed:
        words = [
            f"{name} was {before.get(name, 'not given')} and is {options.get(name, 'not given')}" for name in changed
        ]
        raise UsageError(
            f"{folder} was started with other options: {'; '.join(words)}",
            hint="use the same options to continue it, or another --output",
        )
    return results


def write_results(folder: str, options: Mapping[str, str], results: Mapping[str, object]) -> None:
    state = {"version": 1, "options": options, "stages": results}
    atomic_write(os.path.join(folder, STATE), json.dumps(state, indent=2).encode())


def _is_score(value: object) -> bool:
    """Whether the value is a valid ``Score``: an error, a loss, both or none; the loss need not be finite."""
    known = fields(value)
    error, loss = number(known.get("error")), known.get("loss")
    if loss is None:
        return error is not None or ({"error", "loss"} <= known.keys() and known["error"] is None)
    return isinstance(loss, int | float) and (error is not None or known.get("error") is None)


def _is_pair(value: Any, kind: Callable[[object], object]) -> bool:
    """Whether the value holds two valid values, for the baseline and the small net."""
    return len(items(value)) == 2 and all(kind(item) is not None for item in value)


def _is_sparsified(value: object) -> bool:
    known = fields(value)
    words = isinstance(known.get("missed"), str) and isinstance(known.get("met"), bool)
    return words and "left" in known and _is_score(known)


def _is_pruned(value: object) -> bool:
    known = fields(value)
    names = all(isinstance(known.get(name), str) for name in ("by", "repair", "share_out"))
    numbers = all(whole(known.get(name)) is not None for name in ("rounds", "images"))
    return _is_sparsified(value) and names and numbers


def _is_compacted(value: object) -> bool:
    known = fields(value)
    notes = known.get("notes")
    words = isinstance(notes, list) and all(isinstance(note, str) for note in notes)
    sizes = _is_pair(known.get("parameters"), whole) and _is_pair(known.get("flops"), number)
    return words and sizes and isinstance(known.get("deploy"), bool)


def _is_timed(value: object) -> bool:
    known = fields(value)
    back, race = known.get("backward"), known.get("race")
    times = _is_pair(known.get("forward"), number) and (back == [None, None] or _is_pair(back, number))
    whole_numbers = all(whole(known.get(name)) is not None for name in ("batch", "threads"))
    raced = race is None or all(number(fields(race).get(name)) is not None for name in ("batch", "whole", "small"))
    return times and whole_numbers and raced and _is_pair(known.get("bytes"), whole)


def _is_fine_tuned(value: object) -> bool:
    known = fields(value)
    return whole(known.get("iterations")) is not None and (known.get("worse") is None or _is_score(known["worse"]))


def _is_rate(value: object) -> bool:
    rate = number(fields(value).get("base_lr"))
    return rate is not None and rate > 0


def _is_control(value: object) -> bool:
    return whole(fields(value).get("iterations")) is not None and _is_score(value)


KNOWN: dict[str, Callable[[object], bool]] = {
    "baseline": _is_score,
    "sparsify": _is_sparsified,
    "prune": _is_pruned,
    "compact": _is_compacted,
    "rate": _is_rate,
    "finetune": _is_fine_tuned,
    "test": _is_score,
    "dense_control": _is_control,
    "scratch_control": _is_control,
    "time": _is_timed,
}
"""For each stage, and for the learning rate found on the way, a function that checks whether a value is a valid result."""
