"""Products with few images against float64; nothing read or written outside the arrays."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sslnet.errors import ShapeError
from sslnet.kernels.matmul import fully_connected as fc
from sslnet.kernels.matmul import loops as fc_engines
from sslnet.kernels.matmul.fully_connected import plan_dot, plan_outer, plan_sum
from sslnet.kernels.runtime.threads import set_num_threads
from sslnet.kernels.simd.vector import GENERIC, UNITS

ALL_UNITS = [*UNITS.values(), GENERIC]
CANARY = np.float32(-77.0)
PAD = 61

counts = st.one_of(st.integers(1, 9), st.integers(10, 70))
shapes = st.tuples(counts, counts, st.one_of(counts, st.integers(71, 700)))


@pytest.fixture(autouse=True)
def three_threads_and_no_blas(monkeypatch):
    """Small shapes run through the vector kernels, on several threads and in several blocks."""
    for module, name, value in (
        (fc, "_suits_blas", lambda shape, unit: False),
        (fc, "FEW_ROWS", 0),
        (fc, "FEW_IMAGES", 0),
        (fc_engines, "threads_for", lambda multiply_adds: 3),
        (fc_engines, "BLOCK_BYTES", 8192),
        (fc_engines, "ROW_BYTES", 512),
    ):
        monkeypatch.setattr(module, name, value)
    set_num_threads(3)
    yield
    set_num_threads(None)


def guarded(values):
    """A copy between canaries, and the whole of it; not aligned, for nothing may depend on that."""
    whole = np.full(values.size + 2 * PAD, CANARY, np.float32)
    inner = whole[PAD : PAD + values.size].reshape(values.shape)
    inner[:] = values
    return inner, whole


def inside_guards(values):
    """A copy whose neighbours are NaN: one read outside shows up in the result."""
    whole = np.full(values.size + 2 * PAD, np.nan, np.float32)
    inner = whole[PAD : PAD + values.size].reshape(values.shape)
    inner[:] = values
    inner.flags.writeable = False
    return inner


def assert_guards_untouched(whole):
    assert (whole[:PAD] == CANARY).all()
    assert (whole[-PAD:] == CANARY).all()


def assert_close(actual, expected):
    scale = max(1.0, np.abs(expected).max(initial=0))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * scale)


def draw(seed, *shape):
    return inside_guards(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def check_product(plan, a, w, bias, expected):
    y, whole = guarded(np.full(expected.shape, np.nan, np.float32))
    plan.run(a, w, y)
    assert_close(y, expected)
    for relu in (False, True):
        plan.run(a, w, y, bias, relu=relu)
        assert_close(y, np.maximum(expected + bias, 0) if relu else expected + bias)
    assert_guards_untouched(whole)


@settings(max_examples=80, deadline=None)
@given(shapes, st.integers(0, 99), st.sampled_from(ALL_UNITS))
def test_dot_equals_float64_products(shape, seed, unit):
    images, rows, columns = shape
    a, w, bias = draw(seed, images, columns), draw(seed + 1, rows, columns), draw(seed + 2, rows)
    check_product(plan_dot(*shape, unit=unit), a, w, bias, a.astype(np.float64) @ w.T.astype(np.float64))


@settings(max_examples=80, deadline=None)
@given(shapes, st.integers(0, 99), st.sampled_from(ALL_UNITS))
def test_sum_equals_float64_products(shape, seed, unit):
    images, rows, columns = shape
    a, w, bias = draw(seed, images, rows), draw(seed + 1, rows, columns), draw(seed + 2, columns)
    check_product(plan_sum(*shape, unit=unit), a, w, bias, a.astype(np.float64) @ w.astype(np.float64))


@settings(max_examples=80, deadline=None)
@given(shapes, st.integers(0, 99), st.sampled_from(ALL_UNITS))
def test_outer_is_added(shape, seed, unit):
    images, rows, columns = shape
    a, b, start = draw(seed, images, rows), draw(seed + 1, images, columns), draw(seed + 2, rows, columns)
    w, whole = guarded(start)
    plan_outer(*shape, unit=unit).run(a, b, w)
    assert_close(w, start.astype(np.float64) + a.T.astype(np.float64) @ b)
    assert_guards_untouched(whole)


def test_blas_gives_the_same(monkeypatch):
    monkeypatch.setattr(fc, "_suits_blas", lambda shape, unit: True)
    a, w, bias, dy = draw(0, 5, 30), draw(1, 7, 30), draw(2, 7), draw(3, 5, 7)
    dot, sum_, outer = plan_dot(5, 7, 30), plan_sum(5, 7, 30), plan_outer(5, 7, 30)
    assert dot.kernel == sum_.kernel == outer.kernel == "blas"
    check_product(dot, a, w, bias, a @ w.T)
    check_product(sum_, dy, w, draw(4, 30), dy @ w)
    total, whole = guarded(w)
    outer.run(dy, a, total)
    assert_close(total, w + dy.T @ a)
    assert_guards_untouched(whole)


def test_number_of_threads_changes_no_bit():
    a, w, dy = draw(0, 17, 900), draw(1, 50, 900), draw(2, 17, 50)
    results = []
    for threads in (1, 2, 3):
        set_num_threads(threads)
        y, dx, dw = np.empty((17, 50), np.float32), np.empty((17, 900), np.float32), np.zeros((50, 900), np.float32)
        plan_dot(17, 50, 900).run(a, w, y)
        plan_sum(17, 50, 900).run(dy, w, dx)
        plan_outer(17, 50, 900).run(dy, a, dw)
        results.append([array.tobytes() for array in (y, dx, dw)])
    assert results[0] == results[1] == results[2]


def test_not_a_number_and_infinity_stay_where_they_are():
    a, w = np.ones((5, 40), np.float32), np.ones((13, 40), np.float32)
    w[12, 39] = np.nan
    w[11, 0] = -np.inf
    y = np.empty((5, 13), np.float32)
    plan_dot(5, 13, 40).run(a, w, y, relu=True)
    assert np.isnan(y[:, 12]).all()
    assert (y[:, 11] == 0).all()
    assert (y[:, :11] == 40).all()
    dx = np.empty((5, 40), np.float32)
    plan_sum(5, 13, 40).run(np.ones((5, 13), np.float32), w, dx, relu=True)
    assert np.isnan(dx[:, 39]).all()
    assert (dx[:, 0] == 0).all()
    assert (dx[:, 1:39] == 13).all()


def test_large_products_run_through_the_vector_kernels_and_small_ones_through_blas(monkeypatch):
    monkeypatch.undo()
    unit = UNITS["avx2"]
    plans = [plan(16, 256, 256, unit=unit).kernel.split()[0] for plan in (plan_dot, plan_sum, plan_outer)]
    assert plans == ["dot", "sum", "outer"]
    assert plan_dot(1, 10, 500, unit=unit).kernel == "blas"
    assert plan_sum(200, 10, 5000, unit=unit).kernel == "blas"
    assert plan_sum(1, 4096, 1000, unit=unit).kernel == "blas"
    assert plan_outer(64, 512, 512, unit=GENERIC).kernel == "blas"


def test_arrays_of_another_shape_or_type_are_errors():
    plan, outer = plan_dot(2, 3, 4), plan_outer(2, 3, 4)
    a, w, y = np.ones((2, 4), np.float32), np.ones((3, 4), np.float32), np.ones((2, 3), np.float32)
    with pytest.raises(ShapeError, match=r"w must have shape \(3, 4\), not \(4, 3\)"):
        plan.run(a, np.ones((4, 3), np.float32), y)
    with pytest.raises(ShapeError, match="bias must be C-contiguous float32, not C-contiguous float64"):
        plan.run(a, w, y, np.ones(3))
    with pytest.raises(ShapeError, match="y must be C-contiguous float32, not strided float32"):
        plan.run(a, w, np.ones((3, 2), np.float32).T)
    with pytest.raises(ShapeError, match=r"b must have shape \(2, 4\), not \(2, 3\)"):
        outer.run(y, y, w)
