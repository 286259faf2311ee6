"""Blobs of files as arrays, and arrays as blobs of files: single, double and half precision, as numbers or as bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.errors import WeightsError
from sslnet.net.integer_weights import packed_values
from sslnet.prototxt.values import shorten
from sslnet.prototxt.wire_format import field_head

MOST_AXES = 32
"""Maximum number of axes of a blob, as in Caffe."""


def blob_array(
    blob: pb.BlobProto, *, diff: bool = False, path: str | None = None, layer: str | None = None, index: int = 0
) -> np.ndarray:
    """The array of a pb.BlobProto, float32 or float64 as stored.

    path, layer, index   place of the blob, for errors
    raises WeightsError if the shape and the number of values disagree
    """
    single, double = (blob.diff, blob.double_diff) if diff else (blob.data, blob.double_data)
    values: Any = double if len(double) else single
    dtype = np.float64 if len(double) else np.float32
    shape = blob_shape(blob)
    layer = shorten(layer, 100) if layer else layer
    if blob.HasField("raw_diff" if diff else "raw_data"):
        values = _raw_array(blob, diff, path, layer, index)
        dtype = np.float64 if values.dtype == np.float64 else np.float32
    if len(shape) > MOST_AXES:
        raise WeightsError(f"blob {index} has {len(shape)} axes, more than {MOST_AXES}", path=path, layer=layer)
    if blob.HasField("packed") and not diff:
        if any(size < 1 for size in shape):
            raise WeightsError(f"blob {index} has shape {by(shape)} and packed numbers", path=path, layer=layer)
        return packed_values(blob, shape, path=path, layer=layer, index=index)
    if math.prod(shape) != len(values) or any(size < 0 for size in shape):
        raise WeightsError(f"blob {index} has shape {by(shape)} and {len(values)} values", path=path, layer=layer)
    return np.array(values, dtype=dtype).reshape(shape)


_RAW: dict[int, str] = {
    pb.BlobProto.DOUBLE: "<f8",
    pb.BlobProto.FLOAT: "<f4",
    pb.BlobProto.FLOAT16: "<f2",
    pb.BlobProto.INT: "<i4",
    pb.BlobProto.UINT: "<u4",
}


def _raw_array(blob: pb.BlobProto, diff: bool, path: str | None, layer: str | None, index: int) -> np.ndarray:
    """The numbers in the bytes of a blob of NVCaffe's. raises WeightsError for bytes that are no whole numbers"""
    data, kind = (blob.raw_diff, blob.raw_diff_type) if diff else (blob.raw_data, blob.raw_data_type)
    if not blob.HasField("raw_diff_type" if diff else "raw_data_type"):
        kind = pb.BlobProto.FLOAT
    numbers = np.dtype(_RAW[kind])
    if len(data) % numbers.itemsize:
        message = f"blob {index} has {len(data)} bytes, which are no whole number of {numbers.itemsize} each"
        raise WeightsError(message, path=path, layer=layer)
    return np.frombuffer(data, numbers)


def blob_shape(blob: pb.BlobProto) -> tuple[int, ...]:
    """The shape of a pb.BlobProto: its ``shape``, or the four sizes of older files."""
    if blob.HasField("shape"):
        return tuple(blob.shape.dim)
    if any(blob.HasField(name) for name in ("num", "channels", "height", "width")):
        return (blob.num, blob.channels, blob.height, blob.width)
    return ()


def blob_proto(data: np.ndarray, diff: np.ndarray | None = None) -> pb.BlobProto:
    """A pb.BlobProto with an array (float64 as double_data) and, if given, its diff."""
    message = pb.BlobProto()
    message.shape.dim.extend(data.shape)
    for array, single, double in ((data, "data", "double_data"), (diff, "diff", "double_diff")):
        if array is not None:
            is_double = array.dtype == np.float64
            number = pb.BlobProto.DESCRIPTOR.fields_by_name[double if is_double else single].number
            values = array.astype("<f8" if is_double else "<f4", copy=False).tobytes()
            # hundreds of times faster than to add the values one by one
            message.MergeFromString(field_head(number, len(values)) + values)
    return message


def by(shape: Sequence[int]) -> str:
    """The sizes in words: "4 x 3 x 3 x 3"."""
    return " x ".join(map(str, shape)) or "scalar"
