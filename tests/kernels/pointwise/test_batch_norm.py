"""The micro-kernels of channel-wise normalisation against formulas in float64."""

import numpy as np
import pytest

from sslnet.kernels.pointwise.batch_norm import affine, grad, grad_sums, moments

from ..calling import call, canaries, close, normal

ROWS = 3
MEAN, FACTOR, SHIFT, LEVEL, SLOPE, OUTER = 0.25, -1.5, 0.5, 0.1, 0.2, 0.75


@pytest.fixture(params=[5, 8, 100])
def operands(request):
    """x and dy, rows that lie apart, and the numbers of a channel."""
    values = request.param
    x, dy = (normal(ROWS, values + 3, seed=seed)[:, :values] for seed in (0, 1))
    return x, dy, np.array([MEAN, FACTOR, SHIFT, LEVEL, SLOPE, OUTER, 0, 0], np.float32)


def through_relu(x, dy, relu):
    return np.where((FACTOR * (x.astype(np.float64) - MEAN) + SHIFT > 0) | (relu == 0), dy, 0.0)


def test_moments(unit, operands):
    x, _, found = operands
    off = x.astype(np.float64) - MEAN
    call(moments(unit), x, x.strides[0], ROWS, x.shape[1], found)
    close(found[4:6], np.array([off.sum(), (off**2).sum()]))


@pytest.mark.parametrize("relu", [0, 1])
def test_affine(unit, operands, relu):
    x, _, found = operands
    y = canaries(ROWS, x.strides[0] // 4)
    expected = y.astype(np.float64)
    values = FACTOR * (x.astype(np.float64) - MEAN) + SHIFT
    expected[:, : x.shape[1]] = np.maximum(values, 0) if relu else values
    call(affine(unit), x, y, x.strides[0], ROWS, x.shape[1], found, relu)
    close(y, expected)


@pytest.mark.parametrize("relu", [0, 1])
def test_grad_sums(unit, operands, relu):
    x, dy, found = operands
    dz = through_relu(x, dy, relu)
    call(grad_sums(unit), x, dy, x.strides[0], ROWS, x.shape[1], found, relu)
    close(found[4:6], np.array([dz.sum(), (dz * (x - MEAN)).sum()]))


@pytest.mark.parametrize("relu", [0, 1])
def test_grad(unit, operands, relu):
    x, dy, found = operands
    dx = canaries(ROWS, x.strides[0] // 4)
    expected = dx.astype(np.float64)
    expected[:, : x.shape[1]] = OUTER * (through_relu(x, dy, relu) - LEVEL - SLOPE * (x - MEAN))
    call(grad(unit), x, dy, dx, x.strides[0], ROWS, x.shape[1], found, relu)
    close(dx, expected)
