"""How Numba compiles the kernels, and where it keeps them: decorators, one for each set of options.

    kernel              the most freedom: sums in another order, fused and approximate arithmetic
    sums_kernel         sums in another order and fused multiply-adds, nothing else
    inlined_sums_kernel the same, put into the kernels that call it before they are compiled
    exact_kernel        as it is written
    c_function          a function of int64 arguments, called by its address

NaN and infinity keep their meaning in all of them, so that a diverged run shows. Modules whose kernels are kept import
this one, so that Numba looks for them in the folder of ``sslnet.kernel_cache``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

from numba import cfunc, config, njit, types
from numba.core.caching import CacheImpl, _CacheLocator

from sslnet import kernel_cache

COMMON: dict[str, Any] = {"nogil": True, "cache": True, "error_model": "numpy"}
SUMS = {"reassoc", "contract"}

kernel = njit(**COMMON, fastmath={*SUMS, "nsz", "arcp", "afn"})
sums_kernel = njit(**COMMON, fastmath=SUMS)
inlined_sums_kernel = njit(**COMMON, fastmath=SUMS, inline="always")
exact_kernel = njit(**COMMON)


_made: list[Any] = []


def c_function(function: Callable[..., None]) -> int:
    """The address of what a function of int64 arguments compiles to."""
    made = cfunc(types.void(*[types.int64] * function.__code__.co_argcount), cache=True)(function)
    _made.append(made)  # the address is good for as long as the object lives
    assert made.address is not None  # compiled when it was decorated
    return made.address


@cache
def kernel_folder() -> Path:
    """Where this process finds compiled kernels, and puts them."""
    options: Any = config
    return kernel_cache.open_folder(options.CACHE_DIR)


@cache
def _content_digest(path: Path) -> str:
    return blake2b(path.read_bytes(), digest_size=8).hexdigest()


class KernelLocator(_CacheLocator):
    """Where Numba keeps what it compiles of this package: a folder whose name stands for the sources of all kernels."""

    def __init__(self, function: Callable[..., Any], inside: Path) -> None:
        self._py_file = str(inside)
        """Numba names it in warnings."""
        code, cells = function.__code__, function.__closure__ or ()
        constants = repr([cell.cell_contents for cell in cells if isinstance(cell.cell_contents, int)])
        self._name = f"{code.co_firstlineno}-{blake2b(constants.encode(), digest_size=6).hexdigest()}"
        self._folder = kernel_folder() / inside.parent
        self._stamp = _content_digest(kernel_cache.PACKAGE / inside)

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> KernelLocator | None:
        """None for functions of others: they are kept where Numba would keep them."""
        path = Path(py_file)
        return cls(py_func, path.relative_to(kernel_cache.PACKAGE)) if kernel_cache.PACKAGE in path.parents else None

    def get_cache_path(self) -> str:
        return str(self._folder)

    def get_source_stamp(self) -> str:
        """Differs from that of the folder only where a file was changed while the process that began it ran."""
        return self._stamp

    def get_disambiguator(self) -> str:
        """One index for each function and its compile-time numbers: Numba does not guard an index against two writers, so
        that processes which compile different tiles at the same time would get each other's."""
        return self._name


CacheImpl._locator_classes.insert(0, KernelLocator)
