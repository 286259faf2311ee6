"""Mean files: the mean image of a data set, as Caffe's binaryproto or as .npy."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable

import numpy as np
from google.protobuf.message import DecodeError

from sslnet import sslnet_pb2 as pb
from sslnet.errors import DataError, WeightsError
from sslnet.files import MOST_IMAGE, atomic_path, atomic_write, read_bytes
from sslnet.sources.base import DataSource, size_text
from sslnet.sources.npy import parse_header

CHUNK_BYTES = 1 << 25
"""Approximate number of bytes of uint8 images in memory at once."""


def read_mean(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads the mean from a file: (C, H, W) float32, or (C, 1, 1) if a .npy contains one number per channel.

    raises WeightsError if the file cannot be read or contains no such array
    """
    name = os.fspath(path)
    mean = _read_npy(name) if name.endswith(".npy") else _read_binaryproto(name)
    if mean.ndim == 4 and len(mean) == 1:
        mean = mean[0]
    if mean.ndim == 1 and name.endswith(".npy"):
        mean = mean[:, None, None]
    if mean.ndim != 3 or not mean.size:
        raise WeightsError(f"a mean image has the shape channels x height x width, not {mean.shape}", path=name)
    return np.ascontiguousarray(mean, np.float32)


def mean_image(source: DataSource, report: Callable[[int], object] = lambda done: None) -> np.ndarray:
    """Computes the mean over all records of a source: (C, H, W) float32, summed exactly for bytes, else in float64.

    report  called with the number of records read so far, from time to time
    raises  DataError for a record of another size than the first one, or with numbers that are not finite
    """
    total = np.zeros(source.shape, np.float64)
    chunk = max(1, min(1000, CHUNK_BYTES // total.size))
    for start in range(0, len(source), chunk):
        indices = np.arange(start, min(start + chunk, len(source)))
        images = source.read(indices, labels=False).images
        if isinstance(images, np.ndarray) and images.shape[1:] == source.shape:
            with np.errstate(invalid="ignore"):
                total += images.sum(axis=0, dtype=np.uint32 if images.dtype == np.uint8 else np.float64)
        else:
            for index, image in zip(indices, images):
                if image.shape != source.shape:
                    raise DataError(
                        f"record {index} is {size_text(image.shape)}, but the first one is {size_text(source.shape)}",
                        path=source.path,
                        hint="a mean image is of images of one size",
                    )
                total += image
        report(int(indices[-1]) + 1)
    mean = (total / len(source)).astype(np.float32)
    if not np.isfinite(mean).all():
        raise DataError("a record holds numbers that are not finite", path=source.path)
    return mean


def write_mean(path: str | os.PathLike[str], mean: np.ndarray) -> None:
    """Writes a mean (C, H, W) float32 as .npy if the name ends so, else as binaryproto with num, channels, height,
    width like Caffe."""
    if os.fspath(path).endswith(".npy"):
        with atomic_path(path) as temporary:
            np.save(temporary, mean.astype(np.float32))
        return
    channels, height, width = mean.shape
    blob = pb.BlobProto(num=1, channels=channels, height=height, width=width)
    blob.data.extend(mean.astype(np.float32).ravel().tolist())
    atomic_write(path, blob.SerializeToString())


def _read_binaryproto(path: str) -> np.ndarray:
    raw = read_bytes(path, limit=MOST_IMAGE, error=WeightsError)
    try:
        blob = pb.BlobProto.FromString(raw)
    except DecodeError as error:
        raise WeightsError("is not a mean file: no BlobProto", path=path) from error
    shape = list(blob.shape.dim) if blob.HasField("shape") else [blob.num, blob.channels, blob.height, blob.width]
    values = np.array(blob.data or blob.double_data, np.float32)
    try:
        if min(shape, default=1) <= 0:
            raise ValueError
        return values.reshape(shape)
    except (ValueError, OverflowError):
        raise WeightsError(f"holds {values.size} values, but its shape is given as {shape}", path=path) from None


def _read_npy(path: str) -> np.ndarray:
    file = io.BytesIO(read_bytes(path, limit=MOST_IMAGE, error=WeightsError))
    try:
        shape, by_columns, dtype = parse_header(file)
        size = math.prod(shape)
        if (
            min(shape, default=0) < 0
            or dtype.kind not in "fiub"
            or len(file.getbuffer()) - file.tell() < size * dtype.itemsize
        ):
            raise ValueError(f"it announces {size} values of type {dtype}, which are not there")
        values = np.frombuffer(file.getbuffer(), dtype, size, file.tell())
        return values.reshape(shape, order="F" if by_columns else "C").astype(np.float32)
    except Exception as error:  # the reader of .npy headers raises almost anything for damaged ones
        raise WeightsError(f"is not an .npy file of numbers: {error}", path=path) from error
