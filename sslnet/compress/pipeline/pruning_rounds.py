"""A round of the prune stage: the least important channels of a net become zero, and least squares repairs what reads them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from sslnet.compress.evaluation import Trial
from sslnet.compress.pruning.prune_channels import IMAGES, PruneResult, prune_channels
from sslnet.net.net import Net
from sslnet.net.weights import Arrays, read_weights
from sslnet.prototxt import Definition

CLOSE = 0.999
"""Largest fraction of the FLOPs that a round may keep."""


@dataclass(frozen=True)
class PruneSettings:
    """Criterion, repair, how the removals are divided, and number of calibration images, as for ``prune_channels``."""

    by: str = "reconstruction"
    repair: str = "least-squares"
    share_out: str = "sensitivity"
    images: int = IMAGES


def prune_once(
    trial: Trial,
    definition: Definition,
    weights: str,
    target: float,
    settings: PruneSettings,
    tell: Callable[[str], None],
) -> tuple[Arrays, PruneResult]:
    """Weights with channels of zeros, and what was done.

    trial    the phase, level and stages in which the net is looked at
    target   fraction of this net's FLOPs that may remain
    raises   UsageError for a target that cannot be reached
    """
    net = trial.net(weights, definition)
    result = prune_net(net, target, settings, trial.seed, tell)
    widths = [f"{name} {kept} of {count}" for name, (count, kept) in result.widths.items() if kept < count]
    tell(f"channels kept: {', '.join(widths)}")
    pruned = {name: [blob.data for blob in blobs] for name, blobs in net.params.items()}
    return read_weights(weights) | pruned, result


def prune_net(
    net: Net, target: float, settings: PruneSettings, seed: int, tell: Callable[[str], None] = lambda line: None
) -> PruneResult:
    """``prune_channels`` with these settings.  [overwrites the net's parameters]"""
    return prune_channels(
        net,
        target_flops=min(target, CLOSE),
        by=settings.by,
        repair=settings.repair,
        share_out=settings.share_out,
        images=settings.images,
        seed=seed,
        progress=tell,
    )


def total_flops(net: Net) -> float:
    """FLOPs of one forward pass for one image, or whatever the first axis of its first data blob counts."""
    batch = next((tops[0].shape[0] for tops in net.tops if tops and tops[0].num_axes), 1)
    return sum(layer.flops(net.bottoms[i], net.tops[i]) for i, layer in enumerate(net.layers)) / max(1, batch)


def is_trained(prefix: str) -> bool:
    """Whether the training of a round is complete: its weights are there, and those that it started from are gone."""
    return os.path.exists(f"{prefix}.caffemodel") and not os.path.exists(f"{prefix}_start.caffemodel")
