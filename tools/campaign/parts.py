"""The parts of the campaign, in the order of the table."""

from __future__ import annotations

from types import ModuleType

from campaign import data, disk, fuzz, kills, signals, soak, threads

PARTS: dict[str, tuple[ModuleType, float]] = {
    "kills": (kills, 24),
    "fuzz": (fuzz, 46),
    "disk": (disk, 9),
    "signals": (signals, 9),
    "data": (data, 6),
    "threads": (threads, 3),
    "soak": (soak, 3),
}
"""Part -> its module, and its fraction of the time."""
