"""Converts images to input arrays of a net and back, with the interface of pycaffe's ``caffe.io``.

Images are float32 arrays (H, W, K) in RGB order with values in [0, 1], as ``load_image`` returns them; blobs are
(K, H, W) in the order and range with which the net was trained. ``Transformer`` converts between them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.errors import DataError, UsageError, suggestion
from sslnet.files import MOST_IMAGE, read_bytes

caffe_pb2 = pb
"""The messages, under the name that scripts read here."""


def load_image(filename: str | os.PathLike[str], color: bool = True) -> np.ndarray:
    """Reads an image file as (H, W, 3) float32 RGB in [0, 1]; (H, W, 1) with color=False.

    raises DataError if the file is missing, is no image, or has more pixels than sslnet.sources.images.MAX_PIXELS
    """
    from sslnet.sources.images import MORE_FORMATS, open_image

    place = os.fspath(filename)
    raw = read_bytes(place, limit=MOST_IMAGE)
    try:
        with open_image(raw, MORE_FORMATS) as image:
            pixels = np.array(image.convert("RGB" if color else "L"), dtype=np.float32)
    except DataError as error:
        raise DataError(error.message, path=place, hint=error.hint) from error
    except Exception as error:  # the decoders raise almost anything for damaged files
        raise DataError(f"cannot read the image: {error}", path=place) from error
    pixels /= np.float32(255)
    return pixels if color else pixels[:, :, np.newaxis]


def resize_image(image: np.ndarray, new_dims: Sequence[int], interp_order: int = 1) -> np.ndarray:
    """Resizes (H, W, K) to (new_dims[0], new_dims[1], K); interp_order 0 nearest, 1 bilinear, 3 cubic.

    Pixel centres map to pixel centres, without smoothing before a reduction, as in pycaffe.
    """
    from scipy.ndimage import zoom

    height, width = int(new_dims[0]), int(new_dims[1])
    if image.shape[:2] == (height, width):
        return image.astype(np.float32)
    factors = (height / image.shape[0], width / image.shape[1]) + (1,) * (image.ndim - 2)
    image = image.astype(np.float32, copy=False)
    result: np.ndarray = zoom(image, factors, order=interp_order, mode="nearest", grid_mode=True)
    return result


def oversample(images: Sequence[np.ndarray], crop_dims: Sequence[int]) -> np.ndarray:
    """The ten crops of each image: four corners and the centre, then their mirror images.

    images     of one shape (H, W, K)
    crop_dims  (height, width) of the crops
    returns    (10 N, height, width, K) float32
    """
    height, width, channels = np.shape(images[0])
    h, w = int(crop_dims[0]), int(crop_dims[1])
    if h > height or w > width:
        raise UsageError(f"crops of {h} x {w} do not fit into images of {height} x {width}")
    centre = ((height - h) // 2, (width - w) // 2)
    corners = [(0, 0), (0, width - w), (height - h, 0), (height - h, width - w), centre]
    crops = np.empty((10 * len(images), h, w, channels), np.float32)
    for n, image in enumerate(images):
        for k, (top, left) in enumerate(corners):
            crop = image[top : top + h, left : left + w]
            crops[10 * n + k] = crop
            crops[10 * n + 5 + k] = crop[:, ::-1]
    return crops


class Transformer:
    """Converts an image to the values of an input blob, and back.

    inputs   {name of the input blob: its shape (N, K, H, W)}

    The operations, each only if it was set, in this order: resize to the blob's H x W, transpose, swap channels, raw scale,
    subtract the mean, input scale.
    """

    def __init__(self, inputs: Mapping[str, Sequence[int]]) -> None:
        self.inputs = {name: tuple(shape) for name, shape in inputs.items()}
        self.transpose: dict[str, tuple[int, ...]] = {}
        self.channel_swap: dict[str, tuple[int, ...]] = {}
        self.raw_scale: dict[str, float] = {}
        self.mean: dict[str, np.ndarray] = {}
        self.input_scale: dict[str, float] = {}

    def preprocess(self, in_: str, data: np.ndarray) -> np.ndarray:
        """Converts an image (H, W, K) to float32 values of the blob ``in_``, without the batch axis."""
        self._check(in_)
        values = np.asarray(data, dtype=np.float32)
        size = self.inputs[in_][2:]
        if values.shape[:2] != size:
            values = resize_image(values, size)
        if in_ in self.transpose:
            values = values.transpose(self.transpose[in_])
        if in_ in self.channel_swap:
            values = values[list(self.channel_swap[in_])]
        if in_ in self.raw_scale:
            values = values * np.float32(self.raw_scale[in_])
        if in_ in self.mean:
            values = values - self.mean[in_]
        if in_ in self.input_scale:
            values = values * np.float32(self.input_scale[in_])
        return np.ascontiguousarray(values, dtype=np.float32)

    def deprocess(self, in_: str, data: np.ndarray) -> np.ndarray:
        """The inverse of ``preprocess``: the image for these values, in the size of the blob."""
        self._check(in_)
        values = np.array(data, dtype=np.float32).squeeze()
        if in_ in self.input_scale:
            values = values / np.float32(self.input_scale[in_])
        if in_ in self.mean:
            values = values + self.mean[in_]
        if in_ in self.raw_scale:
            values = values / np.float32(self.raw_scale[in_])
        if in_ in self.channel_swap:
            values = values[np.argsort(self.channel_swap[in_])]
        if in_ in self.transpose:
            values = values.transpose(np.argsort(self.transpose[in_]))
        return values

    def set_transpose(self, in_: str, order: Sequence[int]) -> None:
        """Sets the axes of the image in the order of the blob: (2, 0, 1) for (H, W, K) to (K, H, W)."""
        self._check(in_)
        if len(order) != len(self.inputs[in_]) - 1:
            raise UsageError(f"transpose needs {len(self.inputs[in_]) - 1} axes, got {tuple(order)}")
        self.transpose[in_] = tuple(order)

    def set_channel_swap(self, in_: str, order: Sequence[int]) -> None:
        """Sets the channels of the image in the order of the blob: (2, 1, 0) for a net trained on BGR."""
        self._check(in_)
        if len(order) != self.inputs[in_][1]:
            raise UsageError(f"channel_swap needs {self.inputs[in_][1]} channels, got {tuple(order)}")
        self.channel_swap[in_] = tuple(order)

    def set_raw_scale(self, in_: str, scale: float) -> None:
        """Sets the factor before the mean is subtracted: 255 for a net trained on values in [0, 255]."""
        self._check(in_)
        self.raw_scale[in_] = scale

    def set_mean(self, in_: str, mean: np.ndarray) -> None:
        """Sets the mean to subtract: one value per channel (K,), or an image of the blob's size (K, H, W)."""
        self._check(in_)
        shape = self.inputs[in_]
        mean = np.asarray(mean, dtype=np.float32)
        if mean.ndim == 1:
            if mean.shape[0] not in (1, shape[1]):
                raise UsageError(f"the mean has {mean.shape[0]} channels, the input {shape[1]}")
            mean = mean[:, np.newaxis, np.newaxis]
        elif mean.shape != shape[1:]:
            raise UsageError(f"the mean has shape {mean.shape}, the input {shape[1:]}")
        self.mean[in_] = mean

    def set_input_scale(self, in_: str, scale: float) -> None:
        """Sets the factor after the mean is subtracted."""
        self._check(in_)
        self.input_scale[in_] = scale

    def _check(self, in_: str) -> None:
        if in_ not in self.inputs:
            hint = suggestion(in_, self.inputs) or f"inputs: {', '.join(self.inputs)}"
            raise UsageError(f'"{in_}" is not an input', hint=hint)


def blobproto_to_array(blob: pb.BlobProto, return_diff: bool = False) -> np.ndarray:
    """Converts a pb.BlobProto to an array of its shape (four axes if it has the legacy dimensions).

    raises DataError if the number of values does not agree with the shape
    """
    values = (blob.double_diff or blob.diff) if return_diff else (blob.double_data or blob.data)
    array = np.asarray(values, dtype=np.float64 if blob.double_data or blob.double_diff else np.float32)
    legacy = any(blob.HasField(name) for name in ("num", "channels", "height", "width"))
    shape = (blob.num, blob.channels, blob.height, blob.width) if legacy else tuple(blob.shape.dim)
    if array.size != math.prod(shape) or min(shape, default=0) < 0:
        raise DataError(f"the blob holds {array.size} values for shape {shape}")
    return array.reshape(shape)


def array_to_blobproto(array: np.ndarray, diff: np.ndarray | None = None) -> pb.BlobProto:
    """Converts an array to a pb.BlobProto with its shape and values."""
    blob = pb.BlobProto()
    blob.shape.dim.extend(array.shape)
    blob.data.extend(np.asarray(array, dtype=np.float32).ravel())
    if diff is not None:
        blob.diff.extend(np.asarray(diff, dtype=np.float32).ravel())
    return blob


def array_to_datum(array: np.ndarray, label: int | None = None) -> pb.Datum:
    """Converts an array (K, H, W) to a pb.Datum: bytes for uint8, float_data otherwise."""
    if array.ndim != 3:
        raise UsageError(f"a Datum holds (channels, height, width), not an array of shape {array.shape}")
    datum = pb.Datum(channels=array.shape[0], height=array.shape[1], width=array.shape[2])
    if array.dtype == np.uint8:
        datum.data = array.tobytes()
    else:
        datum.float_data.extend(np.asarray(array, dtype=np.float32).ravel())
    if label is not None:
        datum.label = label
    return datum


def datum_to_array(datum: pb.Datum) -> np.ndarray:
    """Converts a pb.Datum that is not encoded to an array (K, H, W): uint8 or float32."""
    shape = (datum.channels, datum.height, datum.width)
    if datum.data:
        array = np.frombuffer(datum.data, dtype=np.uint8)
    else:
        array = np.asarray(datum.float_data, dtype=np.float32)
    if datum.encoded or array.size != math.prod(shape) or min(shape) < 0:
        raise DataError(
            f"the Datum holds {'an encoded image' if datum.encoded else f'{array.size} values'}, not {shape}"
        )
    return array.reshape(shape)
