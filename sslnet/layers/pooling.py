"""Pooling: the largest value (MAX), the mean (AVE) or a drawn value (STOCHASTIC) of each window of each channel.

Output size ceil((H + 2 pad - kernel) / stride) + 1 (floor with round_mode FLOOR); with padding one less when the last
window would start in the padding behind the image. MAX takes the first maximum in reading order, and -FLT_MAX of a
window without pixels. AVE divides by the window clipped to the padded image: padding counts as zeros, what reaches
beyond it does not count. STOCHASTIC draws a value in proportion to it in TRAIN and weights by it in TEST,
sum of x^2 / sum of x (inputs are taken to be 0 or more).

bottom  (N, C, H, W)
top     (N, C, out_h, out_w); MAX may have a second: the place of each maximum in its plane, h * W + w, -1 for none

Ref: Zeiler, Fergus 2013 (stochastic)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.blob import Blob
from sslnet.kernels.bits import draw_key, random_bits
from sslnet.kernels.jit import kernel, spread
from sslnet.layers.base import Blobs
from sslnet.layers.channelwise import ChannelWise

_LOWEST = np.finfo(np.float32).min
_UNIT = 2.0**-32


# MAX and AVE take all windows of a plane at once: the padded plane is one long row, in which a step down is a step of its
# width. kw passes along it reduce every window's rows, kh passes reduce those, and the windows that are wanted are
# picked; what passes from one row into the next is never picked. Long loops without conditions are what makes vectors.


@kernel
def _starts(out, stride, pad, size):
    """Where each window starts along one axis of the padded plane; behind the image one place is as good as another."""
    return np.minimum(np.arange(out) * stride, pad + size)


@kernel
def _copy(source, target):
    source = source[: target.size]
    for p in range(target.size):
        target[p] = source[p]


# Unsigned numbers index the next two: one that might be negative keeps the compiler from making vectors.


@kernel
def _place(image, plane, columns, start):
    """Rows of the image into the plane, ``columns`` apart, from ``start`` on."""
    height, width = np.uint64(image.shape[0]), np.uint64(image.shape[1])
    source = image.reshape(-1)
    for h in range(height):
        a, b = h * width, h * np.uint64(columns) + np.uint64(start)
        for q in range(width):
            plane[b + q] = source[a + q]


@kernel
def _take(plane, image, columns, start):
    """The inverse of _place."""
    height, width = np.uint64(image.shape[0]), np.uint64(image.shape[1])
    target = image.reshape(-1)
    for h in range(height):
        a, b = h * width, h * np.uint64(columns) + np.uint64(start)
        for q in range(width):
            target[a + q] = plane[b + q]


@kernel
def _larger(line, offset, best, which, number):
    """best = max(best, line[offset:]); which = number where that was larger."""
    line, which = line[offset : offset + best.size], which[: best.size]
    for p in range(best.size):
        value, most, index = line[p], best[p], which[p]
        which[p] = number if value > most else index
        best[p] = value if value > most else most


@kernel
def _larger_row(line, from_, offset, best, which):
    """best = max(best, line[offset:]); which = from_[offset:] + offset where that was larger."""
    line, from_, number = line[offset : offset + best.size], from_[offset : offset + best.size], np.int32(offset)
    which = which[: best.size]
    for p in range(best.size):
        value, most, index, other = line[p], best[p], which[p], np.int32(from_[p] + number)
        which[p] = other if value > most else index
        best[p] = value if value > most else most


@kernel
def _max_forward(i0, i1, thread, x, y, place, kh, kw, sh, sw, ph, pw):
    """Over planes. Along the rows first, then down: so the maximum found is the first one in reading order."""
    height, width = x.shape[1], x.shape[2]
    out_h, out_w = y.shape[1], y.shape[2]
    down, right = _starts(out_h, sh, ph, height), _starts(out_w, sw, pw, width)
    rows, columns = max(down[-1] + kh, ph + height), max(right[-1] + kw, pw + width)
    windows = (down.reshape(-1, 1) * columns + right).reshape(-1).astype(np.uint64)
    padded, places = np.full((rows, columns), _LOWEST, x.dtype), np.full((rows, columns), -1, np.int32)
    places[ph : ph + height, pw : pw + width] = np.arange(height * width).astype(np.int32).reshape(height, width)
    plane, place_of = padded.reshape(-1), places.reshape(-1)
    row_best = np.empty(plane.size - kw + 1, x.dtype)
    row_which = np.empty(row_best.size, np.int32)
    best = np.empty(row_best.size - (kh - 1) * columns, x.dtype)
    which = np.empty(best.size, np.int32)
    for i in range(i0, i1):
        _place(x[i], plane, columns, ph * columns + pw)
        _copy(plane, row_best)
        row_which[:] = 0
        for j in range(1, kw):
            _larger(plane, j, row_best, row_which, np.int32(j))
        _copy(row_best, best)
        _copy(row_which, which)
        for h in range(1, kh):
            _larger_row(row_best, row_which, h * columns, best, which)
        out, index = y[i].reshape(-1), place[i].reshape(-1)
        for q in range(windows.size):
            p = windows[q]
            out[q] = best[p]
            index[q] = place_of[p + np.uint64(which[p])]


@kernel
def _scatter(i0, i1, thread, dy, place, dx):
    """dx = 0, then dy added at each place.  (planes, pixels) each"""
    for i in range(i0, i1):
        above, where, below = dy[i], place[i], dx[i]
        below[:] = 0
        for q in range(above.size):
            if where[q] >= 0:
                below[where[q]] += above[q]


@kernel
def _shares(out, kernel_size, stride, pad, size):
    """1 / the number of pixels, padding included, that each window has along one axis; 0 for a window without."""
    result = np.zeros(out, np.float64)
    for r in range(out):
        start = r * stride - pad
        pixels = min(start + kernel_size, size + pad) - start
        if pixels > 0:
            result[r] = 1.0 / pixels
    return result


@kernel
def _add(line, total):
    for p in range(total.size):
        total[p] += line[p]


@kernel
def _ave_forward(i0, i1, thread, x, y, kh, kw, sh, sw, ph, pw):
    """Over planes."""
    height, width = x.shape[1], x.shape[2]
    out_h, out_w = y.shape[1], y.shape[2]
    share = np.outer(_shares(out_h, kh, sh, ph, height), _shares(out_w, kw, sw, pw, width)).reshape(-1).astype(x.dtype)
    down, right = _starts(out_h, sh, ph, height), _starts(out_w, sw, pw, width)
    rows, columns = max(down[-1] + kh, ph + height), max(right[-1] + kw, pw + width)
    windows = (down.reshape(-1, 1) * columns + right).reshape(-1).astype(np.uint64)
    if rows == kh == height and columns == kw == width:
        flat, size = x.reshape(-1), np.uint64(height * width)
        for i in range(np.uint64(i0), np.uint64(i1)):
            whole = x.dtype.type(0)
            for q in range(size):
                whole += flat[i * size + q]
            y[i, 0, 0] = whole * share[0]
        return
    padded = np.zeros((rows, columns), x.dtype)
    plane = padded.reshape(-1)
    row_total = np.empty(plane.size - kw + 1, x.dtype)
    total = np.empty(row_total.size - (kh - 1) * columns, x.dtype)
    for i in range(i0, i1):
        _place(x[i], plane, columns, ph * columns + pw)
        _copy(plane, row_total)
        for j in range(1, kw):
            _add(plane[j:], row_total)
        _copy(row_total, total)
        for h in range(1, kh):
            _add(row_total[h * columns :], total)
        out = y[i].reshape(-1)
        for q in range(windows.size):
            out[q] = total[windows[q]] * share[q]


@kernel
def _ave_backward(i0, i1, thread, dy, dx, kh, kw, sh, sw, ph, pw):
    """Over planes; the adjoint, step by step from the last."""
    height, width = dx.shape[1], dx.shape[2]
    out_h, out_w = dy.shape[1], dy.shape[2]
    share = np.outer(_shares(out_h, kh, sh, ph, height), _shares(out_w, kw, sw, pw, width)).reshape(-1).astype(dx.dtype)
    down, right = _starts(out_h, sh, ph, height), _starts(out_w, sw, pw, width)
    rows, columns = max(down[-1] + kh, ph + height), max(right[-1] + kw, pw + width)
    windows = (down.reshape(-1, 1) * columns + right).reshape(-1).astype(np.uint64)
    if rows == kh == height and columns == kw == width:
        for i in range(i0, i1):
            dx[i] = dy[i, 0, 0] * share[0]
        return
    padded = np.zeros((rows, columns), dx.dtype)
    plane = padded.reshape(-1)
    row_total = np.zeros(plane.size - kw + 1, dx.dtype)
    total = np.zeros(row_total.size - (kh - 1) * columns, dx.dtype)
    for i in range(i0, i1):
        above = dy[i].reshape(-1)
        for q in range(windows.size):
            total[windows[q]] = above[q] * share[q]
        row_total[:] = 0
        for h in range(kh):
            _add(total, row_total[h * columns : h * columns + total.size])
        plane[:] = 0
        for j in range(kw):
            _add(row_total, plane[j : j + row_total.size])
        _take(plane, dx[i], columns, ph * columns + pw)


@kernel
def _draw_forward(i0, i1, thread, x, y, place, key, kh, kw, sh, sw):
    """Over planes: the first value at which the running sum of the window reaches a uniform share of its sum."""
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
def _weigh(i0, i1, thread, x, y, dy, dx, backward, kh, kw, sh, sw):
    """Over planes: y = sum of x^2 / sum of x of each window, 0 where that is 0; or backward, dx = dy (2 x - y) / sum of x."""
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
                    for h in range(r * sh, min(r * sh + kh, height)):
                        for w in range(q * sw, min(q * sw + kw, width)):
                            dx[i, h, w] += dy[i, r, q] * (2 * x[i, h, w] - value) / total


@final
class Pooling(ChannelWise):
    TYPE: ClassVar[str] = "Pooling"
    TOPS: ClassVar[tuple[int, int | None]] = (1, 2)

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.param.pooling_param
        self.method = param.pool
        if len(top) > 1 and self.method != pb.PoolingParameter.MAX:
            raise self.error("only MAX pooling has a second top, the places of the maxima", "top", 1)
        if param.global_pooling:
            for name in ("kernel_size", "kernel_h", "kernel_w"):
                if param.HasField(name):
                    raise self.error(
                        "with global_pooling the window is the image: no kernel size", "pooling_param", name
                    )
        self.pad = self._pair("pad", 0)
        self.stride = self._pair("stride", 1)
        if param.global_pooling and (self.pad != (0, 0) or self.stride != (1, 1)):
            raise self.error("with global_pooling pad is 0 and stride is 1", "pooling_param", "global_pooling")
        if not param.global_pooling:
            self._check_window()
        self.place = Blob(name=f"{self.name} places", dtype=np.int32)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        x = bottom[0]
        if x.num_axes != 4:
            raise self.shape_error(f'pooling needs a bottom of 4 axes (N, C, H, W): "{x.name}" has shape {x.shape}')
        if self.param.pooling_param.global_pooling:
            self.kernel = (x.height, x.width)
        padded = [size + 2 * pad for size, pad in zip((x.height, x.width), self.pad)]
        if padded[0] * padded[1] >= 2**31:
            raise self.shape_error(f"the padded image is too large: {padded[0]} x {padded[1]}", "pooling_param")
        self.reach = (min(self.kernel[0], padded[0]), min(self.kernel[1], padded[1]))
        """The kernel, without what lies outside the padded image wherever the window is."""
        extents = [self._extent(axis, size) for axis, size in enumerate((x.height, x.width))]
        if min(extents) < 1:
            raise self.shape_error(
                f"the window does not fit: {self.kernel[0]} x {self.kernel[1]} on {x.height} x {x.width} "
                f"with pad {self.pad[0]}, {self.pad[1]}",
                "pooling_param",
            )
        for blob in (*top, self.place):
            blob.reshape(x.num, x.channels, *extents)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        x, y = _planes(bottom[0].data), _planes(top[0].data)
        work = max(x.shape[1] * x.shape[2], y.shape[1] * y.shape[2] * self.reach[0] * self.reach[1] // 4)
        if self.method == pb.PoolingParameter.MAX:
            place = _planes(self.place.data)
            spread(_max_forward, len(x), work, x, y, place, *self.reach, *self.stride, *self.pad)
            if len(top) > 1:
                top[1].data[...] = self.place.data
        elif self.method == pb.PoolingParameter.AVE:
            spread(_ave_forward, len(x), work, x, y, *self.reach, *self.stride, *self.pad)
        elif self.phase == pb.TRAIN:
            key = draw_key(self.random())
            spread(_draw_forward, len(x), work, x, y, _planes(self.place.data), key, *self.reach, *self.stride)
        else:
            spread(_weigh, len(x), work, x, y, y, x, False, *self.reach, *self.stride)

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return bool(self.method == pb.PoolingParameter.STOCHASTIC and self.phase == pb.TEST)

    def reads_top(self, in_place: bool) -> bool:
        return self.reads_bottom(0, in_place)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if not propagate_down[0]:
            return
        dy, dx = _planes(top[0].diff), _planes(bottom[0].diff)
        work = dx.shape[1] * dx.shape[2]
        if self.method == pb.PoolingParameter.AVE:
            spread(_ave_backward, len(dx), work, dy, dx, *self.reach, *self.stride, *self.pad)
        elif self.method == pb.PoolingParameter.STOCHASTIC and self.phase == pb.TEST:
            x, y = _planes(bottom[0].data), _planes(top[0].data)
            spread(_weigh, len(dx), work, x, y, dy, dx, True, *self.reach, *self.stride)
        else:
            flat = (len(dx), -1)
            spread(_scatter, len(dx), work, dy.reshape(flat), self.place.data.reshape(flat), dx.reshape(flat))

    def flops(self, bottom: Blobs, top: Blobs) -> int:
        """A comparison or an addition for each pixel of each window."""
        return top[0].count * self.kernel[0] * self.kernel[1]

    # -- parameters --------------------------------------------------------------------------------------------------

    def _pair(self, name: str, least: int, short: str | None = None) -> tuple[int, int]:
        """``name`` for both axes, or ``name_h`` and ``name_w``."""
        param, short = self.param.pooling_param, short or name
        sides = [side for side in (f"{short}_h", f"{short}_w") if param.HasField(side)]
        if sides and param.HasField(name):
            raise self.error(f"either {name} or {short}_h and {short}_w, not both", "pooling_param", sides[0])
        if least and len(sides) == 1:
            other = f"{short}_w" if sides[0].endswith("h") else f"{short}_h"
            raise self.error(f"{other} is missing beside {sides[0]}", "pooling_param", sides[0])
        pair = (getattr(param, f"{short}_h"), getattr(param, f"{short}_w")) if sides else (getattr(param, name),) * 2
        if min(pair) < least:
            field = sides[pair.index(min(pair))] if sides else name
            raise self.error(f"{name} must be at least {least}, not {min(pair)}", "pooling_param", field)
        return pair

    def _check_window(self) -> None:
        param = self.param.pooling_param
        if not any(param.HasField(name) for name in ("kernel_size", "kernel_h", "kernel_w")):
            raise self.error("kernel_size is missing", "pooling_param")
        self.kernel = self._pair("kernel_size", 1, "kernel")
        if self.method == pb.PoolingParameter.STOCHASTIC and self.pad != (0, 0):
            raise self.error("STOCHASTIC pooling has no padding", "pooling_param", "pool")
        if self.pad[0] >= self.kernel[0] or self.pad[1] >= self.kernel[1]:
            raise self.error(
                f"pad must be less than the kernel: {self.pad[0]}, {self.pad[1]} against {self.kernel[0]}, {self.kernel[1]}",
                "pooling_param",
            )

    def _extent(self, axis: int, size: int) -> int:
        """Windows along one axis."""
        kernel_size, stride, pad = self.kernel[axis], self.stride[axis], self.pad[axis]
        room = size + 2 * pad - kernel_size
        floor = self.param.pooling_param.round_mode == pb.PoolingParameter.FLOOR
        out = (room if floor else room + stride - 1) // stride + 1
        if any(self.pad) and (out - 1) * stride >= size + pad:
            out -= 1
        return out


def _planes(array: np.ndarray) -> np.ndarray:
    """(N, C, H, W) as (N * C, H, W)."""
    return array.reshape(-1, *array.shape[2:])
