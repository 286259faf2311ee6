"""Reads ``metrics.jsonl`` of ``sslnet train``: the measurements at each display and each test.

The type and the iteration of a line are required. A value that is missing, null or of another type counts as not measured;
NaN and infinity are written as null.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sslnet.errors import Span, UsageError
from sslnet.files import MOST_BYTES, read_text
from sslnet.json_file import fields, number, parse_json, whole

MOST_ITERATIONS = 2**31 - 1
"""The largest max_iter."""


@dataclass(frozen=True)
class NonZeroLine:
    """Filters, columns, ... of a blob, and the number of non-zero ones."""

    kept: int
    total: int

    @property
    def percent(self) -> float:
        return 100 * self.kept / self.total if self.total else 100.0


Sparsity = dict[str, dict[str, NonZeroLine]]
"""{blob: {"filters", "elements", ...: its counts}}."""


@dataclass(frozen=True)
class DisplayLine:
    """One display of the training. loss: None if it was not finite"""

    iteration: int
    loss: float | None
    sparsity: Sparsity


@dataclass(frozen=True)
class NetTest:
    """One test of one test net: the outputs with a single number, and the weighted loss if it was measured."""

    iteration: int
    outputs: dict[str, float]
    loss: float | None


@dataclass(frozen=True)
class Run:
    """The lines of one run, by their type, in the order of its iterations."""

    displays: list[DisplayLine]
    tests: list[NetTest]


def read_metrics(path: str) -> Run:
    """Reads the file; an incomplete last line of a killed run is ignored.

    raises UsageError for a file of another kind
    """
    lines = read_text(path, limit=MOST_BYTES, errors="replace", error=UsageError).removesuffix("\n").split("\n")
    run = Run([], [])
    for place, line in enumerate(lines, 1):
        try:
            record = parse_json(line)
        except ValueError:
            if place == len(lines):
                break
            record = None
        kind = fields(record).get("type")
        if not isinstance(kind, str):
            raise UsageError(f"line {place} is not one that sslnet train writes", span=Span(path, place, 1))
        if kind not in ("train", "test"):
            continue
        iteration = whole(record.get("iteration"))
        if iteration is None or iteration > MOST_ITERATIONS:
            raise UsageError(f'line {place} is of type "{kind}" and has no iteration', span=Span(path, place, 1))
        if kind == "train":
            run.displays.append(DisplayLine(iteration, number(record.get("loss")), _sparsity(record.get("sparsity"))))
        else:
            outputs = {name: number(value) for name, value in fields(record.get("outputs")).items()}
            known = {name: value for name, value in outputs.items() if value is not None}
            run.tests.append(NetTest(iteration, known, number(record.get("loss"))))
    if not run.displays and not run.tests:
        raise UsageError("nothing was measured yet", path=path)
    return run


def _sparsity(value: Any) -> Sparsity:
    found: Sparsity = {}
    for name, parts in fields(value).items():
        found[name] = {}
        for kind, part in fields(parts).items():
            kept, total = (whole(fields(part).get(which)) for which in ("kept", "total"))
            if kept is not None and total is not None and kept <= total:
                found[name][kind] = NonZeroLine(kept, total)
    return found


def accuracy_errors(test: NetTest, accuracy: str | None, path: str) -> dict[str, float]:
    """{output: test error} of a test, for its outputs that are accuracies.

    accuracy  the output to use; None: those with "acc" in their name
    raises UsageError if the named output is missing
    """
    if accuracy is None:
        return {name: 1 - value for name, value in test.outputs.items() if "acc" in name.lower()}
    if accuracy not in test.outputs:
        hint = f"outputs of its tests: {', '.join(test.outputs)}"
        raise UsageError(f'there is no output "{accuracy}"', path=path, hint=hint)
    return {accuracy: 1 - test.outputs[accuracy]}


def weight_blobs(sparsity: Sparsity) -> Sparsity:
    """The blobs that are weight matrices, by the name of their layer (of the blob if a layer has several)."""
    found = {name: parts for name, parts in sparsity.items() if "filters" in parts}
    layers = [name.partition("[")[0] for name in found]
    return {layer if layers.count(layer) == 1 else name: parts for (name, parts), layer in zip(found.items(), layers)}


def layers_left(sparsity: Sparsity) -> int:
    """Number of layers whose weights are not all zero."""
    return sum(_elements(parts) > 0 for parts in weight_blobs(sparsity).values())


def parameters_left(sparsity: Sparsity) -> int:
    """Number of non-zero values in all blobs."""
    return sum(_elements(parts) for parts in sparsity.values())


def _elements(parts: dict[str, NonZeroLine]) -> int:
    return parts["elements"].kept if "elements" in parts else 0
