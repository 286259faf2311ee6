"""The parts of the campaign, in the order of the table."""

from __future__ import annotations

from types import ModuleType

from campaign import fuzz, kills

PARTS: dict[str, tuple[ModuleType, float]] = {"kills": (kills, 25), "fuzz": (fuzz, 50)}
"""Part -> its module, and its share of the time."""
