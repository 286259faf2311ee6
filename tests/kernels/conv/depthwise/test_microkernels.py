"""The micro-kernels of depthwise convolutions, read from planes and from windows, against float64 loops."""

import numpy as np
import pytest

from sslnet.kernels.conv.depthwise.microkernels import add_lanes, stencil, stencil_sums
from sslnet.kernels.conv.depthwise.stencil import Reading, Stencil, lowest
from sslnet.kernels.conv.depthwise.window import fill_window

from ...calling import call, canaries, close, normal
from ...conv_oracle import inside_guards

PLANES, HEIGHT, WIDTH = 2, 7, 11


def padded(x, pad):
    return np.pad(x.astype(np.float64), [(0, 0)] * (x.ndim - 2) + [(pad, pad)] * 2)


def out_size(size, kernel, stride, dilation, pad):
    return (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1


def convolved(shape, weights, bias, x, pad):
    """x (planes, sources, height, width) with weights (planes, sources, kernel_h, kernel_w)."""
    height = out_size(x.shape[2], shape.kernel_h, shape.stride_h, shape.dilation_h, pad)
    width = out_size(x.shape[3], shape.kernel_w, shape.stride_w, shape.dilation_w, pad)
    y, source = np.zeros((len(x), height, width)), padded(x, pad)
    for p, s, i, j, row, column in np.ndindex(*weights.shape, height, width):
        at = row * shape.stride_h + i * shape.dilation_h, column * shape.stride_w + j * shape.dilation_w
        y[p, row, column] += weights[p, s, i, j] * source[p, s, *at]
    return y + bias[:, None, None]


def windows(x, pad, shape, lanes):
    """The planes padded and split by phase, their steps in bytes, and the bytes from row to row."""
    sh, sw = shape.split
    whole = padded(x, pad)
    rows, columns = -(-whole.shape[2] // sh), -(-whole.shape[3] // sw)
    pitch = -(-columns // lanes) * lanes
    made = np.zeros((*x.shape[:2], sh * sw, rows * pitch + 2 * lanes), np.float32)
    for phase, (a, b) in enumerate(np.ndindex(sh, sw)):
        part = whole[:, :, a::sh, b::sw]
        grid = made[:, :, phase, : rows * pitch].reshape(*x.shape[:2], rows, pitch)
        grid[:, :, : part.shape[2], : part.shape[3]] = part
    return made, pitch * 4


@pytest.mark.parametrize("relu", [0, 1])
@pytest.mark.parametrize("reading", ["planes", "windows"])
@pytest.mark.parametrize(
    "shape", [Stencil(3, 3, 1, 1, 1, 1), Stencil(3, 2, 2, 2, 1, 1), Stencil(2, 3, 1, 1, 2, 2, 2)], ids=str
)
def test_stencil(unit, shape, reading, relu):
    x = inside_guards(normal(PLANES, shape.sources, HEIGHT, WIDTH))
    weights, bias, pad = normal(PLANES, shape.sources, shape.kernel_h, shape.kernel_w), normal(PLANES), 1
    expected = convolved(shape, weights, bias, x, pad)
    expected = np.maximum(expected, 0) if relu else expected
    if reading == "planes":
        zeros = inside_guards(np.zeros(WIDTH, np.float32))
        source, pitch, extra = x, 4 * WIDTH, zeros
    else:
        source, pitch = windows(x, pad, shape, unit.lanes)
        extra = source.strides[2]
    y = canaries(*expected.shape)
    call(
        stencil(unit, shape, rows=2, reading=Reading(int(reading == "planes"))),
        *(weights, 4, weights.strides[0], bias, 4, source, source.strides[0], source.strides[1], pitch),
        *(HEIGHT, WIDTH, -pad, pad, extra, PLANES, *expected.shape[1:], y, y.strides[0], relu),
    )
    close(y, expected)


def test_stencil_walks_weights_backwards(unit):
    shape, pad = Stencil(3, 3, 1, 1, 1, 1), 1
    x, weights, bias = normal(PLANES, 1, HEIGHT, WIDTH), normal(PLANES, 1, 3, 3), normal(PLANES)
    expected = convolved(shape, weights[:, :, ::-1, ::-1], bias, x, pad)
    y, zeros = canaries(*expected.shape), np.zeros(WIDTH, np.float32)
    call(
        stencil(unit, shape, rows=1, reading=Reading(1)),
        *(weights.ctypes.data + 32, -4, weights.strides[0], bias, 4, x, x.strides[0], 0, 4 * WIDTH),
        *(HEIGHT, WIDTH, -pad, pad, zeros, PLANES, HEIGHT, WIDTH, y, y.strides[0], 0),
    )
    close(y, expected)


@pytest.mark.parametrize("stride", [2, 4])
def test_stencil_of_an_adjoint(unit, stride):
    pad, kernel = 1, 3
    height, width = (out_size(size, kernel, stride, 1, pad) for size in (HEIGHT, WIDTH))
    dy, weights, bias = normal(PLANES, height, width), normal(PLANES, kernel, kernel), np.zeros(PLANES, np.float32)
    expected = np.zeros((PLANES, HEIGHT + 2 * pad, WIDTH + 2 * pad))
    for p, i, j, row, column in np.ndindex(PLANES, kernel, kernel, height, width):
        expected[p, row * stride + i, column * stride + j] += weights[p, i, j] * np.float64(dy[p, row, column])
    first = lowest(kernel, stride, 1, pad)
    dx, source, zeros = canaries(PLANES, HEIGHT, WIDTH), inside_guards(dy), np.zeros(width, np.float32)
    call(
        stencil(unit, Stencil(kernel, kernel, stride, stride, 1, 1, 1, 1, pad, pad), rows=1, reading=Reading(1)),
        *(weights, 4, weights.strides[0], bias, 4, source, source.strides[0], 0, 4 * width),
        *(height, width, first, -first, zeros, PLANES, HEIGHT, WIDTH, dx, dx.strides[0], 0),
    )
    close(dx, expected[:, pad : pad + HEIGHT, pad : pad + WIDTH])


def whole_plane(unit, height, width, pad):
    """A reading in which one tile is a whole plane of a 3 x 3 kernel, and its vectors."""
    folds = unit.lanes // width
    return Reading(folds, height, width, height, width, pad, pad), -(-height // folds)


@pytest.mark.parametrize("height", [4, 5])
def test_stencil_of_a_whole_plane(unit, height):
    pad, width = 1, 4
    reading, rows = whole_plane(unit, height, width, pad)
    x = inside_guards(normal(PLANES, 1, height, width))
    weights, bias = normal(PLANES, 1, 3, 3), normal(PLANES)
    shape = Stencil(3, 3, 1, 1, 1, 1)
    y, zeros = canaries(PLANES, height, width), np.zeros(width, np.float32)
    call(
        stencil(unit, shape, rows=rows, reading=reading),
        *(weights, 4, weights.strides[0], bias, 4, x, x.strides[0], 0, 4 * width),
        *(height, width, -pad, pad, zeros, PLANES, height, width, y, y.strides[0], 0),
    )
    close(y, convolved(shape, weights, bias, x, pad))


@pytest.mark.parametrize("reading", ["planes", "windows", "whole planes"])
@pytest.mark.parametrize("stride", [1, 2])
def test_stencil_sums(unit, reading, stride):
    pad, height, width = 1, 5, 4 if reading == "whole planes" else WIDTH
    shape, how, rows = Stencil(3, 3, stride, stride, 1, 1), Reading(int(reading == "planes")), 2
    if reading == "whole planes":
        if stride > 1:
            pytest.skip("rows of a plane share a vector only where the stride is 1")
        how, rows = whole_plane(unit, height, width, pad)
    x = inside_guards(normal(PLANES, 1, height, width))
    out_h, out_w = (out_size(size, 3, stride, 1, pad) for size in (height, width))
    dy, sums = inside_guards(normal(PLANES, out_h, out_w)), normal(PLANES, 10, unit.lanes, seed=1)
    expected, source = sums.astype(np.float64).sum(2), padded(x, pad)
    for p, i, j, row, column in np.ndindex(PLANES, 3, 3, out_h, out_w):
        at = row * stride + i, column * stride + j
        expected[p, 3 * i + j] += dy[p, row, column] * source[p, 0, *at]
    expected[:, 9] += dy.astype(np.float64).sum((1, 2))
    planes, pitch, extra = x, 4 * width, np.zeros(width, np.float32)
    if reading == "windows":
        planes, pitch = windows(x, pad, shape, unit.lanes)
        extra = planes.strides[2]
    call(
        stencil_sums(unit, shape, rows=rows, reading=how),
        *(planes, planes.strides[0], planes.strides[1], pitch, height, width, -pad, pad, extra, PLANES),
        *(out_h, out_w, dy, dy.strides[0], sums),
    )
    close(sums.astype(np.float64).sum(2), expected)


def test_add_lanes(unit):
    taps = 4
    sums, dw, db = normal(PLANES, taps + 1, unit.lanes), normal(PLANES, taps, seed=1), normal(PLANES, seed=1)
    totals = sums.astype(np.float64).sum(2)
    expected, bias = dw + totals[:, :taps], db + totals[:, taps]
    call(add_lanes(unit), sums, PLANES, taps, dw, dw.strides[0], db, 4)
    close(dw, expected)
    close(db, bias)


@pytest.mark.parametrize("steps", [(1, 1), (2, 2)], ids=str)
@pytest.mark.parametrize("width", [5, 16, 19])
def test_fill_window(unit, steps, width):
    pad, first_row, rows = 1, -1, 6
    source = inside_guards(normal(PLANES, 4, width))
    columns = -(-(width + 2 * pad) // steps[1])
    pitch = -(-columns // unit.lanes) * unit.lanes
    phase_rows = -(-rows // steps[0])
    window = np.zeros((PLANES, *steps, phase_rows * pitch + unit.lanes), np.float32)
    call(
        fill_window(unit, *steps),
        *(source, PLANES, 4, width, first_row, rows, pad, window, window.strides[0], window.strides[2], 4 * pitch),
        columns,
    )
    for p, row, column in np.ndindex(PLANES, rows, width + 2 * pad):
        h, w = first_row + row, column - pad
        expected = source[p, h, w] if 0 <= h < 4 and 0 <= w < width else 0
        a, b = row % steps[0], column % steps[1]
        assert window[p, a, b, row // steps[0] * pitch + column // steps[1]] == expected
