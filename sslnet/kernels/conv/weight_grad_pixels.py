"""The loop nest of the weight gradient with vectors over pixels, for groups of few filters (depthwise) and few taps.

dy is read in place, the input in place or through a window, which is split by phase when the stride is not 1. A tile
holds the sums of some taps for some filters, one vector each, and adds up their lanes at the end of a plane.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sslnet.kernels.conv.geometry import ConvGeometry
from sslnet.kernels.conv.loop_nest import SummedGradLoop
from sslnet.kernels.conv.packing import address, record, window_for
from sslnet.kernels.conv.taps import lower_forward
from sslnet.kernels.conv.weight_grad_microkernels import pixel_grad_tile
from sslnet.kernels.conv.window import fill_plane
from sslnet.kernels.runtime.compiler import exact_kernel
from sslnet.kernels.runtime.memory import scratch_address
from sslnet.kernels.runtime.threads import parallel
from sslnet.kernels.simd.vector import VectorUnit, call_tile


@dataclass(frozen=True)
class PixelGradTile:
    """Sums in registers: ``filters`` by ``taps``; ``filters`` divides the filters of a group."""

    filters: int
    taps: int

    @property
    def name(self) -> str:
        return f"pixels {self.filters}x{self.taps}"


class PixelGradLoop(SummedGradLoop):
    """The pixel loop nest of the weight gradient; nothing is packed in advance."""

    def __init__(self, geometry: ConvGeometry, unit: VectorUnit, tile: PixelGradTile) -> None:
        g = self.geometry = geometry
        self.tile = tile
        self.kernel = tile.name
        self.multiply_adds = g.flops // 2
        low = lower_forward(g)
        taps = low.passes[0]
        window = self.window = window_for(low, split=True, whole_vectors=False)
        self.order = taps.weights[0]
        """The column of the weight matrix for each tap."""
        self.padded_taps = -(-g.columns // tile.taps) * tile.taps
        self.sums_size = g.filters * self.padded_taps
        # Extra filters at the end collect the redundant bias sums of every tile of taps but the first.
        self.bias_shape = 1, g.filters + tile.filters
        self.group_filters = g.filters
        # Padding taps read the first pixel; their sums are not used.
        self.offsets = np.zeros(self.padded_taps, np.int64)
        self.offsets[: g.columns] = window.offsets(taps)[0]
        self.numbers = record(
            groups=g.groups, channels=g.group_channels, height=g.height, width=g.width, filters=g.group_filters,
            out_h=g.out_h, out_w=g.out_w, stride_h=g.stride_h, tile_filters=tile.filters, tile_taps=tile.taps,
            taps=self.padded_taps, chunk=window.chunk, in_place=window.in_place, first_row=window.first_row,
            first_column=window.first_column, window_step_h=window.step_h, window_step_w=window.step_w,
            plane_rows=window.plane_rows, plane_columns=window.plane_columns, plane_bytes=window.plane_bytes,
            channel_bytes=window.channel_bytes, row_step=window.row_step, fill=fill_plane(unit),
            multiply=pixel_grad_tile(unit, tile.filters, tile.taps),
        )  # fmt: skip

    def _parts(self, threads: int) -> int:
        return min(threads, self.geometry.batch)

    def _sum(self, threads: int, x: int, dy: int, sums: np.ndarray, bias_sums: np.ndarray) -> None:
        sums[:] = 0
        parallel(self._images, self.geometry.batch, x, dy, sums, bias_sums, most=len(sums))

    def _put(self, threads: int, sums: np.ndarray, dw: np.ndarray, accumulate: bool) -> None:
        g = self.geometry
        _add_sums(sums.reshape(len(sums), g.filters, -1), self.order, dw.reshape(g.filters, g.columns), not accumulate)

    def _images(self, i0: int, i1: int, thread: int, x: int, dy: int, sums: np.ndarray, bias_sums: np.ndarray) -> None:
        _run_images(
            i0, i1, self.numbers, self.offsets, scratch_address("conv window", self.window.size),
            address(sums[thread]), address(bias_sums[thread]), x, dy,
        )  # fmt: skip


@exact_kernel
def _add_sums(sums, order, columns, overwrite):
    """Adds the sums (parts, filters, taps) over the parts, in order, to columns[filter, order[tap]]."""
    if overwrite:
        columns[:] = 0
    for part in range(sums.shape[0]):
        for f in range(columns.shape[0]):
            for tap in range(len(order)):
                columns[f, order[tap]] += sums[part, f, tap]


@exact_kernel
def _run_images(i0, i1, numbers, offsets, window, sums, bias_sums, x, dy):
    """Adds images i0 .. i1 to the sums of all groups."""
    n = numbers[0]
    pixels = n.out_h * n.out_w
    for image in range(i0, i1):
        for group in range(n.groups):
            channel = x + (image * n.groups + group) * n.channels * n.height * n.width * 4
            for top in range(0, n.out_h, n.chunk):
                rows = min(n.chunk, n.out_h - top)
                base = channel + top * n.row_step
                if not n.in_place:
                    base = window
                    window_rows = n.plane_rows - (n.chunk - rows) * n.stride_h // n.window_step_h
                    for c in range(n.channels):
                        call_tile(
                            n.fill,
                            (
                                channel + c * n.height * n.width * 4, n.height, n.width, base + c * n.channel_bytes,
                                n.plane_bytes, n.first_row + top * n.stride_h, n.first_column,
                                n.window_step_h, n.window_step_w, window_rows, n.plane_columns,
                            ),
                        )  # fmt: skip
                for block in range(0, n.filters, n.tile_filters):
                    f = group * n.filters + block
                    for t in range(0, n.taps, n.tile_taps):
                        call_tile(
                            n.multiply,
                            (
                                dy + ((image * n.groups * n.filters + f) * pixels + top * n.out_w) * 4, pixels * 4,
                                rows, n.out_w, base, n.row_step, np.int64(offsets.ctypes.data) + t * 8,
                                sums + (f * n.taps + t) * 4, n.taps * 4,
                                bias_sums + (f if t == 0 else n.groups * n.filters) * 4,
                            ),
                        )  # fmt: skip
