"""Sums, products and maxima of several arrays against NumPy, over parts of a range; nothing written outside of it."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sslnet.kernels.pointwise.elementwise import (
    maximum,
    maximum_gradients,
    product,
    product_gradients,
    scaled_copies,
    weighted_sum,
)

CANARY = -77

cases = given(
    size=st.sampled_from([1, 5, 1023, 1024, 1025, 3000]),
    count=st.integers(2, 3),  # each is compiled anew
    dtype=st.sampled_from([np.float32, np.float64]),
    part=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    seed=st.integers(0, 99),
)


def drawn(size, count, dtype, part, seed):
    """Whole numbers, so that there are ties and no rounding; the part of the range; outputs full of canaries."""
    random = np.random.default_rng(seed)
    xs = tuple(random.integers(-3, 4, (count, size)).astype(dtype))
    i0, i1 = sorted(int(p * size) for p in part)
    outs = tuple(np.full((count, size), CANARY, dtype))
    return random, xs, i0, i1, outs


def assert_part(out, expected, i0, i1):
    np.testing.assert_array_equal(out[i0:i1], expected[i0:i1])
    assert (np.delete(out, np.s_[i0:i1]) == CANARY).all()


@settings(deadline=None, max_examples=40)
@cases
def test_weighted_sum_and_its_gradients(size, count, dtype, part, seed):
    random, xs, i0, i1, outs = drawn(size, count, dtype, part, seed)
    coeffs = random.integers(-2, 3, count).astype(dtype)
    for used in range(1, count + 1):
        out = outs[0].copy()
        weighted_sum(i0, i1, 0, xs[:used], coeffs[:used], out, False)
        expected = sum(c * x for c, x in zip(coeffs[:used], xs))
        assert_part(out, expected, i0, i1)
        weighted_sum(i0, i1, 0, xs[:used], coeffs[:used], out, True)
        assert_part(out, np.maximum(expected, 0), i0, i1)
    scaled_copies(i0, i1, 0, xs[0], coeffs, outs)
    for out, coeff in zip(outs, coeffs):
        assert_part(out, coeff * xs[0], i0, i1)


@settings(deadline=None, max_examples=40)
@cases
def test_product_and_its_gradients(size, count, dtype, part, seed):
    random, xs, i0, i1, outs = drawn(size, count, dtype, part, seed)
    out, dy = outs[0].copy(), random.integers(-3, 4, size).astype(dtype)
    product(i0, i1, 0, xs, out)
    assert_part(out, np.prod(xs, axis=0), i0, i1)
    numbers = np.sort(random.permutation(count)[: random.integers(1, count + 1)])
    product_gradients(i0, i1, 0, xs, dy, numbers, outs[: len(numbers)])
    for number, gradient in zip(numbers, outs):
        assert_part(gradient, dy * np.prod([x for k, x in enumerate(xs) if k != number], axis=0), i0, i1)


@settings(deadline=None, max_examples=40)
@cases
def test_maximum_and_its_gradients(size, count, dtype, part, seed):
    random, xs, i0, i1, outs = drawn(size, count, dtype, part, seed)
    out, dy, taken = outs[0].copy(), random.integers(-3, 4, size).astype(dtype), np.full(size, 99, np.uint8)
    maximum(i0, i1, 0, xs, out, taken)
    expected = np.max(xs, axis=0)
    assert_part(out, expected, i0, i1)
    # The first two of equal values the other way round, as Caffe has it.
    order = [1, 0, *range(2, count)]
    number = np.array(order)[np.argmax([xs[k] == expected for k in order], axis=0)]
    np.testing.assert_array_equal(taken[i0:i1], number[i0:i1])
    assert (np.delete(taken, np.s_[i0:i1]) == 99).all()
    numbers = np.arange(count)[::2]
    maximum_gradients(i0, i1, 0, taken, dy, numbers, outs[: len(numbers)])
    for k, gradient in zip(numbers, outs):
        assert_part(gradient, dy * (number == k), i0, i1)
