"""Samples of the lowered matrix: the values that a convolution reads at some of its output positions.

Used by fits over many images, for which the whole lowered matrix would be far too large.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from math import prod

import numpy as np

from sslnet.kernels.runtime.jit import kernel, spread


def tap_table(
    size: Sequence[int],
    out: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    pad: Sequence[int],
    dilation: Sequence[int],
    *,
    transposed: bool = False,
) -> np.ndarray:
    """Flat index of the input pixel that each output position reads at each kernel position, -1 outside the image.

    size, out   extents of input and output, one per spatial axis, as the other sizes
    transposed  for a deconvolution: the pixel from which the kernel position adds to the output position, -1 for none

    returns  (output positions, kernel positions) int32
    """
    columns = []
    for taps in itertools.product(*(range(n) for n in kernel_size)):
        flat, inside = np.zeros(out, np.int64), np.ones(out, np.bool_)
        for axis, tap in enumerate(taps):
            place = np.arange(out[axis])
            if transposed:
                place = place + pad[axis] - tap * dilation[axis]
                there = place % stride[axis] == 0
                place = place // stride[axis]
            else:
                place = place * stride[axis] - pad[axis] + tap * dilation[axis]
                there = np.ones(len(place), np.bool_)
            there &= (place >= 0) & (place < size[axis])
            shape = [-1 if a == axis else 1 for a in range(len(out))]
            flat = flat * size[axis] + place.reshape(shape)
            inside &= there.reshape(shape)
        columns.append(np.where(inside, flat, -1).reshape(-1))
    return np.stack(columns, axis=1).astype(np.int32)


def sample_columns(x: np.ndarray, table: np.ndarray, places: np.ndarray, groups: int = 1) -> np.ndarray:
    """The lowered values at some output positions of each image.

    x       (images, channels, ...)  float32 or float64, C-contiguous
    table   (output positions, taps)  as ``tap_table`` gives
    places  (images, positions)  output positions, int32

    returns  (groups, images * positions, channels / groups * taps), zero outside the image
    """
    images, channels = x.shape[:2]
    flat = x.reshape(images, groups, channels // groups, prod(x.shape[2:]))
    result = np.empty((groups, images, places.shape[1], channels // groups, table.shape[1]), x.dtype)
    spread(_sample, images, result[:, :1].size, flat, table, places, result)
    return result.reshape(groups, images * places.shape[1], -1)


@kernel
def _sample(i0, i1, thread, x, table, places, out):
    """out[g, n, p, c, t] = x[n, g, c, table[places[n, p], t]], for the images [i0, i1)."""
    for n in range(i0, i1):
        for g in range(x.shape[1]):
            for p in range(places.shape[1]):
                row = table[places[n, p]]
                to = out[g, n, p]
                for c in range(x.shape[2]):
                    source, target = x[n, g, c], to[c]
                    for t in range(row.size):
                        target[t] = source[row[t]] if row[t] >= 0 else 0
