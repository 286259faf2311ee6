"""Where values of one shape lie along those of another, and the sides of padding."""

from __future__ import annotations


def pad_sides(amounts: list[int]) -> tuple[int, int, int, int]:
    """Top, left, bottom, right of padding given as all amounts before and all behind, of one or two axes."""
    if len(amounts) == 2:
        return 0, amounts[0], 0, amounts[1]
    top, left, bottom, right = amounts
    return top, left, bottom, right


def along(whole: tuple[int, ...], part: tuple[int, ...], *, batch: bool = False) -> tuple[int, tuple[int, ...]]:
    """The axis from which values of shape ``part`` lie along those of shape ``whole``, and their shape there; -1 if an axis
    between two of their axes would be repeated, or if the shapes do not fit.

    batch   whether the values are computed for each image, so that the first axis is one of theirs even if it has the size 1
    """
    full = (1,) * (len(whole) - len(part)) + tuple(part)
    if len(full) != len(whole) or any(p not in (1, w) for p, w in zip(full, whole)):
        return -1, ()
    axes = [axis for axis, size in enumerate(full) if size != 1 or (batch and axis == 0 and len(part) == len(whole))]
    if not axes:
        return 1, ()
    first, last = axes[0], axes[-1]
    if any(full[axis] != whole[axis] for axis in range(first, last + 1)):
        return -1, ()
    return first, full[first : last + 1]
