"""Pooling of u8 NHWC: the maximum, or the mean with its own scale.

    plan = QuantizedPool(batch, channels, (H, W), (out_h, out_w), kernel, stride, pad, mean=True)
    plan.set(source_zero=3, ratio=0.5, zero=0)     # the mean alone; ratio: scale of x by that of y
    plan.run(x, y)                                 # (batch, H, W, pixel bytes), (batch, out_h, out_w, pixel bytes)

max: the largest byte of the window's part inside the image: the values keep scale and zero.
mean: clamp(rint(float32(sum (x - source_zero)) * float32(ratio / size)) + zero, 0, top), where ``size`` is that of the window
clipped to the padded image, as in Caffe, or inside the image. Windows outside the image are refused by the caller.
"""

from __future__ import annotations

import numpy as np

from sslnet.errors import ShapeError
from sslnet.kernels.conv.packing import address, record, threads_for
from sslnet.kernels.quantized.packing import pixel_bytes
from sslnet.kernels.quantized.rows import BLOCK, max_block, mean_block
from sslnet.kernels.runtime.compiler import exact_kernel
from sslnet.kernels.runtime.threads import parallel
from sslnet.kernels.simd.vector import call_tile, vector_unit

Pair = tuple[int, int]


class QuantizedPool:
    """A plan of a pooling of bytes.

    inside   a mean divides by the pixels inside the image alone
    """

    def __init__(
        self, batch: int, channels: int, size: Pair, out: Pair, kernel: Pair, stride: Pair, pad: Pair, *,
        mean: bool = False, inside: bool = False,
    ) -> None:  # fmt: skip
        step = pixel_bytes(channels)
        self.shapes = {"x": (batch, *size, step), "y": (batch, *out, step)}
        self.mean, self.inside = mean, inside
        self.geometry = (size, out, kernel, stride, pad)
        self.work = batch * out[0] * out[1] * step * kernel[0] * kernel[1]
        self.units = batch * out[0]
        self.kernel = "u8 mean" if mean else "u8 max"
        self.set()

    def set(self, *, source_zero: int = 0, ratio: float = 1.0, zero: int = 0, top: int = 255) -> None:
        """Sets the zeros and the ratio of the scales of a mean."""
        size, out, kernel, stride, pad = self.geometry
        rows, columns = (_spans(*axis) for axis in zip(size, out, kernel, stride, pad, strict=True))
        self.rows, self.columns = rows, columns
        which = 3 if self.inside else 2
        sizes = np.outer(rows[:, which], columns[:, which]).astype(np.float64)
        self.factors = (ratio / sizes).astype(np.float32).view(np.int32).astype(np.int64)
        unit = vector_unit()
        make = mean_block if self.mean else max_block
        step = self.shapes["x"][3]
        self.numbers = record(
            height=size[0], width=size[1], out_h=out[0], out_w=out[1], step=step, mean=self.mean, zero=zero, top=top,
            source_zero=source_zero, rows=address(self.rows), block=make(unit, size=BLOCK), word=make(unit, size=4),
        )  # fmt: skip

    def run(self, x: np.ndarray, y: np.ndarray) -> None:
        """Computes the batch.  [overwrites y]"""
        for name, array in (("x", x), ("y", y)):
            if array.shape != self.shapes[name] or array.dtype != np.uint8 or not array.flags.c_contiguous:
                raise ShapeError(f"{name} must be C-contiguous uint8 of shape {self.shapes[name]}, not {array.shape}")
        self.run_at(address(x), address(y))

    def run_at(self, source: int, target: int) -> None:
        """As ``run``, for arrays that begin at these addresses, without checks."""
        parallel(self._part, self.units, source, target, most=threads_for(self.work // 4))

    def _part(self, u0: int, u1: int, thread: int, source: int, target: int) -> None:
        _run_pool(u0, u1, self.numbers, self.rows, self.columns, self.factors, source, target)


def _spans(size: int, out: int, kernel: int, stride: int, pad: int) -> np.ndarray:
    """Of each window along an axis: (first pixel inside, pixels inside, positions with padding, pixels inside)."""
    start = np.arange(out) * stride - pad
    end = np.minimum(start + kernel, size + pad)
    low, high = np.maximum(start, 0), np.minimum(end, size)
    return np.stack([low, high - low, end - start, high - low], axis=1).astype(np.int64)


@exact_kernel
def _run_pool(u0, u1, numbers, rows, columns, factors, source, target):
    """Computes rows of outputs u0 .. u1 of all images."""
    n = numbers[0]
    line = n.width * n.step
    for u in range(u0, u1):
        image, r = u // n.out_h, u % n.out_h
        top = source + (image * n.height + rows[r, 0]) * line
        for c in range(n.out_w):
            x, y = top + columns[c, 0] * n.step, target + (u * n.out_w + c) * n.step
            done = 0
            while done < n.step:
                call, size = n.block, 16
                if n.step - done < 16:
                    call, size = n.word, 4
                if n.mean:
                    start = -n.source_zero * rows[r, 1] * columns[c, 1]
                    call_tile(
                        call,
                        (
                            x + done, line, rows[r, 1], n.step, columns[c, 1], y + done, start, factors[r, c], n.zero,
                            n.top,
                        ),
                    )  # fmt: skip
                else:
                    call_tile(call, (x + done, line, rows[r, 1], n.step, columns[c, 1], y + done))
                done += size
