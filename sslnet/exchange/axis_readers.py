"""Reads operators over axes: reductions, softmax, the index of the largest value."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.exchange.builder import DefinitionBuilder
from sslnet.exchange.chain import Chain
from sslnet.exchange.node import OnnxNode
from sslnet.exchange.shape_readers import alias
from sslnet.exchange.window_readers import over_pixels

Reader = Callable[[DefinitionBuilder, OnnxNode], None]


def reduce(operation: str) -> Reader:
    """Reads a reduction over some axes: MEAN, SUM, MAX, L1, L2 or SQUARES."""

    def read(builder: DefinitionBuilder, node: OnnxNode) -> None:
        axes, shape = builder.axes(node), builder.shape(node, 0)
        if not axes:
            alias(builder, node)
            return
        chain = Chain(builder, node)
        if operation in ("L2", "SQUARES"):
            chain.power("square", power=2)
        elif operation == "L1":
            chain.add("AbsVal", "magnitude")
        elif operation == "MIN":
            chain.power("minus", scale=-1)
        left = _reduced(chain, shape, axes, {"MEAN": "MEAN", "MAX": "MAX", "MIN": "MAX"}.get(operation, "SUM"))
        if operation == "L2":
            chain.power("root", power=0.5)
        elif operation == "MIN":
            chain.power("least", scale=-1)
        after = builder.output_shape(node)
        if left != after:
            _to_shape(chain, left, after)
        chain.end()

    return read


reduce_min = reduce("MIN")


def _to_shape(chain: Chain, before: tuple[int, ...], after: tuple[int, ...]) -> None:
    if len(before) > 1 and after == (before[0], math.prod(before[1:])):
        chain.add("Flatten", "flatten")
    else:
        chain.reshape([0 if after[:1] == before[:1] else after[0], *after[1:]] if after else [])


def _reduced(chain: Chain, shape: tuple[int, ...], axes: list[int], kind: str) -> tuple[int, ...]:
    """Adds the layers of a reduction; returns the shape of their result."""
    count = len(shape)
    if axes == list(range(2, count)) and count in (3, 4) and (kind == "MAX" or count == 4):
        over_pixels(chain, shape, pb.PoolingParameter.MAX if kind == "MAX" else pb.PoolingParameter.AVE)
        if kind == "SUM":
            chain.power("sum", scale=float(math.prod(shape[2:])))
        return (*shape[:2], 1, 1)
    if axes == [1] and count >= 3:
        return _over_channels(chain, shape, kind)
    if axes == list(range(axes[0], count)) and kind != "MAX":
        param = chain.add("Reduction").reduction_param
        param.operation, param.axis = getattr(pb.ReductionParameter, kind), axes[0]
        return shape[: axes[0]]
    if 0 in axes:
        raise chain.node.error("over the axis of the images, which are independent here")
    kept = [axis for axis in range(count) if axis not in axes]
    if kept + axes != list(range(count)):
        chain.add("Permute", "last").permute_param.order.extend(kept + axes)
    left = tuple(shape[axis] for axis in kept)
    if kind == "MAX":  # the maximum over the columns of an image
        size = math.prod(shape[axis] for axis in axes)
        chain.reshape([0, 1, math.prod(left[1:]), size], "columns")
        param = chain.add("Pooling").pooling_param
        param.kernel_h, param.kernel_w = 1, size
        chain.reshape([0, *left[1:]], "rows")
    else:
        param = chain.add("Reduction").reduction_param
        param.operation, param.axis = getattr(pb.ReductionParameter, kind), len(kept)
    return left


def _over_channels(chain: Chain, shape: tuple[int, ...], kind: str) -> tuple[int, ...]:
    """Adds a sum over channels by a convolution with ones that are not trained; a maximum by pooling with the channels
    as pixels."""
    channels = shape[1]
    if kind != "MAX":
        chain.builder.source.room.take(chain.node, (channels,), 8)
        weights = np.full((1, channels, *(1,) * (len(shape) - 2)), 1 / channels if kind == "MEAN" else 1)
        layer = chain.add("Convolution", blobs=[weights])
        layer.param.add(lr_mult=0, decay_mult=0)
        layer.convolution_param.num_output, layer.convolution_param.bias_term = 1, False
        layer.convolution_param.kernel_size.append(1)
    elif len(shape) == 4:
        chain.add("Permute", "last").permute_param.order.extend([0, 2, 3, 1])
        param = chain.add("Pooling").pooling_param
        param.kernel_h, param.kernel_w = 1, channels
        chain.add("Permute", "first").permute_param.order.extend([0, 3, 1, 2])
    else:
        raise chain.node.error(f"the maximum over the channels of values of shape {shape}")
    return (shape[0], 1, *shape[2:])


def softmax(builder: DefinitionBuilder, node: OnnxNode, *, last: bool = True) -> None:
    axes = len(builder.shape(node, 0))
    axis = node.axis(-1 if builder.source.opset >= 13 else 1, axes)
    if builder.source.opset < 13 and axis != axes - 1:
        raise node.error("over several axes at once (operator sets before 13)")
    layer = builder.layer(node, "Softmax", last=last)
    if axis != 1:
        layer.softmax_param.axis = axis


def log_softmax(builder: DefinitionBuilder, node: OnnxNode) -> None:
    """Reads LogSoftmax as Softmax and Log; for training, a SoftmaxWithLoss on the same bottom can replace them."""
    softmax(builder, node, last=False)
    builder.layer(node, "Log", bottom=[builder.message.layer[-1].top[0]], suffix="log")


def arg_max(builder: DefinitionBuilder, node: OnnxNode) -> None:
    layer = builder.layer(node, "ArgMax", last=node.flag("keepdims", True))
    layer.argmax_param.axis = node.axis(0, len(builder.shape(node, 0)))
    if not node.flag("keepdims", True):
        builder.reshape(node, list(layer.top))
