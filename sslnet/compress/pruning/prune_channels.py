"""``prune_channels``: removes coupled channels by an importance criterion until a part of the FLOPs is left, and repairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from sslnet.compress.pruning.calibration import CalibrationSet, calibration_net, draw_images, fill
from sslnet.compress.pruning.channels import Channels, find_channels_to_prune
from sslnet.compress.pruning.importance import IMPORTANCES, Needs
from sslnet.compress.pruning.repair.least_squares import LayerRepair, LeastSquares
from sslnet.compress.pruning.selection import SHARE_OUT, cut_to, flops_order, round_up, uniform_order
from sslnet.errors import UsageError, suggestion
from sslnet.net.net import Net

REPAIRS = ("none", "mean", "statistics", "least-squares")
"""Ways to repair a net without training."""
FLOOR = 0.1
"""Part of each family that stays in any case."""

Progress = Callable[[str], object]
"""Called with what is being done."""


@dataclass(frozen=True)
class PruneResult:
    """What ``prune_channels`` did.

    by          name of the criterion
    gone        (units) bool: the removed units of ``channels``
    channels    the channels of the net
    flops       parts of the FLOPs and parameters that are left, 0 to 1, once the net is compacted
    parameters
    widths      number of channels of each family before and after, by the family's name
    repair      name of the repair
    images      number of calibration images; 0: none were needed
    layers      what least squares did, layer by layer
    error       squared difference between the outputs and those of the whole net on the calibration images, as a part of
                their variance; None without such images
    """

    by: str
    gone: np.ndarray
    channels: Channels
    flops: float
    parameters: float
    widths: dict[str, tuple[int, int]]
    repair: str
    images: int = 0
    layers: list[LayerRepair] = field(default_factory=list)
    error: float | None = None


def prune_channels(
    net: Net,
    *,
    target_flops: float,
    by: str = "magnitude",
    repair: str = "none",
    images: int | CalibrationSet = 256,
    share_out: str = "uniform",
    round_channels: int = 1,
    floor: float = FLOOR,
    seed: int = 0,
    progress: Progress = lambda text: None,
) -> PruneResult:
    """Sets the least important coupled channels of a net to zero, until at most ``target_flops`` of its FLOPs would be
    left, and repairs the layers that read them.  [overwrites the net's parameters]

    net             in phase TEST, with its weights; ``compact`` then makes the smaller net
    by              name of a criterion in ``IMPORTANCES``
    repair          "none", "mean", "statistics" or "least-squares"
    images          number of calibration images, drawn from the data of phase TRAIN; or the images
    share_out       "uniform", "flops" or "sensitivity": how the removals are divided between the layers
    round_channels  each family keeps a multiple of so many channels (rounded up), where its size allows
    floor           part of each family that stays, 0 to 1
    seed            of the draw of images, and of the criterion "random"

    raises UsageError for unknown names, numbers out of range, targets that cannot be reached, and missing data
    """
    check_choices(by, repair, share_out, target_flops, round_channels, floor)
    channels = find_channels_to_prune(net)
    importance = IMPORTANCES[by](seed)
    needed = importance.NEEDS > Needs.WEIGHTS or repair != "none"
    drawn: CalibrationSet | None = None
    if needed:
        progress("reading calibration images")
        drawn = images if isinstance(images, CalibrationSet) else draw_images(net, images, seed)
    fits: LeastSquares | None = None
    if drawn is not None:
        calibration = calibration_net(net, drawn)
        fill(calibration, drawn)
        fits = LeastSquares(channels, calibration, seed)
        progress(f"running {drawn.count} calibration images")
        fits.record()
    progress(f"scoring {channels.count} channels by {by}")
    importance.start(channels)
    scores = importance.scores()
    gone = select(channels, scores, importance.IN_LOSS, target_flops, share_out, round_channels, floor)
    channels.clear(gone)
    layers: list[LayerRepair] = []
    if fits is not None:
        progress(f"repair: {repair}")
        layers = fits.repair(gone, only_bias=repair == "mean")
    return PruneResult(
        by=by,
        gone=gone,
        channels=channels,
        flops=channels.flops(gone) / channels.flops(),
        parameters=channels.parameters(gone) / channels.parameters(),
        widths=channels.widths(gone),
        repair=repair,
        images=drawn.count if drawn is not None else 0,
        layers=layers,
        error=fits.output_error() if fits is not None else None,
    )


def check_choices(
    by: str, repair: str, share_out: str, target_flops: float, round_channels: int = 1, floor: float = FLOOR
) -> None:
    """raises UsageError for unknown names and numbers out of range"""
    known: Sequence[tuple[str, str, Sequence[str]]] = (
        ("criterion", by, tuple(IMPORTANCES)),
        ("repair", repair, REPAIRS),
        ("share-out", share_out, SHARE_OUT),
    )
    for what, name, names in known:
        if name not in names:
            raise UsageError(f'unknown {what} "{name}"', hint=suggestion(name, names) or f"one of {', '.join(names)}")
    if not 0 < target_flops < 1:
        raise UsageError(f"target_flops must lie between 0 and 1, not {target_flops:g}")
    if round_channels < 1:
        raise UsageError(f"round_channels must be at least 1, not {round_channels}")
    if not 0 <= floor <= 1:
        raise UsageError(f"floor must lie from 0 to 1, not {floor:g}")


def select(
    channels: Channels,
    scores: np.ndarray,
    in_loss: bool,
    target: float,
    share_out: str,
    round_channels: int,
    floor: float,
) -> np.ndarray:
    """The units to remove: (units) bool."""
    stays = channels.protected(scores, floor)
    order = flops_order(channels, scores, in_loss) if share_out == "flops" else uniform_order(channels, scores)
    gone = cut_to(channels, order, stays, target)
    return round_up(channels, gone, scores, round_channels) if round_channels > 1 else gone
