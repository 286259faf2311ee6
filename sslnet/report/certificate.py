"""The table of ``sslnet train --certificate``: how close each penalised parameter is to a stationary point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sslnet.report.tables import Table
from sslnet.report.units import factor, left, percent

if TYPE_CHECKING:
    from sslnet.certificate import Certificate


def certificate_table(certificates: Sequence[Certificate], batches: int) -> Table:
    """A row for each parameter: groups left, KKT residual by the strength, the strength that leaves nothing."""
    table = Table(
        f"Certificate ({batches} batches)", "parameter", "groups left", "KKT residual", "all zero at strength"
    )
    for found in certificates:
        table.add(
            found.name,
            left(found.groups - found.zero, found.groups),
            percent(found.residual),
            f"{factor(found.lambda_max)} of now" if found.lambda_max else None,
        )
    table.note("KKT residual: the largest of a group, by its strength; 0 at a stationary point")
    return table
