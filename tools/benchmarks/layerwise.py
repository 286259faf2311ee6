"""The time of an iteration by layer: each layer of sslnet compared with the same layer in torch.

Ours is timed in place: an iteration as it runs, fused steps included, with a clock around every step. Torch's modules run
one by one on detached inputs, forward and then backward, ReLU not in place; what autograd adds between layers in a whole
iteration is so counted with the layers. Layers that one side runs as one are one line.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from benchmarks.tables import Row
from benchmarks.turns import OURS, summary
from sslnet.solver.solver import Solver

MOST = 12
"""The number of layers listed at the end."""

Samples = dict[tuple[str, str], list[float]]
"""(layer name, direction) -> seconds, one per round."""


def measure(solver: Solver, trainers: dict[str, Any], threads: int, rounds: int) -> Iterator[Row]:
    """A row for every group of layers and direction, and for the update; ``share`` is that of our whole iteration."""
    clock = time.thread_time if threads == 1 else time.perf_counter
    ours: Samples = {}
    theirs: dict[str, Samples] = {name: {} for name in trainers}
    stepwise = {name: TorchLayers(trainer, clock) for name, trainer in trainers.items()}
    for name in stepwise:
        trainers[name].peer.set_in_place(False)
        stepwise[name].run({})
    for _ in range(max(rounds, 3)):
        _run_ours(solver, clock, ours)
        for name, layers in stepwise.items():
            layers.run(theirs[name])
    groups = _groups(solver.net, next(iter(trainers.values())).peer.parts if trainers else [])
    total = sum(sorted(samples)[len(samples) // 2] for samples in ours.values())
    for direction in ("forward", "backward"):
        for group in groups:
            times = {OURS: _sum(ours, group, direction)}
            times |= {name: _sum(samples, group, direction) for name, samples in theirs.items()}
            times = {name: samples for name, samples in times.items() if samples}
            if OURS in times:
                yield {"part": f"{direction} {'+'.join(group)}"} | _row(times, total)
    times = {OURS: ours[("update", "update")]} | {
        name: samples[("update", "update")] for name, samples in theirs.items()
    }
    yield {"part": "update"} | _row(times, total)


def losses(rows: list[Row]) -> str:
    """For each net the layers that cost most beside the faster of torch's layouts, in milliseconds lost; empty without torch."""
    lines: list[str] = []
    for key in dict.fromkeys((row["what"], row["threads"]) for row in rows):
        found = []
        for row in rows:
            if (row["what"], row["threads"]) == key and "layer" in row and "against" in row:
                ours, theirs = (row["times"][name]["median"] for name in (OURS, row["against"]))
                found.append((ours - theirs, ours, theirs, row))
        lost = sorted((item for item in found if item[0] > 0), key=lambda item: -item[0])[:MOST]
        if lost:
            lines.append(f"\n{key[0]}, threads: {key[1]}; slower than torch's faster layout by")
        for gap, ours, theirs, row in lost:
            lines.append(
                f"{gap:10.3f} ms  {row['part']:60} {ours:8.3f} beside {theirs:8.3f}, {row['share']:.1%} of ours"
            )
    return "\n".join(lines)


def _row(times: dict[str, list[float]], total: float) -> Row:
    row = summary(times)
    return row | {"share": row["times"][OURS]["median"] / total / 1e3, "layer": True}


def _sum(samples: Samples, group: list[str], direction: str) -> list[float]:
    found = [samples[(name, direction)] for name in group if (name, direction) in samples]
    return [sum(parts) for parts in zip(*found)]


def _groups(net: Any, parts: list[Any]) -> list[list[str]]:
    """Layers that stand together: those of one torch module, and those that a step of ours has taken over."""
    joined = {
        step.layer.name
        for plan in net._plans.plans.values()
        for step in plan.steps
        if "joined" in getattr(step, "kernel", "")
    }
    behind = {name for part in parts for name in part.layers[1:]} | joined
    groups: list[list[str]] = []
    for layer in net.layers:
        if layer.IS_SOURCE:
            continue
        if layer.name in behind and groups:
            groups[-1].append(layer.name)
        else:
            groups.append([layer.name])
    return groups


def _run_ours(solver: Solver, clock: Any, samples: Samples) -> None:
    """One iteration with every step timed."""
    net = solver.net
    steps = {id(step): step for plan in net._plans.plans.values() for step in plan.steps}.values()
    for step in steps:
        for direction in ("forward", "backward"):
            setattr(step, direction, _timed(getattr(step, direction), clock, samples, (step.layer.name, direction)))
    for key in [(step.layer.name, direction) for step in steps for direction in ("forward", "backward")]:
        samples.setdefault(key, [])
    before = {key: len(values) for key, values in samples.items()}
    start = clock()
    net.clear_param_diffs()
    cleared = clock() - start
    try:
        net.forward()
        net.backward()
    finally:
        for step in steps:
            del step.forward, step.backward
    start = clock()
    solver._apply_update(1e-5)
    samples.setdefault(("update", "update"), []).append(cleared + clock() - start)
    for key, count in before.items():
        if len(samples[key]) == count:
            samples[key].append(0.0)


def _timed(call: Any, clock: Any, samples: Samples, key: tuple[str, str]) -> Any:
    def run() -> None:
        start = clock()
        call()
        samples.setdefault(key, []).append(clock() - start)

    return run


class TorchLayers:
    """The parts of a torch peer, run and timed one by one."""

    def __init__(self, trainer: Any, clock: Any) -> None:
        self.trainer, self.clock, self.torch = trainer, clock, trainer.torch

    def run(self, samples: Samples) -> None:
        from benchmarks.torch_peer import put

        self.trainer.optimiser.zero_grad()
        blobs, calls = dict(self.trainer.inputs), []
        for part in self.trainer.peer.parts:
            sources = [self._leaf(blobs[name]) for name in part.bottoms]
            start = self.clock()
            results = part.module(*sources)
            self._note(samples, part, "forward", start)
            put(blobs, part, results)
            calls.append((part, sources, results if isinstance(results, tuple) else (results,)))
        diffs: dict[int, Any] = {}
        for part, sources, results in reversed(calls):
            self._backward(samples, part, sources, results, diffs)
        start = self.clock()
        self.trainer.optimiser.step()
        self._note(samples, None, "update", start)

    def _leaf(self, tensor: Any) -> Any:
        """The same values without their past; who made them is kept, so that the gradient finds its way."""
        if not tensor.is_floating_point():
            return tensor
        leaf = tensor.detach().requires_grad_(tensor.requires_grad)
        leaf.source = tensor
        return leaf

    def _backward(self, samples: Samples, part: Any, sources: Any, results: Any, diffs: dict[int, Any]) -> None:
        weights = self.trainer.peer.loss_weights
        grads = []
        for name, result in zip(part.tops, results):
            grads.append(diffs.pop((id(result), name), None))
            if grads[-1] is None and name in weights:
                grads[-1] = self.torch.tensor(weights[name])
        if part.type == "Split":
            found = [grad for grad in grads if grad is not None]
            if found:
                start = self.clock()
                total = sum(found[1:], found[0])
                self._note(samples, part, "backward", start)
                diffs[(id(sources[0].source), part.bottoms[0])] = total
            return
        pairs = [(result, grad) for result, grad in zip(results, grads) if grad is not None and result.requires_grad]
        if not pairs:
            return
        start = self.clock()
        self.torch.autograd.backward(*map(list, zip(*pairs)))
        self._note(samples, part, "backward", start)
        for name, source in zip(part.bottoms, sources):
            if getattr(source, "grad", None) is not None:
                diffs[(id(source.source), name)] = source.grad

    def _note(self, samples: Samples, part: Any, direction: str, start: float) -> None:
        end = self.clock()
        name = part.layers[0] if part is not None else direction
        samples.setdefault((name, direction), []).append(end - start)
