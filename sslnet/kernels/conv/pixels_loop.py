"""The loop nest (macro-kernel) with vectors over output pixels: few filters, or rows that fill whole vectors.

A strided source is split by phase while it is copied, so that the pixels of a vector always lie side by side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sslnet.kernels.conv.loop_nest import PackedLoop
from sslnet.kernels.conv.microkernels import pixel_tile
from sslnet.kernels.conv.packing import FilterBlocking, PackedWeights, pass_table, record, window_for
from sslnet.kernels.conv.taps import TapGeometry
from sslnet.kernels.conv.window import fill_plane, interleave
from sslnet.kernels.runtime.compiler import exact_kernel
from sslnet.kernels.runtime.recording import Scratch
from sslnet.kernels.simd.vector import VectorUnit, call_tile


@dataclass(frozen=True)
class PixelTile:
    """Outputs in registers: ``filters`` by ``vectors`` of pixels."""

    filters: int
    vectors: int

    @property
    def name(self) -> str:
        return f"pixels {self.filters}x{self.vectors}"


class PixelLoop(PackedLoop):
    """The pixel loop nest of one pass of a convolution."""

    def __init__(self, lowering: TapGeometry, unit: VectorUnit, tile: PixelTile, *, relu: bool = False) -> None:
        low = self.lowering = lowering
        self.tile = tile
        self.kernel = tile.name
        self.units = low.batch * low.rows
        self.multiply_adds = low.multiply_adds
        partial = any(p.out_w % unit.lanes for p in low.passes)
        window = self.window = window_for(low, split=True, whole_vectors=partial)
        self.blocks = FilterBlocking(tile.filters, -(-low.filters // tile.filters) * tile.filters)
        self.weights = PackedWeights(low, self.blocks, unit)
        self.offsets = np.concatenate([window.offsets(p).ravel() for p in low.passes])
        self.passes, self.places, self.planes_size = pass_table(low, self.weights, window.chunk)
        self.vectors_size = 3 * sum(window.chunk * -(-p.out_w // unit.lanes) + tile.vectors for p in low.passes)
        combine = interleave(unit) if len(low.passes) > 1 else 0
        self.numbers = record(
            groups=low.groups, channels=low.channels, height=low.height, width=low.width, filters=low.filters,
            out_h=low.out_h, out_w=low.out_w, rows=low.rows, stride_h=low.stride_h, step_h=low.step_h, step_w=low.step_w,
            padded=self.blocks.padded, tile_filters=tile.filters, tile_vectors=tile.vectors, lanes=unit.lanes,
            chunk=window.chunk, relu=relu, in_place=window.in_place, first_row=window.first_row,
            first_column=window.first_column, window_step_h=window.step_h, window_step_w=window.step_w,
            plane_rows=window.plane_rows, plane_columns=window.plane_columns, plane_bytes=window.plane_bytes,
            channel_bytes=window.channel_bytes, row_step=window.row_step, fill=fill_plane(unit),
            multiply=pixel_tile(unit, tile.filters, tile.vectors), combine=combine,
        )  # fmt: skip

    def pack(self, weights: np.ndarray, bias: np.ndarray | None) -> None:
        self.weights.pack(weights, bias)

    def _call(self) -> tuple[Any, ...]:
        return (
            _run_pixels, self.numbers, self.passes, self.places, self.offsets, *self.weights.places,
            Scratch("conv window", self.window.size), Scratch("conv vectors", self.vectors_size, np.int64, as_address=False),
            Scratch("conv planes", self.planes_size),
        )  # fmt: skip


@exact_kernel
def _run_pixels(
    u0, u1, numbers, passes, places, offsets, packed, bias, window, vectors, planes, source, target
):  # fmt: skip
    """Computes output rows u0 .. u1 of all images."""
    n = numbers[0]
    several = passes.size > 1
    pixels = n.out_h * n.out_w
    placed = (np.int64(-1), np.int64(-1))
    u = u0
    while u < u1:
        image, first = u // n.rows, u % n.rows
        last = min(first + n.chunk, n.rows, first + u1 - u)
        if placed != (last - first, last - n.rows if several else 0):
            placed = (last - first, last - n.rows if several else 0)
            _place_vectors(n, passes, first, last, vectors)
        for group in range(n.groups):
            channel = source + (image * n.groups + group) * n.channels * n.height * n.width * 4
            maps = (image * n.groups + group) * n.filters
            base = channel + first * n.row_step
            if not n.in_place:
                base = window
                rows = n.plane_rows - (n.chunk - (last - first)) * n.stride_h // n.window_step_h
                for c in range(n.channels):
                    call_tile(
                        n.fill,
                        (
                            channel + c * n.height * n.width * 4, n.height, n.width, base + c * n.channel_bytes,
                            n.plane_bytes, n.first_row + first * n.stride_h, n.first_column,
                            n.window_step_h, n.window_step_w, rows, n.plane_columns,
                        ),
                    )  # fmt: skip
            places_address = np.int64(vectors.ctypes.data)
            for p in range(passes.size):
                one = passes[p]
                count = _vectors_of(n, one, first, last)
                if several:
                    out, out_step = planes + one.plane * 4, n.chunk * one.out_w * 4
                else:
                    out, out_step = target + (maps * pixels + first * n.out_w) * 4, pixels * 4
                weights = packed + (one.weights + group * n.padded * one.taps) * 4
                for v in range(0, count, n.tile_vectors):
                    for f in range(0, n.filters, n.tile_filters):
                        call_tile(
                            n.multiply,
                            (
                                weights + f * one.taps * 4,
                                np.int64(offsets.ctypes.data) + (one.offsets + group * one.taps) * 8, one.taps,
                                base, places_address + v * 24, out + f * out_step, out_step,
                                bias + (group * n.padded + f) * 4, n.filters - f, n.relu,
                            ),
                        )  # fmt: skip
                places_address += count * 24
            if several:
                call_tile(
                    n.combine,
                    (
                        planes, n.filters, np.int64(places.ctypes.data), n.chunk, first, last,
                        target + maps * pixels * 4, n.out_h, n.out_w, n.step_h, n.step_w,
                    ),
                )  # fmt: skip
        u += last - first


@exact_kernel
def _vectors_of(n, one, first, last):
    """The number of vectors of a pass over the rows first .. last, rounded up to a multiple of the tile's vectors."""
    count = max(min(last, one.out_h) - first, 0) * ((one.out_w + n.lanes - 1) // n.lanes)
    return (count + n.tile_vectors - 1) // n.tile_vectors * n.tile_vectors


@exact_kernel
def _place_vectors(n, passes, first, last, vectors):
    """Writes the places of the vectors of all passes: (distance in the window, distance in the output, pixels stored).

    Padding vectors store no pixels. Two chunks with the same number of rows have the same vectors.
    """
    i = 0
    for p in range(passes.size):
        one = passes[p]
        end = i + 3 * _vectors_of(n, one, first, last)
        vectors[i:end] = 0
        for row in range(min(last, one.out_h) - first):
            for column in range(0, one.out_w, n.lanes):
                vectors[i] = row * n.row_step + column * 4
                vectors[i + 1] = (row * one.out_w + column) * 4
                vectors[i + 2] = min(n.lanes, one.out_w - column)
                i += 3
        i = end
