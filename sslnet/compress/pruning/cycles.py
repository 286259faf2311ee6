"""Cycles of training and pruning: every ``interval`` iterations of a solver channels are scored, the lowest are set to zero
for good, and the net trains on (``prune_param`` in a solver's prototxt).

    train for interval iterations; score the channels; prune; repair; distort; and again, until nothing is pruned any more

Scores are taken in phase TEST, on images of the training data that are drawn once. All that is random follows from the
solver's seed and the iteration; what is pruned is part of a snapshot: a resumed run is the same run, bit for bit.

Ref: Hu et al. 2016, "Network Trimming" (activation)
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.compress.pruning.activity import BATCH, measure_activity
from sslnet.compress.pruning.calibration import CalibrationSet, calibration_net, draw_images, fill
from sslnet.compress.pruning.channels import CoupledChannels, find_channels_to_prune
from sslnet.compress.pruning.importance import IMPORTANCES, Needs
from sslnet.compress.pruning.prune_channels import show_batches
from sslnet.compress.pruning.repair.least_squares import LeastSquares
from sslnet.compress.pruning.selection import cut_to, uniform_order
from sslnet.errors import DefinitionError, UsageError, WeightsError, suggestion
from sslnet.layers.convolution import Convolution
from sslnet.layers.deconvolution import Deconvolution
from sslnet.layers.inner_product import InnerProduct
from sslnet.net.net import Net
from sslnet.prototxt import Definition
from sslnet.solver.solver_definition import read_definition

if TYPE_CHECKING:
    from sslnet.solver.solver import Solver

AMOUNTS = ("threshold", "outliers", "part", "target_flops")
"""The fields that say how many channels a cycle prunes; one of them is given."""
ACTIVATION = "activation"


def pruning_cycles(
    source: str | os.PathLike[str] | Definition | pb.SolverParameter, tell: Callable[[str], None] = lambda line: None
) -> PruningCycles | None:
    """The cycles of a solver, for ``sslnet.Solver(source, steering=...)``; None if it has no ``prune_param``.

    source  path of a solver's prototxt, a Definition, or a pb.SolverParameter
    tell    called with a line of text for each cycle
    raises  DefinitionError for settings that are missing, exclude each other, or are out of range
    """
    solver = read_definition(source)
    if not solver.message.HasField("prune_param"):
        return None
    check_prune_param(solver)
    return PruningCycles(solver.message.prune_param, tell)


def check_prune_param(solver: Definition) -> None:
    """Raises DefinitionError, at the field, for a ``prune_param`` that means nothing."""
    param = solver.message.prune_param

    def error(message: str, field: str = "", hint: str = "") -> DefinitionError:
        path = ("prune_param", field) if field else ("prune_param",)
        return DefinitionError(message, span=solver.span(*path), path=solver.path, hint=hint)

    given = [name for name in AMOUNTS if param.HasField(name)]
    if not given:
        raise error("prune_param does not say how many channels to prune", hint=f"give one of {', '.join(AMOUNTS)}")
    if len(given) > 1:
        raise error(f"{given[0]} and {given[1]} exclude each other: each says how many channels to prune", given[1])
    names = (ACTIVATION, *(name for name in sorted(IMPORTANCES) if name != ACTIVATION))
    if param.by not in names:
        raise error(
            f'unknown criterion "{param.by}"', "by", suggestion(param.by, names) or f"one of {', '.join(names)}"
        )
    if not param.HasField("interval"):
        raise error("interval is missing: the number of iterations of a cycle")
    positive = {"interval": param.interval, "images": param.images}
    for name, number in positive.items():
        if number < 1:
            raise error(f"{name} must be at least 1, not {number}", name)
    if param.until and not param.interval <= param.until:
        raise error(f"until must be at least interval, {param.interval}, not {param.until}", "until")
    if param.until and solver.message.HasField("max_iter") and param.until > solver.message.max_iter:
        raise error(f"until is beyond max_iter, {solver.message.max_iter}: {param.until}", "until")
    if param.HasField("threshold") and not 0 <= param.threshold < 1:
        raise error(f"threshold must be at least 0 and below 1, not {param.threshold:g}", "threshold")
    if param.HasField("threshold") and param.by != ACTIVATION:
        raise error(
            f"threshold is for by: \"{ACTIVATION}\", whose scores are parts of 1; those of {param.by} have no such scale",
            "threshold", "give part, outliers or target_flops",
        )  # fmt: skip
    if param.HasField("outliers") and not 0 < param.outliers < math.inf:
        raise error(f"outliers must be above 0, not {param.outliers:g}", "outliers")
    for name in ("part", "target_flops"):
        if param.HasField(name) and not 0 < getattr(param, name) < 1:
            raise error(f"{name} must lie between 0 and 1, not {getattr(param, name):g}", name)
    if not 0 <= param.distort < math.inf:
        raise error(f"distort must be 0 or more, not {param.distort:g}", "distort")
    if param.repair == pb.PruneParameter.STATISTICS:
        raise error(
            "repair STATISTICS is for nets that are not trained on: here training takes them anew",
            "repair", "NONE, MEAN or LEAST_SQUARES",
        )  # fmt: skip


class PruningCycles:
    """Prunes a solver's net in cycles while it trains.

    tell   called with a line of text for each cycle
    gone   (units) bool: the channels pruned so far; ``channels`` says what belongs to each
    """

    def __init__(self, param: pb.PruneParameter, tell: Callable[[str], None] = lambda line: None) -> None:
        self.param, self.tell = param, tell
        self.gone = np.zeros(0, np.bool_)
        self.cycles = 0
        self.finished = False
        self._saved: Mapping[str, np.ndarray] | None = None

    @property
    def met(self) -> bool:
        """Whether the target is met; True where there is none."""
        return not self.param.HasField("target_flops") or self.remaining <= self.param.target_flops

    @property
    def remaining(self) -> float:
        """Remaining part of the net's FLOPs."""
        return self.channels.flops(self.gone) / self.channels.flops()

    def missed(self) -> str:
        """Text that says by how much the target was missed; "" if it was met."""
        if self.met:
            return ""
        return f"{100 * self.remaining:.3g} % of the FLOPs remain, not {100 * self.param.target_flops:g} %"

    # -- the solver calls ----------------------------------------------------------------------------------------------

    def start(self, solver: Solver) -> None:
        """Prepares the cycles; call it before the first iteration and after restoring a snapshot.

        raises UsageError for a net without channels to prune, or without data to score them on
        """
        definition, state = solver.net.definition, solver.net.state
        try:
            self.net = Net(
                definition, phase=pb.TEST, level=state.level, stages=state.stages, seed=solver.seed, share=solver.net
            )
        except DefinitionError as error:
            raise DefinitionError(
                f"prune_param scores the net in phase TEST, which cannot be built: {error.message}",
                span=error.span, path=error.path, layer=error.layer, hint=error.hint,
            ) from error  # fmt: skip
        self.channels: CoupledChannels = find_channels_to_prune(self.net)
        self.images: CalibrationSet | None = None
        if self._needs > Needs.WEIGHTS or self.param.repair != pb.PruneParameter.NONE:
            self.images = draw_images(self.net, self.param.images, solver.seed)
        if self._saved is None:
            self.gone = np.zeros(self.channels.count, np.bool_)
        else:
            self._resume(solver, self._saved)

    def after_iteration(self, solver: Solver) -> None:
        """At the end of a cycle: scores, prunes, repairs and distorts."""
        if self.finished or solver.iter % self.param.interval:
            return
        until = self.param.until or solver.param.max_iter
        if solver.iter > until:
            self.finished = True
            return
        self.cycles += 1
        scores = self._scores(solver)
        gone = self._select(scores, solver.iter, until)
        new = gone & ~self.gone
        if new.any():
            self._prune(solver, gone)
        if self.param.distort:
            self._distort(solver)
        self._report(solver, new, scores)
        reached = self.param.HasField("target_flops") and self.met
        nothing = not new.any() and not self.param.distort and not self.param.HasField("target_flops")
        self.finished = reached or nothing or solver.iter + self.param.interval > until

    def state(self) -> dict[str, np.ndarray]:
        """The state of the cycles for a snapshot."""
        return {
            "pruned": self.gone.astype(np.float32),
            "cycles": np.array([self.cycles, self.finished], np.float64),
        }

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Sets the state from a snapshot, which ``start`` then restores; empty if the run had no cycles before."""
        self._saved = state or None

    def _resume(self, solver: Solver, state: Mapping[str, np.ndarray]) -> None:
        pruned, cycles = state.get("pruned"), state.get("cycles")
        if pruned is None or cycles is None or pruned.size != self.channels.count or cycles.size != 2:
            raise WeightsError(
                "the snapshot was written for other targets, or another net",
                path=solver.last_snapshot,
                hint="use the original prune_param to continue it, or --weights to start again from its weights",
            )
        self.gone = pruned.reshape(-1) != 0
        self.cycles, self.finished = int(cycles.reshape(-1)[0]), bool(cycles.reshape(-1)[1])

    # -- one cycle -----------------------------------------------------------------------------------------------------

    @property
    def _needs(self) -> Needs:
        return Needs.TOPS if self.param.by == ACTIVATION else IMPORTANCES[self.param.by].NEEDS

    def _scores(self, solver: Solver) -> np.ndarray:
        if self.param.by == ACTIVATION:
            assert self.images is not None
            return measure_activity(self.channels, self.images)
        importance = IMPORTANCES[self.param.by](solver.seed)
        importance.start(self.channels)
        if importance.NEEDS > Needs.WEIGHTS:
            assert self.images is not None
            show_batches(importance, self.net, self.images, BATCH)
        return importance.scores()

    def _select(self, scores: np.ndarray, iteration: int, until: int) -> np.ndarray:
        """The channels that are gone after this cycle, those of earlier cycles included: (units) bool."""
        param, channels = self.param, self.channels
        stays = channels.protected(np.where(self.gone, -1.0, scores), 0.0) & ~self.gone
        if param.HasField("target_flops"):
            return self._toward_target(scores, stays, iteration, until)
        gone = self.gone.copy()
        for family in channels.families:
            units = family.units[~self.gone[family.units]]
            own = scores[units]
            if param.HasField("threshold"):
                out = own <= param.threshold
            elif param.HasField("outliers"):
                out = own < own.mean() - param.outliers * own.std() if len(own) else own < 0
                out |= own <= 0 if param.by == ACTIVATION else False
            else:
                out = np.zeros(len(units), np.bool_)
                out[np.argsort(own, kind="stable")[: int(param.part * len(units))]] = True
            gone[units[out]] = True
        kept: np.ndarray = gone & ~stays
        return kept

    def _toward_target(self, scores: np.ndarray, stays: np.ndarray, iteration: int, until: int) -> np.ndarray:
        """As many channels as bring the FLOPs to target^(k / n) after cycle k of n."""
        total = max(1, until // self.param.interval)
        wanted = self.param.target_flops ** min(1.0, (iteration // self.param.interval) / total)
        if self.remaining <= wanted:
            return self.gone.copy()
        order = uniform_order(self.channels, np.where(self.gone, -1.0, scores))
        order = np.concatenate([np.flatnonzero(self.gone), order[~self.gone[order]]])
        try:
            return cut_to(self.channels, order, stays, wanted, scores)
        except UsageError as error:
            self.tell(f"iteration {iteration}: {error.message}")
            most: np.ndarray = self.gone | ~stays
            return most

    def _prune(self, solver: Solver, gone: np.ndarray) -> None:
        fits: LeastSquares | None = None
        if self.param.repair != pb.PruneParameter.NONE:
            assert self.images is not None
            calibration = calibration_net(self.net, self.images)
            fill(calibration, self.images)
            fits = LeastSquares(self.channels, calibration, solver.seed)
            fits.record()
        self.gone = gone
        self.channels.clear(gone)
        if fits is not None:
            fits.repair(gone, only_bias=self.param.repair == pb.PruneParameter.MEAN)
        self._freeze(solver)

    def _freeze(self, solver: Solver) -> None:
        """Keeps all that belongs to pruned channels at zero from now on."""
        flags = np.append(self.gone, False)
        kept: dict[tuple[str, int], np.ndarray] = {}
        for part in self.channels.parts:
            key = part.part.param.layer.name, part.part.param.index
            mask = kept.setdefault(key, np.ones(part.part.param.blob.shape, np.float32))
            tiles = part.part.tiles(mask)
            tiles[...] = np.where(flags[part.units].reshape(tiles.shape[0], 1, tiles.shape[2], 1), 0, tiles)
        solver.freeze({key: mask != 0 for key, mask in kept.items() if not mask.all()})

    def _distort(self, solver: Solver) -> None:
        """Adds distort * u * (1 - v) to the remaining weights of each layer, u uniform in [0, 1), v their variance."""
        key = hashlib.blake2b(f"{solver.seed}/prune/{solver.iter}".encode(), digest_size=16).digest()
        random = np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))
        for update in solver.updates:
            layer = update.param.layer
            if update.param.index or not isinstance(layer, Convolution | Deconvolution | InnerProduct):
                continue
            data = update.param.blob.data.reshape(-1)
            alive = np.ones(data.size, np.bool_) if update.keep is None else update.keep != 0
            amount = self.param.distort * (1 - float(data[alive].var(dtype=np.float64))) if alive.any() else 0.0
            noise = random.random(data.size, dtype=np.float32)
            data += np.where(alive, noise * np.float32(amount), np.float32(0)).astype(data.dtype)

    def _report(self, solver: Solver, new: np.ndarray, scores: np.ndarray) -> None:
        widths = self.channels.widths(self.gone)
        left = ", ".join(f"{name} {after} of {before}" for name, (before, after) in widths.items())
        count = int(new.sum())
        what = f"{count:,} channel{'s' if count > 1 else ''} pruned" if count else "no channel to prune"
        lowest = scores[~self.gone].min(initial=math.inf)
        self.tell(
            f"iteration {solver.iter}, cycle {self.cycles}: {what}; left: {left}; {100 * self.remaining:.3g} % of the "
            f"FLOPs; lowest score {lowest:.3g}"
        )
