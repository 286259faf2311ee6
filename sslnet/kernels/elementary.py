"""exp, tanh, sigmoid and log1p that LLVM can turn into vector code, which it cannot do with a call of the C library.

For float32 within three units in the last place; NaN stays NaN, and exp reaches 0 and infinity where it should. For float64
they are the C library's. They can be called from Numba functions alone.

Ref: Moshier 1992, Cephes single precision, expf.c, tanhf.c and logf.c (the coefficients)
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

_f = np.float32

# Outside of these exp is 0 and infinity.
_LOWEST, _HIGHEST = _f(-104.0), _f(89.0)
_LOG2_E = _f(1.44269504088896341)
# ln 2 in two parts; the product of the first with a whole number below 2^11 is exact.
_LN2_HIGH, _LN2_LOW = _f(0.693359375), _f(-2.12194440e-4)
_E0, _E1, _E2, _E3, _E4, _E5 = (
    _f(c)
    for c in (5.0000001201e-1, 1.6666665459e-1, 4.1665795894e-2, 8.3334519073e-3, 1.3981999507e-3, 1.9875691500e-4)
)
_T0, _T1, _T2, _T3, _T4 = (
    _f(c) for c in (-3.33332819422e-1, 1.33314422036e-1, -5.37397155531e-2, 2.06390887954e-2, -5.70498872745e-3)
)
_L0, _L1, _L2, _L3, _L4, _L5, _L6, _L7, _L8 = (
    _f(c)
    for c in (
        3.3333331174e-1,
        -2.4999993993e-1,
        2.0000714765e-1,
        -1.6668057665e-1,
        1.4249322787e-1,
        -1.2420140846e-1,
        1.1676998740e-1,
        -1.1514610310e-1,
        7.0376836292e-2,
    )
)
_ROOT_HALF, _INFINITY = _f(0.70710678118654752), _f(math.inf)
_HALF, _ONE, _TWO = _f(0.5), _f(1), _f(2)
_SMALL_TANH = _f(0.625)

_BIAS, _MANTISSA_BITS = np.int32(127), np.int32(23)
_MANTISSA, _HALF_BITS = np.int32(0x7FFFFF), np.int32(0x3F000000)


def exp(x: Any) -> Any:
    """e ^ x."""
    raise NotImplementedError("to be called from Numba functions")


def tanh(x: Any) -> Any:
    """The hyperbolic tangent."""
    raise NotImplementedError("to be called from Numba functions")


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x))."""
    raise NotImplementedError("to be called from Numba functions")


def log1p(x: Any) -> Any:
    """log(1 + x), exact to the last digits for small x too; x at least 0."""
    raise NotImplementedError("to be called from Numba functions")


# Strict arithmetic, whatever the calling kernel allows: reordering would join the two parts of ln 2.
_STRICT: Any = {"fastmath": False, "error_model": "numpy"}


@overload(exp, jit_options=_STRICT)
def _exp(x):
    if x != types.float32:
        return lambda x: math.exp(x)

    def single(x):
        c = min(max(x, _LOWEST), _HIGHEST)
        n = np.floor(c * _LOG2_E + _HALF)
        r = c - n * _LN2_HIGH - n * _LN2_LOW
        p = ((((_E5 * r + _E4) * r + _E3) * r + _E2) * r + _E1) * r + _E0
        # 2^n in two factors, for n reaches beyond the exponents of float32 on both sides.
        k = np.int32(n)
        half = k >> np.int32(1)
        low = np.int32((half + _BIAS) << _MANTISSA_BITS).view(np.float32)
        high = np.int32((k - half + _BIAS) << _MANTISSA_BITS).view(np.float32)
        return (p * (r * r) + r + _ONE) * low * high

    return single


@overload(tanh, jit_options=_STRICT)
def _tanh(x):
    if x != types.float32:
        return lambda x: math.tanh(x)

    def single(x):
        z = x * x
        near = ((((_T4 * z + _T3) * z + _T2) * z + _T1) * z + _T0) * z * x + x
        far = math.copysign(_ONE - _TWO / (exp(_TWO * abs(x)) + _ONE), x)
        return near if abs(x) < _SMALL_TANH else far

    return single


@overload(sigmoid, jit_options=_STRICT)
def _sigmoid(x):
    one = np.float32(1) if x == types.float32 else np.float64(1)
    return lambda x: one / (one + exp(-x))


@overload(log1p, jit_options=_STRICT)
def _log1p(x):
    if x != types.float32:
        return lambda x: math.log1p(x)

    def single(x):
        u = _ONE + x
        bits = np.float32(u).view(np.int32)
        # u = 2^power (1 + m), m from sqrt(1/2) - 1 to sqrt(2) - 1.
        m = np.int32((bits & _MANTISSA) | _HALF_BITS).view(np.float32)
        low = m < _ROOT_HALF
        power = _f((bits >> _MANTISSA_BITS) - _BIAS + np.int32(1)) - (_ONE if low else _f(0))
        m = (m + m if low else m) - _ONE
        z = m * m
        p = _L8
        p = p * m + _L7
        p = p * m + _L6
        p = p * m + _L5
        p = p * m + _L4
        p = p * m + _L3
        p = p * m + _L2
        p = p * m + _L1
        p = p * m + _L0
        log = m + (p * m * z + power * _LN2_LOW - _HALF * z) + power * _LN2_HIGH
        # What was lost in 1 + x, to first order.
        return log + (x - (u - _ONE)) / u if x < _INFINITY else x

    return single
