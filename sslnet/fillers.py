"""Fillers: the initial values of a parameter blob.

    constant            value
    uniform             U(min, max)
    gaussian            N(mean, std^2); with ``sparse`` each input has, on average, only ``sparse`` non-zero weights
    truncated_normal    N(mean, std^2), values more than 2 std from the mean drawn again, as in TensorFlow: the standard
                        deviation of what is drawn is 0.87963 std
    xavier              U(-s, s), s = sqrt(3 / n)            Ref: Glorot, Bengio 2010
    msra                N(0, 2 / n)                          Ref: He et al. 2015
    positive_unitball   U(0, 1), then each row divided by its sum
    bilinear            the weights of a Deconvolution for bilinear upsampling

n is fan_in = values per output (count / shape[0]), or by ``variance_norm`` fan_out = count / shape[1], or their mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.errors import DefinitionError, suggestion

Filler = Callable[[np.ndarray, Any, np.random.Generator], None]


def fill(
    data: np.ndarray,
    filler: Any,
    random: np.random.Generator,
    *,
    error: Callable[..., Exception] = DefinitionError,
) -> None:
    """Fills the array as the FillerParameter requests.  [overwrites data]

    data    float32 or float64, C-contiguous
    error   creates the exception to raise from a message (and ``hint=``): for an unknown type, numbers out of range, or
            a shape that the filler does not support
    """
    run = FILLERS.get(filler.type)
    if run is None:
        raise error(f'unknown filler "{filler.type}"', hint=suggestion(filler.type, FILLERS) or _known())
    try:
        if filler.sparse != -1 and filler.type != "gaussian":
            raise ValueError(f"sparse is for gaussian fillers, not for {filler.type}")
        run(data, filler, random)
    except ValueError as problem:
        raise error(str(problem)) from None


def constant(data: np.ndarray, filler: Any, random: np.random.Generator) -> None:
    data[...] = filler.value


def uniform(data: np.ndarray, filler: Any, random: np.random.Generator) -> None:
    if filler.min > filler.max:
        raise ValueError(f"uniform filler needs min <= max: {filler.min:g} > {filler.max:g}")
    _uniform(data, filler.min, filler.max, random)


def gaussian(data: np.ndarray, filler: Any, random: np.random.Generator) -> None:
    if filler.std < 0:
        raise ValueError(f"gaussian filler needs std of at least 0, not {filler.std:g}")
    if filler.sparse < -1:
        raise ValueError(f"gaussian filler needs sparse of at least 0, not {filler.sparse}")
    _normal(data, filler.mean, filler.std, random)
    if filler.sparse >= 0:
        share = filler.sparse / max(1, data.shape[0] if data.ndim else 1)
        if share > 1:
            raise ValueError(f"sparse must be at most the number of outputs: {filler.sparse} of {data.shape[0]}")
        data *= random.random(data.shape) < share


def truncated_normal(data: np.ndarray, filler: Any, random: np.random.Generator) -> None:
    if filler.std < 0:
        raise ValueError(f"truncated_normal filler needs std of at least 0, not {filler.std:g}")
    random.standard_normal(out=data, dtype=data.dtype.type)
    values = data.reshape(-1)
    far = np.flatnonzero(np.abs(values) > 2)
    while far.size:
        values[far] = random.standard_normal(far.size, dtype=data.dtype.type)
        far = far[np.abs(values[far]) > 2]
    data *= filler.std
    data += filler.mean


def xavier(data: np.ndarray, filler: Any, random: np.random.Generator) -> None:
    limit = math.sqrt(3 / _fan(data, filler))
    _uniform(data, -limit, limit, random)


def msra(data: np.ndarray, filler: Any, random: np.random.Generator) -> None:
    _normal(data, 0, math.sqrt(2 / _fan(data, filler)), random)


def positive_unitball(data: np.ndarray, filler: Any, random: np.random.Generator) -> None:
    _uniform(data, 0, 1, random)
    outputs = data.shape[0] if data.ndim else 1
    rows = data.reshape(outputs, data.size // max(1, outputs))
    rows /= rows.sum(axis=1, keepdims=True)


def bilinear(data: np.ndarray, filler: Any, random: np.random.Generator) -> None:
    """Weights for bilinear upsampling.

    w[.., i, j] = t[i] t[j], t[i] = 1 - |i / f - c|, f = ceil(kernel / 2), c = (2 f - 1 - f mod 2) / (2 f)
    """
    if data.ndim != 4 or data.shape[2] != data.shape[3]:
        raise ValueError(f"bilinear filler needs a blob (.., .., kernel, kernel), not {data.shape}")
    factor = math.ceil(data.shape[3] / 2)
    centre = (2 * factor - 1 - factor % 2) / (2 * factor)
    tent = 1 - np.abs(np.arange(data.shape[3]) / factor - centre)
    data[...] = np.outer(tent, tent)


FILLERS: dict[str, Filler] = {
    "bilinear": bilinear,
    "constant": constant,
    "gaussian": gaussian,
    "msra": msra,
    "positive_unitball": positive_unitball,
    "truncated_normal": truncated_normal,
    "uniform": uniform,
    "xavier": xavier,
}


def _fan(data: np.ndarray, filler: Any) -> float:
    """The divisor n of the variance of xavier and msra."""
    fan_in = data.size / max(1, data.shape[0] if data.ndim else 1)
    fan_out = data.size / max(1, data.shape[1]) if data.ndim > 1 else data.size
    if filler.variance_norm == pb.FillerParameter.AVERAGE:
        return max(1.0, (fan_in + fan_out) / 2)
    return max(1.0, fan_out if filler.variance_norm == pb.FillerParameter.FAN_OUT else fan_in)


def _uniform(data: np.ndarray, low: float, high: float, random: np.random.Generator) -> None:
    random.random(out=data, dtype=data.dtype.type)
    data *= high - low
    data += low


def _normal(data: np.ndarray, mean: float, std: float, random: np.random.Generator) -> None:
    random.standard_normal(out=data, dtype=data.dtype.type)
    data *= std
    data += mean


def _known() -> str:
    return "there are " + ", ".join(FILLERS)
