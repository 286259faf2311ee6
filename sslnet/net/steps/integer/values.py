"""ByteValue: what a blob holds as u8 between quantised layers."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from sslnet.blob import Blob
from sslnet.kernels.conv.packing import address
from sslnet.kernels.quantized.elementwise import ByteScale, dequantize, quantize
from sslnet.kernels.quantized.packing import pixel_bytes
from sslnet.kernels.runtime.memory import aligned_zeros


class ByteValue:
    """The values of a blob as bytes: (images, pixels, step) u8, NHWC.

    size    (images, channels, height, width); blobs of two axes have one pixel
    scale   what the bytes stand for
    dense   pixels are exactly the channels, not rounded up to four bytes
    """

    def __init__(self, blob: Blob, size: tuple[int, int, int, int], scale: ByteScale, *, dense: bool = False) -> None:
        self.blob = blob
        self.size = size
        self.scale = scale
        self.step = size[1] if dense else pixel_bytes(size[1])
        self.fill = self._fill

    @property
    def pixels(self) -> int:
        return self.size[2] * self.size[3]

    @cached_property
    def bytes(self) -> np.ndarray:
        """(images, pixels, step) u8; made when it is first used."""
        return aligned_zeros((self.size[0], self.pixels, self.step), np.uint8)

    @cached_property
    def address(self) -> int:
        return address(self.bytes)

    def publish(self) -> None:
        """Makes the blob show these values, converted when they are read."""
        self.blob.defer(self.fill)

    def is_shown(self) -> bool:
        """Whether the blob still shows these values, so that nobody can have changed them."""
        return self.blob.is_deferred(self.fill)

    def convert(self, blob: Blob) -> None:
        """Converts the float values of a blob of this size."""
        quantize(blob.data.reshape(self.size[0], self.size[1], self.pixels), self.bytes, self.scale)

    def fits(self, blob: Blob) -> bool:
        """Whether a blob has this size, not only as many values."""
        return size_of(blob) == self.size

    def _fill(self, array: np.ndarray) -> None:
        dequantize(self.bytes, array.reshape(self.size[0], self.size[1], self.pixels), self.scale)


def size_of(blob: Blob) -> tuple[int, int, int, int] | None:
    """(images, channels, height, width) of a blob of two or four axes; None for others."""
    shape = blob.shape
    if len(shape) == 2:
        return (shape[0], shape[1], 1, 1)
    return (shape[0], shape[1], shape[2], shape[3]) if len(shape) == 4 else None
