"""What the tests of lean nets share: a run that overwrites everything the moment its live range ends, beside one that keeps all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.net.liveness import LiveRange
from sslnet.net.net import Net
from sslnet.net.steps import Step

from ..layers.harness import draw


class PoisonedStep(Step):
    """Runs a step, then fills what nobody may read any more with NaN."""

    def __init__(self, step: Step, after_forward: list[LiveRange], after_backward: list[LiveRange]) -> None:
        super().__init__(step.layer, step.bottom, step.top, step.propagate_down)
        self.step = step
        self.after = after_forward, after_backward

    def forward(self) -> None:
        self.step.forward()
        poison(self.after[0])

    def backward(self) -> None:
        self.step.backward()
        poison(self.after[1])


def poison(live_ranges: list[LiveRange]) -> None:
    for live_range in live_ranges:
        (live_range.blob.data if live_range.which == "data" else live_range.blob.diff)[...] = np.nan


def poisoned(net: Net) -> Net:
    """The lean net with every step of the plans it has now poisoning what ends with it."""
    last = 2 * len(net.layers) - 1
    net.arena.memory().fill(0xFF)
    for plan in (net.plan(fused=True), net.plan(fused=False)):
        lease = plan.lease
        assert lease is not None
        ends: dict[int, list[LiveRange]] = {}
        for live_range in lease.live_ranges:
            if live_range.inside is not None:
                continue  # its memory is that of another's values from then on
            assert live_range.since <= live_range.first <= live_range.last <= live_range.until
            ends.setdefault(live_range.until, []).append(live_range)
        plan.steps = [PoisonedStep(step, ends.get(i, []), ends.get(last - i, [])) for i, step in enumerate(plan.steps)]
    return net


def assert_apart(net: Net) -> None:
    """No two blobs whose live ranges overlap share a byte."""
    lease = net.plan(fused=True).lease
    assert lease is not None
    for i, one in enumerate(lease.live_ranges):
        assert 0 <= one.offset <= one.end <= lease.size
        for other in lease.live_ranges[:i]:
            together = one.first <= other.last and other.first <= one.last
            assert (
                not together
                or one.inside is other
                or other.inside is one
                or one.end <= other.offset
                or other.end <= one.offset
            )


def build(text: str, *, phase: int = pb.TRAIN, values: Mapping[str, object] | None = None, **settings: Any) -> Net:
    """The net, its inputs drawn by their names unless given, its parameters drawn anew."""
    net = Net(prototxt.parse(text, pb.NetParameter), phase=phase, seed=3, **settings)
    random = np.random.default_rng(5)
    for name in net.inputs:
        blob = net.blobs[name]
        blob.data[...] = values[name] if values and name in values else draw(name, blob.shape, random)
    for param in net.learnable:
        if param.lr_mult:
            param.blob.data[...] = np.random.default_rng(param.blob.count).normal(size=param.blob.shape)
    return net


def results(net: Net, passes: int = 2) -> list[np.ndarray]:
    """Outputs and loss, the diffs of inputs and parameters, of several passes."""
    found: list[np.ndarray] = []
    for seed in range(passes):
        random = np.random.default_rng(seed)
        outputs = net.forward()
        found += [array.copy() for array in outputs.values()] + [np.array(net.loss)]
        if net.phase == pb.TRAIN:
            net.clear_param_diffs()
            diffs = net.backward(**{name: random.normal(size=outputs[name].shape) for name in outputs})
            found += [array.copy() for array in diffs.values()]
            found += [param.blob.diff.copy() for param in net.learnable if param.lr_mult]
    return found


def assert_same_results(text: str, **settings: Any) -> None:
    """A lean net, even one that is poisoned, computes what one that keeps everything does, bit by bit."""
    lean = build(text, lean=True, **settings)
    assert_apart(lean)
    expected = results(build(text, **settings))
    for found in (results(lean), results(poisoned(build(text, lean=True, **settings)))):
        for mine, theirs in zip(found, expected, strict=True):
            np.testing.assert_array_equal(mine, theirs)
