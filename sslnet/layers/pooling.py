"""Pooling: the largest value (MAX), the mean (AVE) or a random value (STOCHASTIC) of each window of each channel.

Output size ceil((H + 2 pad - kernel) / stride) + 1 (floor with round_mode FLOOR); with padding one less when the last
window would start in the padding after the image. With pad_type SAME it is ceil(H / stride), as in TensorFlow: an odd row
or column of padding is at the end, and AVE divides by the pixels of the image alone. MAX takes the first maximum in row-major order; for a window without
pixels it is -FLT_MAX. AVE divides by the size of the window clipped to the padded image: padding counts as zeros,
positions beyond it do not count. STOCHASTIC in TRAIN draws each value with a probability proportional to it, in TEST it
is the weighted mean, sum of x^2 / sum of x; inputs must not be negative.

bottom  (N, C, H, W)
top     (N, C, out_h, out_w); MAX may have a second: the index of each maximum in its plane, h * W + w, -1 for none

Ref: Zeiler, Fergus 2013 (stochastic)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, final

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.blob import Blob
from sslnet.kernels.conv.im2col import same_padding
from sslnet.kernels.pointwise.pooling import (
    ave_backward,
    ave_forward,
    draw_forward,
    max_forward,
    max_tiles,
    max_values,
    max_whole,
    scatter,
    weigh,
)
from sslnet.kernels.pointwise.pooling_tiles import MAX, MAX_AND_PLACE, SUM, spread_tile_of, tile_of
from sslnet.kernels.runtime.counter_rng import draw_key
from sslnet.kernels.runtime.jit import spread
from sslnet.layers.axes import refuse_pad, times, unusual
from sslnet.layers.base import Blobs
from sslnet.layers.bounds import ChannelBox
from sslnet.layers.channelwise import ChannelWise
from sslnet.layers.onnx import OnnxGraph


@final
class Pooling(ChannelWise):
    TYPE: ClassVar[str] = "Pooling"
    KIND: ClassVar[str] = "pooling"
    TOPS: ClassVar[tuple[int, int | None]] = (1, 2)

    @classmethod
    def describe(cls, param: Any) -> str:
        window = param.pooling_param
        method = pb.PoolingParameter.PoolMethod.Name(window.pool).lower()
        if window.global_pooling:
            return f"{method}, global"
        words = [f"{method} {times([window.kernel_h, window.kernel_w] if window.kernel_h else [window.kernel_size])}"]
        stride = [window.stride_h, window.stride_w] if window.stride_h else [window.stride]
        pad = [window.pad_h, window.pad_w] if window.pad_h or window.pad_w else [window.pad]
        same = ["pad SAME"] if window.pad_type == pb.PoolingParameter.SAME else []
        return ", ".join([*words, *unusual(stride=(stride, 1), pad=(pad, 0)), *same])

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.param.pooling_param
        self.method = param.pool
        if len(top) > 1 and self.method != pb.PoolingParameter.MAX:
            raise self.error("only MAX pooling has a second top, the places of the maxima", "top", 1)
        if param.global_pooling:
            for name in ("kernel_size", "kernel_h", "kernel_w"):
                if param.HasField(name):
                    raise self.error(
                        "with global_pooling the window is the image: no kernel size", "pooling_param", name
                    )
        self.same = param.pad_type == pb.PoolingParameter.SAME
        if self.same:
            refuse_pad(self, param, "pooling_param")
            if param.HasField("round_mode"):
                raise self.error(
                    "with pad_type SAME the number of windows is ceil(size / stride)", "pooling_param", "round_mode"
                )
        self.pad = self._pair("pad", 0)
        self.stride = self._pair("stride", 1)
        if param.global_pooling and (self.pad != (0, 0) or self.stride != (1, 1)):
            raise self.error("with global_pooling pad is 0 and stride is 1", "pooling_param", "global_pooling")
        if param.global_pooling and self.same:
            raise self.error("with global_pooling there is no padding", "pooling_param", "pad_type")
        if not param.global_pooling:
            self._check_window()
        self.place = Blob(name=f"{self.name} places", dtype=np.int32)
        self._no_place = np.empty((0, 0, 0), np.int32)
        self.keeps_places = self.context.backward or len(top) > 1

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        x = bottom[0]
        if x.num_axes != 4:
            raise self.shape_error(f'pooling needs a bottom of 4 axes (N, C, H, W): "{x.name}" has shape {x.shape}')
        if 0 in x.shape[2:]:
            raise self.shape_error(f'there are no pixels to pool: "{x.name}" has shape {x.shape}')
        if self.param.pooling_param.global_pooling:
            self.kernel = (x.height, x.width)
        if self.same:
            pads = [same_padding(*axis, 1) for axis in zip(x.shape[2:], self.kernel, self.stride)]
            self.pad = pads[0][0], pads[1][0]
        padded = [size + 2 * pad for size, pad in zip((x.height, x.width), self.pad)]
        if self.same:
            padded = [max(size) for size in zip(padded, self.kernel)]
        if padded[0] * padded[1] >= 2**31:
            raise self.shape_error(f"the padded image is too large: {padded[0]} x {padded[1]}", "pooling_param")
        self.reach = (min(self.kernel[0], padded[0]), min(self.kernel[1], padded[1]))
        """The kernel size, limited to the size of the padded image."""
        extents = self.extents(x.shape[2:], floor=self.param.pooling_param.round_mode == pb.PoolingParameter.FLOOR)
        if min(extents) < 1:
            raise self.shape_error(
                f"the window does not fit: {self.kernel[0]} x {self.kernel[1]} on {x.height} x {x.width} "
                f"with pad {self.pad[0]}, {self.pad[1]}",
                "pooling_param",
            )
        lasts = ((n - 1) * s - p for n, s, p in zip(extents, self.stride, self.pad))
        self.has_empty_window = any(last >= size for last, size in zip(lasts, x.shape[2:]))
        for blob in (*top, self.place):
            blob.reshape(x.num, x.channels, *extents)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        x, y = _planes(bottom[0].data), _planes(top[0].data)
        work = max(x.shape[1] * x.shape[2], y.shape[1] * y.shape[2] * self.reach[0] * self.reach[1] // 4)
        if self.method == pb.PoolingParameter.MAX:
            if y[0].size == 1 and self.reach == x.shape[1:] and self.pad == (0, 0):
                flat = y.reshape(-1), self.place.data.reshape(-1)
                spread(max_whole, len(x), work, x.reshape(len(x), -1), *flat)
            else:
                self._max_forward(x, y, work)
            if len(top) > 1:
                top[1].data[...] = self.place.data
        elif self.method == pb.PoolingParameter.AVE:
            spread(ave_forward, len(x), work, self._tile(SUM), x, y, *self.reach, *self.stride, *self.pad, self.same)
        elif self.phase == pb.TRAIN:
            key = draw_key(self.random())
            first = np.uint64(self.context.place.number * len(x))
            spread(draw_forward, len(x), work, x, y, _planes(self.place.data), key, first, *self.reach, *self.stride)
        else:
            spread(weigh, len(x), work, x, y, y, x, False, *self.reach, *self.stride)

    def draws_of_pass(self) -> int:
        return 1 if self.method == pb.PoolingParameter.STOCHASTIC and self.phase == pb.TRAIN else 0

    def _max_forward(self, x: np.ndarray, y: np.ndarray, work: int) -> None:
        window = (*self.reach, *self.stride, *self.pad)
        place = _planes(self.place.data) if self.keeps_places else self._no_place
        tile = self._tile(MAX_AND_PLACE if self.keeps_places else MAX)
        if tile:
            spread(max_tiles, len(x), work, tile, x, y, place, *window)
        elif self.keeps_places:
            spread(max_forward, len(x), work, x, y, place, *window)
        else:
            spread(max_values, len(x), work, x, y, *window)

    def _tile(self, kind: int) -> int:
        """The micro-kernel for the layer's windows, 0 if there is none."""
        return tile_of(self.reach, self.stride, self.dtype, kind)

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return bool(self.method == pb.PoolingParameter.STOCHASTIC and self.phase == pb.TEST)

    def reads_top(self, in_place: bool) -> bool:
        return self.reads_bottom(0, in_place)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if not propagate_down[0]:
            return
        dy, dx = _planes(top[0].diff), _planes(bottom[0].diff)
        work = dx.shape[1] * dx.shape[2]
        if self.method == pb.PoolingParameter.AVE:
            tile = spread_tile_of(self.reach, self.stride, self.dtype, dx.shape[2])
            spread(ave_backward, len(dx), work, tile, dy, dx, *self.reach, *self.stride, *self.pad, self.same)
        elif self.method == pb.PoolingParameter.STOCHASTIC and self.phase == pb.TEST:
            x, y = _planes(bottom[0].data), _planes(top[0].data)
            spread(weigh, len(dx), work, x, y, dy, dx, True, *self.reach, *self.stride)
        else:
            flat = (len(dx), -1)
            spread(scatter, len(dx), work, dy.reshape(flat), self.place.data.reshape(flat), dx.reshape(flat))

    def flops(self, bottom: Blobs, top: Blobs) -> int:
        """One operation (a comparison or an addition) per pixel of each window."""
        return top[0].count * self.kernel[0] * self.kernel[1]

    def bounds(self, bottom: Sequence[ChannelBox], top: Blobs) -> list[ChannelBox]:
        box = bottom[0]
        if self.method == pb.PoolingParameter.MAX:
            if self.has_empty_window:
                box = ChannelBox(np.full(box.size, -float(np.finfo(np.float32).max)), box.high)
            return [box, *(ChannelBox.unknown(box.size) for _ in top[1:])]
        if self.method == pb.PoolingParameter.STOCHASTIC and self.phase == pb.TRAIN:
            return [box.with_zero()]
        counts_padding = not self.same and any(self.pad)
        if counts_padding or self.method == pb.PoolingParameter.STOCHASTIC or self.has_empty_window:
            box = box.with_zero()
        return [box.rounded(self.dtype, self.reach[0] * self.reach[1] + 16)]

    # -- ONNX --------------------------------------------------------------------------------------------------------

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        if len(top) > 1:
            raise self.not_in_onnx("the second top of MAX pooling")
        return [self.pool_in_onnx(graph, inputs[0], bottom[0], top[0])]

    def pool_in_onnx(self, graph: OnnxGraph, value: str, bottom: Blob, top: Blob) -> str:
        """Adds the nodes of the first top. AVE counts padding but nothing beyond it, as in Caffe."""
        if self.method == pb.PoolingParameter.STOCHASTIC:
            raise self.not_in_onnx("STOCHASTIC pooling")
        out, sizes, kernel, stride, pad = top.shape[2:], bottom.shape[2:], self.kernel, self.stride, self.pad
        behind = [max((o - 1) * s + k - n - p, 0) for o, s, k, n, p in zip(out, stride, kernel, sizes, pad)]
        pads = [*pad, *behind]
        if self.param.pooling_param.global_pooling:
            return str(
                graph.node("GlobalMaxPool" if self.method == pb.PoolingParameter.MAX else "GlobalAveragePool", [value])
            )
        if self.method == pb.PoolingParameter.MAX:
            return str(graph.node("MaxPool", [value], kernel_shape=list(kernel), strides=list(stride), pads=pads))
        window: dict[str, Any] = {"kernel_shape": list(kernel), "strides": list(stride)}
        if self.same:  # the operator divides by the pixels of the image, as the layer does
            return str(graph.node("AveragePool", [value], pads=pads, **window))
        if any(pads) and all(b <= p for b, p in zip(behind, pad)):  # padding counts in both
            return str(graph.node("AveragePool", [value], pads=pads, count_include_pad=1, **window))
        if any(pads):
            value = graph.node("Pad", [value, graph.integers([0, 0, *pads[:2], 0, 0, *pads[2:]])])
        value = graph.node("AveragePool", [value], **window)
        counts = [_pixels(*numbers, self.same) for numbers in zip(out, stride, kernel, sizes, pad)]
        factor = kernel[0] * kernel[1] / np.outer(*counts)
        return str(value if (factor == 1).all() else graph.node("Mul", [value, graph.constant(factor)]))

    # -- parameters --------------------------------------------------------------------------------------------------

    def _pair(self, name: str, least: int, short: str | None = None) -> tuple[int, int]:
        """(h, w): the field ``name`` for both axes, or the fields ``name_h`` and ``name_w``."""
        param, short = self.param.pooling_param, short or name
        sides = [side for side in (f"{short}_h", f"{short}_w") if param.HasField(side)]
        if sides and param.HasField(name):
            raise self.error(f"either {name} or {short}_h and {short}_w, not both", "pooling_param", sides[0])
        if least and len(sides) == 1:
            other = f"{short}_w" if sides[0].endswith("h") else f"{short}_h"
            raise self.error(f"{other} is missing beside {sides[0]}", "pooling_param", sides[0])
        pair = (getattr(param, f"{short}_h"), getattr(param, f"{short}_w")) if sides else (getattr(param, name),) * 2
        if min(pair) < least:
            field = sides[pair.index(min(pair))] if sides else name
            raise self.error(f"{name} must be at least {least}, not {min(pair)}", "pooling_param", field)
        return pair

    def extents(self, size: Sequence[int], *, floor: bool) -> list[int]:
        """Number of windows along each axis of an image of this size."""
        if self.same:
            return [-(-length // stride) for length, stride in zip(size, self.stride)]
        result = []
        for length, kernel_size, stride, pad in zip(size, self.kernel, self.stride, self.pad):
            room = length + 2 * pad - kernel_size
            out = (room if floor else room + stride - 1) // stride + 1
            if any(self.pad) and (out - 1) * stride >= length + pad:
                out -= 1
            result.append(out)
        return result

    def _check_window(self) -> None:
        param = self.param.pooling_param
        if not any(param.HasField(name) for name in ("kernel_size", "kernel_h", "kernel_w")):
            raise self.error("kernel_size is missing", "pooling_param")
        self.kernel = self._pair("kernel_size", 1, "kernel")
        if self.method == pb.PoolingParameter.STOCHASTIC and (self.same or self.pad != (0, 0)):
            raise self.error("STOCHASTIC pooling has no padding", "pooling_param", "pool")
        if self.pad[0] >= self.kernel[0] or self.pad[1] >= self.kernel[1]:
            raise self.error(
                f"pad must be less than the kernel: {self.pad[0]}, {self.pad[1]} against {self.kernel[0]}, {self.kernel[1]}",
                "pooling_param",
            )


def _planes(array: np.ndarray) -> np.ndarray:
    """(N, C, H, W) as (N * C, H, W)."""
    return array.reshape(array.shape[0] * array.shape[1], *array.shape[2:])


def _pixels(out: int, stride: int, kernel: int, size: int, pad: int, inside: bool) -> np.ndarray:
    """(out): number of positions of each window along one axis, with padding unless ``inside``, but none beyond it."""
    start = np.arange(out) * stride
    if inside:
        return np.minimum(start + kernel, size + pad) - np.maximum(start, pad)
    return np.minimum(start + kernel, size + 2 * pad) - start
