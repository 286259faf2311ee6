"""Fillers: distributions against their stated moments, structure against direct formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sslnet import sslnet_pb2 as pb
from sslnet.errors import DefinitionError
from sslnet.fillers import FILLERS, fill

SHAPE = (40, 30, 5, 5)
FAN_IN, FAN_OUT = 30 * 25, 40 * 25


def filled(shape=SHAPE, *, dtype=np.float32, seed=1, **fields):
    data = np.full(shape, np.nan, dtype)
    fill(data, pb.FillerParameter(**fields), np.random.default_rng(seed))
    return data


@pytest.mark.parametrize("type_", sorted(FILLERS))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_filler_sets_every_value_and_repeats_for_a_seed(type_, dtype):
    data = filled(type=type_, dtype=dtype)
    assert np.isfinite(data).all()
    assert np.array_equal(data, filled(type=type_, dtype=dtype))


def test_constant_is_zero_by_default():
    assert (filled() == 0).all()
    assert (filled(value=0.25) == 0.25).all()


def test_uniform_covers_its_range():
    data = filled(type="uniform", min=-1, max=3)
    assert data.min() >= -1 and data.max() <= 3
    assert data.mean() == pytest.approx(1, abs=0.05)
    assert data.std() == pytest.approx(4 / math.sqrt(12), rel=0.02)


def test_gaussian_has_mean_and_std():
    data = filled(type="gaussian", mean=2, std=0.5)
    assert data.mean() == pytest.approx(2, abs=0.02)
    assert data.std() == pytest.approx(0.5, rel=0.02)


def test_gaussian_sparse_keeps_that_many_values_an_output():
    data = filled((200, 300), type="gaussian", sparse=20)
    assert (data != 0).mean() == pytest.approx(20 / 200, rel=0.05)
    assert data[data != 0].std() == pytest.approx(1, rel=0.05)


def test_truncated_normal_has_the_distribution_of_a_normal_cut_at_two_std():
    """Closed form of the cut: variance 1 - 2 a f(a) / (2 F(a) - 1) at a = 2; the histogram against F by chi square."""
    data = filled((200, 1000), type="truncated_normal", mean=3, std=0.5, dtype=np.float64)
    z = (data.ravel() - 3) / 0.5
    assert np.abs(z).max() <= 2 and np.abs(z).max() > 1.99

    def below(x):
        return (1 + math.erf(x / math.sqrt(2))) / 2

    density, inside = math.exp(-2) / math.sqrt(2 * math.pi), 2 * below(2) - 1
    assert z.mean() == pytest.approx(0, abs=0.01)
    assert z.var() == pytest.approx(1 - 4 * density / inside, rel=0.01)
    edges = np.linspace(-2, 2, 41)
    expected = z.size * np.diff([below(x) for x in edges]) / inside
    chi = ((np.histogram(z, edges)[0] - expected) ** 2 / expected).sum()
    assert chi < 39 + 4 * math.sqrt(2 * 39), "40 bins: mean 39, standard deviation sqrt(78)"


@pytest.mark.parametrize(
    ("norm", "fan"), [("FAN_IN", FAN_IN), ("FAN_OUT", FAN_OUT), ("AVERAGE", (FAN_IN + FAN_OUT) / 2)]
)
def test_variance_norm_sets_what_the_variance_is_divided_by(norm, fan):
    xavier = filled(type="xavier", variance_norm=norm)
    assert np.abs(xavier).max() <= math.sqrt(3 / fan)
    assert xavier.var() == pytest.approx(1 / fan, rel=0.03)
    assert filled(type="msra", variance_norm=norm).var() == pytest.approx(2 / fan, rel=0.03)


def test_positive_unitball_rows_sum_to_one():
    data = filled(type="positive_unitball")
    assert (data >= 0).all()
    np.testing.assert_allclose(data.reshape(40, -1).sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_bilinear_scales_a_ramp_up_to_a_ramp(factor):
    """The deconvolution with these weights (kernel 2 f - f mod 2, stride f) interpolates: a linear image stays linear."""
    size = 2 * factor - factor % 2
    weights = filled((1, 1, size, size), type="bilinear", dtype=np.float64)[0, 0]
    image = np.add.outer(3.0 * np.arange(6), np.arange(6))
    up = np.zeros((5 * factor + size,) * 2)
    for i in range(6):
        for j in range(6):
            up[i * factor : i * factor + size, j * factor : j * factor + size] += image[i, j] * weights
    inner = up[size:-size, size:-size]
    np.testing.assert_allclose(np.diff(inner, axis=0), 3 / factor, atol=1e-6)
    np.testing.assert_allclose(np.diff(inner, axis=1), 1 / factor, atol=1e-6)


def test_bilinear_weights_of_kernel_four():
    tent = np.array([0.25, 0.75, 0.75, 0.25])
    np.testing.assert_allclose(filled((2, 1, 4, 4), type="bilinear")[1, 0], np.outer(tent, tent))


@pytest.mark.parametrize("shape", [(), (7,), (0, 3)])
@pytest.mark.parametrize(
    "type_", ["constant", "gaussian", "msra", "positive_unitball", "truncated_normal", "uniform", "xavier"]
)
def test_filler_takes_any_shape(type_, shape):
    assert np.isfinite(filled(shape, type=type_)).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"type": "xavierr"}, 'error: unknown filler "xavierr"\n  did you mean "xavier"?'),
        (
            {"type": "zzz"},
            'error: unknown filler "zzz"\n  there are bilinear, constant, gaussian, msra, positive_unitball, truncated_normal, uniform, xavier',
        ),
        ({"type": "uniform", "min": 2}, "error: uniform filler needs min <= max: 2 > 1"),
        ({"type": "gaussian", "std": -1}, "error: gaussian filler needs std of at least 0, not -1"),
        ({"type": "truncated_normal", "std": -1}, "error: truncated_normal filler needs std of at least 0, not -1"),
        ({"type": "gaussian", "sparse": -2}, "error: gaussian filler needs sparse of at least 0, not -2"),
        ({"type": "gaussian", "sparse": 41}, "error: sparse must be at most the number of outputs: 41 of 40"),
        ({"type": "msra", "sparse": 3}, "error: sparse is for gaussian fillers, not for msra"),
    ],
)
def test_filler_error_says_what_is_wrong(fields, message):
    with pytest.raises(DefinitionError) as caught:
        filled(**fields)
    assert str(caught.value) == message


def test_bilinear_refuses_what_is_not_square():
    with pytest.raises(DefinitionError, match=r"bilinear filler needs a blob \(.., .., kernel, kernel\), not \(2, 3\)"):
        filled((2, 3), type="bilinear")
