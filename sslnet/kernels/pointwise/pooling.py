"""Pooling windows of planes: maximum, mean, a randomly drawn value, and the gradients; ranges are over planes.

x, dx   (planes, H, W)                     kh, kw, sh, sw, ph, pw   window, stride, padding
y, dy   (planes, out_h, out_w)             place   (planes, out_h, out_w)  int32, h * W + w of the value taken, -1 for none
"""

from __future__ import annotations

import numpy as np
from numba import njit

from sslnet.kernels.pointwise.pooling_tiles import SLACK
from sslnet.kernels.runtime.counter_rng import random_bits
from sslnet.kernels.runtime.jit import kernel
from sslnet.kernels.simd.vector import call_tile, vector_unit

_LOWEST = np.finfo(np.float32).min
_UNIT = 2.0**-32
_VECTOR = 16
LANES = vector_unit().lanes


# MAX and AVE first reduce kw neighbours along the plane at every pixel: the plane, padded if necessary, is one long
# row, and results across the end of a row are not used. Then, for each row of windows, kh rows of these results are
# reduced, and the windows wanted are selected. Long loops without conditions vectorise, and no branch depends on the
# values. Indices are unsigned, because an index that might be negative prevents vectorisation.


@kernel
def _starts(out, stride, pad, size):
    """The start of each window along one axis of the padded plane; for windows beyond the image any place will do."""
    result = np.empty(out, np.uint64)
    for r in range(out):
        result[r] = min(r * stride, pad + size)
    return result


@kernel
def _sizes(rows, columns, kw):
    """The number of sums or maxima along the plane, and of a row of them, as whole vectors, because a remainder is
    slow."""
    line = -(-(columns - kw + 1) // _VECTOR) * _VECTOR
    return -(-((rows - 1) * columns + line) // _VECTOR) * _VECTOR, line


@kernel
def _place(image, plane, columns, start):
    """Copies the rows of the image into the plane, ``columns`` apart, from ``start`` on."""
    height, width = np.uint64(image.shape[0]), np.uint64(image.shape[1])
    source = image.reshape(-1)
    if width == columns:
        height, width = np.uint64(1), np.uint64(source.size)
    for h in range(height):
        a, b = h * width, h * np.uint64(columns) + np.uint64(start)
        for q in range(width):
            plane[b + q] = source[a + q]


@kernel
def _take(plane, image, columns, start):
    """Copies rows of the plane back to the image: the inverse of _place."""
    height, width = np.uint64(image.shape[0]), np.uint64(image.shape[1])
    target = image.reshape(-1)
    if width == columns:
        height, width = np.uint64(1), np.uint64(target.size)
    for h in range(height):
        a, b = h * width, h * np.uint64(columns) + np.uint64(start)
        for q in range(width):
            target[a + q] = plane[b + q]


@njit(inline="always")
def _largest(line, from_, start, taps, apart, best, which):
    """best = the largest of ``taps`` values, ``apart`` from each other, from line[start:] on, the first of equal ones;
    which = its entry of from_, and its distance added."""
    p0, p1, n1 = np.uint64(start), np.uint64(start + min(1, taps - 1) * apart), np.int32(min(1, taps - 1) * apart)
    p2, n2 = np.uint64(start + 2 * apart), np.int32(2 * apart)
    if taps <= 2:  # one tap is compared with itself, which changes nothing
        for q in range(np.uint64(best.size)):
            most, index = line[p0 + q], from_[p0 + q]
            value, other = line[p1 + q], np.int32(from_[p1 + q] + n1)
            which[q] = other if value > most else index
            best[q] = value if value > most else most
    else:
        for q in range(np.uint64(best.size)):
            most, index = line[p0 + q], from_[p0 + q]
            value, other = line[p1 + q], np.int32(from_[p1 + q] + n1)
            index, most = (other if value > most else index), (value if value > most else most)
            value, other = line[p2 + q], np.int32(from_[p2 + q] + n2)
            which[q] = other if value > most else index
            best[q] = value if value > most else most
    for tap in range(3, taps):
        p, n = np.uint64(start + tap * apart), np.int32(tap * apart)
        for q in range(np.uint64(best.size)):
            value, other, most, index = line[p + q], np.int32(from_[p + q] + n), best[q], which[q]
            which[q] = other if value > most else index
            best[q] = value if value > most else most


@kernel
def max_forward(i0, i1, thread, x, y, place, kh, kw, sh, sw, ph, pw):
    """Max pooling with places: along the rows first, then down, so that the first maximum in reading order is found."""
    height, width = x.shape[1], x.shape[2]
    out_h, out_w = y.shape[1], y.shape[2]
    down, right = _starts(out_h, sh, ph, height), _starts(out_w, sw, pw, width)
    rows, columns = max(down[-1] + kh, ph + height), max(right[-1] + kw, pw + width)
    lines, line = _sizes(rows, columns, kw)
    plane, place_of = np.empty(lines + kw, x.dtype), np.empty(rows * columns, np.int32)
    plane[:] = _LOWEST
    place_of[:] = -1
    for q in range(height * width):
        place_of[(ph + q // width) * columns + pw + q % width] = q
    along, along_which = np.empty(lines, x.dtype), np.empty(lines, np.int32)
    none = np.zeros(plane.size, np.int32)
    best, which = np.empty(line, x.dtype), np.empty(line, np.int32)
    out, index = y.reshape(-1), place.reshape(-1)
    for i in range(i0, i1):
        _place(x[i], plane, columns, ph * columns + pw)
        _largest(plane, none, 0, kw, 1, along, along_which)
        for r in range(out_h):
            start = down[r] * np.uint64(columns)
            _largest(along, along_which, start, kh, columns, best, which)
            o = np.uint64((i * out_h + r) * out_w)
            for q in range(np.uint64(out_w)):
                p = right[q]
                out[o + q] = best[p]
                index[o + q] = place_of[start + p + np.uint64(which[p])]


@njit(inline="always")
def _most(line, start, taps, apart, best):
    """best = the largest of ``taps`` values, ``apart`` from each other, from line[start:] on."""
    p0, p1, p2 = np.uint64(start), np.uint64(start + min(1, taps - 1) * apart), np.uint64(start + 2 * apart)
    if taps <= 2:  # one tap is compared with itself, which changes nothing
        for q in range(np.uint64(best.size)):
            most, value = line[p0 + q], line[p1 + q]
            best[q] = value if value > most else most
    else:
        for q in range(np.uint64(best.size)):
            most, value = line[p0 + q], line[p1 + q]
            most = value if value > most else most
            value = line[p2 + q]
            best[q] = value if value > most else most
    for tap in range(3, taps):
        p = np.uint64(start + tap * apart)
        for q in range(np.uint64(best.size)):
            value, most = line[p + q], best[q]
            best[q] = value if value > most else most


@kernel
def max_values(i0, i1, thread, x, y, kh, kw, sh, sw, ph, pw):
    """Max pooling without places: down first, only for the rows of windows, then along these."""
    height, width = x.shape[1], x.shape[2]
    out_h, out_w = y.shape[1], y.shape[2]
    down = _starts(out_h, sh, ph, height)
    rows, columns = max(down[-1] + kh, ph + height), max((out_w - 1) * sw + kw, pw + width)
    line = -(-columns // _VECTOR) * _VECTOR
    plane = np.empty(rows * columns + line, x.dtype)
    best, along = np.empty(line + kw, x.dtype), np.empty(line, x.dtype)
    plane[:] = _LOWEST
    best[:] = _LOWEST
    out, step = y.reshape(-1), np.uint64(sw)
    for i in range(i0, i1):
        _place(x[i], plane, columns, ph * columns + pw)
        for r in range(out_h):
            _most(plane, down[r] * np.uint64(columns), kh, columns, best[:line])
            _most(best, 0, kw, 1, along)
            o = np.uint64((i * out_h + r) * out_w)
            for q in range(np.uint64(out_w)):
                out[o + q] = along[q * step]


@kernel
def max_tiles(i0, i1, thread, tile, x, y, place, kh, kw, sh, sw, ph, pw):
    """Max pooling by a micro-kernel of ``pooling_tiles``, with places unless ``place`` is empty."""
    height, width = x.shape[1], x.shape[2]
    out_h, out_w = y.shape[1], y.shape[2]
    rows, columns = max((out_h - 1) * sh + kh, ph + height), max((out_w - 1) * sw + kw, pw + width)
    plane = np.empty(rows * columns + SLACK, x.dtype)
    plane[:] = _LOWEST
    out, index = y.reshape(-1), place.reshape(-1)
    from_, to, where = np.int64(plane.ctypes.data), np.int64(out.ctypes.data), np.int64(index.ctypes.data)
    row = 4 * columns
    padded = rows > height or columns > width
    size = out_h * out_w
    for i in range(i0, i1):
        _place(x[i], plane, columns, ph * columns + pw)
        a = i * size
        first = np.int64(-ph * width - pw)
        call_tile(tile, (from_, row, row * sh, out_h, out_w, to + 4 * a, where + 4 * a, width, first, np.int64(0)))
        if padded and index.size:  # places in the padding: the window has no value that is larger
            values, lowest = out[a : a + size], 0
            for q in range(np.uint64(size)):
                lowest += values[q] <= _LOWEST
            if lowest:
                for q in range(size):
                    if values[q] <= _LOWEST:
                        index[a + q] = _first_lowest(x[i], q // out_w * sh - ph, q % out_w * sw - pw, kh, kw)


@kernel
def _first_lowest(image, top, left, kh, kw):
    """The place of the maximum of a window whose maximum is at most _LOWEST; -1 if it is in the padding."""
    height, width = image.shape
    most, index = image.dtype.type(0), -2
    for h in range(top, top + kh):
        for w in range(left, left + kw):
            inside = 0 <= h < height and 0 <= w < width
            value = image[h, w] if inside else image.dtype.type(_LOWEST)
            if index == -2 or value > most:
                most, index = value, (h * width + w if inside else -1)
    return index


@kernel
def max_whole(i0, i1, thread, x, y, place):
    """Computes the maximum of each plane and its place.  x (planes, pixels)"""
    for i in range(i0, i1):
        plane = x[i]
        most, index = plane[0], 0
        for q in range(plane.size):
            if plane[q] > most:
                most, index = plane[q], q
        y[i], place[i] = most, index


@kernel
def scatter(i0, i1, thread, dy, place, dx):
    """Sets dx to 0, then adds dy at each place; all arrays are (planes, pixels)."""
    size = np.uint32(dx.shape[1])
    for i in range(i0, i1):
        above, where, below = dy[i], place[i], dx[i]
        below[:] = 0
        for q in range(above.size):
            p = np.uint32(where[q])  # -1 becomes the largest number
            if p < size:
                below[p] += above[q]


@kernel
def _share(out, kernel_size, stride, pad, size, inside):
    """1 / the number of pixels of each window along one axis, with padding unless ``inside``; 0 for an empty window."""
    result = np.zeros(out, np.float64)
    for r in range(out):
        start = r * stride - pad
        if inside:
            pixels = min(start + kernel_size, size) - max(start, 0)
        else:
            pixels = min(start + kernel_size, size + pad) - start
        if pixels > 0:
            result[r] = 1.0 / pixels
    return result


@kernel
def _shares(down, along, shares):
    """1 / the number of pixels of all windows of a plane: products of the shares along both axes."""
    for r in range(down.size):
        for q in range(along.size):
            shares[r * along.size + q] = down[r] * along[q]
    return shares


@njit(inline="always")
def _sum(line, start, taps, apart, total):
    """total = the sum of ``taps`` values, ``apart`` from each other, from line[start:] on."""
    p0, p1, p2 = np.uint64(start), np.uint64(start + apart), np.uint64(start + 2 * apart)
    if taps == 1:
        for q in range(np.uint64(total.size)):
            total[q] = line[p0 + q]
    elif taps == 2:
        for q in range(np.uint64(total.size)):
            total[q] = line[p0 + q] + line[p1 + q]
    else:
        for q in range(np.uint64(total.size)):
            total[q] = line[p0 + q] + line[p1 + q] + line[p2 + q]
        for tap in range(3, taps):
            p = np.uint64(start + tap * apart)
            for q in range(np.uint64(total.size)):
                total[q] += line[p + q]


@kernel
def ave_forward(i0, i1, thread, tile, x, y, kh, kw, sh, sw, ph, pw, inside):
    """Average pooling of the planes [i0, i1).  [overwrites y]

    tile     a micro-kernel of ``pooling_tiles``, 0 for none
    inside   divide by the pixels of the image in a window, without padding
    """
    height, width = x.shape[1], x.shape[2]
    out_h, out_w = y.shape[1], y.shape[2]
    shares = _shares(
        _share(out_h, kh, sh, ph, height, inside),
        _share(out_w, kw, sw, pw, width, inside),
        np.empty(out_h * out_w + SLACK, x.dtype),
    )
    down, right = _starts(out_h, sh, ph, height), _starts(out_w, sw, pw, width)
    rows, columns = max(down[-1] + kh, ph + height), max(right[-1] + kw, pw + width)
    if rows == kh == height and columns == kw == width:
        flat, size = x.reshape(-1), np.uint64(height * width)
        for i in range(np.uint64(i0), np.uint64(i1)):
            whole = x.dtype.type(0)
            for q in range(size):
                whole += flat[i * size + q]
            y[i, 0, 0] = whole * shares[0]
        return
    if tile:
        _ave_tiles(i0, i1, tile, x, y, shares, rows, columns, sh, ph, pw)
        return
    lines, line = _sizes(rows, columns, kw)
    plane, along, total = np.zeros(lines + kw, x.dtype), np.empty(lines, x.dtype), np.empty(line, x.dtype)
    out = y.reshape(-1)
    for i in range(i0, i1):
        _place(x[i], plane, columns, ph * columns + pw)
        _sum(plane, 0, kw, 1, along)
        for r in range(out_h):
            _sum(along, down[r] * np.uint64(columns), kh, columns, total)
            a = np.uint64(r * out_w)
            o = np.uint64(i * out_h * out_w) + a
            for q in range(np.uint64(out_w)):
                out[o + q] = total[right[q]] * shares[a + q]


@kernel
def _ave_tiles(i0, i1, tile, x, y, shares, rows, columns, sh, ph, pw):
    """Average pooling by a micro-kernel."""
    plane = np.zeros(rows * columns + SLACK, x.dtype)
    out_h, out_w = y.shape[1], y.shape[2]
    from_, to = np.int64(plane.ctypes.data), np.int64(y.ctypes.data)
    weights, none, row = np.int64(shares.ctypes.data), np.int64(0), np.int64(4 * columns)
    for i in range(i0, i1):
        _place(x[i], plane, columns, ph * columns + pw)
        call_tile(tile, (from_, row, row * sh, out_h, out_w, to + 4 * i * out_h * out_w, none, none, none, weights))


@kernel
def _spread_tiles(i0, i1, tile, dy, dx, shares, columns, kh, sh, sw, ph, pw):
    """The gradient of average pooling by a micro-kernel, row by row of the image."""
    height, out_h, out_w = dx.shape[1], dy.shape[1], dy.shape[2]
    wide = max(out_w, -(-columns // sw))
    vectors = -(-wide // _VECTOR)
    line = (vectors + 1) * _VECTOR  # _VECTOR zeros before each row of windows
    windows = np.zeros((out_h, line), dx.dtype)
    columns_stored = vectors * _VECTOR * sw
    plane = np.empty((height - 1) * columns + max(columns, columns_stored) + pw, dx.dtype)
    from_, to = np.int64(windows.ctypes.data + 4 * _VECTOR), np.int64(plane.ctypes.data)
    pitch, count = np.int64(4 * line), np.int64(vectors * (_VECTOR // LANES))
    above = dy.reshape(-1)
    for i in range(i0, i1):
        for r in range(out_h):
            a, o = np.uint64(r * out_w), np.uint64((i * out_h + r) * out_w)
            values = windows[r, _VECTOR:]
            for q in range(np.uint64(out_w)):
                values[q] = above[o + q] * shares[a + q]
        for h in range(height):
            first = max(0, -((kh - 1 - h - ph) // sh))
            lines = max(0, min(out_h, (h + ph) // sh + 1) - first)
            call_tile(tile, (from_ + first * pitch, pitch, lines, to + 4 * h * columns, count))
        _take(plane, dx[i], columns, pw)


@kernel
def ave_backward(i0, i1, thread, tile, dy, dx, kh, kw, sh, sw, ph, pw, inside):
    """The adjoint of ave_forward, its steps in reverse order.  [overwrites dx]

    tile     a micro-kernel of ``pooling_tiles``, 0 for none
    """
    height, width = dx.shape[1], dx.shape[2]
    out_h, out_w = dy.shape[1], dy.shape[2]
    shares = _shares(
        _share(out_h, kh, sh, ph, height, inside),
        _share(out_w, kw, sw, pw, width, inside),
        np.empty(out_h * out_w, dx.dtype),
    )
    down, right = _starts(out_h, sh, ph, height), _starts(out_w, sw, pw, width)
    rows, columns = max(down[-1] + kh, ph + height), max(right[-1] + kw, pw + width)
    if rows == kh == height and columns == kw == width:
        for i in range(i0, i1):
            dx[i] = dy[i, 0, 0] * shares[0]
        return
    if tile:
        _spread_tiles(i0, i1, tile, dy, dx, shares, columns, kh, sh, sw, ph, pw)
        return
    size = -(-rows * columns // _VECTOR) * _VECTOR
    # Both begin with zeros, so that sums of the values before a pixel exist everywhere.
    spread_down, spread_along = np.zeros((kh - 1) * columns + size, dx.dtype), np.zeros(kw - 1 + size, dx.dtype)
    windows, total, plane = spread_down[(kh - 1) * columns :], spread_along[kw - 1 :], np.empty(size, dx.dtype)
    above = dy.reshape(-1)
    for i in range(i0, i1):
        for r in range(out_h):
            a = np.uint64(r * out_w)
            o, p = np.uint64(i * out_h * out_w) + a, down[r] * np.uint64(columns)
            for q in range(np.uint64(out_w)):
                windows[p + right[q]] = above[o + q] * shares[a + q]
        _sum(spread_down, 0, kh, columns, total)
        _sum(spread_along, 0, kw, 1, plane)
        _take(plane, dx[i], columns, ph * columns + pw)


@kernel
def draw_forward(i0, i1, thread, x, y, place, key, kh, kw, sh, sw):
    """Stochastic pooling: the first value at which the window's running sum reaches a uniformly drawn share of its
    sum."""
    height, width = x.shape[1], x.shape[2]
    out_h, out_w = y.shape[1], y.shape[2]
    for i in range(i0, i1):
        for r in range(out_h):
            for q in range(out_w):
                total, running, index = 0.0, 0.0, -1
                for h in range(r * sh, min(r * sh + kh, height)):
                    for w in range(q * sw, min(q * sw + kw, width)):
                        total += x[i, h, w]
                level = random_bits(key, np.uint64((i * out_h + r) * out_w + q)) * _UNIT * total
                y[i, r, q] = 0
                for h in range(r * sh, min(r * sh + kh, height)):
                    for w in range(q * sw, min(q * sw + kw, width)):
                        running += x[i, h, w]
                        if index < 0 and running >= level:
                            index = h * width + w
                            y[i, r, q] = x[i, h, w]
                place[i, r, q] = index


@kernel
def weigh(i0, i1, thread, x, y, dy, dx, backward, kh, kw, sh, sw):
    """y = sum of x^2 / sum of x of each window, 0 where the sum is 0; backward: dx = dy (2 x - y) / sum of x."""
    height, width = x.shape[1], x.shape[2]
    for i in range(i0, i1):
        if backward:
            dx[i] = 0
        for r in range(y.shape[1]):
            for q in range(y.shape[2]):
                total, squares = 0.0, 0.0
                for h in range(r * sh, min(r * sh + kh, height)):
                    for w in range(q * sw, min(q * sw + kw, width)):
                        v = x[i, h, w]
                        total += v
                        squares += v * v
                value = squares / total if total > 0 else 0.0
                if not backward:
                    y[i, r, q] = value
                elif total > 0:
                    slope = dy[i, r, q] / total
                    for h in range(r * sh, min(r * sh + kh, height)):
                        for w in range(q * sw, min(q * sw + kw, width)):
                            dx[i, h, w] += slope * (2 * x[i, h, w] - value)
