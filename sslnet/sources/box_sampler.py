"""Random parts of an image, by SSD's batch samplers; and by YOLO's jitter.

Each sampler draws parts until max_sample of them fit its constraints, at most max_trials: the square root of its area is
uniform in min_scale .. max_scale, its shape uniform in min_aspect_ratio .. max_aspect_ratio, limited so that it fits, its
place uniform. One of the parts of all samplers is used.

Ref: Liu et al. 2016, SSD, section 2.2
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sslnet.errors import SslnetError
from sslnet.sources.annotated import areas, coverage, intersections

Fail = Callable[..., SslnetError]
MOST_TRIALS = 1 << 16
"""Maximum of max_trials."""
CONSTRAINTS = ("jaccard_overlap", "sample_coverage", "object_coverage")


def check_samplers(samplers: Sequence[Any], fail: Fail) -> None:
    """Checks the ranges of batch samplers; raises what ``fail(message, *field)`` makes."""
    for index, each in enumerate(samplers):
        sampler = each.sampler
        for name, least, most in (
            ("scale", sampler.min_scale, sampler.max_scale),
            ("aspect_ratio", sampler.min_aspect_ratio, sampler.max_aspect_ratio),
        ):
            if not 0 < least <= most < math.inf or (name == "scale" and most > 1):
                limit = " <= 1" if name == "scale" else ""
                raise fail(
                    f"0 < min_{name} <= max_{name}{limit} must hold, not {least:g} and {most:g}",
                    "batch_sampler", index, "sampler",
                )  # fmt: skip
        if each.max_trials > MOST_TRIALS:
            raise fail(f"max_trials must be at most {MOST_TRIALS}", "batch_sampler", index, "max_trials")


def draw_part(samplers: Sequence[Any], boxes: np.ndarray, random: np.random.Generator) -> np.ndarray | None:
    """A part of an image with these boxes (n, 4): xmin, ymin, xmax, ymax; None for the whole image."""
    parts: list[np.ndarray] = []
    for each in samplers:
        if _whole(each):
            parts.append(np.array([0.0, 0.0, 1.0, 1.0]))
            continue
        found = 0
        for _ in range(each.max_trials if each.use_original_image else 0):
            if each.HasField("max_sample") and found >= each.max_sample:
                break
            part = _draw(each.sampler, random)
            if _fits(part, boxes, each.sample_constraint):
                found += 1
                parts.append(part)
    return parts[int(random.integers(len(parts)))] if parts else None


def jitter_part(jitter: float, keep_shape: bool, random: np.random.Generator) -> np.ndarray | None:
    """A part at least 1 - jitter wide and high (of a fifth of the images half as much), None for a fifth of them."""
    kind, *draws = random.random(5)
    if kind < 0.2:
        return None
    jitter = jitter / 2 if kind < 0.4 else jitter
    width, height = 1 - jitter * draws[0], 1 - jitter * draws[0 if keep_shape else 1]
    left, top = draws[2] * (1 - width), draws[3] * (1 - height)
    return np.array([left, top, left + width, top + height])


def _whole(each: Any) -> bool:
    """Whether all parts that a batch sampler draws are the whole image, and fit."""
    numbers = (each.sampler.min_scale, each.sampler.max_scale)
    return numbers == (1, 1) and not each.sample_constraint.ByteSize() and each.use_original_image


def _draw(sampler: Any, random: np.random.Generator) -> np.ndarray:
    draws = random.random(4)
    scale = sampler.min_scale + draws[0] * (sampler.max_scale - sampler.min_scale)
    ratio = sampler.min_aspect_ratio + draws[1] * (sampler.max_aspect_ratio - sampler.min_aspect_ratio)
    ratio = min(max(ratio, scale**2), 1 / scale**2)
    width, height = min(1.0, scale * math.sqrt(ratio)), min(1.0, scale / math.sqrt(ratio))
    left, top = draws[2] * (1 - width), draws[3] * (1 - height)
    return np.array([left, top, left + width, top + height])


def _fits(part: np.ndarray, boxes: np.ndarray, constraint: Any) -> bool:
    """Whether a box fulfils what the constraint asks of it and the part; without constraints the part fits."""
    asked = [name for name in CONSTRAINTS if any(constraint.HasField(f"{end}_{name}") for end in ("min", "max"))]
    if not asked:
        return True
    common = intersections(boxes, part)
    own = float(areas(part))
    values = {
        "jaccard_overlap": common / np.maximum(areas(boxes) + own - common, 1e-30),
        "sample_coverage": common / own,
        "object_coverage": coverage(boxes, part),
    }
    good = np.ones(len(boxes), np.bool_)
    for name in asked:
        for end, below in (("min", True), ("max", False)):
            if constraint.HasField(f"{end}_{name}"):
                limit = getattr(constraint, f"{end}_{name}")
                good &= values[name] >= limit if below else values[name] <= limit
    return bool(good.any())
