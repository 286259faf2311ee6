"""Convolutions and fully connected layers of u8 activations, planned once per geometry.

    plan = plan_quantized(geometry, weight_most=127)
    plan.pack(weights, bias, scale, source_zero=3, zero=0)     # whole numbers; float32 scale a filter
    plan.run(x, y)                                            # x u8 NHWC; y u8 NHWC, or float32

    sum = bias + sum (x - source_zero) * weight               exact in int32
    y = clamp(rint(float32(sum) * scale), -zero, top - zero) + zero;  ReLU is zero = 0 (or the zero of a range from 0 on)

Arrays: x (batch, height, width, pixel bytes), where the pixel bytes are the channels rounded up to four, or exactly the
channels (images of 1 or 3 channels need no copy into a wider array). The bytes after the last channel may have any value.
y likewise; float32 outputs have exactly the filters. A fully connected layer is a convolution of 1 x 1 on 1 x 1.
Nothing outside an array is read or written. A plan must not be run by two threads at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sslnet.errors import ShapeError
from sslnet.kernels.conv.geometry import ConvGeometry
from sslnet.kernels.conv.packing import address, record, threads_for
from sslnet.kernels.quantized import dot
from sslnet.kernels.quantized.dot import DotUnit, dot_unit
from sslnet.kernels.quantized.microkernels import depthwise_tile, dot_tile
from sslnet.kernels.quantized.packing import (
    check_sums,
    copy_bytes,
    pack_rows,
    pixel_bytes,
    set_bytes,
    set_words,
    widen_bytes,
)
from sslnet.kernels.runtime.compiler import exact_kernel
from sslnet.kernels.runtime.memory import aligned_zeros, scratch_address
from sslnet.kernels.runtime.threads import parallel
from sslnet.kernels.simd.vector import call_tile

WINDOW_BYTES = 128 * 1024
"""The most bytes of the source rows of a chunk: they stay in the second-level cache while all filters use them."""
LINE_PIXELS = 240
"""Pixels of a chunk of a pointwise convolution in place, which sees all pixels of the batch as one row."""


@dataclass(frozen=True)
class QuantizedTile:
    """Outputs in registers: vectors of filters by pixels."""

    vectors: int
    pixels: int


class QuantizedConv:
    """A plan of a convolution of bytes; made by ``plan_quantized``.

    kernel   the instruction and the tile, for reports
    """

    def __init__(self, geometry: ConvGeometry, unit: DotUnit, *, dense: bool, floats: bool) -> None:
        self.given = geometry
        self.unit, self.floats = unit, floats
        self.depthwise = geometry.groups > 1 and geometry.group_channels == geometry.group_filters == 1
        self.source_step = geometry.channels if dense else pixel_bytes(geometry.channels)
        self.out_step = geometry.filters if floats else pixel_bytes(geometry.filters)
        g = self.geometry = geometry
        self.arrays = {
            "x": ((g.batch, g.height, g.width, self.source_step), np.dtype(np.uint8)),
            "y": ((g.batch, g.out_h, g.out_w, self.out_step), np.dtype(np.float32 if floats else np.uint8)),
        }
        self.work = g.flops // 8
        self.bytes = 1 if self.depthwise else unit.value_bytes
        channels = g.channels if self.depthwise else g.group_channels
        padded = g.is_padded_h or g.is_padded_w
        self.in_place = not padded and self.bytes == 1 and self._reads_in_place()
        if self.in_place and g.pointwise:
            g = self.geometry = replace(g, batch=1, height=g.batch * g.height * g.width, width=1)
        whole = dense and (g.groups == 1 or self.depthwise)
        self.step = self.source_step if self.in_place or whole else pixel_bytes(channels)
        self.columns = g.width if self.in_place else g.width + g.pad_w + g.pad_end_w
        self.tile = self._depthwise_tile() if self.depthwise else choose_tile(unit, g.group_filters, g.out_h * g.out_w)
        self._set_rows()
        self.kernel = f"{'depthwise ' if self.depthwise else ''}{unit.name} {self.tile.vectors}x{self.tile.pixels}"

    def _reads_in_place(self) -> bool:
        """Whether tiles can read x itself: whole words, and nothing beyond the end of the array."""
        g = self.geometry
        if self.depthwise:
            return self.source_step % self.unit.lanes == 0
        if g.groups > 1:
            return g.group_channels % 4 == 0
        one_line = g.dilation_w == 1
        return (g.kernel_w * self.source_step if one_line else self.source_step) % 4 == 0

    def _set_rows(self) -> None:
        """The rows of a chunk, its window, the places of its pixels, and the offsets of lines in it."""
        g, size = self.geometry, self.bytes
        row_bytes = self.columns * self.step * size * g.stride_h
        reach = (g.kernel_h - 1) * g.dilation_h + 1
        if self.in_place:
            rows = max(1, LINE_PIXELS // g.out_w)
        else:
            rows = max(1, (WINDOW_BYTES - reach * self.columns * self.step * size) // max(row_bytes, 1))
        rows = max(rows, -(-self.tile.pixels // g.out_w))
        self.chunk = min(rows, g.out_h)
        self.window_rows = (self.chunk - 1) * g.stride_h + reach
        lanes = self.unit.lanes
        self.window_bytes = (self.window_rows * self.columns * self.step + 4 * lanes) * size + 64
        r, c = np.divmod(np.arange(self.chunk * g.out_w), g.out_w)
        self.places = ((r * g.stride_h * self.columns + c * g.stride_w) * self.step * size).astype(np.int64)
        kh = np.arange(g.kernel_h) * g.dilation_h * self.columns
        kw = np.arange(g.kernel_w) * g.dilation_w
        if self.depthwise or g.dilation_w > 1:
            self.offsets = ((kh[:, None] + kw).ravel() * self.step * size).astype(np.int64)
            self.line_values = self.group_values
        else:
            self.offsets = (kh * self.step * size).astype(np.int64)
            self.line_values = (g.kernel_w - 1) * self.step + self.group_values
        self.line_steps = -(-self.line_values // self.unit.values)
        self.units = g.batch * g.out_h

    @property
    def group_values(self) -> int:
        """Values of a pixel that a group reads."""
        return self.geometry.channels if self.depthwise else self.geometry.group_channels

    def _depthwise_tile(self) -> QuantizedTile:
        pixels = 4 if self.unit.registers == 16 else 8
        return QuantizedTile(1, max(1, min(pixels, self.geometry.out_h * self.geometry.out_w)))

    # -- weights -------------------------------------------------------------------------------------------------------

    def pack(
        self, weights: np.ndarray, bias: np.ndarray, scale: np.ndarray, *, source_zero: int = 0, zero: int = 0,
        top: int = 255,
    ) -> None:  # fmt: skip
        """Copies the weights into the order of the tiles.

        weights      (filters, channels / groups, kernel_h, kernel_w) whole numbers
        bias         (filters,) whole numbers in units of the sums
        scale        (filters,) float32: from a sum to the output
        source_zero  the value of x that stands for 0, also of the padding;  zero, top: of y, and its largest value
        raises       ShapeError for weights that the unit cannot multiply exactly, or sums that may leave int32
        """
        g, lanes = self.given, self.unit.lanes
        check_sums(g, weights, bias, self.unit.most)
        sums = weights.astype(np.int64).reshape(g.filters, -1).sum(axis=1)
        start = bias.astype(np.int64) - source_zero * sums
        if self.unit.kind == dot.SDOT and not self.depthwise:
            start += 128 * sums
        limit = np.abs(start) + np.abs(weights.astype(np.int64)).reshape(g.filters, -1).sum(axis=1) * 255
        if limit.max(initial=0) >= 2**31:
            raise ShapeError(f"sums of up to {int(limit.max())} do not fit 32 bits")
        groups = 1 if self.depthwise else g.groups
        width = lanes * self.tile.vectors
        each = g.filters // groups
        self.blocks = -(-each // width)
        self.scale = aligned_zeros((groups, self.blocks * width), np.float32)
        self.bias = aligned_zeros((groups, self.blocks * width), np.int32)
        self.scale[:, :each] = np.asarray(scale, np.float32).reshape(groups, each)
        self.bias[:, :each] = start.reshape(groups, each)
        self.packed = self._packed_depthwise(weights) if self.depthwise else self._packed(weights)
        self.zeros = source_zero, zero, top
        self._record()

    def _packed(self, weights: np.ndarray) -> np.ndarray:
        g = self.given
        n, lines = g.group_filters, len(self.offsets)
        padded = np.zeros((g.filters, g.kernel_h, g.kernel_w, self.step), np.int8)
        padded[..., : g.group_channels] = weights.transpose(0, 2, 3, 1)
        rows = padded.reshape(g.filters, lines, -1)[..., : self.line_values]
        return np.stack([pack_rows(rows[i * n : (i + 1) * n], self.unit, self.tile.vectors) for i in range(g.groups)])

    def _packed_depthwise(self, weights: np.ndarray) -> np.ndarray:
        g, lanes = self.given, self.unit.lanes
        full = np.zeros((self.blocks * lanes, len(self.offsets)), np.int32)
        full[: g.filters] = weights.reshape(g.filters, -1)
        packed = aligned_zeros((1, self.blocks, len(self.offsets), lanes), np.int32)
        packed[0] = full.reshape(self.blocks, lanes, -1).transpose(0, 2, 1)
        return packed

    def _record(self) -> None:
        g, t = self.geometry, self.tile
        source_zero, zero, top = self.zeros
        main, single = (self._compiled(pixels) for pixels in (t.pixels, 1))
        groups = 1 if self.depthwise else g.groups
        width = self.unit.lanes * t.vectors
        self.numbers = record(
            height=g.height, width=g.width, out_h=g.out_h, out_w=g.out_w, stride_h=g.stride_h, pad_h=g.pad_h,
            pad_w=g.pad_w, groups=groups, values=self.group_values, source_step=self.source_step, step=self.step,
            wide=self.bytes == 2, in_place=self.in_place, columns=self.columns, window_rows=self.window_rows,
            chunk=self.chunk, reach=(g.kernel_h - 1) * g.dilation_h + 1, pixels=t.pixels, main=main, single=single,
            depthwise=self.depthwise, lines=len(self.offsets), steps=self.line_steps, blocks=self.blocks,
            block_width=width, block_bytes=self.packed[0, 0].nbytes, filters=g.filters // groups,
            places=address(self.places), offsets=address(self.offsets), weights=address(self.packed),
            scale=address(self.scale), bias=address(self.bias), source_zero=source_zero, zero=zero, top=top,
            out_step=self.out_step * (4 if self.floats else 1), out_size=4 if self.floats else 1,
            aligned=self.floats or groups == 1 or (g.filters // groups) % 4 == 0, floats=self.floats,
        )  # fmt: skip

    def _compiled(self, pixels: int) -> int:
        unit, floats = self.unit, int(self.floats)
        if self.depthwise:
            pairs = int(unit.kind in (dot.UBSW, dot.S16, dot.VNNI))
            return depthwise_tile(unit, pairs=pairs, pixels=pixels, floats=floats)
        return dot_tile(unit, kind=unit.kind, vectors=self.tile.vectors, pixels=pixels, floats=floats)

    # -- running -------------------------------------------------------------------------------------------------------

    def run(self, x: np.ndarray, y: np.ndarray) -> None:
        """Computes the batch.  [overwrites y]  x (batch, height, width, pixel bytes) u8; y (batch, out_h, out_w, ...)"""
        for name, array in (("x", x), ("y", y)):
            shape, kind = self.arrays[name]
            if array.shape != shape or array.dtype != kind or not array.flags.c_contiguous:
                raise ShapeError(
                    f"{name} must be C-contiguous {kind} of shape {shape}, not {array.dtype} {array.shape}"
                )
        self.run_at(address(x), address(y))

    def run_at(self, source: int, target: int) -> None:
        """As ``run``, for arrays that begin at these addresses, without checks."""
        parallel(self._part, self.units, source, target, most=threads_for(self.work))

    def _part(self, u0: int, u1: int, thread: int, source: int, target: int) -> None:
        window = 0 if self.in_place else scratch_address("quantized window", -(-self.window_bytes // 4))
        spare = 0
        if not self.numbers[0]["aligned"]:
            spare = scratch_address("quantized spare", self.tile.pixels * self.unit.lanes * self.tile.vectors)
        _run_quantized(u0, u1, self.numbers, window, spare, source, target)


def choose_tile(unit: DotUnit, filters: int, pixels: int) -> QuantizedTile:
    """The tile with the fewest estimated cycles: sums in registers, weights and activations loaded in every step."""
    vectors_in_all = -(-filters // unit.lanes)
    sums = 24 if unit.registers == 32 else 10
    best: tuple[float, QuantizedTile] | None = None
    for vectors in (4, 3, 2, 1) if unit.registers == 32 else (2, 1):
        if vectors > vectors_in_all:
            continue
        for count in range(1, min(sums // vectors, pixels, 14) + 1):
            blocks, tiles = -(-vectors_in_all // vectors), -(-pixels // count)
            # a chain of additions has a latency of about four steps
            step = max(vectors * count, 4, (vectors * 2 + count * 2) / 2)
            cycles = blocks * tiles * (step + 0.5)
            if best is None or cycles < best[0]:
                best = cycles, QuantizedTile(vectors, count)
    if pixels == 1 and vectors_in_all >= 4:
        most = 8 if unit.registers == 32 else 4
        return QuantizedTile(min(most, vectors_in_all), 1)
    assert best is not None
    return best[1]


def plan_quantized(
    geometry: ConvGeometry,
    *,
    weight_most: int = 127,
    dense: bool = False,
    floats: bool = False,
    unit: DotUnit | None = None,
) -> QuantizedConv:
    """A plan of a convolution of u8 with weights of at most ``weight_most``.

    dense    pixels of x are exactly the channels, not rounded up to four bytes
    floats   y is float32, not rounded and without zero
    unit     the way to multiply; None: the machine's best
    """
    return QuantizedConv(geometry, unit or dot_unit(weight_most), dense=dense, floats=floats)


@exact_kernel
def _run_quantized(u0, u1, numbers, window, spare, source, target):
    """Computes rows u0 .. u1 of all images."""
    n = numbers[0]
    u = u0
    image_bytes = n.height * n.width * n.source_step
    while u < u1:
        image, first = u // n.out_h, u % n.out_h
        rows = min(n.chunk, n.out_h - first, u1 - u)
        pixels = rows * n.out_w
        out = target + (image * n.out_h + first) * n.out_w * n.out_step
        top = first * n.stride_h - n.pad_h
        for group in range(n.groups):
            if n.in_place:
                base = source + image * image_bytes + top * n.width * n.source_step + group * n.values
            else:
                base = window
                needed = (rows - 1) * n.stride_h + n.reach
                _fill(n, source + image * image_bytes + group * n.values, top, needed, window)
            for b in range(n.blocks):
                f = b * n.block_width
                place = (group * n.blocks + b) * n.block_width * 4
                at = base + f if n.depthwise else base
                left = n.filters - f
                y = out + (group * n.filters + f) * n.out_size
                weights = n.weights + (group * n.blocks + b) * n.block_bytes
                done = 0
                while done < pixels:
                    count = n.pixels
                    if pixels < n.pixels:
                        count = 1
                    start = min(done, pixels - count)
                    to, to_step = y + start * n.out_step, n.out_step
                    if not n.aligned:
                        to, to_step = spare, n.block_width
                    call = n.main if count == n.pixels else n.single
                    if n.depthwise:
                        call_tile(
                            call,
                            (
                                weights, at, n.places + start * 8, n.offsets, n.lines, n.scale + place, n.bias + place,
                                n.zero, n.top, to, to_step, left,
                            ),
                        )  # fmt: skip
                    else:
                        call_tile(
                            call,
                            (
                                weights, at, n.places + start * 8, n.offsets, n.lines, n.steps, n.scale + place,
                                n.bias + place, n.zero, n.top, to, to_step, left,
                            ),
                        )  # fmt: skip
                    if not n.aligned:
                        _copy_out(
                            spare, n.block_width, count, min(left, n.block_width), y + start * n.out_step, n.out_step
                        )
                    done = start + count
        u += rows


@exact_kernel
def _fill(n, source, top, rows, window):
    """Copies rows of a group's channels into the window, padded by the zero of x, widened to 16 bits if the tile reads so."""
    size = 2 if n.wide else 1
    line = n.columns * n.step
    for r in range(rows):
        row, to = top + r, window + r * line * size
        if not 0 <= row < n.height:
            _set(n.wide, to, n.source_zero, line)
            continue
        begin, end = n.pad_w * n.step, (n.pad_w + n.width) * n.step
        if begin > 0:
            _set(n.wide, to, n.source_zero, begin)
        if end < line:
            _set(n.wide, to + end * size, n.source_zero, line - end)
        given = source + row * n.width * n.source_step
        if n.step == n.source_step:
            _copy(n.wide, to + begin * size, given, n.width * n.step)
        else:
            for c in range(n.width):
                _copy(n.wide, to + (begin + c * n.step) * size, given + c * n.source_step, n.values)


@exact_kernel
def _set(wide, target, value, count):
    if wide:
        set_words(16, target, value, count)
    else:
        set_bytes(16, target, value, count)


@exact_kernel
def _copy(wide, target, source, count):
    if wide:
        widen_bytes(16, target, source, count)
    else:
        copy_bytes(16, target, source, count)


@exact_kernel
def _copy_out(spare, step, pixels, count, target, target_step):
    """Copies ``count`` bytes of each pixel from the spare tile to the array, whose channels may begin anywhere."""
    for p in range(pixels):
        copy_bytes(16, target + p * target_step, spare + p * step, count)
