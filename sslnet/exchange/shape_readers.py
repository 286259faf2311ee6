"""Reads operators that move values without arithmetic: joining, cutting, reshaping, reordering of axes."""

from __future__ import annotations

import numpy as np

from sslnet.exchange.builder import DefinitionBuilder
from sslnet.exchange.chain import Chain
from sslnet.exchange.node import MOST_INT64, OnnxNode


def alias(builder: DefinitionBuilder, node: OnnxNode) -> None:
    """Reads operators that do not change the value (Dropout outside training, Identity, Cast between floats)."""
    builder.same(node.result, node.input(0))


def concat(builder: DefinitionBuilder, node: OnnxNode) -> None:
    axis = node.axis(1, len(builder.shape(node, 0)))
    layer = builder.layer(node, "Concat", bottom=[builder.blob(node, j) for j in range(len(node.inputs))])
    if axis != 1:
        layer.concat_param.axis = axis


def split(builder: DefinitionBuilder, node: OnnxNode) -> None:
    axis = node.axis(0, len(builder.shape(node, 0)))
    if len(node.outputs) != len(node.proto.output):
        raise node.error("one of its outputs has no name")
    layer = builder.layer(node, "Slice")
    layer.slice_param.axis = axis
    sizes = [builder.source.shape(node, name)[axis] for name in node.outputs]
    layer.slice_param.slice_point.extend(int(point) for point in np.cumsum(sizes)[:-1])


def slice_(builder: DefinitionBuilder, node: OnnxNode) -> None:
    """Reads Slice, one axis at a time; the removed part goes to a Silence layer."""
    shape = builder.shape(node, 0)
    if builder.source.opset < 10:
        starts, ends = (node.integers(name, least=-MOST_INT64 - 1, most=MOST_INT64) for name in ("starts", "ends"))
        axes = node.integers("axes") if node.has("axes") else list(range(len(starts)))
        steps = []
    else:
        starts, ends = builder.known_integers(node, 1), builder.known_integers(node, 2)
        axes = builder.known_integers(node, 3) if node.has_input(3) else list(range(len(starts)))
        steps = builder.known_integers(node, 4) if node.has_input(4) else []
    if not len(starts) == len(ends) == len(axes):
        raise node.error(f"{len(starts)} starts, {len(ends)} ends, {len(axes)} axes")
    if any(step != 1 for step in steps):
        raise node.error("steps other than 1")
    chain = Chain(builder, node)
    for axis, start, end in zip(axes, starts, ends):
        axis = node.place(axis, len(shape))
        first, last, _ = slice(start, end).indices(shape[axis])
        if last <= first:
            raise node.error(f"nothing is left of axis {axis}: from {first} to {last}")
        if (first, last) != (0, shape[axis]):
            _cut_out(chain, builder, node, axis, first, last)
    chain.end()


def _cut_out(chain: Chain, builder: DefinitionBuilder, node: OnnxNode, axis: int, first: int, last: int) -> None:
    """Adds a slice from ``first`` to ``last`` along an axis; the rest goes to a Silence layer."""
    size = builder.shape(node, 0)[axis]
    points = [point for point in (first, last) if 0 < point < size]
    if not points:
        return
    layer = chain.add("Slice", f"axis{axis}", tops=len(points) + 1, takes=1 if first > 0 else 0)
    layer.slice_param.axis = axis
    layer.slice_param.slice_point.extend(points)
    builder.silence(node, [name for name in layer.top if name != chain.blob], f"axis{axis}_rest")


# -- shapes ------------------------------------------------------------------------------------------------------------


def reshape(builder: DefinitionBuilder, node: OnnxNode) -> None:
    builder.reshape(node, [builder.blob(node, 0)])


def flatten(builder: DefinitionBuilder, node: OnnxNode) -> None:
    if node.axis(1, len(builder.shape(node, 0)), end=True) == 1:
        builder.layer(node, "Flatten")
    else:
        reshape(builder, node)


def transpose(builder: DefinitionBuilder, node: OnnxNode) -> None:
    """Reads Transpose; two consecutive ones become one, or none."""
    axes = len(builder.shape(node, 0))
    order = node.integers("perm", list(range(axes))[::-1], count=axes)
    if sorted(order) != list(range(axes)):
        raise node.error(f"perm is {order}, for values with {axes} axes")
    before = builder.last_layer(node, "Permute")
    if before is not None:
        order = [before.permute_param.order[axis] for axis in order]
        builder.take_back(node)
    if order == sorted(order):
        alias(builder, node)
        return
    builder.layer(node, "Permute").permute_param.order.extend(order)


def depth_to_space(builder: DefinitionBuilder, node: OnnxNode) -> None:
    """Reads DepthToSpace: a block of adjacent channels becomes a square of pixels."""
    shape_in = builder.shape(node, 0, 4)
    size = node.integer("blocksize", least=1, most=2**15)
    if len(shape_in) != 4 or shape_in[1] % size**2:
        raise node.error(f"blocks of {size} x {size} of values of shape {shape_in}")
    _, channels, height, width = shape_in
    depth = channels // size**2
    if node.text("mode", "DCR") == "DCR":
        shape, order = [0, size, size, depth, height, width], [0, 3, 4, 1, 5, 2]
    else:
        shape, order = [0, depth, size, size, height, width], [0, 1, 4, 2, 5, 3]
    chain = Chain(builder, node)
    chain.reshape(shape, "squares")
    chain.add("Permute").permute_param.order.extend(order)
    chain.reshape([0, depth, size * height, size * width], "image")
    chain.end()


def gather(builder: DefinitionBuilder, node: OnnxNode) -> None:
    """Reads Gather of one index, or of adjacent indices, along an axis as a slice."""
    indices, axis = builder.known(node, 1), node.axis(0, len(builder.shape(node, 0)))
    size = builder.shape(node, 0)[axis]
    if indices.size > size:
        raise node.error(f"{indices.size} indices along an axis of size {size}")
    places = [node.place(index, size) for index in builder.known_integers(node, 1)]
    if not places or places != list(range(places[0], places[0] + len(places))):
        raise node.error("indices that are not neighbours", hint="a 1 x 1 convolution puts channels into another order")
    chain = Chain(builder, node)
    _cut_out(chain, builder, node, axis, places[0], places[-1] + 1)
    if indices.ndim == 0:
        after = builder.output_shape(node)
        chain.reshape([0 if axis else after[0], *after[1:]], "axes")
    chain.end()


def expand(builder: DefinitionBuilder, node: OnnxNode) -> None:
    blob = builder.broadcast(node, builder.blob(node, 0), builder.shape(node, 0, 0), builder.output_shape(node), "")
    builder.become(node.result, blob)
