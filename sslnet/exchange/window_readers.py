"""Reads operators with windows of images: convolutions, pooling, padding, resizing.

auto_pad SAME_UPPER becomes pad_type SAME. Otherwise Caffe's layers pad both sides of an image equally. For an operator
that does not, a convolution gets a larger kernel: rows and columns of zeros on the side with less padding, until both
sides are equal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.exchange.builder import DefinitionBuilder
from sslnet.exchange.chain import Chain
from sslnet.exchange.node import OnnxNode
from sslnet.exchange.padding import all_padding, own_pads, padding

PoolMethod = pb.PoolingParameter.PoolMethod

# -- convolutions ------------------------------------------------------------------------------------------------------


def conv(builder: DefinitionBuilder, node: OnnxNode) -> None:
    weights, group = builder.weights(node, 1, 3), node.integer("group", 1, least=1)
    strides, dilations = _steps(node, weights)
    if _is_same(builder, node):
        layer = builder.layer(node, "Convolution", blobs=[weights, *builder.optional_weights(node, 2, len(weights))])
        param = layer.convolution_param
        param.num_output, param.bias_term = len(weights), len(layer.blobs) > 1
        _write_window(param, weights.shape[2:], strides, dilations, [0] * len(strides), group)
        param.pad_type = pb.ConvolutionParameter.SAME
        return
    front, behind = all_padding(builder, node, weights.shape[2:], strides, dilations)
    pads = [max(pair) for pair in zip(front, behind)]
    around = _zeros_around(node, [p - f for p, f in zip(pads, front)], [p - b for p, b in zip(pads, behind)], dilations)
    whole = _padded(builder, node, weights, around)
    listed = whole.shape != weights.shape and group == 1
    blob = weights.reshape(len(weights), -1) if listed else whole
    layer = builder.layer(node, "Convolution", blobs=[blob, *builder.optional_weights(node, 2, len(weights))])
    param = layer.convolution_param
    param.num_output, param.bias_term = len(weights), len(layer.blobs) > 1
    if listed:
        there = np.pad(np.ones(weights.shape[1:], bool), around[1:])
        param.kept_column.extend(int(column) for column in np.flatnonzero(there))
    _write_window(param, whole.shape[2:], strides, dilations, pads, group)


def conv_transpose(builder: DefinitionBuilder, node: OnnxNode) -> None:
    weights, group = builder.weights(node, 1, 3), node.integer("group", 1, least=1)
    axes = weights.ndim - 2
    strides, dilations = _steps(node, weights)
    more = node.integers("output_padding", [0] * axes, count=axes, least=0)
    if not len(builder.shape(node, 0)) == len(builder.output_shape(node)) == weights.ndim:
        raise node.error(f"weights of shape {weights.shape} for values of shape {builder.shape(node, 0)}")
    kernel = [(k - 1) * d + 1 for k, d in zip(weights.shape[2:], dilations)]
    sizes = [s * (n - 1) + k + m for s, n, k, m in zip(strides, builder.shape(node, 0)[2:], kernel, more, strict=True)]
    cut = [size - out for size, out in zip(sizes, builder.output_shape(node)[2:])]
    auto = node.text("auto_pad", "NOTSET")
    if node.has("output_shape") or auto not in ("NOTSET", "VALID"):
        upper = auto == "SAME_UPPER"
        front = [c // 2 if upper else c - c // 2 for c in cut]
    else:
        front = node.integers("pads", [0] * (2 * axes), count=2 * axes, least=0)[:axes]
    behind = [c - f - m for c, f, m in zip(cut, front, more)]  # below 0 where zeros are added at the end
    pads = [max(0, f, b) for f, b in zip(front, behind)]
    added = [max(0, p - b) for p, b in zip(pads, behind)]
    if any(m >= s for m, s in zip(added, strides)):  # more than output_pad can add: zeros in the kernel
        added = [0] * axes
    behind = [b + m for b, m in zip(behind, added)]
    around = _zeros_around(node, [p - f for p, f in zip(pads, front)], [p - b for p, b in zip(pads, behind)], dilations)
    whole, outputs = _padded(builder, node, weights, around), weights.shape[1] * group
    if outputs != builder.output_shape(node)[1]:
        raise node.error(f"{group} groups with weights of shape {weights.shape}")
    layer = builder.layer(node, "Deconvolution", blobs=[whole, *builder.optional_weights(node, 2, outputs)])
    layer.convolution_param.num_output = outputs
    layer.convolution_param.bias_term = len(layer.blobs) > 1
    _write_window(layer.convolution_param, whole.shape[2:], strides, dilations, pads, group)
    if any(added):
        layer.convolution_param.output_pad.extend(added if len(set(added)) > 1 else added[:1])


def _is_same(builder: DefinitionBuilder, node: OnnxNode) -> bool:
    """Whether the padding follows from the size of the image, as with pad_type SAME, and no Pad adds to it."""
    return node.text("auto_pad", "NOTSET") == "SAME_UPPER" and not padding(builder, node)[0]


def _steps(node: OnnxNode, weights: np.ndarray) -> tuple[list[int], list[int]]:
    """Strides and dilations of windows with the shape of the weights, which the node may repeat."""
    kernel = list(weights.shape[2:])
    if node.integers("kernel_shape", kernel) != kernel:
        raise node.error(f"kernel_shape is not that of the weights, {kernel}")
    ones = [1] * len(kernel)
    strides, dilations = (node.integers(name, ones, count=len(kernel), least=1) for name in ("strides", "dilations"))
    return strides, dilations


def _zeros_around(node: OnnxNode, front: list[int], behind: list[int], dilations: list[int]) -> list[tuple[int, int]]:
    """The padding for ``np.pad`` around weights after which their windows begin and end so many pixels earlier and
    later."""
    if any(n % d for pair in (front, behind) for n, d in zip(pair, dilations)):
        raise node.error(f"padding that differs by {front} and {behind} pixels, with dilations {dilations}")
    return [(0, 0), (0, 0), *((f // d, b // d) for f, b, d in zip(front, behind, dilations))]


def _padded(
    builder: DefinitionBuilder, node: OnnxNode, weights: np.ndarray, around: list[tuple[int, int]]
) -> np.ndarray:
    if any(min(pair) < 0 for pair in around):
        raise node.error("padding by less than 0")
    builder.source.room.take(node, [n + front + behind for n, (front, behind) in zip(weights.shape, around)])
    return np.pad(weights, around)


def _write_window(
    param: pb.ConvolutionParameter,
    kernel: Sequence[int],
    strides: list[int],
    dilations: list[int],
    pads: list[int],
    group: int,
) -> None:
    param.kernel_size.extend(kernel)
    for field, values, default in (("stride", strides, 1), ("dilation", dilations, 1), ("pad", pads, 0)):
        if any(value != default for value in values):
            getattr(param, field).extend(values)
    if group != 1:
        param.group = group


# -- pooling -----------------------------------------------------------------------------------------------------------


def max_pool(builder: DefinitionBuilder, node: OnnxNode) -> None:
    if len(node.outputs) > 1:
        raise node.error("its second output, the places of the maxima, counts them otherwise")
    _pool(builder, node, pb.PoolingParameter.MAX)


def average_pool(builder: DefinitionBuilder, node: OnnxNode) -> None:
    _pool(builder, node, pb.PoolingParameter.AVE)


def _pool(builder: DefinitionBuilder, node: OnnxNode, method: PoolMethod) -> None:
    """Reads pooling. The first window starts in the padding before the image; how far windows extend beyond the image
    follows from their number."""
    kernel = node.integers("kernel_shape", least=1)
    strides = node.integers("strides", [1] * len(kernel), count=len(kernel), least=1)
    if len(kernel) not in (1, 2) or len(builder.shape(node, 0)) != len(kernel) + 2:
        raise node.error(f"pooling over {len(kernel)} axes; it is there for images, one or two axes")
    if any(d != 1 for d in node.integers("dilations", [1])):
        raise node.error("pooling with dilations")
    if method == pb.PoolingParameter.MAX and node.input(0) in builder.padding:
        builder.add_padding(node, node.input(0))
    (own, behind), zeros = own_pads(builder, node, kernel, strides, [1] * len(kernel)), padding(builder, node)
    image, out = builder.shape(node, 0)[2:], builder.output_shape(node)[2:]
    if len(kernel) == 2 and _is_same(builder, node) and not node.flag("count_include_pad"):
        param = builder.layer(node, "Pooling").pooling_param
        _write_pool(param, method, kernel, strides, [0, 0], floor=False)
        param.pad_type = pb.PoolingParameter.SAME
        return
    if len(kernel) == 1:  # as an image of one line
        kernel, strides, own, behind = [1, *kernel], [1, *strides], [0, *own], [0, *behind]
        image, out, zeros = (1, *image), (1, *out), ([0, *zeros[0]], [0, *zeros[1]]) if zeros[0] else zeros
    pads = [a + b for a, b in zip(own, zeros[0] or [0, 0])]
    image = tuple(n - sum(around) for n, around in zip(image, zip(*zeros) if zeros[0] else [(0, 0)] * 2))
    over = [(n + 2 * p - k) % s != 0 for n, p, k, s in zip(image, pads, kernel, strides)]
    floor = tuple((n + 2 * p - k) // s + 1 for n, p, k, s in zip(image, pads, kernel, strides))
    ceil = tuple(f + o for f, o in zip(floor, over))
    ceil = tuple(c - (max(pads) > 0 and (c - 1) * s >= n + p) for c, s, n, p in zip(ceil, strides, image, pads))
    if out not in (floor, ceil):
        raise node.error(f"{out} windows where padding by {pads} in front makes {floor} or {ceil}")
    factor = None
    if method == pb.PoolingParameter.AVE:
        builder.source.room.take(node, (8, sum(out)), 8)
        factor = _divisors(builder, node, image, out, (own, behind), zeros, kernel, strides)
    lines = len(builder.shape(node, 0)) == 3
    chain = Chain(builder, node, padded=True)
    if lines:
        chain.reshape([0, 0, 1, -1], "image")
    _write_pool(chain.add("Pooling").pooling_param, method, kernel, strides, pads, out != ceil)
    if factor is not None:
        chain.factor(factor, axis=2)
    if lines:
        chain.reshape([0, 0, -1], "line")
    chain.end()


def _write_pool(
    param: pb.PoolingParameter, method: PoolMethod, kernel: list[int], strides: list[int], pads: list[int], floor: bool
) -> None:
    param.pool = method
    for field, values in (("kernel", kernel), ("stride", strides), ("pad", pads)):
        if values[0] != values[1]:
            setattr(param, f"{field}_h", values[0])
            setattr(param, f"{field}_w", values[1])
        elif values[0] != (1 if field == "stride" else 0):
            setattr(param, "kernel_size" if field == "kernel" else field, values[0])
    if floor:
        param.round_mode = pb.PoolingParameter.FLOOR


def _divisors(
    builder: DefinitionBuilder, node: OnnxNode, image: Any, out: Any, own: Any, zeros: Any, kernel: Any, strides: Any
) -> np.ndarray | None:
    """The ratio of the divisors of layer and operator, for each window; None if it is always the same.

    The layer counts padding but not the pixels beyond it; the operator does the same, or omits its own padding.
    """
    counts = []
    for axis in range(2):
        n, k = image[axis], kernel[axis]
        front, behind = (zeros[0][axis], zeros[1][axis]) if zeros[0] else (0, 0)
        start = np.arange(out[axis]) * strides[axis] - own[0][axis] - front
        ours = np.minimum(start + k, n + own[0][axis] + front) - start
        if node.flag("count_include_pad"):
            theirs = np.minimum(start + k, n + behind + own[1][axis]) - start
        else:
            theirs = np.minimum(start + k, n + behind) - np.maximum(start, -front)
        counts.append((ours, theirs))
    if all((ours == theirs).all() for ours, theirs in counts):
        return None
    builder.source.room.take(node, (4, *out), 8)
    factor = np.outer(counts[0][0], counts[1][0]) / np.outer(counts[0][1], counts[1][1])
    return None if (factor == 1).all() else factor.astype(np.float32)


def global_pool(method: PoolMethod) -> Callable[[DefinitionBuilder, OnnxNode], None]:
    """Reads global pooling: the maximum or the mean of all pixels of each channel."""

    def read(builder: DefinitionBuilder, node: OnnxNode) -> None:
        chain = Chain(builder, node)
        over_pixels(chain, builder.shape(node, 0), method)
        if len(builder.shape(node, 0)) == 3:
            chain.reshape([0, 0, 1], "line")
        chain.end()

    return read


def over_pixels(chain: Chain, shape: tuple[int, ...], method: PoolMethod) -> None:
    """Adds a pooling that reduces (N, C, H, W) or (N, C, W) to (N, C, 1, 1)."""
    if len(shape) == 3:
        chain.reshape([0, 0, 1, -1], "image")
    elif len(shape) != 4:
        raise chain.node.error(f"pooling over {len(shape) - 2} axes; it is there for images, one or two axes")
    param = chain.add("Pooling").pooling_param
    param.pool, param.global_pooling = method, True


def lrn(builder: DefinitionBuilder, node: OnnxNode) -> None:
    layer = builder.layer(node, "LRN")
    param = layer.lrn_param
    param.local_size = node.integer("size", least=1)
    param.alpha, param.beta, param.k = (
        node.number(name, value) for name, value in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0))
    )
    if param.local_size % 2 == 0:
        raise node.error(f"size must be odd, not {param.local_size}")
