"""Operations of bytes against formulas in NumPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sslnet.errors import ShapeError
from sslnet.kernels.quantized.elementwise import (
    ByteScale,
    QuantizedSum,
    copy_channels,
    dequantize,
    lookup,
    quantize,
    to_planes,
)
from sslnet.kernels.quantized.packing import pixel_bytes
from sslnet.kernels.quantized.pooling import QuantizedPool

sizes = st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 70))


def plain(x, scale):
    """clamp(rint(x / scale) + zero), in float32 and int64."""
    steps = np.clip(np.rint(x / np.float32(scale.scale)), -scale.zero, scale.top - scale.zero)
    return (steps.astype(np.int64) + scale.zero).astype(np.uint8)


@settings(max_examples=60, deadline=None)
@given(size=sizes, dense=st.booleans(), low=st.floats(-5, 0), high=st.floats(0.01, 9), bits=st.sampled_from([4, 8]))
def test_conversion_there_and_back(size, dense, low, high, bits):
    images, channels, pixels = size
    scale = ByteScale.of_range(low, high, bits)
    x = (np.random.default_rng(size).standard_normal(size) * 4).astype(np.float32)
    step = channels if dense else pixel_bytes(channels)
    y = np.zeros((images, pixels, step), np.uint8)
    quantize(x, y, scale)
    wanted = plain(x, scale)
    np.testing.assert_array_equal(y[..., :channels], wanted.transpose(0, 2, 1))
    np.testing.assert_array_equal(scale.quantized(x), wanted)
    back = np.zeros_like(x)
    dequantize(y, back, scale)
    np.testing.assert_array_equal(
        back, (wanted.astype(np.int64) - scale.zero).astype(np.float32) * np.float32(scale.scale)
    )
    np.testing.assert_array_equal(scale.values(wanted), back)
    again = np.zeros_like(y)
    quantize(back, again, scale)
    np.testing.assert_array_equal(again[..., :channels], y[..., :channels])


def test_zero_is_exact_and_nan_is_zero():
    scale = ByteScale.of_range(0.5, 6.3)
    assert scale.zero == 0 and scale.values(np.array([0], np.uint8))[0] == 0
    for pixels in (1, 40):
        x = np.array([[[np.nan] * pixels, [np.inf] * pixels, [-np.inf] * pixels]], np.float32)
        y = np.zeros((1, pixels, 4), np.uint8)
        quantize(x, y, ByteScale(0.1, 7))
        np.testing.assert_array_equal(y[0, :, :3], np.tile([7, 255, 0], (pixels, 1)))


@settings(max_examples=40, deadline=None)
@given(count=st.integers(2, 4), words=st.integers(1, 60), seed=st.integers(0, 2**20))
def test_sums(count, words, seed):
    random = np.random.default_rng(seed)
    xs = [random.integers(0, 256, (1, words, 4)).astype(np.uint8) for _ in range(count)]
    scales = [ByteScale(float(np.float32(random.uniform(0.01, 1))), int(random.integers(256))) for _ in xs]
    factors = [1.0, -0.5, 2.0, 1.0][:count]
    to = ByteScale(float(np.float32(random.uniform(0.01, 3))), int(random.integers(256)))
    y = np.zeros_like(xs[0])
    QuantizedSum(xs, scales, factors, y, to).run()
    total = None
    for x, s, f in zip(xs, scales, factors):
        product = (x.astype(np.int64) - s.zero).astype(np.float32) * np.float32(f * s.scale / to.scale)
        total = product if total is None else total + product
    np.testing.assert_array_equal(y, (np.clip(np.rint(total), -to.zero, 255 - to.zero) + to.zero).astype(np.uint8))


def test_tables_channels_and_planes():
    random = np.random.default_rng(0)
    x = random.integers(0, 256, (2, 9, 8)).astype(np.uint8)
    table = random.permutation(256).astype(np.uint8)
    y = np.zeros_like(x)
    lookup(x, y, table)
    np.testing.assert_array_equal(y, table[x])
    wide = np.full((2, 9, 16), 9, np.uint8)
    copy_channels(x, wide, 6, 5)
    np.testing.assert_array_equal(wide[..., 5:11], x[..., :6])
    assert (wide[..., :5] == 9).all() and (wide[..., 11:] == 9).all()
    floats = random.standard_normal((2, 9, 5)).astype(np.float32)
    planes = np.zeros((2, 5, 9), np.float32)
    to_planes(floats, planes)
    np.testing.assert_array_equal(planes, floats.transpose(0, 2, 1))


@st.composite
def windows(draw):
    kernel = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    pad = tuple(draw(st.integers(0, k - 1)) for k in kernel)
    size = draw(st.integers(4, 9)), draw(st.integers(4, 9))
    stride = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    out = []
    for n, k, s, p in zip(size, kernel, stride, pad):
        count = -(-(n + 2 * p - k) // s) + 1
        out.append(count - 1 if (count - 1) * s >= n + p else count)
    return draw(st.integers(1, 2)), draw(st.integers(1, 40)), size, tuple(out), kernel, stride, pad


@settings(max_examples=60, deadline=None)
@given(window=windows(), mean=st.booleans(), inside=st.booleans(), seed=st.integers(0, 2**20))
def test_pooling(window, mean, inside, seed):
    _batch, channels, size, out, kernel, stride, pad = window
    random = np.random.default_rng(seed)
    plan = QuantizedPool(*window, mean=mean, inside=inside)
    source_zero, zero, ratio = int(random.integers(256)), int(random.integers(256)), float(random.uniform(0.5, 2))
    plan.set(source_zero=source_zero, zero=zero, ratio=ratio)
    x = random.integers(0, 256, plan.shapes["x"]).astype(np.uint8)
    y = np.zeros(plan.shapes["y"], np.uint8)
    plan.run(x, y)
    for r in range(out[0]):
        for c in range(out[1]):
            begin = [i * s - p for i, s, p in zip((r, c), stride, pad)]
            end = [min(b + k, n + p) for b, k, n, p in zip(begin, kernel, size, pad)]
            part = x[:, max(begin[0], 0) : end[0], max(begin[1], 0) : end[1]].astype(np.int64)
            if mean:
                pixels = part.shape[1] * part.shape[2] if inside else (end[0] - begin[0]) * (end[1] - begin[1])
                total = (part - source_zero).sum(axis=(1, 2))
                steps = np.rint(total.astype(np.float32) * np.float32(ratio / pixels))
                wanted = np.clip(steps, -zero, 255 - zero) + zero
            else:
                wanted = part.max(axis=(1, 2))
            np.testing.assert_array_equal(y[:, r, c, :channels], wanted[:, :channels])


def test_pooling_checks_its_arrays():
    plan = QuantizedPool(1, 4, (4, 4), (2, 2), (2, 2), (2, 2), (0, 0))
    with pytest.raises(ShapeError, match="x must be"):
        plan.run(np.zeros((1, 4, 4, 3), np.uint8), np.zeros((1, 2, 2, 4), np.uint8))
