"""The table of ``sslnet train --certificate``: how close the groups of each penalty are to a stationary point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sslnet.report.tables import Table
from sslnet.report.units import factor, left, percent

if TYPE_CHECKING:
    from sslnet.sparsity.optimality import Certificate


def certificate_table(certificates: Sequence[Certificate], batches: int, caveats: Sequence[str] = ()) -> Table:
    """A row for each kind of group: remaining groups, relative KKT residual, the strength above which all are zero.

    caveats  sentences below the table
    """
    heads = ("of", "groups", "left", "KKT residual", "all zero at strength")
    table = Table(f"Certificate ({batches} batches)", *heads, left={0, 1})
    for certificate in certificates:
        largest = f"{factor(certificate.lambda_max)} the present" if certificate.lambda_max else None
        for groups in certificate.groups:
            kept = left(groups.residuals.size - groups.zero, groups.residuals.size)
            table.add(groups.name, groups.kind, kept, percent(groups.residual), largest)
    table.note("KKT residual: the largest of all groups, relative to the strength; 0 at a stationary point")
    if any(len(certificate.groups) > 1 for certificate in certificates):
        table.note("all zero at strength: overlapping groups together")
    for sentence in caveats:
        table.note(sentence)
    return table
