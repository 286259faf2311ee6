"""transform_param: computes the input of a net from records, as Caffe does.

    out = (pixel - mean) * scale

for the pixels of a crop of the image, mirrored or not. In phase TRAIN each image is cropped at a random place, in phase
TEST at its centre, with the offset (size - crop) // 2; `mirror` flips half of the images at random, in both phases. The
mean is an image, which is cropped at the same place, or one number per channel.

With the augmentation that Caffe does not have, the operations are, in this order:

    pad         pixels around the image, with the value of the mean (of a mean image: of its channel), or 0 without a mean
    crop        of the padded image
    mirror
    brightness  x + b, one b for the image, uniform in [-brightness, brightness); only in phase TRAIN
    contrast    (x - m) f + m, m the mean of a channel of the crop, one f for the image, uniform in [1 - contrast, 1 + contrast);
                only in phase TRAIN
    mean        x - mean; or standardize: (x - m) / max(s, 1 / sqrt(n)), m and s the mean and the standard deviation of the n
                numbers of the crop
    scale       x * scale

The random choices for an image are made from five random numbers, which depend only on the seed, the layer and the place
of the image in the run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.errors import DataError, SslnetError, WeightsError
from sslnet.kernels.runtime.compiler import exact_kernel, inlined_sums_kernel
from sslnet.kernels.runtime.jit import kernel
from sslnet.sources.base import size_text
from sslnet.sources.mean import read_mean


class DataTransformer:
    """The transformation of the records of one layer.

    param   a TransformationParameter
    shape   (C, H, W) of the records
    train   whether crops are random
    dtype   type of the output
    error   creates the error about a field of transform_param: error(message, *field)
    locate  returns the path of the mean file, given its name in the prototxt
    """

    def __init__(
        self,
        param: pb.TransformationParameter,
        shape: Sequence[int],
        *,
        train: bool,
        dtype: np.dtype | type[np.floating],
        error: Callable[..., SslnetError],
        locate: Callable[[str], str | Path] = Path,
    ) -> None:
        _check_augmentation(param, error)
        channels, height, width = shape
        self._train = train
        self._mirror = bool(param.mirror)
        self._crop = int(param.crop_size)
        self._pad = int(param.pad)
        self._brightness = float(param.brightness) if train else 0.0
        self._contrast = float(param.contrast) if train else 0.0
        self._standardize = bool(param.standardize)
        self._channels = channels
        self._scale = np.dtype(dtype).type(param.scale)
        if self._pad > min(height, width):
            raise error(f"pad {self._pad} is larger than the images, which are {height} x {width}", "pad")
        if self._crop > min(height, width) + 2 * self._pad:
            padded = f", with pad {self._pad} at each side" if self._pad else ""
            raise error(
                f"crop_size {self._crop} is larger than the images, which are {height} x {width}{padded}", "crop_size"
            )
        self._image_size = (height, width)
        mean = _mean(param, shape, error, locate).astype(dtype)
        self._edge = mean.mean(axis=(1, 2), dtype=np.float64).astype(dtype)
        self._mean = _padded(mean, self._pad, self._edge)
        self.shape = (channels, self._crop or height, self._crop or width)
        """Shape of an output image: (C, H, W)."""

    @property
    def random(self) -> bool:
        """Whether the output depends on the random numbers of ``draw``."""
        return self._mirror or (self._train and self._crop > 0) or self._brightness > 0 or self._contrast > 0

    def draw(self, random: np.random.Generator, count: int) -> np.ndarray:
        """Random numbers for each image, (count, 5) in [0, 1): mirror, row and column of the crop, brightness, contrast."""
        draws = np.zeros((count, 5))
        if self.random:
            draws[:, :3] = random.random((count, 3))
        if self._brightness or self._contrast:
            draws[:, 3:] = random.random((count, 2))
        return draws

    def bounds(self, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
        """The smallest and the largest number of each channel, (channels) float64, for pixels from low to high."""
        edge, mean = self._edge.astype(np.float64), self._mean.reshape(self._channels, -1)
        least, most = np.full(self._channels, float(low)), np.full(self._channels, float(high))
        if self._pad:
            least, most = np.minimum(least, edge), np.maximum(most, edge)
        if not (self._brightness or self._contrast or self._standardize):
            # What is computed for a pixel rises or falls with it: computed at both ends, it needs no room for rounding.
            first, last = (
                end.astype(mean.dtype) - m for end, m in ((least, mean.max(axis=1)), (most, mean.min(axis=1)))
            )
            both = np.stack([first * self._scale, last * self._scale]).astype(np.float64)
            return both.min(axis=0), both.max(axis=0)
        least, most = least - self._brightness, most + self._brightness
        spread = self._contrast * (most - least)
        least, most = least - spread, most + spread
        size = np.maximum(np.abs(least), np.abs(most))
        if self._standardize:
            # No number is further from the mean of n than sqrt(n - 1) standard deviations.
            reach = math.sqrt(max(math.prod(self.shape) - 1, 0))
            least, most = np.full(self._channels, -reach), np.full(self._channels, reach)
            size = most * self.shape[1] * self.shape[2]
        else:
            size = size + np.abs(mean).max(axis=1)
            least, most = least - mean.max(axis=1), most - mean.min(axis=1)
        scale = float(self._scale)
        ends = np.stack([least * scale, most * scale])
        slack = 8 * np.finfo(self._scale.dtype).eps * size * abs(scale)
        return ends.min(axis=0) - slack, ends.max(axis=0) + slack

    def __call__(self, images: np.ndarray, out: np.ndarray, draws: np.ndarray) -> None:
        """Transforms images.  [overwrites out]

        images  (n, C, H, W) uint8 or float32
        out     (n,) + self.shape
        draws   (n, 5) random numbers, as from ``draw``
        raises  DataError for images whose size differs from the first record's; with a crop, if the crop does not fit
        """
        self._check(images.shape[1:])
        room = np.array(images.shape[2:]) + 2 * self._pad - out.shape[2:]
        if self._train and self._crop:
            offsets = (draws[:, 1:3] * (room + 1)).astype(np.int64)
        else:
            offsets = np.repeat((room // 2)[None], len(out), axis=0)
        flip = (draws[:, 0] < 0.5) & self._mirror
        images = np.ascontiguousarray(images)
        if self._pad or self._brightness or self._contrast or self._standardize:
            shift = ((2 * draws[:, 3] - 1) * self._brightness).astype(out.dtype)
            factor = (1 + (2 * draws[:, 4] - 1) * self._contrast).astype(out.dtype)
            place = offsets - self._pad
            _augment(images, out, place, self._edge, shift, factor)
            if self._standardize:
                _standardize(out, self._scale)
            else:
                _center(out, offsets, self._mean, self._scale)
            _mirror(out, flip)
        else:
            _transform(images, out, offsets, flip, self._mean, self._scale)

    def _check(self, shape: tuple[int, ...]) -> None:
        channels, height, width = shape
        first = (self._channels, *self._image_size)
        if shape == first:
            return
        if channels != self._channels or not self._crop:
            raise DataError(f"is {size_text(shape)}, but the first one is {size_text(first)}")
        if min(height, width) + 2 * self._pad < self._crop:
            raise DataError(f"is {size_text(shape)}, which is smaller than crop_size {self._crop}")
        if self._mean.shape[1:] != (1, 1):
            raise DataError(
                f"is {size_text(shape)}, but the mean image {size_text((self._channels, *self._image_size))}"
            )


def _check_augmentation(param: pb.TransformationParameter, error: Callable[..., SslnetError]) -> None:
    if param.pad and not param.crop_size:
        raise error("pad is for crops that are taken at random: give crop_size too", "pad")
    if param.pad and param.pad >= param.crop_size:
        raise error(
            f"pad must be smaller than crop_size, {param.crop_size}, not {param.pad}: a crop would show no image", "pad"
        )
    if not 0 <= param.brightness < math.inf:
        raise error(f"brightness must be 0 or more, not {param.brightness:g}", "brightness")
    if not 0 <= param.contrast <= 1:
        raise error(f"contrast must be from 0 to 1, not {param.contrast:g}", "contrast")
    for field in ("mean_file", "mean_value"):
        if param.standardize and getattr(param, field):
            raise error(f"standardize takes off each image's own mean: {field} has no effect beside it", field)


def _padded(mean: np.ndarray, pad: int, edge: np.ndarray) -> np.ndarray:
    """The mean of padded images: (C, H + 2 pad, W + 2 pad) from (C, H, W); (C, 1, 1) is returned unchanged."""
    if not pad or mean.shape[1:] == (1, 1):
        return mean
    channels, height, width = mean.shape
    result = np.empty((channels, height + 2 * pad, width + 2 * pad), mean.dtype)
    result[...] = edge[:, None, None]
    result[:, pad : pad + height, pad : pad + width] = mean
    return result


def _mean(
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


@inlined_sums_kernel
def _scale_row(
    source: np.ndarray,
    target: np.ndarray,
    mean: np.ndarray,
    whole: bool,
    c: int,
    y: int,
    left: int,
    scale: np.floating,
) -> None:
    """target = (source - mean) * scale, for one row of channel c; the arithmetic is that of the caller.

    whole  whether the mean is an image, whose row y begins at column ``left``; else one number per channel
    """
    kind = target.dtype.type
    if whole:
        row = mean[c, y, left : left + target.size]
        for x in range(target.size):
            target[x] = (kind(source[x]) - row[x]) * scale
    else:
        constant = mean[c, 0, 0]
        for x in range(target.size):
            target[x] = (kind(source[x]) - constant) * scale


@exact_kernel
def _transform(
    images: np.ndarray,
    out: np.ndarray,
    offsets: np.ndarray,
    flip: np.ndarray,
    mean: np.ndarray,
    scale: np.floating,
) -> None:
    """out[i, c, y, x] = (images[i, c, y + top_i, x + left_i] - mean) * scale, x counted from the right where flip[i]."""
    count, channels, height, width = out.shape
    whole = mean.shape[1] > 1 or mean.shape[2] > 1
    for i in range(count):
        top, left = offsets[i, 0], offsets[i, 1]
        for c in range(channels):
            for y in range(height):
                source = images[i, c, top + y, left : left + width]
                target = out[i, c, y]
                _scale_row(source, target, mean, whole, c, top + y, left, scale)
                if flip[i]:
                    for x in range(width // 2):
                        target[x], target[width - 1 - x] = target[width - 1 - x], target[x]


@kernel
def _augment(
    images: np.ndarray,
    out: np.ndarray,
    place: np.ndarray,
    edge: np.ndarray,
    shift: np.ndarray,
    factor: np.ndarray,
) -> None:
    """Crops padded images and changes brightness and contrast: out = (x + shift_i - m) factor_i + m, m the crop's channel mean.

    place   (n, 2)  row and column of the image at which the crop begins; negative in the padding
    edge    (C)     value of the padding of each channel
    """
    count, channels, height, width = out.shape
    rows, columns = images.shape[2], images.shape[3]
    for i in range(count):
        top, left = place[i, 0], place[i, 1]
        first, last = max(0, -left), min(width, columns - left)
        for c in range(channels):
            total = 0.0
            for y in range(height):
                target = out[i, c, y]
                target[:] = edge[c] + shift[i]
                if 0 <= top + y < rows:
                    source = images[i, c, top + y, left + first : left + last]
                    inner = target[first:last]
                    for x in range(len(source)):
                        inner[x] = out.dtype.type(source[x]) + shift[i]
                if factor[i] != 1:
                    for x in range(width):
                        total += target[x]
            if factor[i] != 1:
                mean = out.dtype.type(total / (height * width))
                for y in range(height):
                    target = out[i, c, y]
                    for x in range(width):
                        target[x] = (target[x] - mean) * factor[i] + mean


@kernel
def _center(out: np.ndarray, offsets: np.ndarray, mean: np.ndarray, scale: np.floating) -> None:
    """out = (out - mean) * scale, with the mean image cropped at the offsets."""
    count, channels, height, _ = out.shape
    whole = mean.shape[1] > 1 or mean.shape[2] > 1
    for i in range(count):
        top, left = offsets[i, 0], offsets[i, 1]
        for c in range(channels):
            for y in range(height):
                row = out[i, c, y]
                _scale_row(row, row, mean, whole, c, top + y, left, scale)


@kernel
def _standardize(out: np.ndarray, scale: np.floating) -> None:
    """out = (out - m) / max(s, 1 / sqrt(n)) * scale, with m and s of the n numbers of each image."""
    size = out[0].size
    flat = out.reshape(len(out), size)
    for i in range(len(out)):
        numbers = flat[i]
        total = 0.0
        for x in range(size):
            total += numbers[x]
        mean = total / size
        squares = 0.0
        for x in range(size):
            squares += (numbers[x] - mean) ** 2
        factor = scale / max(math.sqrt(squares / size), 1 / math.sqrt(size))
        for x in range(size):
            numbers[x] = (numbers[x] - mean) * factor


@kernel
def _mirror(out: np.ndarray, flip: np.ndarray) -> None:
    """Mirrors the images where ``flip`` is true, left to right."""
    count, channels, height, width = out.shape
    for i in range(count):
        if flip[i]:
            for c in range(channels):
                for y in range(height):
                    row = out[i, c, y]
                    for x in range(width // 2):
                        row[x], row[width - 1 - x] = row[width - 1 - x], row[x]
