"""Reads operators that move values without arithmetic: joining, cutting, reshaping, reordering of axes."""

from __future__ import annotations

import numpy as np

from sslnet.exchange.builder import DefinitionBuilder
from sslnet.exchange.chain import Chain
from sslnet.exchange.node import OnnxNode


def alias(builder: DefinitionBuilder, node: OnnxNode) -> None:
    """Reads operators that do not change the value (Identity, Cast between floats)."""
    builder.same(node.result, node.input(0))


def dropout(builder: DefinitionBuilder, node: OnnxNode) -> None:
    """Reads Dropout, which only training applies; its second output, the mask, has no counterpart."""
    ratio = node.number("ratio", 0.5)
    if node.has_input(1) and builder.source.is_constant(node.input(1)):
        ratio = builder.known_number(node, 1)
    if not 0 < ratio < 1:
        alias(builder, node)
        return
    layer = builder.layer(node, "Dropout", last=False)
    layer.dropout_param.dropout_ratio = ratio
    layer.top[0] = builder.new_blob(node.result)
    builder.become(node.result, layer.top[0])


def concat(builder: DefinitionBuilder, node: OnnxNode) -> None:
    """Reads Concat; constants among its inputs are repeated for each image."""
    axis = node.axis(1, len(builder.shape(node, 0)))
    if axis == 0 and any(builder.source.is_constant(name) for name in node.inputs):
        raise node.error("a constant along the axis of the images")
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


def expand(builder: DefinitionBuilder, node: OnnxNode) -> None:
    blob = builder.broadcast(node, builder.blob(node, 0), builder.shape(node, 0, 0), builder.output_shape(node), "")
    builder.become(node.result, blob)


def tile(builder: DefinitionBuilder, node: OnnxNode) -> None:
    """Reads Tile, one axis at a time."""
    repeats = builder.known_integers(node, 1)
    if len(repeats) != len(builder.shape(node, 0)) or min(repeats, default=1) < 1:
        raise node.error(f"repeats {repeats}")
    if repeats and repeats[0] != 1:
        raise node.error("copies along the axis of the images")
    chain = Chain(builder, node)
    for axis, count in enumerate(repeats):
        if count != 1:
            param = chain.add("Tile", f"axis{axis}").tile_param
            param.axis, param.tiles = axis, count
    chain.end()


def space_to_depth(builder: DefinitionBuilder, node: OnnxNode) -> None:
    """Reads SpaceToDepth: a square of pixels becomes a block of channels."""
    shape, size = builder.shape(node, 0, 4), node.integer("blocksize", least=1, most=2**15)
    if len(shape) != 4 or shape[2] % size or shape[3] % size:
        raise node.error(f"blocks of {size} x {size} of values of shape {shape}")
    _, channels, height, width = shape
    chain = Chain(builder, node)
    chain.reshape([0, channels, height // size, size, width // size, size], "squares")
    chain.add("Permute").permute_param.order.extend([0, 3, 5, 1, 2, 4])
    chain.reshape([0, channels * size**2, height // size, width // size], "image")
    chain.end()
