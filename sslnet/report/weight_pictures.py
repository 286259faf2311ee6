"""Draws weights: the filters of a convolution, and the number of connections of each pixel of an image.

Filters are small images; zero is mid-grey. A zero filter is an empty frame, and a position of the kernel that is zero in
all channels is a crossed cell, so that the learned shapes are visible.

Ref: Wen et al. 2016, figures 3, 4 (b) and 5
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.errors import UsageError, suggestion
from sslnet.hdf5 import is_hdf5
from sslnet.net.weights import Arrays, read_message, read_weights
from sslnet.report.plots import figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 7.2
"""Width of a picture of filters, in inches."""
FRAME, GONE, CROSS = "#8c8c8c", "#ffffff", "#a6c8e4"
MOST_IN_A_ROW = 24
MOST_FRAMES = 6000
"""Number of cells above which filters have neither frames nor crosses, which would be too small."""
PANEL = 3.0
"""Size of a picture of connections, in inches."""


@dataclass(frozen=True)
class PicturedFilters:
    """The filters of a layer of one model. weights  (N, C, kh, kw), with zeros for removed columns"""

    title: str
    weights: np.ndarray


@dataclass(frozen=True)
class Connections:
    """The connections of an image. counts  (H, W): number of non-zero weights that read each pixel, of all channels
    together"""

    title: str
    counts: np.ndarray


# -- what a file has ---------------------------------------------------------------------------------------------------


def find_filters(path: str, layer: str | None, title: str) -> PicturedFilters:
    """Finds the filters of a convolution in a file of weights, including compacted ones.

    layer   None: the first convolution
    raises UsageError for a missing layer, or one without filters over two axes
    """
    arrays, params = _read(path)
    kept = {name: param.convolution_param for name, param in params.items() if param.convolution_param.kept_column}
    found = {name: blobs[0] for name, blobs in arrays.items() if _is_conv(blobs[0]) or name in kept}
    if layer is None:
        if not found:
            raise UsageError(f"{path}: there is no convolution over two axes in it")
        layer = next(iter(found))
    _check_layer(path, layer, arrays)
    if layer not in found:
        shape = " x ".join(map(str, arrays[layer][0].shape))
        raise UsageError(
            f'{path}: the weights of "{layer}" are {shape}: no filters over two axes',
            hint=f"convolutions in it: {', '.join(found)}" if found else "",
        )
    weights = found[layer]
    return PicturedFilters(title, _with_all_columns(weights, kept[layer]) if layer in kept else weights)


def find_connections(path: str, layer: str | None, shape: Sequence[int] | None, title: str) -> Connections:
    """Counts the non-zero weights of an InnerProduct layer for each pixel of the image that they read.

    layer   None: the first one
    shape   C, H, W or H, W of its bottom; None: a square of one channel, or of three
    raises UsageError for a missing layer, or one whose bottom is not an image of that shape
    """
    arrays, params = _read(path)
    found = {name: _matrix(blobs[0]) for name, blobs in arrays.items() if _matrix(blobs[0]) is not None}
    if layer is None:
        if not found:
            raise UsageError(f"{path}: there is no InnerProduct layer in it")
        layer = next(iter(found))
    _check_layer(path, layer, arrays)
    matrix = found.get(layer)
    if matrix is None:
        raise UsageError(
            f'{path}: "{layer}" is no InnerProduct layer',
            hint=f"InnerProduct layers in it: {', '.join(found)}" if found else "",
        )
    if layer in params and params[layer].inner_product_param.transpose:
        matrix = matrix.T
    columns = np.count_nonzero(matrix, axis=0)
    sizes = _image_shape(f'{path}: "{layer}"', columns.size, shape)
    return Connections(title, columns.reshape(sizes).sum(axis=0))


def _read(path: str) -> tuple[Arrays, dict[str, Any]]:
    """The blobs by layer, and the definitions of the layers if the file has them."""
    arrays = read_weights(path)
    if is_hdf5(os.fspath(path)):
        return arrays, {}
    return arrays, {layer.name: layer for layer in read_message(path, pb.NetParameter()).layer}


def _check_layer(path: str, layer: str, arrays: Arrays) -> None:
    if layer not in arrays:
        hint = suggestion(layer, arrays) or f"layers with weights: {', '.join(list(arrays)[:10])}"
        raise UsageError(f'{path}: no layer "{layer}" has weights in it', hint=hint)


def _is_conv(weights: np.ndarray) -> bool:
    return weights.ndim == 4 and weights.size > 0 and weights.shape[:2] != (1, 1)


def _matrix(weights: np.ndarray) -> np.ndarray | None:
    """The weights of an InnerProduct layer, which have four axes in files of an older Caffe."""
    if weights.ndim == 4 and weights.shape[:2] == (1, 1):
        weights = weights[0, 0]
    return weights if weights.ndim == 2 and weights.size else None


def _with_all_columns(weights: np.ndarray, param: Any) -> np.ndarray:
    """Expands (N, kept columns) to (N, C, kh, kw) with zeros; channels after the last kept one are not known."""
    sizes = list(param.kernel_size) or [param.kernel_h, param.kernel_w]
    height, width = sizes if len(sizes) == 2 else sizes * 2
    kept = np.array(param.kept_column, dtype=np.int64).reshape(param.group, -1)
    channels = int(kept.max()) // (height * width) + 1
    full = np.zeros((len(weights), channels * height * width), weights.dtype)
    per_group = len(weights) // param.group
    for group, columns in enumerate(kept):
        rows = slice(group * per_group, (group + 1) * per_group)
        full[rows, columns] = weights[rows].reshape(per_group, -1)
    return full.reshape(len(weights), channels, height, width)


def _image_shape(what: str, columns: int, shape: Sequence[int] | None) -> tuple[int, int, int]:
    if shape is not None:
        sizes = (1, *shape) if len(shape) == 2 else tuple(shape)
        if math.prod(sizes) != columns:
            words = ",".join(map(str, shape))
            raise UsageError(f"{what} reads {columns:,} numbers, not {math.prod(sizes):,} (--shape {words})")
        return sizes[0], sizes[1], sizes[2]
    for channels in (1, 3):
        side = math.isqrt(columns // channels)
        if channels * side * side == columns:
            return channels, side, side
    raise UsageError(f"{what} reads {columns:,} numbers: no square image", hint="say which: --shape C,H,W")


# -- filters -----------------------------------------------------------------------------------------------------------


def plot_filters(models: Sequence[PicturedFilters], file: str | Path, *, each: bool = False, bgr: bool = False) -> None:
    """Draws a panel for each model with its filters: of one channel in grey, of three in colour, of others one row per channel.

    each   whether every filter has its own scale; otherwise all of a model have one
    bgr    whether the first of three channels is blue
    """
    counts, channels = (max(model.weights.shape[axis] for model in models) for axis in (0, 1))
    height, width = (max(model.weights.shape[axis] for model in models) for axis in (2, 3))
    whole = channels in (1, 3)
    rows = math.ceil(counts / MOST_IN_A_ROW) if whole else channels
    across = math.ceil(counts / rows) if whole else counts
    aspect = rows * (height + 1) / (across * (width + 1))
    with figure(file, len(models), 1, (WIDTH, 0.34 + WIDTH * aspect + 0.3 / len(models))) as axes:
        for ax, model in zip(axes, models):
            grid = _Grid(ax, across, (height, width))
            _draw_filters(grid, model, counts, channels, whole, each, bgr)
            grid.finish(rows)
            ax.set_title(_filters_title(model, counts, each), loc="left", fontsize=9)
        words = ["grey: 0", "empty frame: removed", "crossed: weight removed"]
        if not whole:
            words.insert(0, "a column is a filter, a row an input channel")
        axes[-1].set_xlabel("   ".join(words), fontsize=7, color="#555555")


def _draw_filters(
    grid: _Grid, model: PicturedFilters, counts: int, channels: int, whole: bool, each: bool, bgr: bool
) -> None:
    largest = float(np.abs(model.weights).max()) or 1.0
    for i in range(counts):
        weights = model.weights[i] if i < len(model.weights) else None
        if weights is None or not weights.any():
            for c in range(1 if whole else channels):
                grid.add(i if whole else (c, i), None)
            continue
        shades = 0.5 + 0.5 * weights / (float(np.abs(weights).max()) if each else largest)
        if whole and len(weights) == 3:
            image = shades[::-1] if bgr else shades
            grid.add(i, image.transpose(1, 2, 0), ~weights.any(axis=0))
        elif whole:
            grid.add(i, shades[0], ~weights.any(axis=0))
        else:
            for c in range(channels):
                there = c < len(weights) and weights[c].any()
                grid.add((c, i), shades[c] if there else None, weights[c] == 0 if there else None)


def _filters_title(model: PicturedFilters, counts: int, each: bool) -> str:
    weights = model.weights
    nonzero = int(np.count_nonzero(weights.any(axis=(1, 2, 3))))
    columns = weights.any(axis=0)
    words = [f"{nonzero} of {counts} filters"]
    if not columns.all():
        words.append(f"{np.count_nonzero(columns)} of {columns.size} weights in each")
    if not each and weights.any():
        words.append(f"black to white: ±{np.abs(weights).max():.2g}")
    return f"{model.title}   {', '.join(words)}"


class _Grid:
    """Small images on a grid, one cell of the axes per weight, with a gap of one cell between them."""

    def __init__(self, ax: Axes, across: int, size: tuple[int, int]) -> None:
        self.ax = ax
        self.across = across
        self.size = size
        self.tiles: list[tuple[int, int, np.ndarray | None, np.ndarray | None]] = []

    def add(self, place: int | tuple[int, int], image: np.ndarray | None, gone: np.ndarray | None = None) -> None:
        """Adds an image (h, w) or (h, w, 3), 0 to 1; None for an empty frame; gone (h, w): weights that are crossed
        out."""
        row, column = divmod(place, self.across) if isinstance(place, int) else place
        self.tiles.append((row, column, image, gone))

    def finish(self, rows: int) -> None:
        from matplotlib.collections import LineCollection

        (height, width), across = self.size, self.across
        canvas = np.ones((rows * (height + 1) + 1, across * (width + 1) + 1, 3), np.float32)
        frames: list[Any] = []
        crosses: list[Any] = []
        for row, column, image, gone in self.tiles:
            y, x = row * (height + 1) + 1, column * (width + 1) + 1
            if image is not None:
                shown = image if image.ndim == 3 else image[..., None]
                canvas[y : y + image.shape[0], x : x + image.shape[1]] = shown
                for i, j in np.argwhere(gone) if gone is not None else ():
                    canvas[y + i, x + j] = 1
                    top, left = y + i - 0.5, x + j - 0.5
                    crosses += [[(left + 0.15, top + 0.15), (left + 0.85, top + 0.85)]]
                    crosses += [[(left + 0.15, top + 0.85), (left + 0.85, top + 0.15)]]
            left, top = x - 0.5, y - 0.5
            right, bottom = left + width, top + height
            frames.append([(left, top), (right, top), (right, bottom), (left, bottom), (left, top)])
        self.ax.imshow(canvas, interpolation="nearest", aspect="equal")
        if len(frames) <= MOST_FRAMES:
            self.ax.add_collection(LineCollection(crosses, colors=CROSS, linewidths=0.6))
            self.ax.add_collection(LineCollection(frames, colors=FRAME, linewidths=0.6))
        self.ax.set(xticks=[], yticks=[])
        for side in self.ax.spines.values():
            side.set_visible(False)


# -- connections -------------------------------------------------------------------------------------------------------


def plot_connections(models: Sequence[Connections], file: str | Path, *, each: bool = False) -> None:
    """Draws a map for each model; pixels without a connection are white.

    each   whether every map has its own colour scale; otherwise all share one
    """
    from matplotlib import colormaps
    from matplotlib.ticker import MaxNLocator

    colours = colormaps["viridis"].with_extremes(under="white")
    most = [max(2, int(model.counts.max())) for model in models]
    across = min(len(models), 3)
    with figure(file, math.ceil(len(models) / across), across, (PANEL + 0.6 * each, PANEL)) as axes:
        for ax, model, own in zip(axes, models, most):
            top = own if each else max(most)
            image = ax.imshow(model.counts, cmap=colours, vmin=1, vmax=top, interpolation="nearest")
            seen = np.count_nonzero(model.counts)
            ax.set_title(f"{model.title}\n{seen:,} of {model.counts.size:,} pixels connected", fontsize=9)
            ax.tick_params(labelsize=7)
            if each or ax is axes[len(models) - 1]:
                bar = ax.figure.colorbar(
                    image,
                    ax=ax if each else axes[: len(models)],
                    extend="min",
                    shrink=0.85,
                    pad=0.02,
                    ticks=MaxNLocator(integer=True),
                )
                bar.set_label("connections of a pixel (white: none)", fontsize=8)
                bar.ax.tick_params(labelsize=7)
