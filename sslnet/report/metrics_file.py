"""``metrics.jsonl`` as ``sslnet train`` writes it, read back: what was measured at each display and each test."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sslnet.errors import DataError, UsageError
from sslnet.files import read_text


@dataclass(frozen=True)
class Run:
    """The lines of one run, by their type, in the order of its iterations."""

    displays: list[dict[str, Any]]
    tests: list[dict[str, Any]]


def read_metrics(path: str) -> Run:
    """Reads the file; the half line that a killed run leaves at its end is passed over.

    raises UsageError for what is no such file
    """
    try:
        lines = read_text(path, errors="strict").removesuffix("\n").split("\n")
    except DataError as error:
        raise UsageError(f"{path} {error.message}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} cannot be read: {error}") from None
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except ValueError:
            if number == len(lines):
                break
            record = None
        if not isinstance(record, dict) or "type" not in record:
            raise UsageError(f"{path}: line {number} is not one that sslnet train writes")
        records.append(record)
    displays = [record for record in records if record["type"] == "train"]
    tests = [record for record in records if record["type"] == "test"]
    if not displays and not tests:
        raise UsageError(f"{path}: nothing was measured yet")
    return Run(displays, tests)


def accuracy_errors(test: dict[str, Any], accuracy: str | None, path: str) -> dict[str, float]:
    """{output: test error} of a test, by its outputs that are accuracies.

    accuracy  the one that counts; None: those with "acc" in their name
    raises UsageError when the one that is named is not there
    """
    outputs = {name: value for name, value in test.get("outputs", {}).items() if isinstance(value, int | float)}
    if accuracy is None:
        return {name: 1 - value for name, value in outputs.items() if "acc" in name.lower()}
    if accuracy not in outputs:
        raise UsageError(f'{path}: there is no output "{accuracy}"', hint=f"outputs of its tests: {', '.join(outputs)}")
    return {accuracy: 1 - outputs[accuracy]}


def weight_blobs(sparsity: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The blobs that are weight matrices, by the name of their layer (of the blob where a layer has several)."""
    found = {name: parts for name, parts in sparsity.items() if "filters" in parts}
    layers = [name.partition("[")[0] for name in found]
    return {layer if layers.count(layer) == 1 else name: parts for (name, parts), layer in zip(found.items(), layers)}


def layers_left(sparsity: dict[str, Any]) -> int:
    """Layers whose weights are not all zero."""
    return sum(parts["elements"]["kept"] > 0 for parts in weight_blobs(sparsity).values())


def parameters_left(sparsity: dict[str, Any]) -> int:
    """Numbers in all blobs that are not zero."""
    return sum(parts["elements"]["kept"] for parts in sparsity.values())
