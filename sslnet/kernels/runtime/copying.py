"""Copies of the rows of matrices, on all threads; a tape can take them."""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from sslnet.kernels.runtime.compiler import exact_kernel
from sslnet.kernels.runtime.jit import spread
from sslnet.kernels.runtime.recording import recorder


def copy_matrix(source: np.ndarray, target: np.ndarray) -> None:
    """target = source, both (rows, columns) of one type.  [overwrites target]"""
    if recorder() is None or not (_has_whole_rows(source) and _has_whole_rows(target)):
        spread(copy_rows, *target.shape, source, target)
        return
    # The same for a tape, with one list of arguments for all types.
    places = [number for a in (source, target) for number in (a.__array_interface__["data"][0], a.strides[0])]
    spread(_copy_bytes, *target.shape, *places, target.shape[1] * target.itemsize)


def copy_rows(i0: int, i1: int, thread: int, source: np.ndarray, target: np.ndarray) -> None:
    """target = source for the rows i0 .. i1, arrays of any number of axes.  [overwrites target]"""
    target[i0:i1] = source[i0:i1]


def _has_whole_rows(matrix: np.ndarray) -> bool:
    return matrix.ndim == 2 and matrix.strides[1] == matrix.itemsize and matrix.dtype == np.float32


@intrinsic
def _copy(typingctx, target, source, nbytes):
    """Copies bytes between addresses."""

    def codegen(context, builder, signature, args):
        pointer = ir.IntType(8).as_pointer()
        places = [builder.inttoptr(address, pointer) for address in args[:2]]
        cgutils.raw_memmove(builder, *places, args[2], 1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@exact_kernel
def _copy_bytes(i0, i1, thread, source, source_step, target, target_step, nbytes):
    """Copies the rows i0 .. i1 of nbytes bytes, which are ``step`` bytes apart."""
    for i in range(i0, i1):
        _copy(target + i * target_step, source + i * source_step, nbytes)
