"""Ridge regression of a layer's weights on samples, towards its old weights, without any that would be worse than these.

    minimise  |X W + b - Y|^2 + ridge * |W - old|^2

The ridge is chosen among a few by the error on a quarter of the images that the fit has not seen, so that a layer with
more inputs than samples does not learn the samples by heart. Products are float32, the solution is float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg

RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Candidates for the ridge, as parts of the mean of the diagonal of X^T X."""
HELD_OUT = 0.25
"""Part of the samples that the ridge is chosen by."""


@dataclass(frozen=True)
class Fit:
    """The result of a fit.

    weights  (groups, columns, outputs) float64;  bias: (groups, outputs) float64
    before, after  squared error with the old and with these weights, as parts of the variance of the target
    """

    weights: np.ndarray
    bias: np.ndarray
    before: float
    after: float


def fit(
    x: np.ndarray, y: np.ndarray, weights: np.ndarray, bias: np.ndarray, *, intercept: bool, only_bias: bool = False
) -> Fit:
    """Fits the weights of all groups.

    x          (groups, samples, columns) float32;  y: (groups, samples, outputs) float32  [both are overwritten]
               samples of one image are adjacent
    weights    (groups, columns, outputs) the old ones;  bias: (groups, outputs)
    intercept  whether the bias may change, too
    only_bias  keeps the weights: the outputs get the mean that they should have
    """
    x_mean, y_mean = x.mean(axis=1, dtype=np.float64), y.mean(axis=1, dtype=np.float64)
    x -= x_mean[:, None].astype(x.dtype)
    y -= y_mean[:, None].astype(y.dtype)
    samples = x.shape[1]
    variance = max(float(np.einsum("gso,gso->", y, y, dtype=np.float64)), 1e-30)
    if not intercept:  # the bias stays: what the means leave over belongs to the fit
        x += x_mean[:, None].astype(x.dtype)
        y += (y_mean - bias)[:, None].astype(y.dtype)
    seen = samples - int(HELD_OUT * samples)
    parts = [_Moments(x[:, rows], y[:, rows]) for rows in (slice(seen), slice(seen, None))]
    both = parts[0] + parts[1]
    found = weights if only_bias else _best(parts[0], parts[1], both, weights)

    def error(w: np.ndarray) -> float:
        return both.error(w) / variance

    old_shift = np.square(y_mean - np.einsum("gc,gco->go", x_mean, weights) - bias).sum() * samples / variance
    before = error(weights) + (float(old_shift) if intercept else 0.0)
    after = error(found)
    if not after < before:
        return Fit(weights, bias, before, before)
    new_bias = y_mean - np.einsum("gc,gco->go", x_mean, found) if intercept else bias
    return Fit(found, new_bias, before, after)


class _Moments:
    """X^T X, X^T Y and the sum of Y^2 of some samples, in float64."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        transposed = x.transpose(0, 2, 1)
        self.xx = np.matmul(transposed, x).astype(np.float64)
        self.xy = np.matmul(transposed, y).astype(np.float64)
        self.yy = float(np.einsum("gso,gso->", y, y, dtype=np.float64))

    def __add__(self, other: _Moments) -> _Moments:
        result = _Moments.__new__(_Moments)
        result.xx, result.xy, result.yy = self.xx + other.xx, self.xy + other.xy, self.yy + other.yy
        return result

    def error(self, weights: np.ndarray) -> float:
        """Squared error of the weights on these samples."""
        square = np.einsum("gco,gco->", weights, np.matmul(self.xx, weights) - 2 * self.xy)
        return max(0.0, float(square) + self.yy)

    def solve(self, weights: np.ndarray, ridge: float) -> np.ndarray:
        """The minimiser of error + ridge * |W - weights|^2, the ridge as a part of the mean of the diagonal."""
        residual = self.xy - np.matmul(self.xx, weights)
        result = np.empty_like(weights)
        for g in range(len(weights)):
            matrix = self.xx[g].copy()
            size = len(matrix)
            matrix[np.diag_indices(size)] += ridge * max(float(np.trace(matrix)) / size, 1e-30)
            try:
                factor = scipy.linalg.cho_factor(matrix, lower=True, overwrite_a=True, check_finite=False)
                solution = scipy.linalg.cho_solve(factor, residual[g], check_finite=False)
            except np.linalg.LinAlgError:  # not positive: values beyond float32
                solution = np.zeros_like(residual[g])
            result[g] = weights[g] + solution
        return result


def _best(seen: _Moments, unseen: _Moments, both: _Moments, weights: np.ndarray) -> np.ndarray:
    """The fit on all samples with the ridge that is best on the unseen ones."""
    errors = [unseen.error(seen.solve(weights, ridge)) for ridge in RIDGES]
    return both.solve(weights, RIDGES[int(np.argmin(errors))])
