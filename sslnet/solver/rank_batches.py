"""RankBatches: a solver's nets run by several ranks, each on its parts of every batch (data parallel).

    whole batch   parts (virtual ranks) of batch_size records each; rank r of R computes parts r P/R .. (r + 1) P/R - 1,
                  one after the other
    gradients     those of the mean loss of the whole batch: each loss weight is divided by the number of parts, then all
                  is added by one binary tree, within the rank and between the ranks (``sslnet.kernels.optim.tree_sum``)
    update        every rank makes it from the same sums, and so has the same weights
    tests         batch k runs on rank k mod R; outputs are summed in the order of the batches
    statistics    of BatchNorm: each part keeps its own; their mean is taken where they are read

What is random depends on the place in the whole batch only, and all sums have one order: the run has the same bits on any
number of ranks that divides a power of two of parts.

Ref: Caffe's P2PSync (the update follows the sum of the ranks); Rabenseifner 2004 (the order of the sum)
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np

from sslnet.errors import RunError
from sslnet.kernels.optim.tree_sum import add_to, tree_sum
from sslnet.kernels.runtime.memory import aligned_zeros
from sslnet.ranks.group import Group, MpiGroup
from sslnet.ranks.place import BatchPlace
from sslnet.ranks.sums import GradientSum, gradient_sum
from sslnet.solver.batches import Batches, Trained
from sslnet.solver.callbacks import Outputs, Test, outputs_of
from sslnet.solver.gradient_layout import GradientLayout
from sslnet.solver.not_finite import not_finite
from sslnet.solver.part_statistics import PartStatistics
from sslnet.solver.rank_checks import check_data, check_divisible, place_of_tests, weights_digest
from sslnet.solver.rehearsal import rehearse

T = TypeVar("T")

ACTIONS = (None, "snapshot", "stop")
COMPILING = 3600.0
"""Longest wait for the compilation of kernels, in seconds."""
PATIENCE = 2.0
"""Seconds that ranks wait which cannot say as much of an error as another one, which then ends them."""


class TotalOverRanks:
    """Sums of small arrays over the ranks of a group, for layers."""

    def __init__(self, group: Group) -> None:
        self.group = group

    def total(self, values: np.ndarray) -> np.ndarray:
        return tree_sum(self.group.gather(values))


class RankBatches(Batches):
    """Runs the nets of a solver on a group of ranks.

    group   the ranks;  parts: number of parts of the whole batch, a multiple of their number
    """

    def __init__(self, solver: Trained, group: Group, parts: int) -> None:
        super().__init__(solver)
        self.group, self.parts = group, parts
        self.leads = group.rank == 0
        own = parts // group.size
        self.place = BatchPlace(group.rank * own, own, parts, repeats=solver.param.iter_size, numbered=True)
        if own == 1 and group.size > 1:
            self.place.exchange = TotalOverRanks(group)
            self.place.sync = bool(solver.param.sync_batch_norm)
        self._wish: str | None = None
        """What was asked of this rank; it becomes a request when all ranks know of it."""
        self._outputs: list[list[float]] = []
        self._iterations = 0

    def settings(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"place": self.place}, {"place": place_of_tests(self.group)}

    def prepare(self) -> None:
        solver, net = self.solver, self.solver.net
        check_divisible(solver, self.place, self.group.size)
        self.layout = GradientLayout(net)
        self.sum: GradientSum = gradient_sum(
            self.group, self.layout.count, net.dtype, overlap=len(self.layout.buckets) > 1
        )
        self.layout.attach(self.sum.array)
        levels = max(0, self.place.parts.bit_length() - 1)
        self._waiting = [aligned_zeros(self.layout.count, net.dtype) for _ in range(levels)]
        """Sums of 1, 2, 4, ... parts that wait for their neighbours' (a binary counter)."""
        self._drawing = [layer for layer in net.layers if layer.draws_of_pass()]
        self.statistics = PartStatistics(net, self.group, self.place.parts)

    def begin(self) -> None:
        check_data(self.solver, self.group)
        self.check_equal()
        self._compile_kernels()

    def _compile_kernels(self) -> None:
        """Lets one rank of each machine compile the kernels of the nets; the others then find them in the cache."""
        group = self.group
        if not isinstance(group, MpiGroup) or group.node.size == 1:
            return
        if group.node.rank == 0:
            rehearse(self.solver, self.place)
        group.node_barrier(COMPILING)

    def ask(self, action: str) -> None:
        self._wish = action

    def agree(self, make: Callable[[], T]) -> T:
        return self.group.first(make)

    # -- gradients -----------------------------------------------------------------------------------------------------

    def gradients(self) -> float:
        self.solver.net.clear_param_diffs()
        losses = self._run_parts(self.place.repeats, self.solver.data_errors.forward)
        loss = self._finish(losses)
        if not math.isfinite(loss):
            if all(map(math.isfinite, losses)):
                time.sleep(PATIENCE)  # a rank with the part that is not finite knows more
            self.solver.net.loss = loss
            raise not_finite(self.solver, self.solver.last_snapshot)
        return loss

    def sum_gradients(self, batches: int) -> None:
        net, repeats = self.solver.net, self.place.repeats
        net.clear_param_diffs()
        self.place.repeats = batches
        net.set_layer_states(net.layer_states())  # data that were read ahead are in another order
        try:
            self._run_parts(batches, lambda net: net.forward())
        finally:
            self.place.repeats = repeats
        self.sum.finish()

    def _run_parts(self, repeats: int, forward: Callable[[Any], object]) -> list[float]:
        """Runs the parts of this rank forward and backward, and starts the sum over the ranks; returns their losses."""
        net, parts = self.solver.net, self.place.parts
        losses, self._outputs = [], []
        draws = [layer.draws for layer in self._drawing]
        hook = net.after_step
        try:
            for part in range(parts):
                self._set_part(part, draws)
                for repeat in range(repeats):
                    forward(net)
                    losses.append(net.loss)
                    if part == parts - 1 and repeat == repeats - 1:
                        net.after_backward(self._after_step)
                    net.backward()
                self._outputs.append([value for _, value, _ in outputs_of(net)])
                if part < parts - 1:
                    self._keep(part)
            self.statistics.put(parts - 1)
        finally:
            net.after_step, self.place.now = hook, 0
        return losses

    def _set_part(self, part: int, draws: list[int]) -> None:
        """Makes the next forward passes those of a part."""
        if part:
            self.statistics.put(part - 1)
            for layer, count in zip(self._drawing, draws):  # all parts draw the same numbers, at their own places
                layer.draws = count
        self.place.now = part
        self.statistics.take(part)

    def _keep(self, part: int) -> None:
        """Adds the gradient of a part to those that wait for it, keeps the sum, and clears the gradient."""
        array = self.sum.array
        level = self._carry(part, 0, array.size)
        self._waiting[level][:] = array
        array[:] = 0

    def _carry(self, part: int, first: int, last: int) -> int:
        """Adds the sums that wait for the part to a range of its gradient; returns their number."""
        level = 0
        while part >> level & 1:
            add_to(self._waiting[level][first:last], self.sum.array[first:last])
            level += 1
        return level

    def _after_step(self, layer: int) -> None:
        """Starts the sums of the buckets that the backward step of a layer has completed."""
        for bucket in self.layout.ready.get(layer, ()):
            first, last = self.layout.buckets[bucket]
            self._carry(self.place.parts - 1, first, last)
            self.sum.start(first, last)

    def _finish(self, losses: list[float]) -> float:
        """Waits for the sums; returns the mean loss of the whole batch, and takes up what any rank was asked."""
        everyone = self._gather_wishes(losses)
        self.sum.finish()
        self._iterations += 1
        means = tree_sum(everyone.reshape(self.parts, -1)) / self.parts
        return float(sum(means.tolist()) / len(means))

    def _gather_wishes(self, values: list[float]) -> np.ndarray:
        """The values of all ranks, (ranks, values); the strongest wish of any rank becomes the request."""
        wish = self._wish
        found = self.group.gather(np.array([ACTIONS.index(wish), *values], np.float64))
        strongest = ACTIONS[int(found[:, 0].max())]
        if strongest is not None:
            self.request = strongest
        if self._wish == wish:  # a signal may have come meanwhile: its wish is for the next time
            self._wish = None
        return found[:, 1:]

    # -- outputs -------------------------------------------------------------------------------------------------------

    def loss(self) -> float:
        net = self.solver.net
        losses, self._outputs = [], []
        draws = [layer.draws for layer in self._drawing]
        for part in range(self.place.parts):
            self._set_part(part, draws)
            for _ in range(self.place.repeats):
                self.solver.data_errors.forward(net)
                losses.append(net.loss)
            self._outputs.append([value for _, value, _ in outputs_of(net)])
        self.statistics.put(self.place.parts - 1)
        self.place.now = 0
        everyone = self.group.gather(np.array(losses))
        means = tree_sum(everyone.reshape(self.parts, -1)) / self.parts
        return float(sum(means.tolist()) / len(means))

    def outputs(self) -> Outputs:
        everyone = self.group.gather(np.array(self._outputs, np.float64))
        means = tree_sum(everyone.reshape(self.parts, -1)) / self.parts
        return [(name, value, weight) for (name, _, weight), value in zip(outputs_of(self.solver.net), means.tolist())]

    def test(self, index: int, before: dict[str, bytes]) -> Test | None:
        solver, group = self.solver, self.group
        net, batches = solver.test_nets[index], solver.param.test_iter[index]
        started, rows = time.perf_counter(), []
        draws = [(layer, layer.draws, each) for layer in net.layers if (each := layer.draws_of_pass())]
        with self.averaged():
            for first in range(0, batches, group.size):
                self._gather_wishes([])
                if self.request == "stop":
                    net.set_layer_states(before)
                    return None
                batch = first + group.rank
                if batch >= batches:
                    break
                for layer, begin, each in draws:
                    layer.draws = begin + batch * each
                solver.data_errors.forward(net)
                rows.append([net.loss, *(value for _, value, _ in outputs_of(net))])
        found = group.exchange(rows)
        if batches % group.size or draws:
            behind = {layer.name: layer.state_behind(before.get(layer.name, b""), batches) for layer in net.layers}
            net.set_layer_states({name: state for name, state in behind.items() if state})
        ordered = [found[batch % group.size][batch // group.size] for batch in range(batches)]
        loss, *sums = ordered[0]
        for other, *values in ordered[1:]:
            loss, sums = loss + other, [a + b for a, b in zip(sums, values)]
        means = [(name, total / batches, weight) for (name, _, weight), total in zip(outputs_of(net), sums)]
        return self._record(index, means, loss / batches, started)

    # -- statistics, snapshots -----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        with self.statistics.averaged():
            yield

    def settle_statistics(self) -> None:
        self.statistics.settle()

    def state(self) -> dict[str, np.ndarray]:
        found = {"ranks": np.array([self.parts], np.float64)}
        everyone = self.statistics.everyone
        return found if everyone is None else found | {"statistics": everyone}

    def set_state(self, arrays: dict[str, np.ndarray]) -> None:
        self.statistics.restore(arrays.get("statistics"))

    def check_equal(self) -> None:
        digests = self.group.gather(weights_digest(self.solver))
        for rank in range(1, self.group.size):
            if (digests[rank] != digests[0]).any():
                raise RunError(
                    f"iteration {self.solver.iter}: rank {rank} has other weights than rank 0",
                    hint="files differ between the machines, or their processors round differently: "
                    "NUMBA_CPU_NAME and NUMBA_CPU_FEATURES make all of them compute as the oldest one",
                )

    def notes(self) -> list[str]:
        net, group = self.solver.net, self.group
        sizes = {
            int(tops[0].shape[0]) for layer, tops in zip(net.layers, net.tops) if layer.IS_SOURCE and tops[0].shape
        }
        batch = f", whole batch {self.parts * min(sizes)}" if len(sizes) == 1 else ""
        each = self.place.parts
        how = f"{group.size} rank{'s' if group.size > 1 else ''}"
        nodes = getattr(group, "nodes", 1)
        if nodes > 1:
            how += f" on {nodes} machines"
        virtual = f", {each} virtual ranks each" if each > 1 else ""
        return [f"{how}{virtual}{batch}"]

    def results(self) -> list[str]:
        if self.group.size == 1 or not self._iterations:
            return []
        waited = 1e3 * self.sum.waited / self._iterations
        line = f"exchange of gradients: waited {waited:.3g} ms an iteration"
        if self.sum.sent:
            line += f", sent {self.sum.sent / self._iterations / 1e6:.3g} MB an iteration to other machines"
        return [line]

    def close(self) -> None:
        for param, _, _ in self.layout.places:
            param.blob.adopt_diff(np.array(param.blob.diff))
        self.sum.close()
