"""A convolution, or the gradient of its input, as sums over taps: the form in which the dense loop nests run it.

    out[f, r * step_h + a, s * step_w + b] = sum over taps t of pass (a, b) of
                                             weight[f, t] * source[channel_t, r * stride_h + row_t, s * stride_w + column_t]

The forward pass is one pass with step 1. The input gradient of a convolution with stride s is s_h * s_w passes of stride 1,
one for every phase of the input's rows and columns, each with the taps that meet that phase: no zeros are multiplied.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sslnet.kernels.conv.geometry import ConvGeometry


@dataclass(frozen=True)
class Pass:
    """The taps of one output phase, in the order of their source rows: arrays (groups, taps) of int64."""

    out_h: int
    out_w: int
    channels: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    weights: np.ndarray
    """Index of the tap's weight for the group's first filter, in the weight blob."""

    @property
    def taps(self) -> int:
        return self.rows.shape[1]

    @cached_property
    def line(self) -> tuple[int, int, int] | None:
        """(first column, taps, spacing) when the taps form lines with the same equally spaced columns, else None."""
        if not self.taps:
            return None
        columns = np.unique(self.columns)
        spacing = int(columns[1] - columns[0]) if len(columns) > 1 else 1
        lines = self.columns.size // len(columns)
        same = len(columns) * lines == self.columns.size and (self.columns.reshape(-1, len(columns)) == columns).all()
        same = same and (columns == columns[0] + spacing * np.arange(len(columns))).all()
        together = same and all(
            (axis.reshape(-1, len(columns)) == axis.reshape(-1, len(columns))[:, :1]).all()
            for axis in (self.rows, self.channels)
        )
        return (int(columns[0]), len(columns), spacing) if together else None


@dataclass(frozen=True)
class TapGeometry:
    """One pass as sums over taps, for a loop nest; ``channels`` and ``filters`` count one group, in this direction."""

    batch: int
    groups: int
    channels: int
    height: int
    width: int
    filters: int
    out_h: int
    out_w: int
    stride_h: int
    stride_w: int
    step_h: int
    step_w: int
    weight_step: int
    """From one filter's weight to the next one's, in the weight blob."""
    passes: tuple[Pass, ...]

    @cached_property
    def rows(self) -> int:
        """Output rows of the tallest pass; the threads share out these rows."""
        return max(p.out_h for p in self.passes)

    @cached_property
    def multiply_adds(self) -> int:
        return self.batch * self.groups * self.filters * sum(p.out_h * p.out_w * p.taps for p in self.passes)

    def first_and_last(self, axis: str) -> tuple[int, int]:
        """The smallest and largest displacement of any tap along "rows" or "columns"; (0, 0) without taps."""
        values = [getattr(p, axis) for p in self.passes if p.taps]
        return (min(int(v.min()) for v in values), max(int(v.max()) for v in values)) if values else (0, 0)


def lower_forward(geometry: ConvGeometry) -> TapGeometry:
    """The forward pass as sums over taps."""
    g = geometry
    column = np.tile(np.arange(g.columns), (g.groups, 1))
    channel, i, j = np.unravel_index(column, (g.group_channels, g.kernel_h, g.kernel_w))
    first_filter = np.arange(g.groups)[:, None] * g.group_filters * g.columns
    only = _ordered(
        g.out_h, g.out_w, channel, i * g.dilation_h - g.pad_h, j * g.dilation_w - g.pad_w, column + first_filter
    )
    return TapGeometry(
        g.batch, g.groups, g.group_channels, g.height, g.width, g.group_filters, g.out_h, g.out_w,
        g.stride_h, g.stride_w, 1, 1, g.columns, (only,),
    )  # fmt: skip


MOST_PASSES = 1 << 12
"""The most passes of a planned input gradient, one for each position of a pixel within a stride; a convolution with
longer strides is run by the reference path."""


def lower_input_grad(geometry: ConvGeometry) -> TapGeometry:
    """The gradient of the input, dx from dy, as sums over taps: filters and channels change roles.

    x row h meets dy row (h + pad - i * dilation) / stride where that is a whole number: for h = r * stride + a the taps i
    with a + pad - i * dilation divisible by the stride, at dy row r + (a + pad - i * dilation) / stride.
    """
    g = geometry
    passes = []
    for a in range(min(g.stride_h, g.height)):
        for b in range(min(g.stride_w, g.width)):
            rows = (a + g.pad_h - np.arange(g.kernel_h) * g.dilation_h) / g.stride_h
            columns = (b + g.pad_w - np.arange(g.kernel_w) * g.dilation_w) / g.stride_w
            kernel_rows, kernel_columns = (np.flatnonzero(v == np.floor(v)) for v in (rows, columns))
            f, i, j = (
                axis.ravel()
                for axis in np.meshgrid(np.arange(g.group_filters), kernel_rows, kernel_columns, indexing="ij")
            )
            weight = (f * g.group_channels * g.kernel_h + i) * g.kernel_w + j
            first_filter = np.arange(g.groups)[:, None] * g.group_filters * g.columns
            channels, row, column = (np.tile(v, (g.groups, 1)) for v in (f, rows[i], columns[j]))
            out_h, out_w = -(-(g.height - a) // g.stride_h), -(-(g.width - b) // g.stride_w)
            passes.append(_ordered(out_h, out_w, channels, row, column, weight + first_filter))
    return TapGeometry(
        g.batch, g.groups, g.group_filters, g.out_h, g.out_w, g.group_channels, g.height, g.width,
        1, 1, min(g.stride_h, g.height), min(g.stride_w, g.width), g.kernel_h * g.kernel_w, tuple(passes),
    )  # fmt: skip


def _ordered(
    out_h: int, out_w: int, channels: np.ndarray, rows: np.ndarray, columns: np.ndarray, weights: np.ndarray
) -> Pass:
    """A Pass with its taps sorted by source row, then channel, so that taps in the padding are a prefix and a
    suffix."""
    order = np.lexsort((columns, channels, rows), axis=1)
    sort = [np.take_along_axis(v.astype(np.int64), order, axis=1) for v in (channels, rows, columns, weights)]
    return Pass(out_h, out_w, *(np.ascontiguousarray(v) for v in sort))
