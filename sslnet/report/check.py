"""The tables of ``sslnet check``: the difference of two nets in each output, and the sizes of their layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sslnet.report.tables import Table

if TYPE_CHECKING:
    from sslnet.compress.compaction.check import Check


def difference_table(check: Check, tolerance: float) -> Table:
    """A row for each output that both nets have."""
    table = Table("Outputs", "blob", "largest value", "largest difference", "of the largest value", "")
    for blob in check.difference.blobs:
        same = "same" if blob.relative <= tolerance else "differs"
        table.add(blob.name, f"{blob.largest:.4g}", f"{blob.absolute:.3g}", f"{blob.relative:.3g}", same)
    batches = "1 batch" if check.batches == 1 else f"{check.batches} batches"
    images = "1 image" if check.images == 1 else f"{check.images} images"
    table.note(f"over {batches} of {images}, {check.difference.inputs}")
    return table


def verdict(check: Check, tolerance: float) -> str:
    """One sentence: whether the outputs of the nets agree on the data that were run."""
    if check.difference.relative <= tolerance:
        return f"the same, up to {check.difference.relative:.3g} of the largest output (allowed: {tolerance:g})"
    return (
        f"not the same: they differ by {check.difference.relative:.3g} of the largest output (allowed: {tolerance:g})"
    )
