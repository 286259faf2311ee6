"""The loop nests of depthwise convolutions (as many groups as channels): each channel plane by itself, vectors along
rows.

The outputs of a tile, one below the other, share the rows that they read, with masks at the edges of the plane. On
machines with slow masked loads the planes are copied, a few at a time, into zero-padded windows that stay in the
first-level cache. The gradient of the input is the same stencil with flipped weights; with a stride its outputs are
computed by phase, so that no zeros are multiplied.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sslnet.kernels.conv.depthwise.layout import DepthwiseLayout
from sslnet.kernels.conv.depthwise.microkernels import add_lanes, stencil, stencil_sums
from sslnet.kernels.conv.depthwise.window import fill_window
from sslnet.kernels.conv.geometry import ConvGeometry
from sslnet.kernels.conv.loop_nest import PackedLoop, WeightGradLoop
from sslnet.kernels.conv.packing import address, record, threads_for
from sslnet.kernels.runtime.compiler import exact_kernel
from sslnet.kernels.runtime.memory import aligned_zeros, scratch
from sslnet.kernels.runtime.threads import parallel
from sslnet.kernels.simd.vector import VectorUnit, call_tile


class DepthwiseLoop(PackedLoop):
    """The loop nest from planes of the source to planes of outputs: the forward pass or the gradient of the input.

    filters   planes of the output for each plane, or group of ``layout.shape.sources`` planes, of the source
    flipped   whether each plane's weights are read from the last one to the first
    """

    def __init__(
        self,
        g: ConvGeometry,
        layout: DepthwiseLayout,
        unit: VectorUnit,
        *,
        filters: int,
        flipped: bool,
        relu: bool,
    ) -> None:
        shape = layout.shape
        self.layout = layout
        self.kernel = layout.name
        self.units = g.batch * g.channels
        self.multiply_adds = g.flops // 2
        self.weights = aligned_zeros(g.filters * g.columns)
        self.bias = aligned_zeros(g.channels * filters)
        self.places = address(self.weights), address(self.bias)
        fill = 0 if layout.direct else fill_window(unit, *shape.split)
        self.numbers = record(
            **layout.numbers, channels=g.channels, filters=filters, taps=g.columns, relu=relu,
            tap_step=-4 if flipped else 4, first_tap=4 * (g.columns - 1) if flipped else 0,
            weights_step=4 * g.columns * g.group_filters, bias_step=4 * filters, fill=fill,
            multiply=stencil(unit, shape, layout.rows, layout.reading),
        )  # fmt: skip

    def pack(self, weights: np.ndarray, bias: np.ndarray | None) -> None:
        """Copies weights and bias in the order in which they are given."""
        self.weights[:] = weights.reshape(-1)
        self.bias[:] = 0 if bias is None else bias

    def _call(self) -> tuple[Any, ...]:
        return _run, self.numbers, *self.places, self.layout.window_scratch


@exact_kernel
def _run(u0, u1, numbers, weights, bias, window, source, target):
    """Computes planes u0 .. u1 of all images."""
    n = numbers[0]
    out_plane = n.out_h * n.out_w * 4
    u = u0
    while u < u1:
        channel = u % n.channels
        planes = min(n.planes, n.channels - channel, u1 - u)
        for first in range(0, n.outputs_h, n.chunk):
            rows = min(n.chunk, n.outputs_h - first)
            count = min(rows * n.step_h, n.out_h - first * n.step_h)
            start, extra = _read(n, source, u, planes, first, rows, window)
            for k in range(n.filters):
                call_tile(
                    n.multiply,
                    (
                        weights + channel * n.weights_step + k * n.taps * 4 + n.first_tap, n.tap_step, n.weights_step,
                        bias + channel * n.bias_step + k * 4, n.bias_step, start, n.plane_step, n.source_step, n.pitch,
                        n.height, n.width, first * n.split_h - n.pad_h, n.pad_w, extra, planes, count, n.out_w,
                        target + (u * n.filters + k) * out_plane + first * n.step_h * n.out_w * 4, n.filters * out_plane,
                        n.relu,
                    ),
                )  # fmt: skip
        u += planes


@exact_kernel
def _read(n, source, u, planes, first, rows, window):
    """The addresses ``x`` and ``extra`` for the tiles: of windows, filled for the outputs first .. first + rows, or of
    the planes in place."""
    start = source + u * n.sources * n.height * n.width * 4
    if n.direct:
        return start, window
    low, high = first * n.split_h - n.pad_h, (first + rows - 1) * n.split_h - n.pad_h + n.reach_h
    call_tile(
        n.fill,
        (
            start, planes * n.sources, n.height, n.width, low, high - low + 1, n.pad_w, window + n.front, n.source_step,
            n.phase_step, n.pitch, n.zeros,
        ),
    )  # fmt: skip
    return window + n.front, n.phase_step


class DepthwiseGradLoop(WeightGradLoop):
    """The depthwise loop nest of the gradients dw and db from x and dy."""

    def __init__(self, geometry: ConvGeometry, layout: DepthwiseLayout, unit: VectorUnit) -> None:
        g = self.geometry = geometry
        shape = layout.shape
        self.layout = layout
        self.kernel = layout.name
        self.sums_size = layout.planes * g.group_filters * (g.columns + 1) * unit.lanes
        fill = 0 if layout.direct else fill_window(unit, *shape.split)
        self.numbers = record(
            **layout.numbers, batch=g.batch, channels=g.channels, filters=g.group_filters, taps=g.columns,
            sums_step=(g.columns + 1) * unit.bytes, fill=fill,
            multiply=stencil_sums(unit, shape, layout.rows, layout.reading), add_lanes=add_lanes(unit),
        )  # fmt: skip

    def run(self, x: np.ndarray, dy: np.ndarray, dw: np.ndarray, db: np.ndarray | None, accumulate: bool) -> None:
        g = self.geometry
        if db is None:
            db = scratch("depthwise db", g.filters)
        if not accumulate:
            dw[:] = 0
            db[:] = 0
        arrays = (address(array) for array in (x, dy, dw, db))
        # One thread sums a channel over all images, so sums do not depend on the number of threads.
        parallel(self._part, g.channels, *arrays, most=threads_for(g.flops // 2))

    def _part(self, c0: int, c1: int, thread: int, x: int, dy: int, dw: int, db: int) -> None:
        window, sums = self.layout.window(), scratch("depthwise sums", self.sums_size)
        _run_sums(c0, c1, self.numbers, window, sums, x, dy, dw, db)


@exact_kernel
def _run_sums(c0, c1, numbers, window, sums, x, dy, dw, db):
    """Computes the gradients of the channels c0 .. c1, some planes at a time, over all images."""
    n = numbers[0]
    out_plane = n.out_h * n.out_w * 4
    held = np.int64(sums.ctypes.data)
    for channel in range(c0, c1, n.planes):
        planes = min(n.planes, c1 - channel)
        sums[:] = 0
        for image in range(n.batch):
            u = image * n.channels + channel
            for first in range(0, n.outputs_h, n.chunk):
                rows = min(n.chunk, n.outputs_h - first)
                start, extra = _read(n, x, u, planes, first, rows, window)
                for k in range(n.filters):
                    call_tile(
                        n.multiply,
                        (
                            start, n.plane_step, n.source_step, n.pitch, n.height, n.width, first * n.split_h - n.pad_h,
                            n.pad_w, extra, planes, rows, n.out_w, dy + (u * n.filters + k) * out_plane + first * n.out_w * 4,
                            n.filters * out_plane, held + k * planes * n.sums_step,
                        ),
                    )  # fmt: skip
        for k in range(n.filters):
            f = channel * n.filters + k
            call_tile(
                n.add_lanes,
                (
                    held + k * planes * n.sums_step, planes, n.taps, dw + f * n.taps * 4, n.filters * n.taps * 4, db + f * 4,
                    n.filters * 4,
                ),
            )  # fmt: skip
