"""im2col and col2im against plain loops, and against each other: they are adjoint."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sslnet.errors import ShapeError
from sslnet.kernels.conv.im2col import col2im, im2col, output_extent


def naive_im2col(image, kernel, stride, pad, dilation):
    """Pads, then reads one entry after the other."""
    padded = np.pad(image, [(0, 0), *((p, p) for p in pad)])
    outs = [
        len(range(0, size + 2 * p - d * (k - 1), s))
        for size, k, s, p, d in zip(image.shape[1:], kernel, stride, pad, dilation)
    ]
    rows = []
    for c, *tap in itertools.product(range(len(image)), *map(range, kernel)):
        row = []
        for position in itertools.product(*map(range, outs)):
            index = tuple(o * s + t * d for o, s, t, d in zip(position, stride, tap, dilation))
            row.append(padded[(c, *index)])
        rows.append(row)
    return np.array(rows, image.dtype)


@st.composite
def lowerings(draw):
    count = draw(st.integers(1, 3))
    axis = st.tuples(st.integers(1, 7), st.integers(1, 4), st.integers(1, 3), st.integers(0, 4), st.integers(1, 3))
    axes = draw(st.lists(axis, min_size=count, max_size=count))
    assume(all(output_extent(*row) >= 1 for row in axes))
    sizes, *others = zip(*axes)
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    return rng.standard_normal((draw(st.integers(1, 3)), *sizes)).astype(dtype), others


@settings(deadline=None)
@given(lowerings())
def test_im2col_equals_plain_loops(lowering):
    image, axes = lowering
    col = im2col(image, *axes)
    expected = naive_im2col(image, *axes)
    assert col.dtype == image.dtype
    np.testing.assert_array_equal(col, expected)


@settings(deadline=None)
@given(lowerings())
def test_col2im_is_the_adjoint_of_im2col(lowering):
    """<im2col(x), c> = <x, col2im(c)> for all x, c; whole numbers, so that the sums are exact."""
    image, axes = lowering
    image = np.round(image * 4)
    col = im2col(image, *axes)
    other = np.round(np.random.default_rng(1).standard_normal(col.shape) * 4).astype(image.dtype)
    back = col2im(other, np.full_like(image, np.nan), *axes)
    assert float((col * other).sum(dtype=np.float64)) == float((image * back).sum(dtype=np.float64))


def test_one_number_stands_for_all_axes():
    image = np.arange(2 * 5 * 6, dtype=np.float32).reshape(2, 5, 6)
    np.testing.assert_array_equal(im2col(image, 3, 2, 1, 1), im2col(image, (3, 3), (2, 2), (1, 1), (1, 1)))


def test_rows_run_over_channel_then_kernel_position():
    image = np.arange(2 * 2 * 2, dtype=np.float32).reshape(2, 2, 2)
    np.testing.assert_array_equal(im2col(image, 2)[:, 0], np.arange(8))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda image: im2col(image, 6), "kernel 6 with dilation 1 does not fit into"),
        (lambda image: im2col(image, (1, 1, 1)), "3 values for 2 spatial axes"),
        (lambda image: im2col(image[:, 0, 0], 1), "at least one spatial axis"),
        (
            lambda image: im2col(image, 2, out=np.empty((8, 9), np.float32)),
            r"must be \(8, 12\) of float32, not \(8, 9\)",
        ),
        (lambda image: col2im(np.empty((8, 12)), image, 2), "must be .* of float32, not .* of float64"),
    ],
)
def test_what_does_not_fit_is_a_shape_error(call, message):
    with pytest.raises(ShapeError, match=message):
        call(np.zeros((2, 4, 5), np.float32))
