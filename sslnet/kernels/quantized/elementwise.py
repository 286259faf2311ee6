"""Operations of u8 arrays element by element, and conversions between float32 NCHW and u8 NHWC.

A value q stands for (q - zero) * scale. Arrays of pixels are (images, pixels, pixel bytes).

    quantize      float32 (images, channels, pixels) -> u8     clamp(rint(x / scale) + zero, 0, top); NaN: zero
    dequantize    u8 -> float32 (images, channels, pixels)
    QuantizedSum  sums of two or more arrays, each with its scale
    lookup        a table of 256 values: any function of one value, also from one scale to another
    copy_channels the channels of an array into those of a wider one
    to_planes     float32 (images, pixels, channels) -> (images, channels, pixels)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sslnet.kernels.conv.packing import address
from sslnet.kernels.quantized import packing
from sslnet.kernels.quantized.rows import add_blocks, dequantize_words, quantize_row, quantize_words
from sslnet.kernels.runtime.compiler import exact_kernel
from sslnet.kernels.runtime.jit import spread
from sslnet.kernels.simd.vector import GENERIC, call_tile, vector_unit


@dataclass(frozen=True)
class ByteScale:
    """The values that bytes stand for: (q - zero) * scale, q from 0 to top.

    scale   a float32 number, above 0
    """

    scale: float
    zero: int
    top: int = 255

    @classmethod
    def of_range(cls, low: float, high: float, bits: int = 8) -> ByteScale:
        """The scale of a range of values, extended to hold 0, which is represented exactly."""
        low, high = min(low, 0.0), max(high, 0.0)
        top = 2**bits - 1
        scale = float(np.float32(max(high - low, 1e-30) / top))
        return cls(scale, int(np.clip(np.rint(-low / scale), 0, top)), top)

    @property
    def bits(self) -> int:
        """The scale as the bits of a float32."""
        return bits_of(self.scale)

    def quantized(self, values: np.ndarray) -> np.ndarray:
        """The bytes of float values, as ``quantize`` makes them."""
        with np.errstate(over="ignore", invalid="ignore"):
            steps = np.asarray(values, np.float32) / np.float32(self.scale)
        steps = np.clip(np.nan_to_num(steps, nan=0.0), -self.zero, self.top - self.zero)
        return (np.rint(steps).astype(np.int32) + self.zero).astype(np.uint8)

    def values(self, bytes_: np.ndarray) -> np.ndarray:
        """The float32 values of bytes."""
        return (bytes_.astype(np.int32) - self.zero).astype(np.float32) * np.float32(self.scale)


def bits_of(number: float) -> int:
    """The bits of a float32 as an integer."""
    return int(np.float32(number).view(np.int32))


def quantize(x: np.ndarray, y: np.ndarray, scale: ByteScale) -> None:
    """Converts x (images, channels, pixels) to bytes.  [overwrites y (images, pixels, step)]

    step   the channels, or these rounded up to four; what is written behind them is undefined
    """
    unit = vector_unit()
    images, channels, pixels = x.shape
    if channels == y.shape[2] == 1:
        x, y = x.reshape(1, 1, -1), y.reshape(1, -1, 1)
        spread(_quantize_rows, x.shape[2], 1, x.reshape(-1), y.reshape(-1), quantize_row(unit), unit.lanes, scale.bits,
               np.float32(scale.scale), scale.zero, scale.top)  # fmt: skip
        return
    spread(_quantize, images, channels * pixels, x, y, quantize_words(unit), unit.lanes, scale.bits,
           np.float32(scale.scale), scale.zero, scale.top)  # fmt: skip


def dequantize(x: np.ndarray, y: np.ndarray, scale: ByteScale) -> None:
    """Converts x (images, pixels, step) to float32.  [overwrites y (images, channels, pixels)]"""
    unit = vector_unit()
    spread(_dequantize, len(y), y[0].size, x, y, dequantize_words(unit), unit.lanes, scale.bits,
           np.float32(scale.scale), scale.zero)  # fmt: skip


class QuantizedSum:
    """y = the sum of factor * x, in the scale ``to``: float32 products (x - zero) * (factor * scale / to.scale), added one
    after the other.

    xs, y   u8 of one size, a multiple of four; they are bound, so that a run costs little
    """

    def __init__(
        self,
        xs: Sequence[np.ndarray],
        scales: Sequence[ByteScale],
        factors: Sequence[float],
        y: np.ndarray,
        to: ByteScale,
    ) -> None:
        ratios = [float(np.float32(f * s.scale / to.scale)) for f, s in zip(factors, scales, strict=True)]
        flat = [x.reshape(-1) for x in xs]
        self._call: tuple[Any, ...]
        if len(flat) == 2:
            unit = vector_unit()
            numbers = np.array(
                [bits_of(ratios[0]), scales[0].zero, bits_of(ratios[1]), scales[1].zero, to.zero, to.top, unit.lanes,
                 add_blocks(unit), add_blocks(GENERIC)], np.int64)  # fmt: skip
            self._call = (_add_two, y.size // 4, 4, flat[0], flat[1], y.reshape(-1), numbers)
            return
        zeros = np.array([s.zero for s in scales], np.int32)
        many = (tuple(flat), np.array(ratios, np.float32), zeros, y.reshape(-1), to.zero, to.top)
        self._call = (_add_many, y.size, len(flat), *many)

    def run(self) -> None:
        """Computes the sum.  [overwrites y]"""
        spread(*self._call)


def lookup(x: np.ndarray, y: np.ndarray, table: np.ndarray) -> None:
    """y = table[x].  [overwrites y]  table: (256,) u8"""
    spread(_lookup, y.size, 1, x.reshape(-1), y.reshape(-1), table)


def copy_channels(x: np.ndarray, y: np.ndarray, channels: int, first: int) -> None:
    """y[..., first : first + channels] = x[..., :channels].  x, y: (images, pixels, their steps)"""
    pixels = x.shape[0] * x.shape[1]
    spread(_copy_channels, pixels, channels, address(x), x.shape[2], address(y) + first, y.shape[2], channels)


def to_planes(x: np.ndarray, y: np.ndarray) -> None:
    """y[n, c, p] = x[n, p, c], float32.  [overwrites y]"""
    spread(_to_planes, len(x), x[0].size, x, y)


@exact_kernel
def _byte(value, scale, zero, top):
    """One value as quantize_row converts it."""
    v = np.float32(value / scale)
    if v != v:
        v = np.float32(0)
    v = min(max(v, np.float32(-zero)), np.float32(top - zero))
    return np.uint8(np.int32(np.rint(v)) + zero)


@exact_kernel
def _quantize_rows(i0, i1, thread, x, y, call, lanes, bits, scale, zero, top):
    whole = (i1 - i0) // lanes * lanes
    call_tile(call, (np.int64(x.ctypes.data) + i0 * 4, np.int64(y.ctypes.data) + i0, whole, bits, zero, top))
    for i in range(i0 + whole, i1):
        y[i] = _byte(x[i], scale, zero, top)


@exact_kernel
def _quantize(i0, i1, thread, x, y, call, lanes, bits, scale, zero, top):
    channels, pixels, step = x.shape[1], x.shape[2], y.shape[2]
    whole = pixels // lanes * lanes
    if step % 4:
        whole = 0
    for image in range(i0, i1):
        source = np.int64(x.ctypes.data) + image * channels * pixels * 4
        target = np.int64(y.ctypes.data) + image * pixels * step
        for c in range(0, channels, 4):
            if whole:
                call_tile(
                    call,
                    (
                        source + c * pixels * 4, pixels * 4, min(4, channels - c), target + c, step, whole, bits, zero,
                        top,
                    ),
                )  # fmt: skip
            for d in range(c, min(c + 4, channels)):
                for p in range(whole, pixels):
                    y[image, p, d] = _byte(x[image, d, p], scale, zero, top)


@exact_kernel
def _dequantize(i0, i1, thread, x, y, call, lanes, bits, scale, zero):
    channels, pixels, step = y.shape[1], y.shape[2], x.shape[2]
    whole = pixels // lanes * lanes
    if step % 4:
        whole = 0
    for image in range(i0, i1):
        source = np.int64(x.ctypes.data) + image * pixels * step
        target = np.int64(y.ctypes.data) + image * channels * pixels * 4
        for c in range(0, channels, 4):
            if whole:
                call_tile(
                    call,
                    (source + c, step, target + c * pixels * 4, pixels * 4, min(4, channels - c), whole, bits, zero),
                )
            for d in range(c, min(c + 4, channels)):
                for p in range(whole, pixels):
                    y[image, d, p] = np.float32(np.int32(x[image, p, d]) - zero) * scale


@exact_kernel
def _add_two(i0, i1, thread, a, b, y, numbers):
    lanes = numbers[6]
    size = 4 * (i1 - i0)
    whole = size // lanes * lanes
    places = (np.int64(a.ctypes.data), np.int64(b.ctypes.data), np.int64(y.ctypes.data))
    for part in range(2):
        start, count = (4 * i0, whole) if part == 0 else (4 * i0 + whole, size - whole)
        call_tile(
            numbers[7 + part],
            (
                places[0] + start, places[1] + start, places[2] + start, count, numbers[0], numbers[1], numbers[2],
                numbers[3], numbers[4], numbers[5],
            ),
        )  # fmt: skip


@exact_kernel
def _add_many(i0, i1, thread, xs, ratios, zeros, y, zero, top):
    for i in range(i0, i1):
        total = np.float32(0)
        for k in range(len(xs)):
            product = np.float32(np.int32(xs[k][i]) - zeros[k]) * ratios[k]
            total = product if k == 0 else np.float32(total + product)
        total = min(max(total, np.float32(-zero)), np.float32(top - zero))
        y[i] = np.uint8(np.int32(np.rint(total)) + zero)


@exact_kernel
def _lookup(i0, i1, thread, x, y, table):
    for i in range(i0, i1):
        y[i] = table[x[i]]


@exact_kernel
def _copy_channels(i0, i1, thread, source, source_step, target, target_step, count):
    for p in range(i0, i1):
        packing.copy_bytes(16, target + p * target_step, source + p * source_step, count)


@exact_kernel
def _to_planes(i0, i1, thread, x, y):
    for image in range(i0, i1):
        for c in range(y.shape[1]):
            for p in range(y.shape[2]):
                y[image, c, p] = x[image, p, c]
