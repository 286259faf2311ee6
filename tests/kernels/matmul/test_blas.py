"""Matrix products against float64 sums; nothing written outside."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sslnet.kernels.matmul import blas as gemm
from sslnet.kernels.matmul.blas import add_product, multiply
from sslnet.kernels.runtime.threads import set_num_threads

sizes = st.integers(1, 40)


@pytest.fixture(autouse=True)
def three_threads(monkeypatch):
    monkeypatch.setattr(gemm, "SMALL", 500)
    monkeypatch.setattr(gemm, "BLOCK_BYTES", 2000)
    set_num_threads(3)
    yield
    set_num_threads(None)


def matrix(rng, rows, columns, dtype, transposed=False):
    values = rng.standard_normal((columns, rows) if transposed else (rows, columns)).astype(dtype)
    return values.T if transposed else values


def close(actual, expected):
    tolerance = 1e-5 if actual.dtype == np.float32 else 1e-12
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * max(1, np.abs(expected).max()))


@settings(deadline=None)
@given(sizes, sizes, sizes, st.booleans(), st.booleans(), st.sampled_from([np.float32, np.float64]))
def test_products_equal_float64_sums(m, k, n, a_transposed, b_transposed, dtype):
    rng = np.random.default_rng(m * 1600 + k * 40 + n)
    a, b = matrix(rng, m, k, dtype, a_transposed), matrix(rng, k, n, dtype, b_transposed)
    expected = np.einsum("ik,kj->ij", a.astype(np.float64), b.astype(np.float64))
    whole = np.full((m + 2, n), 7, dtype)
    multiply(a, b, whole[1:-1])
    close(whole[1:-1], expected)
    add_product(a, b, whole[1:-1])
    close(whole[1:-1], 2 * expected)
    assert (whole[[0, -1]] == 7).all()
