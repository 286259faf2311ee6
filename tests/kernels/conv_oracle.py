"""Convolutions in float64 loops over the taps, and arrays that show what is read or written outside them."""

import numpy as np

from sslnet.kernels.conv.winograd.loop import WinogradLoop
from sslnet.kernels.conv.winograd.weight_grad import WinogradGradLoop
from sslnet.kernels.simd.vector import GENERIC, UNITS

from .calling import CANARY

ALL_UNITS = [*UNITS.values(), GENERIC]
"""The compiler takes vectors of any width on any machine; wide ones it splits."""


def pieces(g, x):
    """(group, kernel row, kernel column, the pixels it meets) of the padded input, in float64."""
    padded = np.pad(x.astype(np.float64), [(0, 0), (0, 0), (g.pad_h, g.pad_end_h), (g.pad_w, g.pad_end_w)])
    padded = padded.reshape(g.batch, g.groups, g.group_channels, *padded.shape[2:])
    for i in range(g.kernel_h):
        rows = slice(i * g.dilation_h, i * g.dilation_h + (g.out_h - 1) * g.stride_h + 1, g.stride_h)
        for j in range(g.kernel_w):
            columns = slice(j * g.dilation_w, j * g.dilation_w + (g.out_w - 1) * g.stride_w + 1, g.stride_w)
            yield i, j, padded, (slice(None), slice(None), slice(None), rows, columns)


def grouped(g, weights):
    return weights.astype(np.float64).reshape(g.groups, g.group_filters, g.group_channels, g.kernel_h, g.kernel_w)


def naive_forward(g, x, weights, bias):
    y = np.zeros((g.batch, g.groups, g.group_filters, g.out_h, g.out_w))
    for i, j, padded, where in pieces(g, x):
        y += np.einsum("gfc,ngchw->ngfhw", grouped(g, weights)[..., i, j], padded[where])
    return y.reshape(g.output_shape) + bias.astype(np.float64)[:, None, None]


def naive_gradients(g, x, weights, dy):
    dx, dw = None, np.zeros((g.groups, g.group_filters, g.group_channels, g.kernel_h, g.kernel_w))
    grads = dy.astype(np.float64).reshape(g.batch, g.groups, g.group_filters, g.out_h, g.out_w)
    for i, j, padded, where in pieces(g, x):
        dx = np.zeros_like(padded) if dx is None else dx
        dw[..., i, j] = np.einsum("ngfhw,ngchw->gfc", grads, padded[where])
        dx[where] += np.einsum("gfc,ngfhw->ngchw", grouped(g, weights)[..., i, j], grads)
    dx = dx.reshape(g.batch, g.channels, *dx.shape[3:])
    dx = dx[:, :, g.pad_h : g.pad_h + g.height, g.pad_w : g.pad_w + g.width]
    return dx, dw.reshape(g.weight_shape), dy.astype(np.float64).sum((0, 2, 3))


def guarded(shape, value=CANARY):
    """An array between two canaries, and the whole of it; not aligned, for nothing may depend on that."""
    size = int(np.prod(shape))
    whole = np.full(size + 2 * 61, CANARY, np.float32)
    inner = whole[61 : 61 + size].reshape(shape)
    inner[:] = value
    return inner, whole


def assert_guards_untouched(*wholes):
    for whole in wholes:
        assert (whole[:61] == CANARY).all()
        assert (whole[-61:] == CANARY).all()


def inside_guards(values):
    """A copy whose neighbours are NaN: one read outside shows up in the result."""
    whole = np.full(values.size + 2 * 61, np.nan, np.float32)
    inner = whole[61 : 61 + values.size].reshape(values.shape)
    inner[:] = values
    return inner


def assert_close(actual, expected, within=1e-5):
    """Within 1e-5 of the largest magnitude: sums of float32 products in any order."""
    assert actual.shape == expected.shape
    scale = max(1.0, np.abs(expected).max(initial=0))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=within * scale)


def precision(engine):
    """What assert_close may ask of an engine: Winograd's transforms add to the rounding."""
    return 1e-4 if isinstance(engine, WinogradLoop | WinogradGradLoop) else 1e-5


def operands(g, seed=0):
    rng = np.random.default_rng(seed)
    shapes = (g.input_shape, g.weight_shape, (g.filters,), g.output_shape)
    return [inside_guards(rng.standard_normal(shape).astype(np.float32)) for shape in shapes]
