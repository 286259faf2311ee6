"""Matrix products by NumPy's BLAS, on the threads of ``runtime.threads``, into existing arrays."""

from __future__ import annotations

import numpy as np

from sslnet.kernels.runtime.memory import scratch
from sslnet.kernels.runtime.threads import parallel

SMALL = 1 << 21
"""Multiply-adds below which one thread is faster than several."""
BLOCK_BYTES = 1 << 18
"""Bytes of a block of a product in add_product, which stays in the cache until it has been added."""


def multiply(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """out = a b.  [overwrites out]

    a (M, K), b (K, N)   any float type and order that BLAS takes (transposed views included)
    out (M, N)           the threads share out its longer side
    """
    rows, columns = out.shape
    if rows * columns * a.shape[1] < SMALL:
        np.matmul(a, b, out=out)
    elif rows >= columns:
        parallel(lambda i0, i1, _: np.matmul(a[i0:i1], b, out=out[i0:i1]), rows)
    else:
        parallel(lambda j0, j1, _: np.matmul(a, b[:, j0:j1], out=out[:, j0:j1]), columns)


def add_product(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """out += a b, in blocks of rows.  [accumulates into out]"""
    rows, columns = out.shape
    step = max(16, BLOCK_BYTES // max(1, columns * out.itemsize))

    def add(i0: int, i1: int, thread: int) -> None:
        block = scratch("product", min(step, i1 - i0) * columns, out.dtype)
        for i in range(i0, i1, step):
            end = min(i + step, i1)
            part = block[: (end - i) * columns].reshape(end - i, columns)
            np.matmul(a[i:end], b, out=part)
            out[i:end] += part

    if rows * columns * a.shape[1] < SMALL:
        add(0, rows, 0)
    else:
        parallel(add, rows)
