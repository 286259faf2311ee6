"""The numbers that normalise pixels, from the fields of transform_param: means, and factors scale / std."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.errors import SslnetError, WeightsError
from sslnet.sources.base import size_text
from sslnet.sources.mean import read_mean


def factors_of(
    param: pb.TransformationParameter, channels: int, scale: np.floating, error: Callable[..., SslnetError]
) -> np.ndarray:
    """scale / std for each channel: (C), of the type of scale."""
    values = np.array(param.std_value, np.float64)
    if len(values) not in (0, 1, channels):
        raise error(
            f"there are {len(values)} std_value, but the images have {channels} channels: give one, or one a channel",
            "std_value",
        )
    if not len(values):
        return np.full(channels, scale)
    return np.broadcast_to(float(scale) / values, channels).astype(scale.dtype)


def padded_mean(mean: np.ndarray, pad: int, edge: np.ndarray) -> np.ndarray:
    """The mean of padded images: (C, H + 2 pad, W + 2 pad) from (C, H, W); (C, 1, 1) is returned unchanged."""
    if not pad or mean.shape[1:] == (1, 1):
        return mean
    channels, height, width = mean.shape
    result = np.empty((channels, height + 2 * pad, width + 2 * pad), mean.dtype)
    result[...] = edge[:, None, None]
    result[:, pad : pad + height, pad : pad + width] = mean
    return result


def mean_of(
    param: pb.TransformationParameter,
    shape: Sequence[int],
    error: Callable[..., SslnetError],
    locate: Callable[[str], str | Path],
) -> np.ndarray:
    """The mean from a file or from numbers: (C, H, W) or (C, 1, 1)."""
    channels, height, width = shape
    values = np.array(param.mean_value, np.float32)
    if param.HasField("mean_file"):
        if len(values):
            raise error("mean_file and mean_value exclude each other", "mean_file")
        try:
            mean = read_mean(locate(param.mean_file))
        except WeightsError as problem:
            raise error(f"{problem.path}: {problem.message}", "mean_file") from problem
        sizes = ("random_resized_crop", "random_resize_param", "random_aspect_ratio_param")
        if mean.shape[1:] != (1, 1) and (param.resize_shorter or any(map(param.HasField, sizes))):
            raise error("a mean image does not fit images that are resized: give mean_value", "mean_file")
        if mean.shape not in ((channels, height, width), (channels, 1, 1)):
            raise error(
                f"the mean image is {size_text(mean.shape)}, but the images are {size_text(shape)}", "mean_file"
            )
        return mean
    if len(values) not in (0, 1, channels):
        raise error(
            f"there are {len(values)} mean_value, but the images have {channels} channels: give one, or one a channel",
            "mean_value",
        )
    return np.broadcast_to(values if len(values) else np.float32(0), channels).reshape(channels, 1, 1).copy()
