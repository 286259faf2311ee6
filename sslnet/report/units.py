"""Formats numbers for people: three significant digits and a unit. None and NaN are a dash."""

from __future__ import annotations

import math

DASH = "-"


def count(value: float | None) -> str:
    """A count: integers up to 99,999, then 1.23 M."""
    if _missing(value):
        return DASH
    assert value is not None
    return f"{value:,.0f}" if abs(value) < 99_999.5 else _scaled(value, 1000, ("", "k", "M", "G", "T", "P"))


def size(value: float | None) -> str:
    """A size in bytes: 812 B, 1.21 MiB."""
    if _missing(value):
        return DASH
    assert value is not None
    return f"{value:.0f} B" if abs(value) < 1000 else _scaled(value, 1024, ("B", "KiB", "MiB", "GiB", "TiB"))


def percent(fraction: float | None) -> str:
    """A fraction of one as 12.3 %; only exact 0 and 1 are 0 % and 100 %."""
    if _missing(fraction):
        return DASH
    assert fraction is not None
    text = f"{100 * fraction:.1f}"
    if text in ("0.0", "-0.0"):
        return "0 %" if fraction == 0 else "<0.1 %" if fraction > 0 else ">-0.1 %"
    if text == "100.0":
        return "100 %" if fraction == 1 else ">99.9 %" if fraction < 1 else "100.0 %"
    return text + " %"


def milliseconds(seconds: float | None) -> str:
    """Seconds as milliseconds without the unit, which is in the heading of the column: 0.012, 3.46, 128."""
    return DASH if _missing(seconds) else digits(1000 * (seconds or 0.0))


def factor(value: float | None) -> str:
    """A ratio: 3.1x."""
    return DASH if _missing(value) else digits(value or 0.0) + "x"


def digits(value: float | None, significant: int = 3) -> str:
    """Three significant digits, never an exponent; below 0.001 of the unit: 0.000."""
    if _missing(value):
        return DASH
    assert value is not None
    if value == 0:
        return "0"
    places = significant - 1 - math.floor(math.log10(abs(value)))
    if round(abs(value), places) >= 10 ** (significant - places):
        places -= 1  # 9.996 rounds up to one digit more
    return f"{value:,.{min(max(places, 0), 3)}f}"


def left(kept: int, total: int) -> str:
    """Remaining parts: 5 of 20."""
    return f"{kept:,} of {total:,}"


def _scaled(value: float, base: int, units: tuple[str, ...]) -> str:
    scaled, unit = float(value), 0
    while abs(scaled) >= 999.5 and unit < len(units) - 1:
        scaled /= base
        unit += 1
    return f"{digits(scaled)} {units[unit]}".rstrip()


def _missing(value: float | None) -> bool:
    return value is None or not math.isfinite(value)
