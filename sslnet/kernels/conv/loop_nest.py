"""What the plans of convolutions ask of a loop nest (macro-kernel), and what loop nests have in common.

A loop nest gets arrays that have been checked, lays out what it reads (packing), and calls micro-kernels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import prod

import numpy as np

from sslnet.kernels.conv.packing import add_bias_sums, address, threads_for
from sslnet.kernels.runtime.memory import scratch
from sslnet.kernels.runtime.threads import parallel


class PackedLoop(ABC):
    """The forward pass, or the gradient of the input, with weights that are packed first.

    kernel          the loop nest and its tile, for reports
    units           pieces of work, which the threads share out
    multiply_adds   of one run over the batch
    """

    kernel: str
    units: int
    multiply_adds: int

    @abstractmethod
    def pack(self, weights: np.ndarray, bias: np.ndarray | None) -> None:
        """Copies the weights of the forward pass, and the bias of the outputs, into the order in which they are read."""

    @abstractmethod
    def _part(self, u0: int, u1: int, thread: int, source: int, target: int) -> None:
        """Units u0 .. u1 from the array at the address ``source`` to the one at ``target``."""

    def run_at(self, source: int, target: int) -> None:
        """The whole batch, with the weights last packed.  [overwrites the target]"""
        parallel(self._part, self.units, source, target, most=threads_for(self.multiply_adds))


class WeightGradLoop(ABC):
    """The gradient of the weights and the bias.

    kernel   the loop nest and its tile, for reports
    """

    kernel: str

    @abstractmethod
    def run(self, x: np.ndarray, dy: np.ndarray, dw: np.ndarray, db: np.ndarray | None, accumulate: bool) -> None:
        """The gradients of the whole batch.  [accumulates into dw and db; overwrites them if not accumulate]"""


class SummedGradLoop(WeightGradLoop):
    """Threads sum into buffers of their own, which are added to the gradients in the order of the threads.

    multiply_adds   of one run over the batch
    sums_size       floats that the sums of all weights take
    bias_shape      (groups, filters of a group and those that fill up)
    group_filters   filters of a group
    """

    multiply_adds: int
    sums_size: int
    bias_shape: tuple[int, int]
    group_filters: int

    @abstractmethod
    def _parts(self, threads: int) -> int:
        """How many sums of all weights there are."""

    @abstractmethod
    def _sum(self, threads: int, x: int, dy: int, sums: np.ndarray, bias_sums: np.ndarray) -> None:
        """Sums over the batch.  [overwrites sums (parts, sums_size); accumulates into bias_sums (threads, *bias_shape)]"""

    @abstractmethod
    def _put(self, threads: int, sums: np.ndarray, dw: np.ndarray, accumulate: bool) -> None:
        """The sums of all parts, in their order, to dw.  [accumulates into dw; overwrites it if not accumulate]"""

    def run(self, x: np.ndarray, dy: np.ndarray, dw: np.ndarray, db: np.ndarray | None, accumulate: bool) -> None:
        threads = threads_for(self.multiply_adds)
        parts = self._parts(threads)
        sums = scratch("conv weight sums", parts * self.sums_size).reshape(parts, self.sums_size)
        bias_sums = scratch("conv bias sums", threads * prod(self.bias_shape)).reshape(threads, *self.bias_shape)
        bias_sums[:] = 0
        self._sum(threads, address(x), address(dy), sums, bias_sums)
        self._put(threads, sums, dw, accumulate)
        if db is not None:
            add_bias_sums(bias_sums, self.group_filters, db, not accumulate)
