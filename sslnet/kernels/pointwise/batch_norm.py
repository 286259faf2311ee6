"""Channel-wise normalisation in few passes: moments; y = a (x - mean) + c, then ReLU; and their gradients.

Rows are the values of one channel of one image: (images, channels, values), float32, C-contiguous. Ranges are over channels,
so that the results do not depend on the number of threads, and the second pass over a channel reads from the cache.
Sums are float32, one per vector lane, over blocks of some thousand values, and float64 over the blocks.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sslnet.kernels.conv.packing import address, record
from sslnet.kernels.runtime.compiler import exact_kernel
from sslnet.kernels.runtime.jit import spread
from sslnet.kernels.simd import vector as vec
from sslnet.kernels.simd.tile import tile
from sslnet.kernels.simd.vector import I64, VectorUnit, call_tile, vector_unit

BLOCK = 4096
"""The number of values of a channel that are summed in float32."""
UNROLLED = 4
"""Vectors of one loop iteration, each with sums of its own, which hides the latency of additions."""


class Normalization:
    """Normalisation of activations of one shape (images, channels, values), and its gradient."""

    def __init__(self, shape: tuple[int, int, int], unit: VectorUnit | None = None) -> None:
        unit = unit or vector_unit()
        self.shape = shape
        self.images, self.channels, self.values = shape
        self.cost = self.images * self.values
        self.numbers = record(
            images=self.images, channels=self.channels, values=self.values, moments=moments(unit), affine=affine(unit),
            grad_sums=grad_sums(unit), grad=grad(unit),
        )  # fmt: skip

    def normalize(
        self,
        x: np.ndarray,
        y: np.ndarray,
        table: np.ndarray,
        gamma: np.ndarray,
        beta: np.ndarray,
        eps: float,
        relu: bool,
    ) -> None:
        """Mean and biased variance of each channel, and y = gamma (x - mean) / sqrt(variance + eps) + beta, then ReLU.

        x, y         may be one array
        table        (channels, 4) float64: mean, variance, 1 / sqrt(variance + eps)  [overwrites it]
        gamma, beta  (channels) float32
        """
        arrays = (address(x), address(y), table, gamma, beta, eps, int(relu))
        spread(_normalize, self.channels, self.cost, self.numbers, *arrays)

    def apply(
        self, x: np.ndarray, y: np.ndarray, table: np.ndarray, gamma: np.ndarray, beta: np.ndarray, relu: bool
    ) -> None:
        """y = gamma (x - mean) inverse + beta, then ReLU, with mean and inverse from the table."""
        arrays = (address(x), address(y), table, gamma, beta, int(relu))
        spread(_apply, self.channels, self.cost, self.numbers, *arrays)

    def gradient(
        self, x: np.ndarray, dy: np.ndarray, dx: np.ndarray | None, table: np.ndarray, gamma: np.ndarray, beta: np.ndarray,
        through: np.ndarray, relu: bool, fixed: bool, sums: np.ndarray,
    ) -> None:  # fmt: skip
        """The gradient of ``normalize`` (of ``apply`` if fixed) by x, and the sums that are the gradients by gamma and
        beta.

        With dz = dy where the output is positive (everywhere without ReLU): sums = sum of dz (x - mean) inverse, sum of dz;
        dx = gamma inverse (dz - mean of dz - x' mean of dz x'), x' = (x - mean) inverse; gamma inverse dz when fixed.

        dx      may be dy; None: not computed. If it is another array, dy becomes dz times ``through``  [overwrites dy]
        through (channels) float32: the factor of the fused chain after its first layer
        sums    (channels, 2) float64  [overwrites it]
        """
        addresses = (address(x), address(dy), address(dx) if dx is not None else 0)
        arrays = (*addresses, table, gamma, beta, through, int(relu), fixed, sums)
        spread(_gradient, self.channels, self.cost, self.numbers, *arrays)


@exact_kernel
def _normalize(c0, c1, thread, numbers, x, y, table, gamma, beta, eps, relu):
    n = numbers[0]
    images, channels, values = n.images, n.channels, n.values
    found = np.empty(8, np.float32)
    for c in range(c0, c1):
        _moments(n, x, c, found, table[c])
        table[c, 2] = 1 / np.sqrt(table[c, 1] + eps)
        found[0], found[1], found[2] = table[c, 0], table[c, 2] * gamma[c], beta[c]
        first, step = c * values * 4, channels * values * 4
        call_tile(n.affine, (x + first, y + first, step, images, values, np.int64(found.ctypes.data), relu))


@exact_kernel
def _moments(n, x, c, found, row):
    """row[0], row[1] = mean and biased variance of a channel. The mean of the first row is subtracted before summing,
    so that a large mean loses no digits."""
    images, channels, values = n.images, n.channels, n.values
    first, step = x + c * values * 4, channels * values * 4
    where = np.int64(found.ctypes.data)
    block = max(1, BLOCK // values)
    count = images * values
    found[0] = 0
    call_tile(n.moments, (first, step, 1, values, where))
    found[0] = np.float32(found[4] / values)
    shift = np.float64(found[0])
    total = square = 0.0
    for image in range(0, images, block):
        call_tile(n.moments, (first + image * step, step, min(block, images - image), values, where))
        total += np.float64(found[4])
        square += np.float64(found[5])
    off = total / count
    row[0] = shift + off
    row[1] = max(square / count - off * off, 0.0)


@exact_kernel
def _apply(c0, c1, thread, numbers, x, y, table, gamma, beta, relu):
    n = numbers[0]
    images, channels, values = n.images, n.channels, n.values
    found = np.empty(8, np.float32)
    for c in range(c0, c1):
        found[0], found[1], found[2] = table[c, 0], table[c, 2] * gamma[c], beta[c]
        first, step = c * values * 4, channels * values * 4
        call_tile(n.affine, (x + first, y + first, step, images, values, np.int64(found.ctypes.data), relu))


@exact_kernel
def _gradient(c0, c1, thread, numbers, x, dy, dx, table, gamma, beta, through, relu, fixed, sums):
    n = numbers[0]
    images, channels, values = n.images, n.channels, n.values
    found = np.empty(8, np.float32)
    where = np.int64(found.ctypes.data)
    block = max(1, BLOCK // values)
    count = images * values
    step = channels * values * 4
    for c in range(c0, c1):
        first = c * values * 4
        inverse = table[c, 2]
        found[0], found[1], found[2] = table[c, 0], inverse * gamma[c], beta[c]
        total = dot = 0.0
        for image in range(0, images, block):
            rows = min(block, images - image)
            call_tile(
                n.grad_sums, (x + first + image * step, dy + first + image * step, step, rows, values, where, relu)
            )
            total += np.float64(found[4])
            dot += np.float64(found[5])
        sums[c, 0], sums[c, 1] = dot * inverse, total
        if dx != 0:
            level, slope = (0.0, 0.0) if fixed else (total / count, dot / count * inverse * inverse)
            found[3], found[4], found[5] = level, slope, found[1]
            call_tile(n.grad, (x + first, dy + first, dx + first, step, images, values, where, relu))
            if dx != dy:
                found[3], found[4], found[5] = 0, 0, through[c]
                call_tile(n.grad, (x + first, dy + first, dy + first, step, images, values, where, relu))


# The micro-kernels below process one channel, whose rows are ``step`` bytes apart. ``found`` is the address of 8
# floats: mean, factor, shift, level; found[4] and found[5] receive sums, or hold further numbers for ``grad``.


@tile
def moments(b, lanes, x, step, rows, values, found):
    """found[4], found[5] = sum of x - found[0], and of its square."""
    mean = vec.broadcast(b, lanes, found)

    def add(loaded, mask, sums):
        v = b.fsub(loaded[0], mean)
        if mask is not None:
            v = b.select(mask, v, vec.zeros(lanes))
        return [b.fadd(sums[0], v), vec.multiply_add(b, v, v, sums[1])]

    _store_sums(b, lanes, found, _sum_rows(b, lanes, [x], step, rows, values, add))


@tile
def affine(b, lanes, x, y, step, rows, values, found, relu):
    """y = factor (x - mean) + shift, then ReLU."""
    mean, factor, shift = (vec.broadcast(b, lanes, vec.offset(b, found, 4 * i)) for i in range(3))
    least = vec.least_value(b, lanes, relu)

    def value(loaded):
        return vec.at_least(b, vec.multiply_add(b, b.fsub(loaded[0], mean), factor, shift), least)

    _map_rows(b, lanes, [x], y, step, rows, values, value)


@tile
def grad_sums(b, lanes, x, dy, step, rows, values, found, relu):
    """found[4], found[5] = sum of dz, and of dz (x - mean)."""
    above = _positive_part(b, lanes, found, relu)

    def add(loaded, mask, sums):
        v, dz = above(*loaded)
        # After the end of a row dz is 0.
        return [b.fadd(sums[0], dz), vec.multiply_add(b, v, dz, sums[1])]

    _store_sums(b, lanes, found, _sum_rows(b, lanes, [x, dy], step, rows, values, add))


@tile
def grad(b, lanes, x, dy, dx, step, rows, values, found, relu):
    """dx = found[5] (dz - level - slope (x - mean)), level = found[3], slope = found[4]."""
    factor, level, slope = (vec.broadcast(b, lanes, vec.offset(b, found, 4 * i)) for i in (5, 3, 4))
    downhill = b.fsub(vec.zeros(lanes), slope)
    above = _positive_part(b, lanes, found, relu)

    def value(loaded):
        v, dz = above(*loaded)
        return b.fmul(factor, vec.multiply_add(b, v, downhill, b.fsub(dz, level)))

    _map_rows(b, lanes, [x, dy], dx, step, rows, values, value)


def _positive_part(b: Any, lanes: int, found: Any, relu: Any) -> Any:
    """(x, dy) -> x - mean, and dy where factor (x - mean) + shift, rounded as ``affine`` does, is positive; dy without ReLU."""
    mean, factor, shift = (vec.broadcast(b, lanes, vec.offset(b, found, 4 * i)) for i in range(3))
    least = vec.least_value(b, lanes, relu)

    def above(x, dy):
        v = b.fsub(x, mean)
        # NaN counts as positive, so that it appears in the gradient.
        positive = b.fcmp_unordered(">", vec.multiply_add(b, v, factor, shift), least)
        return v, b.select(positive, dy, vec.zeros(lanes))

    return above


def _sum_rows(b: Any, lanes: int, arrays: list[Any], step: Any, rows: Any, values: Any, add: Any) -> list[Any]:
    """Two vectors of sums over all values, with add(vectors of the arrays, mask or None, sums) -> sums."""

    def turn(many):
        def one(state):
            places, sums = state[: len(arrays)], state[len(arrays) :]
            following = list(sums)
            for i in range(many):
                loaded = [vec.load(b, lanes, vec.offset(b, place, 4 * lanes * i)) for place in places]
                following[2 * i : 2 * i + 2] = add(loaded, None, sums[2 * i : 2 * i + 2])
            return [*(vec.offset(b, place, 4 * lanes * many) for place in places), *following]

        return one

    in_turn, left, rest, mask = _parts(b, lanes, values)

    def row(state):
        starts = state[: len(arrays)]
        now = vec.counted_loop(b, in_turn, state, turn(UNROLLED))
        now = vec.counted_loop(b, left, now, turn(1))
        places, sums = now[: len(arrays)], now[len(arrays) :]

        def tail():
            loaded = [vec.masked_load(b, lanes, place, mask) for place in places]
            return add(loaded, mask, sums[:2])

        last = vec.either(b, b.icmp_signed(">", rest, I64(0)), tail, lambda: sums[:2], vec.vector_type(lanes))
        return [*(b.add(start, step) for start in starts), *last, *sums[2:]]

    sums = vec.counted_loop(b, rows, [*arrays, *[vec.zeros(lanes)] * 2 * UNROLLED], row)[len(arrays) :]
    while len(sums) > 2:
        half = len(sums) // 2
        sums = [b.fadd(one, other) for one, other in zip(sums[:half], sums[half:])]
    return sums


def _map_rows(
    b: Any, lanes: int, arrays: list[Any], target: Any, step: Any, rows: Any, values: Any, value: Any
) -> None:
    """target = value(vectors of the arrays), for all values."""

    def turn(many):
        def one(state):
            for i in range(many):
                loaded = [vec.load(b, lanes, vec.offset(b, place, 4 * lanes * i)) for place in state[:-1]]
                vec.store(b, value(loaded), vec.offset(b, state[-1], 4 * lanes * i))
            return [vec.offset(b, place, 4 * lanes * many) for place in state]

        return one

    in_turn, left, rest, mask = _parts(b, lanes, values)

    def row(starts):
        now = vec.counted_loop(b, in_turn, starts, turn(UNROLLED))
        now = vec.counted_loop(b, left, now, turn(1))
        with b.if_then(b.icmp_signed(">", rest, I64(0))):
            loaded = [vec.masked_load(b, lanes, place, mask) for place in now[:-1]]
            vec.masked_store(b, value(loaded), now[-1], mask)
        return [b.add(start, step) for start in starts]

    vec.counted_loop(b, rows, [*arrays, target], row)


def _parts(b: Any, lanes: int, values: Any) -> tuple[Any, Any, Any, Any]:
    """The parts of a row: iterations of UNROLLED vectors, single vectors, and a rest of values with its mask."""
    vectors = b.sdiv(values, I64(lanes))
    rest = b.srem(values, I64(lanes))
    return (
        b.sdiv(vectors, I64(UNROLLED)),
        b.srem(vectors, I64(UNROLLED)),
        rest,
        vec.first_lanes(b, lanes, rest),
    )


def _store_sums(b: Any, lanes: int, found: Any, sums: list[Any]) -> None:
    for i, total in enumerate(sums):
        b.store(vec.sum_lanes(b, total), vec.at(b, vec.offset(b, found, 16 + 4 * i), vec.F32))
