"""Importance criteria: what each prunable channel is worth, one module a criterion.

base.py       Importance: the interface
magnitude.py  the size of the weights;  random.py: the baseline

``IMPORTANCES`` lists them by name. docs/design.md says how to add one.
"""

from __future__ import annotations

from sslnet.compress.pruning.importance.base import Importance, Needs
from sslnet.compress.pruning.importance.magnitude import Magnitude, MagnitudeL1
from sslnet.compress.pruning.importance.random import Random
from sslnet.compress.pruning.importance.reconstruction import Reconstruction

IMPORTANCES: dict[str, type[Importance]] = {
    "magnitude": Magnitude,
    "magnitude_l1": MagnitudeL1,
    "reconstruction": Reconstruction,
    "random": Random,
}
"""The criteria by their names in ``--by``."""

__all__ = ["IMPORTANCES", "Importance", "Needs", "Reconstruction"]
