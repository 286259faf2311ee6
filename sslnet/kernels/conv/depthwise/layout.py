"""How depthwise convolutions read planes, in place with masks or from windows, and cut them into tiles."""

from __future__ import annotations

import numpy as np

from sslnet.kernels.conv.depthwise.stencil import Reading, Stencil, lowest
from sslnet.kernels.conv.geometry import ConvGeometry
from sslnet.kernels.runtime.recording import Scratch
from sslnet.kernels.simd.vector import VectorUnit

WINDOW_BYTES = 16 * 1024
"""The most bytes of the windows in use, so that they stay in the first-level cache."""
MOST_PRODUCTS = 400
"""The most multiply-adds of a tile, whose loops are fully unrolled."""
MOST_ROWS = 8
LANES_TO_MASK = 8
"""From this many lanes on a part of a vector is loaded by one instruction (AVX2, AVX-512); narrower ones lane by
lane."""
CHANNELS = 32
"""The most planes of a call, so that the sums of their weight gradients stay in the first-level cache."""


class DepthwiseLayout:
    """How the planes of one pass are read and cut into tiles.

    shape           the pixels that an output reads
    height, width   size of a source plane
    out_h, out_w    size of an output plane
    pads            rows and columns of zeros before the plane
    most_rows       the most vectors of a tile
    most_whole      the most vectors of a tile that is a whole plane
    """

    def __init__(
        self, shape: Stencil, unit: VectorUnit, height: int, width: int, out_h: int, out_w: int,
        pads: tuple[int, int], most_rows: int, most_whole: int,
    ) -> None:  # fmt: skip
        self.shape = shape
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
        # The first pixel of a row is aligned, which costs a vector before the window.
        front = -(pads[1] // split_w) % unit.lanes
        # A vector that begins in a phase plane may end beyond it.
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

    @property
    def window_scratch(self) -> Scratch:
        """The windows of a thread, or row of zeros, set to zero."""
        return Scratch("depthwise window", self.size, zeroed=True)

    def window(self) -> int | np.ndarray:
        """The address of the calling thread's windows, or row of zeros, set to zero."""
        return self.window_scratch.find()


def forward_layout(g: ConvGeometry, unit: VectorUnit) -> DepthwiseLayout:
    """The layout of the forward pass."""
    return _forward(g, unit, *_most_rows(unit, g.columns, 1))


def weight_grad_layout(g: ConvGeometry, unit: VectorUnit) -> DepthwiseLayout:
    """The layout of the gradient of the weights: registers hold the sums of all taps and a tile of dy."""
    spare = max(1, unit.registers - g.columns - 2)
    return _forward(g, unit, min(4, spare), max(spare, unit.registers // 2))


def _forward(g: ConvGeometry, unit: VectorUnit, most_rows: int, most_whole: int) -> DepthwiseLayout:
    shape = Stencil(g.kernel_h, g.kernel_w, g.stride_h, g.stride_w, g.dilation_h, g.dilation_w)
    pads = g.pad_h, g.pad_w
    return DepthwiseLayout(shape, unit, g.height, g.width, g.out_h, g.out_w, pads, most_rows, most_whole)


def input_grad_layout(g: ConvGeometry, unit: VectorUnit) -> DepthwiseLayout:
    """The layout of the gradient of the input: at stride 1 a convolution of dy with the flipped weights."""
    kernel, strides, dilations = (g.kernel_h, g.kernel_w), (g.stride_h, g.stride_w), (g.dilation_h, g.dilation_w)
    pads: tuple[int, int]
    if strides == (1, 1):
        shape = Stencil(*kernel, 1, 1, *dilations, g.group_filters)
        pads = ((g.kernel_h - 1) * g.dilation_h - g.pad_h, (g.kernel_w - 1) * g.dilation_w - g.pad_w)
    else:
        shape = Stencil(*kernel, *strides, *dilations, g.group_filters, 1, g.pad_h, g.pad_w)
        pads = (
            -lowest(g.kernel_h, g.stride_h, g.dilation_h, g.pad_h),
            -lowest(g.kernel_w, g.stride_w, g.dilation_w, g.pad_w),
        )
    most = _most_rows(unit, shape.taps, shape.steps[1])
    return DepthwiseLayout(shape, unit, g.out_h, g.out_w, g.height, g.width, pads, *most)


def _most_rows(unit: VectorUnit, taps: int, sums: int) -> tuple[int, int]:
    """The most vectors of a tile, one below the other: (with several tiles, with one tile that is a whole plane).

    Registers hold the sums, a pixel and, if they fit, the weights; a tile that is a whole plane does not need the
    weights there.
    """
    spare = unit.registers - 2 - (taps if taps <= unit.registers - 6 else 0)
    most = MOST_PRODUCTS // taps
    return max(1, min(MOST_ROWS, spare // sums, most)), max(1, min((unit.registers - 6) // sums, most))
