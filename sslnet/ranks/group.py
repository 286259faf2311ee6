"""Group: the processes that compute together, and the exchange of values between them.

    find_group()   the group of this process: ``MpiGroup`` under a launcher, else None; mpi4py is imported only then
    Alone          a group of one process, for virtual ranks without a launcher

No wait is endless: MPI itself waits forever for a process that has stopped or a network that is cut. Every exchange is
polled, and raises RunError after SSLNET_RANK_TIMEOUT seconds. Between polls a waiting process spins for a moment, then
sleeps, so that it leaves its core to others.
"""

from __future__ import annotations

import os
import pickle
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from sslnet.errors import RunError, UsageError
from sslnet.ranks.launcher import launched_size

T = TypeVar("T")

TIMEOUT_VARIABLE = "SSLNET_RANK_TIMEOUT"
TIMEOUT = 600.0
"""Default of the longest wait for other ranks, in seconds."""
SPINS = 300
"""Number of polls before a waiting process sleeps between them."""
SLEEPS = (20e-6, 500e-6)
"""The first and the longest sleep between two polls, in seconds."""


def find_group() -> Group | None:
    """The processes that a launcher has started together with this one; None without a launcher.

    raises UsageError if mpi4py or its MPI library is missing
    """
    return MpiGroup() if launched_size() > 1 else None


def timeout() -> float:
    """The longest wait for other ranks, in seconds. raises UsageError if the variable is not a positive number"""
    text = os.environ.get(TIMEOUT_VARIABLE, "").strip()
    if not text:
        return TIMEOUT
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e9:
        raise UsageError(f'{TIMEOUT_VARIABLE} must be a number of seconds above 0, not "{text}"')
    return seconds


def poll(done: Callable[[], Any], seconds: float, what: str = "the other ranks have not answered") -> None:
    """Waits until ``done`` returns a true value. raises RunError after this many seconds"""
    for _ in range(SPINS):
        if done():
            return
    began, pause = time.monotonic(), SLEEPS[0]
    while not done():
        if time.monotonic() - began > seconds:
            hint = f"has one ended, or a network been cut? {TIMEOUT_VARIABLE} sets the longest wait"
            raise RunError(f"{what} for {seconds:g} s", hint=hint)
        time.sleep(pause)
        pause = min(pause * 1.2, SLEEPS[1])


class Group(ABC):
    """Processes, numbered from 0 (their ranks).

    rank, size    number of this process, and of all
    """

    rank: int
    size: int

    @abstractmethod
    def gather(self, values: np.ndarray) -> np.ndarray:
        """The arrays of all ranks, of one shape and dtype: (size, *shape)."""

    @abstractmethod
    def exchange(self, value: T) -> list[T]:
        """The values of all ranks, in their order; they must be picklable."""

    @abstractmethod
    def abort(self, code: int) -> None:
        """Ends all processes at once, with this exit code."""

    def first(self, make: Callable[[], T]) -> T:
        """The value that rank 0 makes, on all ranks."""
        found: T = self.exchange(make() if self.rank == 0 else None)[0]  # type: ignore[assignment]
        return found

    def barrier(self) -> None:
        """Waits until all ranks have come here."""
        self.gather(np.zeros(1))


class Alone(Group):
    """A group of one process."""

    rank, size = 0, 1

    def gather(self, values: np.ndarray) -> np.ndarray:
        return np.array(values)[None]

    def exchange(self, value: T) -> list[T]:
        return [value]

    def abort(self, code: int) -> None:
        raise SystemExit(code)


class MpiGroup(Group):
    """The processes of an MPI launcher, or those of them that a communicator holds.

    node            its processes on this machine, as an MPI communicator
    ranks_on_nodes  for each rank, the number of its machine, counted from 0 in the order of the ranks
    threads         whether several threads may exchange at a time
    """

    def __init__(self, communicator: Any = None) -> None:
        try:
            from mpi4py import MPI
        except (ImportError, RuntimeError) as error:
            hint = 'pip install "sslnet[mpi]", and an MPI library: your cluster\'s own, or pip install mpich'
            raise UsageError(f"a launcher has started {launched_size()} processes: {error}", hint=hint) from error
        self.mpi: Any = MPI
        world = MPI.COMM_WORLD
        self.comm = (world if communicator is None else communicator).Dup()
        self.rank, self.size = int(self.comm.rank), int(self.comm.size)
        self.seconds = timeout()
        self.threads = MPI.Query_thread() == MPI.THREAD_MULTIPLE
        self.node: Any = self.comm.Split_type(MPI.COMM_TYPE_SHARED, key=self.rank)
        leader = np.array([self.rank])
        self.wait([self.node.Ibcast(leader)])
        leaders = self.gather(leader)[:, 0].tolist()
        order = {leader: number for number, leader in enumerate(sorted(set(leaders)))}
        self.ranks_on_nodes = [order[leader] for leader in leaders]

    @property
    def nodes(self) -> int:
        """Number of machines."""
        return max(self.ranks_on_nodes) + 1

    def node_barrier(self, seconds: float) -> None:
        """Waits until all ranks of this machine have come here. raises RunError after that many seconds, or the usual
        longest wait"""
        request = self.node.Ibarrier()
        poll(request.Test, max(seconds, self.seconds))

    def subgroup(self, color: int) -> MpiGroup:
        """The ranks that call with the same number, in their order."""
        return MpiGroup(self.comm.Split(color, self.rank))

    def wait(self, requests: Sequence[Any]) -> None:
        """Waits until all these exchanges are complete. raises RunError after the longest wait"""
        poll(lambda: self.mpi.Request.Testall(requests), self.seconds)

    def gather(self, values: np.ndarray) -> np.ndarray:
        values = np.ascontiguousarray(values)
        found = np.empty((self.size, *values.shape), values.dtype)
        kind = [values.view(np.uint8).reshape(-1), self.mpi.BYTE], [found.view(np.uint8).reshape(-1), self.mpi.BYTE]
        self.wait([self.comm.Iallgather(*kind)])
        return found

    def exchange(self, value: T) -> list[T]:
        text = np.frombuffer(pickle.dumps(value), np.uint8)
        sizes = self.gather(np.array([text.size]))[:, 0]
        found = np.empty(int(sizes.sum()), np.uint8)
        self.wait([self.comm.Iallgatherv([text, self.mpi.BYTE], [found, sizes.tolist(), None, self.mpi.BYTE])])
        ends = np.cumsum(sizes)
        return [pickle.loads(found[end - size : end].tobytes()) for size, end in zip(sizes, ends)]

    def abort(self, code: int) -> None:
        self.mpi.COMM_WORLD.Abort(code)
