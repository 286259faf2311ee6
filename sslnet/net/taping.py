"""Runs forward passes of phase TEST as tapes: native code from the first layer to the last, without Python between layers.

A pass becomes segments: tapes of the steps that run only compiled code, and between them the steps that need Python. A
tape is recorded when a plan runs for the second time in a row, and it is valid as long as all arrays stay where they
are; where one has moved (a data layer hands over another batch) the tape's addresses are changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.blob import Blob
from sslnet.errors import RunError
from sslnet.kernels.runtime.native import works
from sslnet.kernels.runtime.recording import CannotAppend, appending
from sslnet.kernels.runtime.tape import KernelFailed, Tape, available_threads, taping
from sslnet.kernels.runtime.threads import deterministic, num_threads
from sslnet.net.layer_graph import LayerGraph
from sslnet.net.memory_planner import Arena
from sslnet.net.plan import Plan
from sslnet.net.steps import Step
from sslnet.net.steps.integer import IntegerStep


class Taping:
    """Gives the tapes of a net's plans.

    phase    tapes are for phase TEST: in TRAIN, weights are packed in every pass
    plain    the net runs only the layers' own code
    """

    def __init__(self, graph: LayerGraph, arena: Arena, *, phase: int, plain: bool) -> None:
        self.graph, self.arena = graph, arena
        self.possible = phase == pb.TEST and not plain and not any(layer.DYNAMIC for layer in graph.layers)
        self._last: Plan | None = None

    def pass_of(self, plan: Plan) -> TapedPass | None:
        """The pass of the plan as segments that are valid now; None where it has to run step by step."""
        if not (self.possible and plan.fused and _can_tape()):
            return None
        again = plan is self._last
        if not again and self._last is not None and self.graph.runs_backward:
            # Layers keep arrays for their backward pass, of the shapes that they have now.
            self._last.taped = None
        self._last = plan
        taped, plan.taped = plan.taped, None  # so that an interrupt leaves no half changed tape
        if taped is not None and taped.is_valid():
            plan.taped = taped
            return taped if taped.tapes else None
        if not again or not works():
            return None
        plan.taped = TapedPass(plan, self.graph, self.arena)
        return plan.taped if plan.taped.tapes else None

    def steps_of(self, plan: Plan) -> Sequence[Step]:
        """The steps of a plan, forward as short tapes where they can be; to time layers. To be called, as the steps, while
        the plan is running; the plan must not be the one of ``pass_of``."""
        if not (self.possible and _can_tape() and works()):
            return plan.steps
        taped, plan.taped = plan.taped, None
        if taped is None or not taped.is_valid():
            taped = TapedPass(plan, self.graph, self.arena, by_step=True)
        taped.follow_memory()
        plan.taped = taped
        steps: Sequence[Step] = taped.steps
        return steps


class _Segment(NamedTuple):
    """A part of a pass."""

    run: Callable[[], float]
    """Runs it; returns the loss of its steps."""
    steps: list[Step]
    on_tape: bool


class TapedStep(Step):
    """A step whose forward pass is a tape."""

    def __init__(self, step: Step, run: Callable[[], object]) -> None:
        super().__init__(step.layer, step.bottom, step.top, step.propagate_down)
        self.step, self._run = step, run

    def forward(self) -> None:
        self._run()


class TapedPass:
    """The forward pass of a plan as segments.

    by_step  a tape contains one step;  steps: then all steps, those on tapes as TapedStep
    tapes   the tapes among them
    raises  what the steps raise that run in Python
    """

    def __init__(self, plan: Plan, graph: LayerGraph, arena: Arena, *, by_step: bool = False) -> None:
        self.plan, self.arena, self.by_step = plan, arena, by_step
        self.steps = list(plan.steps)
        self.settings = _settings()
        self.tapes: list[Tape] = []
        self._segments: list[_Segment] = []
        self._taken: list[Step] = []
        """The steps on the tape that is being recorded."""
        self._prepared: list[tuple[Step, object]] = []
        self._late = [step.publish for step in plan.steps if isinstance(step, IntegerStep) and step.is_shown_late]
        """Makes blobs in bytes show what a run has computed."""
        self._ready = False
        """Whether weights are held, and packed since."""
        self._last = len(plan.steps) - 1
        with plan.running(self._last):
            self._memory = arena.memory() if plan.lease is not None and plan.lease.live_ranges else None
            self._record(graph)
            self._watched = _arrays(graph)
            ranges = [_range(array) for _, array in self._watched]
            if self._memory is not None:
                ranges.append(_range(self._memory))
            for tape in self.tapes:
                tape.reserve()
            for tape in self.tapes:
                tape.finish(ranges)
        self._versions = arena.workspace.version
        self._moved = Blob.moved
        self._whole = len(self._segments) == len(self.tapes)
        """Whether no step runs in Python, so that no blob has to show its memory."""

    def _record(self, graph: LayerGraph) -> None:
        tape: Tape | None = None
        for i, step in enumerate(self.plan.steps):
            if step.IDLE:
                continue
            weighted = [pair for pair in zip(graph.tops[i], graph.layer_loss_weights[i]) if pair[1]]
            step.prepare()
            if type(step).prepare is not Step.prepare:
                self._prepared.append((step, step.tape_state()))
            if not weighted and step.fits_tape():
                if tape is None:
                    tape = Tape(self.arena.workspace, num_threads())
                if _appended(tape, step):
                    self._taken.append(step)
                    if self.by_step:
                        self._append(tape)
                        self.steps[i] = TapedStep(step, self._segments[-1].run if len(tape) else step.prepare)
                        tape = None
                    continue
            self._append(tape)
            tape = None
            self._segments.append(_Segment(_in_python(step, weighted), [step], on_tape=False))
        self._append(tape)

    def _append(self, tape: Tape | None) -> None:
        if tape is not None and len(tape):
            self.tapes.append(tape)
            self._segments.append(_Segment(_on_tape(tape), self._taken, on_tape=True))
        self._taken = []

    def is_valid(self) -> bool:
        """Whether the tapes can run: after a change of addresses where arrays have moved."""
        if self.settings != _settings() or self._versions != self.arena.workspace.version:
            return False
        return self._follows() and (self._ready or self._prepare())

    def _follows(self) -> bool:
        """Changes the addresses of arrays that have moved, if any has; returns False where that cannot be."""
        if Blob.moved is not self._moved:
            moved = Blob.moved
            if not self._follow():
                return False
            self._moved = moved
        return True

    def _prepare(self) -> bool:
        """Packs weights that have changed; returns whether the tapes are still valid."""
        for step, state in self._prepared:
            step.prepare()
            if step.tape_state() != state:
                return False
        self._ready = self.plan.held
        return True

    def prepare_again(self) -> None:
        """Weights may have changed though they are held."""
        self._ready = False

    def _follow(self) -> bool:
        """Changes the addresses of arrays that have moved; returns False for an array of another kind."""
        moves = []
        for k, (blob, array) in enumerate(self._watched):
            if not blob.owns("data") or not blob.holds("data"):
                return False
            data = blob.data
            if data is array:
                continue
            if data.shape != array.shape or data.dtype != array.dtype or not data.flags.c_contiguous:
                return False
            first, end = _range(array)
            moves.append((first, end, _range(data)[0] - first))
            self._watched[k] = blob, data
        self._move(moves)
        return True

    def _move(self, moves: Sequence[tuple[int, int, int]]) -> None:
        for tape in self.tapes:
            tape.move([move for move in moves if move[2]])

    def run(self) -> float:
        """Runs the pass; returns the loss."""
        lease = self.plan.lease
        if lease is None or (self._whole and lease.holds and self.arena.is_memory(self._memory)):
            return self._run()
        with self.plan.running(self._last):
            self.follow_memory()
            return self._run()

    def follow_memory(self) -> None:
        """Changes the addresses if the arena is at another place; called while the plan is running."""
        memory = self._memory
        if memory is not None and not self.arena.is_memory(memory):
            first, end = _range(memory)
            taped, self.plan.taped = self.plan.taped, None  # as in pass_of
            self._memory = self.arena.memory()
            self._move([(first, end, _range(self._memory)[0] - first)])
            self.plan.taped = taped

    def _run(self) -> float:
        loss, taped = 0.0, True
        for segment in self._segments:
            taped = taped and self._follows()  # a data layer hands over its next batch while the pass runs
            if taped or not segment.on_tape:
                loss += segment.run()
            else:
                for step in segment.steps:
                    step.forward()
        for publish in self._late:
            publish()
        return loss


def _appended(tape: Tape, step: Step) -> bool:
    """Appends the regions of a step; returns False, and appends nothing, if some of it needs Python."""
    tape.label, mark = step, tape.mark()
    try:
        with appending(tape):
            step.regions()
    except CannotAppend:
        tape.cut(mark)
        return False
    return True


def _on_tape(tape: Tape) -> Callable[[], float]:
    def run() -> float:
        try:
            tape.run()
        except KernelFailed as failure:
            layer = failure.label.layer if isinstance(failure.label, Step) else None
            raise RunError("a kernel has failed", layer=layer.name if layer is not None else None) from failure
        return 0.0

    return run


def _in_python(step: Step, weighted: Sequence[tuple[Blob, float]]) -> Callable[[], float]:
    def run() -> float:
        step.forward()
        return sum(weight * top_value(top) for top, weight in weighted)

    return run


def top_value(top: Blob) -> float:
    """The sum of a top's values, of which a loss mostly has one."""
    return float(top.data.item()) if top.count == 1 else float(top.data.sum(dtype=np.float64))


def _can_tape() -> bool:
    """Whether tapes are wanted, and use as many threads as ``parallel`` would."""
    return taping() and available_threads(num_threads()) == num_threads()


def _settings() -> tuple[Any, ...]:
    """What else the parts of regions depend on."""
    return num_threads(), deterministic()


def _arrays(graph: LayerGraph) -> list[tuple[Blob, np.ndarray]]:
    """The blobs with data in memory of their own, of the net and of its layers, and where these are now."""
    blobs = [*graph.versions, *(blob for layer in graph.layers for blob in layer.blobs)]
    owners = dict.fromkeys(blob.owner("data") for blob in blobs)
    return [(blob, blob.data) for blob in owners if blob.count and not blob.is_lent("data")]


def _range(array: np.ndarray) -> tuple[int, int]:
    """(first, end) of the addresses of a C-contiguous array."""
    first = array.__array_interface__["data"][0]
    return first, first + array.nbytes
