"""exp, tanh, sigmoid, log, softplus, power and the normal distribution, in forms that LLVM can vectorise.

LLVM cannot vectorise calls of the C library. For float32 the error is within three units in the last place unless
stated otherwise; NaN gives NaN, infinities are handled as in the C library, and exp gives 0 below -87.3, where its
value is denormal. For float64 the functions are those of the C library. They can only be called from Numba functions.

Ref: Moshier 1992, Cephes single precision, expf.c, tanhf.c and logf.c (coefficients of exp, tanh and log)
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

_f, _d = np.float32, np.float64

# Between these arguments exp is a normal number.
_LOWEST, _HIGHEST = _f(-87.33654), _f(88.72283)
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
# log(1 + z) / z for z from 0 to 1: the polynomial of least relative error, 3e-8.
_P0, _P1, _P2, _P3, _P4, _P5, _P6, _P7, _P8 = (
    _f(c)
    for c in (
        9.9999996988e-1,
        -4.9999493140e-1,
        3.3319096794e-1,
        -2.4842982109e-1,
        1.9106006353e-1,
        -1.3663244929e-1,
        7.8225941680e-2,
        -2.9505232517e-2,
        5.2326927025e-3,
    )
)
_ROOT_HALF, _INFINITY, _NAN = _f(0.70710678118654752), _f(math.inf), _f(math.nan)
_ZERO, _HALF, _ONE, _TWO = _f(0), _f(0.5), _f(1), _f(2)
_SMALL_TANH, _TINY = _f(0.625), np.finfo(_f).tiny

_BIAS, _MANTISSA_BITS = np.int32(127), np.int32(23)
_MANTISSA, _HALF_BITS = np.int32(0x7FFFFF), np.int32(0x3F000000)
# Adding it to a number below 2^22 rounds that to a whole number, which is then in the lowest bits of the sum.
_ROUND, _ROUND_DOUBLE = _f(1.5 * 2**23), _d(1.5 * 2**52)
_MANTISSA_BITS_DOUBLE = np.int64(52)
_LN2, _LOG2_E_DOUBLE = math.log(2), 1 / math.log(2)
_FAR = 200.0
"""exp of this, and of minus this, are out of the range of float32 and within that of float64."""


def exp(x: Any) -> Any:
    """e ^ x."""
    raise NotImplementedError("to be called from Numba functions")


def tanh(x: Any) -> Any:
    """The hyperbolic tangent."""
    raise NotImplementedError("to be called from Numba functions")


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x))."""
    raise NotImplementedError("to be called from Numba functions")


def log(x: Any) -> Any:
    """The natural logarithm; a denormal counts as 0."""
    raise NotImplementedError("to be called from Numba functions")


def softplus(x: Any) -> Any:
    """log(1 + exp(x)), accurate for large positive and for large negative x."""
    raise NotImplementedError("to be called from Numba functions")


def power(x: Any, exponent: Any) -> Any:
    """x ^ exponent; NaN for a negative x when the exponent is not whole. A denormal counts as 0."""
    raise NotImplementedError("to be called from Numba functions")


# Never reordered, whatever the calling kernel allows: reordering would merge the two parts of ln 2.
_IN_ORDER: Any = {"fastmath": {"contract"}, "error_model": "numpy"}


@overload(exp, jit_options=_IN_ORDER)
def _exp(x):
    if x != types.float32:
        return lambda x: math.exp(x)

    def single(x):
        shifted = x * _LOG2_E + _ROUND
        n = shifted - _ROUND
        r = x - n * _LN2_HIGH - n * _LN2_LOW
        p = ((((_E5 * r + _E4) * r + _E3) * r + _E2) * r + _E1) * r + _E0
        value = np.float32(p * (r * r) + r + _ONE)
        # Multiplies by 2^n: n is added to the exponent bits.
        n_bits = np.int32(np.float32(shifted).view(np.int32) << _MANTISSA_BITS)
        result = np.int32(value.view(np.int32) + n_bits).view(np.float32)
        result = result if x > _LOWEST else _ZERO
        result = result if x < _HIGHEST else _INFINITY
        return result if x == x else x

    return single


@overload(tanh, jit_options=_IN_ORDER)
def _tanh(x):
    if x != types.float32:
        return lambda x: math.tanh(x)

    def single(x):
        z = x * x
        near = ((((_T4 * z + _T3) * z + _T2) * z + _T1) * z + _T0) * z * x + x
        far = math.copysign(_ONE - _TWO / (exp(_TWO * abs(x)) + _ONE), x)
        return near if abs(x) < _SMALL_TANH else far

    return single


@overload(sigmoid, jit_options=_IN_ORDER)
def _sigmoid(x):
    one = np.float32(1) if x == types.float32 else np.float64(1)
    return lambda x: one / (one + exp(-x))


@overload(log, jit_options=_IN_ORDER)
def _log(x):
    if x != types.float32:
        return lambda x: math.log(x)

    def single(x):
        bits = np.float32(x).view(np.int32)
        # x = 2^n (1 + m), m from sqrt(1/2) - 1 to sqrt(2) - 1.
        m = np.int32((bits & _MANTISSA) | _HALF_BITS).view(np.float32)
        low = m < _ROOT_HALF
        n = _f((bits >> _MANTISSA_BITS) - _BIAS + np.int32(1)) - (_ONE if low else _ZERO)
        m = (m + m if low else m) - _ONE
        p = _L8
        p = p * m + _L7
        p = p * m + _L6
        p = p * m + _L5
        p = p * m + _L4
        p = p * m + _L3
        p = p * m + _L2
        p = p * m + _L1
        p = p * m + _L0
        z = m * m
        result = m + (p * m * z + n * _LN2_LOW - _HALF * z) + n * _LN2_HIGH
        result = result if x >= _TINY else (-_INFINITY if x >= _ZERO else _NAN)
        return result if x < _INFINITY else x

    return single


@overload(softplus, jit_options=_IN_ORDER)
def _softplus(x):
    if x != types.float32:
        return lambda x: max(x, 0.0) + math.log1p(math.exp(-abs(x)))

    def single(x):
        z = exp(-abs(x))
        p = _P8
        p = p * z + _P7
        p = p * z + _P6
        p = p * z + _P5
        p = p * z + _P4
        p = p * z + _P3
        p = p * z + _P2
        p = p * z + _P1
        p = p * z + _P0
        return p * z + (x if x > _ZERO else _ZERO)

    return single


@overload(power, jit_options=_IN_ORDER)
def _power(x, exponent):
    if x != types.float32:
        return lambda x, exponent: x**exponent

    def single(x, exponent):
        # In double precision, because the exponent multiplies the error of the logarithm.
        size = abs(x)
        bits = np.float32(size).view(np.int32)
        m = np.int32((bits & _MANTISSA) | _HALF_BITS).view(np.float32)
        low = m < _ROOT_HALF
        n = _d((bits >> _MANTISSA_BITS) - _BIAS + np.int32(1)) - (1.0 if low else 0.0)
        m = m + m if low else m
        s = (_d(m) - 1.0) / (_d(m) + 1.0)
        w = s * s
        series = ((((1 / 11 * w + 1 / 9) * w + 1 / 7) * w + 1 / 5) * w + 1 / 3) * w + 1.0
        logarithm = n * _LN2 + 2.0 * s * series
        logarithm = logarithm if size >= _TINY else -1e300
        logarithm = logarithm if size < _INFINITY else 1e300
        t = min(max(_d(exponent) * logarithm, -_FAR), _FAR)
        shifted = t * _LOG2_E_DOUBLE + _ROUND_DOUBLE
        r = t - (shifted - _ROUND_DOUBLE) * _LN2
        p = ((((1 / 40320 * r + 1 / 5040) * r + 1 / 720) * r + 1 / 120) * r + 1 / 24) * r + 1 / 6
        value = np.float64(((p * r + 0.5) * r + 1.0) * r + 1.0)
        n_bits = np.int64(np.float64(shifted).view(np.int64) << _MANTISSA_BITS_DOUBLE)
        result = _f(np.int64(value.view(np.int64) + n_bits).view(np.float64))
        whole = exponent == np.floor(exponent)
        odd = np.floor(exponent * _HALF) != exponent * _HALF
        mirrored = (-result if odd else result) if whole else _NAN
        result = mirrored if x < _ZERO else result
        return result if x == x else x

    return single


# log(erfc(z) / u) + z^2 as a polynomial of u = 1 / (1 + z / 2), for z from 0 on, interpolated at the Chebyshev points; the
# largest error is 1.2e-7. The coefficients are those of Press et al. 1992, "Numerical Recipes in C", section 6.2.
_N0, _N1, _N2, _N3, _N4, _N5, _N6, _N7, _N8, _N9 = (
    _f(c)
    for c in (
        -1.26551223,
        1.00002368,
        3.74091960e-1,
        9.67841895e-2,
        -1.86288062e-1,
        2.78868084e-1,
        -1.13520400,
        1.48851589,
        -8.22152234e-1,
        1.70872778e-1,
    )
)
_ROOT_HALF_DOUBLE = math.sqrt(0.5)


def normal_cdf(x: Any) -> Any:
    """The distribution function of the standard normal distribution, erfc(-x / sqrt(2)) / 2.

    For float32 the relative error is below 3e-6 from x = -5 on, and below 2e-5 in the rest of the lower tail.
    """
    raise NotImplementedError("to be called from Numba functions")


@overload(normal_cdf, jit_options=_IN_ORDER)
def _normal_cdf(x):
    if x != types.float32:
        return lambda x: 0.5 * math.erfc(-x * _ROOT_HALF_DOUBLE)

    def single(x):
        z = abs(x) * _ROOT_HALF
        u = _ONE / (_ONE + _HALF * z)
        p = ((((_N9 * u + _N8) * u + _N7) * u + _N6) * u + _N5) * u + _N4
        p = (((p * u + _N3) * u + _N2) * u + _N1) * u + _N0
        tail = _HALF * u * exp(p - z * z)
        return tail if x < _ZERO else _ONE - tail

    return single
