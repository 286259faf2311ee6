"""The decorators with which Numba compiles the kernels, one for each set of options, and the cache of compiled kernels.

    kernel              the most freedom: reordered sums, fused and approximate arithmetic
    sums_kernel         only reordered sums and fused multiply-adds
    inlined_sums_kernel as sums_kernel, inlined into the kernels that call it before these are compiled
    exact_kernel        arithmetic exactly as written
    c_function          a function of int64 arguments, called by its address

NaN and infinity keep their meaning in all of them, so that divergence of a run is visible. Modules with cached kernels
import this one, so that Numba looks for the kernels in the folder of ``sslnet.kernel_cache``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

from numba import cfunc, config, njit, types
from numba.core.caching import CacheImpl, _CacheLocator

from sslnet import kernel_cache

COMMON: dict[str, Any] = {"nogil": True, "cache": True, "error_model": "numpy"}
SUMS = {"reassoc", "contract"}

Compiled = TypeVar("Compiled", bound=Callable[..., Any])
"""A compiled function has the parameters and the result of its source, for a type checker."""

kernel: Callable[[Compiled], Compiled] = njit(**COMMON, fastmath={*SUMS, "nsz", "arcp", "afn"})
sums_kernel: Callable[[Compiled], Compiled] = njit(**COMMON, fastmath=SUMS)
inlined_sums_kernel: Callable[[Compiled], Compiled] = njit(**COMMON, fastmath=SUMS, inline="always")
exact_kernel: Callable[[Compiled], Compiled] = njit(**COMMON)

_made: list[Any] = []


def c_function(function: Callable[..., None]) -> int:
    """Compiles a function of int64 arguments; returns the address of the compiled function."""
    return _address(types.void(*[types.int64] * function.__code__.co_argcount), function)


def status_function(function: Callable[..., int]) -> int:
    """The same of a function that returns an int64."""
    return _address(types.int64(*[types.int64] * function.__code__.co_argcount), function)


def _address(signature: Any, function: Callable[..., Any]) -> int:
    made = cfunc(signature, cache=True)(function)
    _made.append(made)  # the address is valid as long as the object exists
    assert made.address is not None  # compiled when it was decorated
    address: int = made.address
    return address


@cache
def kernel_folder() -> Path:
    """The folder in which this process finds and stores compiled kernels."""
    options: Any = config
    return kernel_cache.open_folder(options.CACHE_DIR)


@cache
def _content_digest(path: Path) -> str:
    return blake2b(path.read_bytes(), digest_size=8).hexdigest()


class KernelLocator(_CacheLocator):
    """Numba's cache location for kernels of this package: a folder named by a digest of the sources of all kernels."""

    def __init__(self, function: Callable[..., Any], inside: Path) -> None:
        self._py_file = str(inside)
        """The file that Numba names in warnings."""
        code, cells = function.__code__, function.__closure__ or ()
        constants = repr([cell.cell_contents for cell in cells if isinstance(cell.cell_contents, (int, str))])
        self._name = f"{code.co_firstlineno}-{blake2b(constants.encode(), digest_size=6).hexdigest()}"
        self._folder = kernel_folder() / inside.parent
        self._stamp = _content_digest(kernel_cache.PACKAGE / inside)

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> KernelLocator | None:
        """The locator of a function of this package; None for other functions, which Numba stores in its default
        place."""
        path = Path(py_file)
        return cls(py_func, path.relative_to(kernel_cache.PACKAGE)) if kernel_cache.PACKAGE in path.parents else None

    def get_cache_path(self) -> str:
        return str(self._folder)

    def get_source_stamp(self) -> str:
        """The digest of the source file; it guards against a file that changes while the process runs."""
        return self._stamp

    def get_disambiguator(self) -> str:
        """The name of the cache index: one for each function and its compile-time numbers.

        Numba does not lock an index, so processes that compile different tiles at the same time must not share one.
        """
        return self._name


CacheImpl._locator_classes.insert(0, KernelLocator)
