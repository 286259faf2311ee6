"""Weights as numbers times a step for each filter: the nearest ones, or those with the least second-order error.

Second order: the error of a layer's outputs on calibration images is a quadratic form of the errors of its weights, with
the matrix H of the second moments of what the layer reads. Columns are rounded one after the other, those with the
largest moments first; after each, the other columns take over its error as well as they can.

Ref: Frantar et al. 2023, "GPTQ"; Hassibi, Stork 1993, "Optimal Brain Surgeon"
"""

from __future__ import annotations

import numpy as np

from sslnet.net.integer_weights import largest

SHRINKS = np.linspace(0.3, 1.0, 71)
"""Steps that are tried, relative to that with which the largest weight is the largest number."""
DAMPING = 0.01
"""Added to the moments, relative to their mean."""
MOST_COLUMNS = 8192
"""Most columns of a matrix of moments: 512 MiB; layers with more get the nearest numbers."""


def steps_of(rows: np.ndarray, bits: int, *, clip: bool) -> np.ndarray:
    """The step of each row (rows, columns) float: (rows,) float32, above 0.

    clip   the step with the least squared error, which may clip the largest weights; else none is clipped
    """
    top = largest(bits)
    most = np.abs(rows).max(axis=1, initial=0).astype(np.float64)
    base = np.where(most > 0, most / top, 1.0)
    if not clip:
        return base.astype(np.float32)
    best, error = base.copy(), np.full(len(rows), np.inf)
    for shrink in SHRINKS:
        steps = base * shrink
        numbers = np.clip(np.rint(rows / steps[:, None]), -top, top)
        now = ((numbers * steps[:, None] - rows) ** 2).sum(axis=1)
        better = now < error
        best[better], error[better] = steps[better], now[better]
    return best.astype(np.float32)


def nearest(rows: np.ndarray, steps: np.ndarray, bits: int) -> np.ndarray:
    """The values (rows, columns) float32 of the nearest numbers."""
    top = largest(bits)
    numbers = np.clip(np.rint(rows / steps[:, None].astype(np.float64)), -top, top)
    values: np.ndarray = numbers.astype(np.float32) * steps[:, None]
    return values


def second_order(rows: np.ndarray, steps: np.ndarray, moments: np.ndarray, bits: int) -> np.ndarray:
    """The values (rows, columns) float32 whose error is least for inputs with these moments.

    moments   (columns, columns) float64: mean of x x^T
    """
    top, left = largest(bits), rows.astype(np.float64)
    scale = steps.astype(np.float64)
    order = np.argsort(-moments.diagonal(), kind="stable")
    h = moments[np.ix_(order, order)].copy()
    mean = float(h.diagonal().mean()) or 1.0
    h[np.diag_indices_from(h)] += DAMPING * mean
    inverse = np.linalg.inv(h)
    upper = np.linalg.cholesky((inverse + inverse.T) / 2).T
    left = np.ascontiguousarray(left[:, order])
    numbers = np.empty_like(left)
    block = 128
    for start in range(0, len(order), block):
        end = min(start + block, len(order))
        errors = np.empty((len(left), end - start))
        for j in range(start, end):
            numbers[:, j] = np.clip(np.rint(left[:, j] / scale), -top, top)
            error = errors[:, j - start] = (left[:, j] - numbers[:, j] * scale) / upper[j, j]
            left[:, j + 1 : end] -= error[:, None] * upper[j, j + 1 : end]
        left[:, end:] -= errors @ upper[start:end, end:]
    values = np.empty(rows.shape, np.float32)
    values[:, order] = numbers.astype(np.float32) * steps[:, None]
    return values
