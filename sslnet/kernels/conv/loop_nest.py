"""The interface between the plans of convolutions and the loop nests (macro-kernels), with the code that these share.

A loop nest gets arrays that have been checked, packs the data it reads, and calls micro-kernels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import prod
from typing import Any

import numpy as np

from sslnet.kernels.conv.packing import add_bias_sums, address, threads_for
from sslnet.kernels.runtime.memory import scratch
from sslnet.kernels.runtime.threads import region


class PackedLoop(ABC):
    """A loop nest of the forward pass or of the gradient of the input, with weights that are packed first.

    kernel          the loop nest and its tile, for reports
    units           number of work units that the threads share out
    multiply_adds   multiply-adds of one run over the batch
    """

    kernel: str
    units: int
    multiply_adds: int
    version: int = 0
    """Another number whenever ``pack`` has made other arrays or numbers than those of the last run, so that a tape of
    it is outdated."""

    @abstractmethod
    def pack(self, weights: np.ndarray, bias: np.ndarray | None) -> None:
        """Copies the weights of the forward pass, and the bias of the outputs, into the order in which they are read."""

    @abstractmethod
    def _call(self) -> tuple[Any, ...]:
        """The kernel and its arguments behind the units u0 and u1: without the last two, the addresses of source and
        target."""

    def run_at(self, source: int, target: int) -> None:
        """Computes the whole batch with the weights last packed.  [overwrites the target]"""
        kernel, *args = self._call()
        most = threads_for(self.multiply_adds)
        region(kernel, self.units, self.multiply_adds, *args, source, target, most=most)


class WeightGradLoop(ABC):
    """A loop nest of the gradient of the weights and the bias.

    kernel   the loop nest and its tile, for reports
    """

    kernel: str

    @abstractmethod
    def run(self, x: np.ndarray, dy: np.ndarray, dw: np.ndarray, db: np.ndarray | None, accumulate: bool) -> None:
        """Computes the gradients of the batch.  [accumulates into dw and db; overwrites them if not accumulate]"""


class SummedGradLoop(WeightGradLoop):
    """A loop nest whose threads sum into buffers of their own, which are added to the gradients in the order of the
    threads.

    multiply_adds   multiply-adds of one run over the batch
    sums_size       floats of the sums of all weights
    bias_shape      (groups, filters of a group with padding)
    group_filters   filters of a group
    """

    multiply_adds: int
    sums_size: int
    bias_shape: tuple[int, int]
    group_filters: int

    @abstractmethod
    def _parts(self, threads: int) -> int:
        """The number of partial sums, each over all weights."""

    @abstractmethod
    def _sum(self, threads: int, x: int, dy: int, sums: np.ndarray, bias_sums: np.ndarray) -> None:
        """Computes the partial sums over the batch.

        [overwrites sums (parts, sums_size); accumulates into bias_sums (threads, *bias_shape)]
        """

    @abstractmethod
    def _put(self, threads: int, sums: np.ndarray, dw: np.ndarray, accumulate: bool) -> None:
        """Adds up all partial sums, in order, to dw.  [accumulates into dw; overwrites it if not accumulate]"""

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
