"""Element-wise sums, products and maxima of several arrays of one size; ranges are over their values.

The arrays are a tuple (at least one), so a kernel is compiled once for each number of arrays. All arrays are processed
block by block, so that a block stays in the cache, and each array is read or written once.
"""

from __future__ import annotations

from sslnet.kernels.runtime.jit import kernel

_BLOCK = 1024


@kernel
def weighted_sum(i0, i1, thread, xs, coeffs, y, relu):
    """y = sum of coeffs[k] xs[k], negative values replaced by 0 if relu.  [overwrites y]

    coeffs   (len(xs)), of the arrays' type
    """
    zero = y.dtype.type(0)
    for first in range(i0, i1, _BLOCK):
        end = min(first + _BLOCK, i1)
        a, out, factor = xs[0][first:end], y[first:end], coeffs[0]
        if len(xs) == 1:
            for i in range(out.size):
                out[i] = factor * a[i]
        elif len(xs) == 2 and relu:
            b, other = xs[1][first:end], coeffs[1]
            for i in range(out.size):
                value = factor * a[i] + other * b[i]
                out[i] = zero if value < zero else value
            continue
        else:
            b, other = xs[1][first:end], coeffs[1]
            for i in range(out.size):
                out[i] = factor * a[i] + other * b[i]
        for k in range(2, len(xs)):
            c, factor = xs[k][first:end], coeffs[k]
            for i in range(out.size):
                out[i] += factor * c[i]
        if relu:
            for i in range(out.size):
                out[i] = zero if out[i] < zero else out[i]


@kernel
def scaled_copies(i0, i1, thread, x, coeffs, ys):
    """ys[k] = coeffs[k] x.  [overwrites ys]"""
    for first in range(i0, i1, _BLOCK):
        end = min(first + _BLOCK, i1)
        a = x[first:end]
        for k in range(len(ys)):
            out, factor = ys[k][first:end], coeffs[k]
            for i in range(out.size):
                out[i] = factor * a[i]


@kernel
def product(i0, i1, thread, xs, y):
    """y = product of xs.  [overwrites y]"""
    for first in range(i0, i1, _BLOCK):
        end = min(first + _BLOCK, i1)
        a, b, out = xs[0][first:end], xs[1][first:end], y[first:end]
        for i in range(out.size):
            out[i] = a[i] * b[i]
        for k in range(2, len(xs)):
            c = xs[k][first:end]
            for i in range(out.size):
                out[i] *= c[i]


@kernel
def product_gradients(i0, i1, thread, xs, dy, numbers, dxs):
    """dxs[n] = dy times the product of all xs but xs[numbers[n]].  [overwrites dxs]"""
    for first in range(i0, i1, _BLOCK):
        end = min(first + _BLOCK, i1)
        above = dy[first:end]
        for n in range(len(dxs)):
            out = dxs[n][first:end]
            left_out = numbers[n]
            first_factor = 1 if left_out == 0 else 0
            a = xs[first_factor][first:end]
            for i in range(out.size):
                out[i] = a[i] * above[i]
            for k in range(first_factor + 1, len(xs)):
                if k != left_out:
                    c = xs[k][first:end]
                    for i in range(out.size):
                        out[i] *= c[i]


@kernel
def maximum(i0, i1, thread, xs, y, taken):
    """y = the largest of xs, taken = its number: on a tie the second of the first two, else the first.  [overwrites both]"""
    for first in range(i0, i1, _BLOCK):
        end = min(first + _BLOCK, i1)
        a, b, out, which = xs[0][first:end], xs[1][first:end], y[first:end], taken[first:end]
        for i in range(out.size):
            larger = a[i] > b[i]
            out[i] = a[i] if larger else b[i]
            which[i] = 0 if larger else 1
        for k in range(2, len(xs)):
            c, number = xs[k][first:end], taken.dtype.type(k)
            for i in range(out.size):
                larger = c[i] > out[i]
                out[i] = c[i] if larger else out[i]
                which[i] = number if larger else which[i]


@kernel
def maximum_gradients(i0, i1, thread, taken, dy, numbers, dxs):
    """dxs[n] = dy where xs[numbers[n]] was taken, else 0.  [overwrites dxs]"""
    zero = dy.dtype.type(0)
    for first in range(i0, i1, _BLOCK):
        end = min(first + _BLOCK, i1)
        above, which = dy[first:end], taken[first:end]
        for n in range(len(dxs)):
            out, number = dxs[n][first:end], taken.dtype.type(numbers[n])
            for i in range(out.size):
                out[i] = above[i] if which[i] == number else zero
