"""Reads operators that take a part of a value along its axes: Slice, with steps too, and Gather of given indices."""

from __future__ import annotations

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.exchange.builder import DefinitionBuilder
from sslnet.exchange.chain import Chain
from sslnet.exchange.node import MOST_INT64, OnnxNode

MOST_PARTS = 64
"""Maximum number of parts that are cut out and joined; more channels are reordered by a 1 x 1 convolution."""


def slice_(builder: DefinitionBuilder, node: OnnxNode) -> None:
    """Reads Slice, one axis at a time; the removed part goes to a Silence layer."""
    shape = builder.shape(node, 0)
    if builder.source.opset < 10:
        starts, ends = (node.integers(name, least=-MOST_INT64 - 1, most=MOST_INT64) for name in ("starts", "ends"))
        axes = node.integers("axes") if node.has("axes") else list(range(len(starts)))
        steps = [1] * len(starts)
    else:
        starts, ends = builder.known_integers(node, 1), builder.known_integers(node, 2)
        axes = builder.known_integers(node, 3) if node.has_input(3) else list(range(len(starts)))
        steps = builder.known_integers(node, 4) if node.has_input(4) else [1] * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps):
        raise node.error(f"{len(starts)} starts, {len(ends)} ends, {len(axes)} axes, {len(steps)} steps")
    chain = Chain(builder, node)
    strides = [1] * len(shape)
    for axis, start, end, step in zip(axes, starts, ends, steps):
        axis = node.place(axis, len(shape))
        if step == 0:
            raise node.error("a step of 0")
        indices = range(*slice(start, None if step < 0 and end < -shape[axis] else end, step).indices(shape[axis]))
        if not len(indices):
            raise node.error(f"nothing is left of axis {axis}: from {start} to {end}")
        if step < 0 or (abs(step) > 1 and len(indices) > 1 and not (axis >= 2 and len(shape) == 4)):
            take(chain, axis, list(indices), shape[axis])
            continue
        strides[axis] = step if len(indices) > 1 else 1
        cut_out(chain, axis, indices[0], min(indices[-1] + strides[axis], shape[axis]), shape[axis])
    _every(chain, strides)
    chain.end()


def _every(chain: Chain, strides: list[int]) -> None:
    """Adds a pooling that takes every second, third, ... row or column."""
    if any(stride != 1 for stride in strides):
        param = chain.add("Pooling", "step").pooling_param
        param.kernel_size, param.stride_h, param.stride_w = 1, *strides[2:]
        param.round_mode = pb.PoolingParameter.FLOOR


def cut_out(chain: Chain, axis: int, first: int, last: int, size: int) -> None:
    """Adds a Slice from ``first`` to ``last`` along an axis of this size; the rest goes to a Silence layer."""
    points = [point for point in (first, last) if 0 < point < size]
    if not points:
        return
    layer = chain.add("Slice", f"axis{axis}", tops=len(points) + 1, takes=1 if first > 0 else 0)
    layer.slice_param.axis = axis
    layer.slice_param.slice_point.extend(points)


def take(chain: Chain, axis: int, indices: list[int], size: int) -> None:
    """Adds layers for the values at these indices of an axis, in this order."""
    if indices == list(range(size)):
        return
    if indices == list(range(indices[0], indices[0] + len(indices))):
        cut_out(chain, axis, indices[0], indices[-1] + 1, size)
        return
    shape = chain.builder.shape(chain.node, 0)
    if axis >= 2 and len(shape) == 4 and indices == list(range(size))[::-1]:
        param = chain.add("Flip", f"flip{axis}").flip_param
        param.flip_height, param.flip_width = axis == 2, axis == 3
        return
    runs = _runs(indices)
    points = sorted({edge for first, last in runs for edge in (first, last)} - {0, size})
    if len(runs) > MOST_PARTS or len(points) > MOST_PARTS:
        if axis != 1 or len(shape) < 3:
            raise chain.node.error(f"{len(runs)} parts of an axis of size {size}, in another order")
        _permuted_channels(chain, indices, size, len(shape) - 2)
        return
    if points:
        layer = chain.add("Slice", f"parts{axis}", tops=len(points) + 1)
        layer.slice_param.axis = axis
        layer.slice_param.slice_point.extend(points)
        edges, tops = [0, *points, size], list(layer.top)
    else:
        edges, tops = [0, size], [chain.blob]
    blobs = [tops[k] for first, last in runs for k in range(edges.index(first), edges.index(last))]
    chain.blob = blobs[0]
    layer = chain.add("Concat", f"joined{axis}", *blobs[1:])
    layer.concat_param.axis = axis


def _runs(indices: list[int]) -> list[tuple[int, int]]:
    """Neighbouring indices as parts (first, last + 1), in order."""
    runs: list[tuple[int, int]] = []
    for index in indices:
        if runs and runs[-1][1] == index:
            runs[-1] = (runs[-1][0], index + 1)
        else:
            runs.append((index, index + 1))
    return runs


def _permuted_channels(chain: Chain, indices: list[int], size: int, pixel_axes: int) -> None:
    """Adds a convolution whose weights, which are not trained, select channels."""
    chain.builder.source.room.take(chain.node, (len(indices), size))
    weights = np.zeros((len(indices), size, *(1,) * pixel_axes), np.float32)
    weights[np.arange(len(indices)), indices] = 1
    layer = chain.add("Convolution", "order", blobs=[weights])
    layer.param.add(lr_mult=0, decay_mult=0)
    param: pb.ConvolutionParameter = layer.convolution_param
    param.num_output, param.bias_term = len(indices), False
    param.kernel_size.append(1)


def gather(builder: DefinitionBuilder, node: OnnxNode) -> None:
    """Reads Gather of given indices along an axis: a slice, or parts joined in another order."""
    indices, axis = builder.known(node, 1), node.axis(0, len(builder.shape(node, 0)))
    size = builder.shape(node, 0)[axis]
    if indices.dtype.kind not in "iu" or not indices.size:
        raise node.error("indices that are no whole numbers")
    if indices.size > 64 * size:
        raise node.error(f"{indices.size} indices along an axis of size {size}")
    places = [node.place(int(index), size) for index in indices.reshape(-1)]
    chain = Chain(builder, node)
    take(chain, axis, places, size)
    if indices.ndim != 1:
        after = builder.output_shape(node)
        chain.reshape([0 if axis else after[0], *after[1:]], "axes")
    chain.end()
