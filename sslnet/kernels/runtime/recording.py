"""Which tape the calling thread appends regions to, instead of running them: see ``tape``."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sslnet.kernels.runtime.memory import scratch

if TYPE_CHECKING:
    from collections.abc import Callable


class CannotAppend(Exception):
    """Code that is to be appended to a tape runs something that only Python can run."""


class Scratch(NamedTuple):
    """An argument of a region: scratch memory of the thread that runs a part, of ``size`` elements.

    as_address  the address, as an int, instead of the array
    zeroed      set to zero before each part
    """

    slot: str
    size: int
    dtype: Any = np.float32
    as_address: bool = True
    zeroed: bool = False

    @property
    def nbytes(self) -> int:
        return int(self.size * np.dtype(self.dtype).itemsize)

    def find(self) -> np.ndarray | int:
        """The scratch memory of the calling thread."""
        array = scratch(self.slot, self.size, self.dtype)
        if self.zeroed:
            array[:] = 0
        return int(array.__array_interface__["data"][0]) if self.as_address else array

    def example(self) -> np.ndarray | int:
        """An argument of the same type and shape."""
        return 0 if self.as_address else np.empty(self.size, self.dtype)


class Recorder:
    """What regions are appended to."""

    def append(
        self,
        fn: Callable[..., object],
        n: int,
        args: tuple[Any, ...],
        parts: int,
        work: float,
        *,
        align: int = 1,
        numbered: bool = True,
    ) -> None:
        """Appends fn(i0, i1, part, *args) over parts of range(n).

        parts, align  the number of parts; all but the last end at a multiple of ``align``
        work          an estimate of the time, in multiply-adds
        numbered      whether fn has the argument ``part``
        """
        raise NotImplementedError


class _Current(threading.local):
    recorder: Recorder | None = None


_current = _Current()


def recorder() -> Recorder | None:
    """What the calling thread appends regions to; None: it runs them."""
    return _current.recorder


@contextmanager
def appending(to: Recorder) -> Iterator[None]:
    """Context manager in which the calling thread appends regions instead of running them."""
    before = _current.recorder
    _current.recorder = to
    try:
        yield
    finally:
        _current.recorder = before
