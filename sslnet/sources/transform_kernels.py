"""The compiled loops of the transformation of images: crops, mirrors, means, scales, brightness, contrast."""

from __future__ import annotations

import math

import numpy as np

from sslnet.kernels.runtime.compiler import exact_kernel, inlined_sums_kernel
from sslnet.kernels.runtime.jit import kernel


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
def transform(
    images: np.ndarray,
    out: np.ndarray,
    offsets: np.ndarray,
    flip: np.ndarray,
    mean: np.ndarray,
    scale: np.ndarray,
) -> None:
    """out[i, c, y, x] = (images[i, c, y + top_i, x + left_i] - mean) * scale[c], x counted from the right where flip[i]."""
    count, channels, height, width = out.shape
    whole = mean.shape[1] > 1 or mean.shape[2] > 1
    for i in range(count):
        top, left = offsets[i, 0], offsets[i, 1]
        for c in range(channels):
            for y in range(height):
                source = images[i, c, top + y, left : left + width]
                target = out[i, c, y]
                _scale_row(source, target, mean, whole, c, top + y, left, scale[c])
                if flip[i]:
                    for x in range(width // 2):
                        target[x], target[width - 1 - x] = target[width - 1 - x], target[x]


@kernel
def augment(
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
def center(out: np.ndarray, offsets: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> None:
    """out = (out - mean) * scale[c], with the mean image cropped at the offsets."""
    count, channels, height, _ = out.shape
    whole = mean.shape[1] > 1 or mean.shape[2] > 1
    for i in range(count):
        top, left = offsets[i, 0], offsets[i, 1]
        for c in range(channels):
            for y in range(height):
                row = out[i, c, y]
                _scale_row(row, row, mean, whole, c, top + y, left, scale[c])


@kernel
def standardize(out: np.ndarray, scale: np.floating) -> None:
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
def mirror(out: np.ndarray, flip: np.ndarray) -> None:
    """Mirrors the images where ``flip`` is true, left to right."""
    count, channels, height, width = out.shape
    for i in range(count):
        if flip[i]:
            for c in range(channels):
                for y in range(height):
                    row = out[i, c, y]
                    for x in range(width // 2):
                        row[x], row[width - 1 - x] = row[width - 1 - x], row[x]


@exact_kernel
def resize_bytes(
    image: np.ndarray,
    rows: tuple[np.ndarray, np.ndarray, np.ndarray],
    columns: tuple[np.ndarray, np.ndarray, np.ndarray],
    part: np.ndarray,
    result: np.ndarray,
) -> None:
    """Bilinear interpolation in OpenCV's whole numbers.  [overwrites part, result]

    image    (C, H, W) uint8
    rows     for each row of the result the first and the second row of the image, and the weight of the second in 1/2048
    columns  the same for columns
    part     (H, W') int32
    result   (C, H', W') uint8
    """
    left, right, beside = columns
    top, bottom, below = rows
    for c in range(len(image)):
        for y in range(part.shape[0]):
            for x in range(part.shape[1]):
                one = np.int32(image[c, y, left[x]]) * (2048 - beside[x]) + np.int32(image[c, y, right[x]]) * beside[x]
                part[y, x] = one >> 4
        for y in range(result.shape[1]):
            weight = below[y]
            for x in range(result.shape[2]):
                upper = (part[top[y], x] * (2048 - weight)) >> 16
                lower = (part[bottom[y], x] * weight) >> 16
                result[c, y, x] = np.uint8(min(max((upper + lower + 2) >> 2, 0), 255))
