"""``prune_channels``: removes coupled channels by an importance criterion until a part of the FLOPs is left, and repairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from sslnet.compress.pruning.calibration import CalibrationSet, batches, calibration_net, draw_images, fill
from sslnet.compress.pruning.channels import COSTS, CoupledChannels, find_channels_to_prune
from sslnet.compress.pruning.importance import IMPORTANCES, Importance, Needs, Reconstruction
from sslnet.compress.pruning.repair.least_squares import LayerRepair, LeastSquares
from sslnet.compress.pruning.repair.statistics import check_statistics, measure_statistics
from sslnet.compress.pruning.repair.walk import Walk
from sslnet.compress.pruning.selection import SHARE_OUT, cut_to, flops_order, uniform_order
from sslnet.compress.pruning.sensitivity import Curves, measure_curves, share_out_by
from sslnet.errors import UsageError, suggestion
from sslnet.net.net import Net
from sslnet.net.weights import StoredWeights
from sslnet.timing.layerwise import open_net, time_nets

REPAIRS = ("none", "mean", "statistics", "least-squares")
"""Ways to repair a net without training."""
FLOOR = 0.1
"""Part of each family that stays in any case."""
IMAGES = 256
"""Number of calibration images unless another one is given."""
BATCH = 50
"""Images in one backward pass of criteria that need gradients."""
TIMED_RUNS = 20
"""Runs from which the time of each layer is taken."""
HELD_OUT = 0.25
"""Part of the images on which sensitivity is measured; the others are those that the trial fits see."""
MOST_HELD_OUT = 64

Progress = Callable[[str], object]
"""Called with what is being done."""


@dataclass(frozen=True)
class PruneResult:
    """What ``prune_channels`` did.

    by          name of the criterion
    gone        (units) bool: the removed units of ``channels``
    channels    the channels of the net
    flops       part of the FLOPs that is left once the net is compacted, 0 to 1;  parameters: likewise
    widths      number of channels of each family before and after, by the family's name
    time        part of the time of the forward pass that is left, estimated from measured times of the layers; None where
                nothing was measured
    repair      name of the repair;  share_out: how the removals were divided
    images      number of calibration images; 0: none were needed
    layers      what least squares or mean did, layer by layer
    error       squared difference between the outputs and those of the whole net on the calibration images, as a part of
                their variance; None without such images
    """

    by: str
    gone: np.ndarray
    channels: CoupledChannels
    flops: float
    parameters: float
    widths: dict[str, tuple[int, int]]
    repair: str
    share_out: str
    images: int = 0
    layers: list[LayerRepair] = field(default_factory=list)
    error: float | None = None
    time: float | None = None


def prune_channels(
    net: Net,
    *,
    target_flops: float | None = None,
    target_params: float | None = None,
    target_time: float | None = None,
    by: str = "reconstruction",
    repair: str = "least-squares",
    images: int | CalibrationSet = IMAGES,
    share_out: str = "sensitivity",
    round_channels: int = 1,
    floor: float = FLOOR,
    seed: int = 0,
    progress: Progress = lambda text: None,
) -> PruneResult:
    """Sets the least important coupled channels of a net to zero, until at most a part of its FLOPs, its parameters or its
    time would be left, and repairs the layers that read them.  [overwrites the net's parameters]

    net             in phase TEST, with its weights; ``compact`` then makes the smaller net
    by              name of a criterion in ``IMPORTANCES``
    repair          "none", "mean", "statistics" or "least-squares"
    images          number of calibration images, drawn from the data of phase TRAIN; or the images
    target_flops, target_params, target_time   one of them. Time is estimated: that of each layer's forward pass is measured,
                    and taken to shrink as its FLOPs do
    share_out       "uniform", "flops" or "sensitivity": how the removals are divided between the layers
    round_channels  each family keeps a multiple of so many channels, or all
    floor           part of each family that stays, 0 to 1; one channel stays in any case
    seed            of the draw of images, of the sampled positions and of the criterion "random"

    "magnitude" and "random" with repair "none" and share_out "uniform" or "flops" need no images.

    raises UsageError for unknown names, numbers out of range, targets that cannot be reached, and missing data
    """
    pruner = Pruner(net, images=images, seed=seed, progress=progress)
    return pruner.prune(
        target_flops=target_flops,
        target_params=target_params,
        target_time=target_time,
        by=by,
        repair=repair,
        share_out=share_out,
        round_channels=round_channels,
        floor=floor,
    )


def one_target(flops: float | None, params: float | None, time: float | None) -> tuple[str, float]:
    """What the target counts, one of COSTS, and the part that may be left. raises UsageError unless one is given"""
    given = [(of, value) for of, value in zip(COSTS, (flops, params, time)) if value is not None]
    if len(given) != 1:
        raise UsageError("give one of target_flops, target_params and target_time: the part that may be left")
    return given[0]


def check_choices(
    by: str,
    repair: str,
    share_out: str,
    target: float,
    round_channels: int = 1,
    floor: float = FLOOR,
    of: str = "flops",
) -> None:
    """raises UsageError for unknown names and numbers out of range"""
    known: Sequence[tuple[str, str, Sequence[str]]] = (
        ("criterion", by, tuple(IMPORTANCES)),
        ("repair", repair, REPAIRS),
        ("share_out", share_out, SHARE_OUT),
    )
    for what, name, names in known:
        if name not in names:
            raise UsageError(f'unknown {what} "{name}"', hint=suggestion(name, names) or f"one of {', '.join(names)}")
    if not 0 < target < 1:
        raise UsageError(f"target_{of} must lie between 0 and 1, not {target:g}")
    if round_channels < 1:
        raise UsageError(f"round_channels must be at least 1, not {round_channels}")
    if not 0 <= floor <= 1:
        raise UsageError(f"floor must lie from 0 to 1, not {floor:g}")


class Pruner:
    """Prunes one net once or, with ``restore`` between, in several ways; images are drawn and run once.

    net     in phase TEST, with its weights, which are those of the whole net
    images  number of calibration images, or the images
    """

    def __init__(
        self,
        net: Net,
        *,
        images: int | CalibrationSet = IMAGES,
        seed: int = 0,
        progress: Progress = lambda text: None,
    ) -> None:
        if isinstance(images, int) and images < 2:
            raise UsageError(f"images must be at least 2, not {images}")
        self.net, self.seed, self._images, self._progress = net, seed, images, progress
        self.channels = find_channels_to_prune(net)
        self._whole = [(blob, blob.data.copy()) for layer in net.layers for blob in layer.blobs]
        self._scores: dict[str, np.ndarray] = {}
        self._ran_whole = False
        """Whether the blobs of the calibration net are those of the whole net."""

    def prune(
        self,
        *,
        target_flops: float | None = None,
        target_params: float | None = None,
        target_time: float | None = None,
        by: str = "reconstruction",
        repair: str = "least-squares",
        share_out: str = "sensitivity",
        round_channels: int = 1,
        floor: float = FLOOR,
    ) -> PruneResult:
        """Prunes and repairs the net, whose weights must be those of the whole net; see ``prune_channels``."""
        of, target = one_target(target_flops, target_params, target_time)
        check_choices(by, repair, share_out, target, round_channels, floor, of)
        if of == "time":
            self._measure_time()
        self.channels.counted = of
        if repair == "statistics":
            check_statistics(self.net)
        needs_images = repair != "none" or share_out == "sensitivity" or IMPORTANCES[by].NEEDS > Needs.WEIGHTS
        fits = self.fits if needs_images else None
        scores = self.scores(by)
        gone = self._select(by, scores, target, share_out, round_channels, floor)
        channels = self.channels
        channels.clear(gone)
        self._ran_whole = False
        layers: list[LayerRepair] = []
        if fits is not None and repair != "none":
            self._progress(f"repair: {repair}")
            if repair == "statistics":
                measure_statistics(fits.net)
            else:
                layers = fits.repair(gone, only_bias=repair == "mean")
        return PruneResult(
            by=by,
            gone=gone,
            channels=channels,
            flops=channels.flops(gone) / channels.flops(),
            parameters=channels.parameters(gone) / channels.parameters(),
            widths=channels.widths(gone),
            repair=repair,
            share_out=share_out,
            images=self.images.count if needs_images else 0,
            layers=layers,
            error=fits.output_error() if fits is not None else None,
            time=channels.cost(gone) / channels.cost() if of == "time" else None,
        )

    def restore(self) -> None:
        """Gives the net the weights of the whole net again."""
        for blob, values in self._whole:
            blob.data[...] = values

    # -- what images give; each is made once, with the weights of the whole net ------------------------------------------

    def _measure_time(self) -> None:
        """Times the layers of the net, forward in phase TEST, with the batch of its data."""
        if self.channels.knows_time:
            return
        self._progress("timing the layers")
        net, state = self.net, self.net.state
        timed = open_net(
            net.definition, StoredWeights.of(net.params), phase=net.phase, level=state.level, stages=state.stages
        )
        (found,) = time_nets([timed], TIMED_RUNS, forward_only=True).nets
        seconds = {layer.name: layer.forward.median for layer in found.layers if layer.forward is not None}
        self.channels.measure_time([seconds.get(name, 0.0) for name in net.layer_names])

    @cached_property
    def images(self) -> CalibrationSet:
        """The calibration images."""
        if isinstance(self._images, CalibrationSet):
            return self._images
        self._progress("reading calibration images")
        return draw_images(self.net, self._images, self.seed)

    @cached_property
    def fits(self) -> LeastSquares:
        """Targets of all layers, from a run of the whole net on all images."""
        net = calibration_net(self.net, self.images)
        fill(net, self.images)
        self._progress(f"running {self.images.count} calibration images")
        fits = LeastSquares(self.channels, net, self.seed)
        fits.record()
        self._ran_whole = True
        return fits

    def _whole_run(self) -> Net:
        """The calibration net after a run of the whole net."""
        net = self.fits.net
        if not self._ran_whole:
            walk = Walk(net)
            walk.through(0)  # in pieces, as the first time, so that the values are the same bits
            walk.before(len(net.layers))
            self._ran_whole = True
        return net

    @cached_property
    def _held_out(self) -> int:
        return max(1, min(MOST_HELD_OUT, int(HELD_OUT * self.images.count)))

    @cached_property
    def _tool(self) -> Reconstruction:
        """The reconstruction criterion, which has seen all images but those on which sensitivity is measured."""
        tool = Reconstruction(self.seed)
        tool.start(self.channels)
        tool.see(self._whole_run(), self.images.count - self._held_out)
        return tool

    def scores(self, by: str) -> np.ndarray:
        """The scores of all units by a criterion: (units) float64."""
        if by not in self._scores:
            self._progress(f"scoring {self.channels.count} channels by {by}")
            self._scores[by] = self._score(by)
        return self._scores[by]

    def _score(self, by: str) -> np.ndarray:
        if by == Reconstruction.NAME:
            return self._tool.scores()
        importance = IMPORTANCES[by](self.seed)
        importance.start(self.channels)
        self._show(importance)
        return importance.scores()

    def _show(self, importance: Importance) -> None:
        """Lets a criterion see the images."""
        if importance.NEEDS == Needs.INPUTS:
            importance.see(self._whole_run(), self.images.count)
        elif importance.NEEDS > Needs.INPUTS:
            show_batches(importance, self.net, self.images)

    def _curves(self, by: str) -> Curves:
        scores = self.scores(by)
        self._progress(f"measuring the sensitivity of {len(self.channels.families)} families")
        first = self.images.count - self._held_out
        part = CalibrationSet({name: array[first:] for name, array in self.images.arrays.items()})
        net = calibration_net(self.net, part)
        fill(net, part)
        return measure_curves(self.channels, net, self._tool, scores)

    def _select(
        self, by: str, scores: np.ndarray, target: float, share_out: str, round_channels: int, floor: float
    ) -> np.ndarray:
        channels = self.channels
        stays = channels.protected(scores, floor)
        if share_out == "sensitivity":
            return share_out_by(self._curves(by), stays, target, round_channels)
        if share_out == "flops":
            order = flops_order(channels, scores, IMPORTANCES[by].IN_LOSS)
        else:
            order = uniform_order(channels, scores)
        return cut_to(channels, order, stays, target, scores, round_channels)


def show_batches(importance: Importance, net: Net, images: CalibrationSet, most: int = BATCH) -> None:
    """Lets a criterion see the images in batches of at most ``most``, each run forward and, if it needs gradients, backward.

    raises UsageError if it needs gradients and the net has no loss
    """
    backward = importance.NEEDS == Needs.GRADIENTS
    if backward and not net.loss_weights:
        raise no_loss(importance.NAME)
    size = min(most, images.count)
    shown = calibration_net(net, images, size, separate=True)
    for _ in batches(shown, images):
        shown.forward()
        if backward:
            shown.backward()
        importance.see(shown, size)


def no_loss(by: str) -> UsageError:
    """An error for a criterion that needs a loss, and a net without one."""
    return UsageError(
        f"the criterion {by} needs the loss and labels, and the net has no loss in phase TEST",
        hint="give the definition that the net was trained with, train_test.prototxt, with its loss in phase TEST; or "
        "use the criterion reconstruction, which needs no labels",
    )
