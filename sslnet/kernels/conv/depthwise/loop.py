"""Depthwise convolution (as many groups as channels): every channel plane filtered by itself, vectors along its rows.

A tile of outputs below each other shares the rows that it reads, with masks where they leave the plane; machines that are
slow at that copy the planes, a few at a time, into zero-padded windows that stay in the first-level cache. The gradient of the input is the same stencil with the weights turned
round; where the convolution strides, its outputs come in phases, so that no zeros are multiplied.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from sslnet.kernels.conv.depthwise.microkernels import add_lanes, stencil, stencil_sums
from sslnet.kernels.conv.depthwise.stencil import Reading, Stencil, lowest
from sslnet.kernels.conv.depthwise.window import fill_window
from sslnet.kernels.conv.geometry import ConvGeometry
from sslnet.kernels.conv.loop_nest import PackedLoop, WeightGradLoop
from sslnet.kernels.conv.packing import address, record, threads_for
from sslnet.kernels.runtime.memory import aligned_zeros, scratch
from sslnet.kernels.runtime.threads import parallel
from sslnet.kernels.simd.vector import VectorUnit, call_tile

WINDOW_BYTES = 16 * 1024
"""What the windows that are worked on may take of the first-level cache."""
MOST_FILTERS = 4
"""Filters of a channel: with more of them the general engines share what they load among more filters."""
MOST_PRODUCTS = 400
"""Multiply-adds of a tile, all written out."""
MOST_ROWS = 8
LANES_TO_MASK = 8
"""Vectors of so many lanes are loaded in part by one instruction (AVX2, AVX-512); narrower ones lane by lane."""
CHANNELS = 32
"""Planes of a call at most: the sums of their weight gradients stay in the first-level cache."""


def takes_forward(g: ConvGeometry) -> bool:
    """Whether DepthwiseForward runs this geometry."""
    return _is_depthwise(g) and g.stride_h <= 4 and g.stride_w <= 2 and g.columns <= MOST_PRODUCTS


def takes_input_grad(g: ConvGeometry) -> bool:
    """Whether DepthwiseInputGrad runs this geometry."""
    pads = ((g.pad_h, g.kernel_h, g.dilation_h), (g.pad_w, g.kernel_w, g.dilation_w))
    inside = all(pad <= (kernel - 1) * dilation for pad, kernel, dilation in pads)
    strides = g.stride_h <= 8 and g.stride_w in (1, 2, 4, 8)
    return _is_depthwise(g) and inside and strides and g.group_filters * g.columns <= MOST_PRODUCTS


def takes_weight_grad(g: ConvGeometry, unit: VectorUnit) -> bool:
    """Whether DepthwiseWeightGrad runs this geometry: all its sums must fit into the registers."""
    return takes_forward(g) and g.columns + 3 <= unit.registers


def _is_depthwise(g: ConvGeometry) -> bool:
    return g.groups == g.channels > 1 and g.group_filters <= MOST_FILTERS


class Layout:
    """How the planes of one pass are read and worked on in pieces.

    height, width   of a source plane
    out_h, out_w    of an output plane
    pads            rows and columns of zeros before the plane
    most_rows       vectors of a tile at most
    most_whole      the same of a tile that is a whole plane
    """

    def __init__(
        self, shape: Stencil, unit: VectorUnit, height: int, width: int, out_h: int, out_w: int,
        pads: tuple[int, int], most_rows: int, most_whole: int,
    ) -> None:  # fmt: skip
        self.direct = unit.lanes >= LANES_TO_MASK
        step_h, step_w = shape.steps
        split_h, split_w = shape.split
        reach_h, reach_w = shape.reach
        outputs_h, outputs_w = -(-out_h // step_h), -(-out_w // step_w)
        folds = 1
        while self.direct and split_w == step_w == split_h == step_h and unit.lanes // (2 * folds) >= max(width, out_w):
            folds *= 2
        vectors = -(-outputs_h // folds)
        whole = self.direct and vectors <= most_whole and outputs_w <= unit.lanes
        if whole:
            self.reading, most_rows = Reading(folds, out_h, out_w, height, width, *pads), vectors
        else:
            self.reading, vectors = Reading(int(self.direct)), outputs_h
        self.rows = -(-vectors // -(-vectors // max(1, min(most_rows, vectors))))
        numbers = {
            "height": height, "width": width, "out_h": out_h, "out_w": out_w, "pad_h": pads[0], "pad_w": pads[1],
            "split_h": split_h, "step_h": step_h, "outputs_h": outputs_h, "reach_h": reach_h, "sources": shape.sources,
        }  # fmt: skip
        if self.direct:
            self.size = width
            self.planes = CHANNELS
            plane = 4 * height * width
            self.numbers = numbers | {
                "direct": 1, "planes": self.planes, "chunk": outputs_h, "front": 0, "pitch": 4 * width, "zeros": 0,
                "phase_step": 0, "source_step": plane, "plane_step": shape.sources * plane,
            }  # fmt: skip
            return
        columns = outputs_w + reach_w // split_w
        pitch = -(-columns // unit.lanes) * unit.lanes
        halo = reach_h // split_h + 1
        fitting = WINDOW_BYTES // (4 * pitch * split_h * split_w * shape.sources) - halo
        chunk = self.rows * min(-(-outputs_h // self.rows), max(1, fitting // self.rows))
        # Aligned where the first pixel of a row comes to lie, which costs a vector before the window.
        front = -(pads[1] // split_w) % unit.lanes
        # A vector that begins in a phase plane may end behind it.
        phase_step = pitch * (chunk + halo) + unit.lanes
        plane_step = phase_step * split_h * split_w * shape.sources
        self.planes = max(1, WINDOW_BYTES // (4 * plane_step)) if chunk >= outputs_h else 1
        self.size = front + plane_step * self.planes + unit.lanes
        self.numbers = numbers | {
            "direct": 0, "planes": self.planes, "chunk": chunk, "front": 4 * front, "pitch": 4 * pitch, "zeros": columns,
            "phase_step": 4 * phase_step, "source_step": 4 * phase_step * split_h * split_w, "plane_step": 4 * plane_step,
        }  # fmt: skip

    @property
    def name(self) -> str:
        """The tile, for reports."""
        return f"depthwise {self.rows}" + (f"x{self.reading.folds}" if self.reading.folds > 1 else "")

    def window(self) -> np.ndarray:
        """The calling thread's windows, or the row of zeros, all zero."""
        window = scratch("depthwise window", self.size)
        window[:] = 0
        return window


class DepthwiseEngine(PackedLoop):
    """Planes of outputs from planes of the source: what the forward pass and the gradient of the input share.

    filters   planes of the output for each plane, or group of ``shape.sources`` planes, of the source
    flipped   each plane's weights are read from the last one to the first
    """

    def __init__(
        self,
        g: ConvGeometry,
        shape: Stencil,
        layout: Layout,
        unit: VectorUnit,
        *,
        filters: int,
        flipped: bool,
        relu: bool,
    ) -> None:
        self.layout = layout
        self.kernel = layout.name
        self.units = g.batch * g.channels
        self.multiply_adds = g.flops // 2
        self.weights = aligned_zeros(g.filters * g.columns)
        self.bias = aligned_zeros(g.channels * filters)
        self.places = address(self.weights), address(self.bias)
        fill = 0 if layout.direct else fill_window(unit, *shape.split)
        self.tiles = np.array([fill, stencil(unit, shape, layout.rows, layout.reading)], np.int64)
        self.numbers = record(
            **layout.numbers, channels=g.channels, filters=filters, taps=g.columns, relu=relu,
            tap_step=-4 if flipped else 4, first_tap=4 * (g.columns - 1) if flipped else 0,
            weights_step=4 * g.columns * g.group_filters, bias_step=4 * filters,
        )  # fmt: skip

    def pack(self, weights: np.ndarray, bias: np.ndarray | None) -> None:
        """Copies them: they are read in the order in which they are given."""
        self.weights[:] = weights.reshape(-1)
        self.bias[:] = 0 if bias is None else bias

    def _part(self, u0: int, u1: int, thread: int, source: int, target: int) -> None:
        window = address(self.layout.window())
        _run(u0, u1, self.numbers, self.tiles, *self.places, window, source, target)


def forward_engine(g: ConvGeometry, unit: VectorUnit, *, relu: bool = False) -> DepthwiseEngine:
    """y = x * w + b of a geometry that takes_forward."""
    shape = _forward_shape(g)
    layout = _forward_layout(g, shape, unit, *_most_rows(unit, g.columns, 1))
    return DepthwiseEngine(g, shape, layout, unit, filters=g.group_filters, flipped=False, relu=relu)


def input_grad_engine(g: ConvGeometry, unit: VectorUnit, *, relu: bool = False) -> DepthwiseEngine:
    """dx from dy of a geometry that takes_input_grad."""
    kernel, strides, dilations = (g.kernel_h, g.kernel_w), (g.stride_h, g.stride_w), (g.dilation_h, g.dilation_w)
    pads: tuple[int, int]
    flipped = strides == (1, 1)
    if flipped:
        shape = Stencil(*kernel, 1, 1, *dilations, g.group_filters)
        pads = ((g.kernel_h - 1) * g.dilation_h - g.pad_h, (g.kernel_w - 1) * g.dilation_w - g.pad_w)
    else:
        shape = Stencil(*kernel, *strides, *dilations, g.group_filters, 1, g.pad_h, g.pad_w)
        pads = (
            -lowest(g.kernel_h, g.stride_h, g.dilation_h, g.pad_h),
            -lowest(g.kernel_w, g.stride_w, g.dilation_w, g.pad_w),
        )
    layout = Layout(
        shape, unit, g.out_h, g.out_w, g.height, g.width, pads, *_most_rows(unit, shape.taps, shape.steps[1])
    )
    return DepthwiseEngine(g, shape, layout, unit, filters=1, flipped=flipped, relu=relu)


def _forward_shape(g: ConvGeometry) -> Stencil:
    return Stencil(g.kernel_h, g.kernel_w, g.stride_h, g.stride_w, g.dilation_h, g.dilation_w)


def _forward_layout(g: ConvGeometry, shape: Stencil, unit: VectorUnit, most_rows: int, most_whole: int) -> Layout:
    return Layout(shape, unit, g.height, g.width, g.out_h, g.out_w, (g.pad_h, g.pad_w), most_rows, most_whole)


def _most_rows(unit: VectorUnit, taps: int, sums: int) -> tuple[int, int]:
    """Vectors of a tile below each other, when there are several tiles and when there is one: their sums, a pixel and
    (where they fit) the weights are in registers; of one tile, which saves more, the weights need not be."""
    spare = unit.registers - 2 - (taps if taps <= unit.registers - 6 else 0)
    most = MOST_PRODUCTS // taps
    return max(1, min(MOST_ROWS, spare // sums, most)), max(1, min((unit.registers - 6) // sums, most))


@njit(nogil=True, cache=True)
def _run(u0, u1, numbers, tiles, weights, bias, window, source, target):
    """Planes u0 .. u1 of all images."""
    n = numbers[0]
    out_plane = n.out_h * n.out_w * 4
    u = u0
    while u < u1:
        channel = u % n.channels
        planes = min(n.planes, n.channels - channel, u1 - u)
        for first in range(0, n.outputs_h, n.chunk):
            rows = min(n.chunk, n.outputs_h - first)
            count = min(rows * n.step_h, n.out_h - first * n.step_h)
            start, extra = _read(n, tiles[0], source, u, planes, first, rows, window)
            for k in range(n.filters):
                call_tile(
                    tiles[1],
                    (
                        weights + channel * n.weights_step + k * n.taps * 4 + n.first_tap, n.tap_step, n.weights_step,
                        bias + channel * n.bias_step + k * 4, n.bias_step, start, n.plane_step, n.source_step, n.pitch,
                        n.height, n.width, first * n.split_h - n.pad_h, n.pad_w, extra, planes, count, n.out_w,
                        target + (u * n.filters + k) * out_plane + first * n.step_h * n.out_w * 4, n.filters * out_plane,
                        n.relu,
                    ),
                )  # fmt: skip
        u += planes


@njit(nogil=True, cache=True)
def _read(n, fill, source, u, planes, first, rows, window):
    """What tiles take as planes and extra: windows, filled for the outputs first .. first + rows, or the planes themselves."""
    start = source + u * n.sources * n.height * n.width * 4
    if n.direct:
        return start, window
    low, high = first * n.split_h - n.pad_h, (first + rows - 1) * n.split_h - n.pad_h + n.reach_h
    call_tile(
        fill,
        (
            start, planes * n.sources, n.height, n.width, low, high - low + 1, n.pad_w, window + n.front, n.source_step,
            n.phase_step, n.pitch, n.zeros,
        ),
    )  # fmt: skip
    return window + n.front, n.phase_step


class DepthwiseWeightGrad(WeightGradLoop):
    """dw and db from x and dy of a geometry that takes_weight_grad."""

    def __init__(self, geometry: ConvGeometry, unit: VectorUnit) -> None:
        g = self.geometry = geometry
        shape = _forward_shape(g)
        spare = max(1, unit.registers - g.columns - 2)
        layout = self.layout = _forward_layout(g, shape, unit, min(4, spare), max(spare, unit.registers // 2))
        self.kernel = layout.name
        self.sums_size = layout.planes * g.group_filters * (g.columns + 1) * unit.lanes
        fill = 0 if layout.direct else fill_window(unit, *shape.split)
        self.tiles = np.array([fill, stencil_sums(unit, shape, layout.rows, layout.reading), add_lanes(unit)], np.int64)
        self.numbers = record(
            **layout.numbers, batch=g.batch, channels=g.channels, filters=g.group_filters, taps=g.columns,
            sums_step=(g.columns + 1) * unit.bytes,
        )  # fmt: skip

    def run(self, x: np.ndarray, dy: np.ndarray, dw: np.ndarray, db: np.ndarray | None, accumulate: bool) -> None:
        g = self.geometry
        if db is None:
            db = scratch("depthwise db", g.filters)
        if not accumulate:
            dw[:] = 0
            db[:] = 0
        arrays = (address(array) for array in (x, dy, dw, db))
        # A channel is one thread's for all images: sums do not depend on how many threads there are.
        parallel(self._part, g.channels, *arrays, most=threads_for(g.flops // 2))

    def _part(self, c0: int, c1: int, thread: int, x: int, dy: int, dw: int, db: int) -> None:
        window, sums = address(self.layout.window()), scratch("depthwise sums", self.sums_size)
        _run_sums(c0, c1, self.numbers, self.tiles, window, sums, x, dy, dw, db)


@njit(nogil=True, cache=True)
def _run_sums(c0, c1, numbers, tiles, window, sums, x, dy, dw, db):
    """The gradients of the channels c0 .. c1, some planes at a time, over all images."""
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
                start, extra = _read(n, tiles[0], x, u, planes, first, rows, window)
                for k in range(n.filters):
                    call_tile(
                        tiles[1],
                        (
                            start, n.plane_step, n.source_step, n.pitch, n.height, n.width, first * n.split_h - n.pad_h,
                            n.pad_w, extra, planes, rows, n.out_w, dy + (u * n.filters + k) * out_plane + first * n.out_w * 4,
                            n.filters * out_plane, held + k * planes * n.sums_step,
                        ),
                    )  # fmt: skip
        for k in range(n.filters):
            f = channel * n.filters + k
            call_tile(
                tiles[2],
                (
                    held + k * planes * n.sums_step, planes, n.taps, dw + f * n.taps * 4, n.filters * n.taps * 4, db + f * 4,
                    n.filters * 4,
                ),
            )  # fmt: skip
