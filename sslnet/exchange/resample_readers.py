"""Reads operators that pad images, or change their size."""

from __future__ import annotations

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.exchange.builder import DefinitionBuilder
from sslnet.exchange.chain import Chain
from sslnet.exchange.node import OnnxNode
from sslnet.exchange.padding import remember_padding

PAD_MODES = {"constant": "CONSTANT", "reflect": "REFLECT", "edge": "EDGE", "wrap": "WRAP"}


def pad(builder: DefinitionBuilder, node: OnnxNode) -> None:
    """Reads Pad. Zeros around an image are added by the convolution or pooling that reads it, other pixels by a layer, zero
    channels by a Concat."""
    shape = builder.shape(node, 0)
    before, behind = _amounts(builder, node, len(shape))
    mode = node.text("mode", "constant")
    if mode not in PAD_MODES:
        raise node.error(f"mode {mode}")
    value = builder.known_number(node, 2) if node.has_input(2) else node.number("value", 0.0)
    if not any(before) and not any(behind):
        builder.same(node.result, node.input(0))
        return
    if before[0] or behind[0]:
        raise node.error("padding of the axis of the images")
    images = len(shape) in (3, 4)
    channels = before[1:2] + behind[1:2] if len(shape) > 1 else []
    if images and not any(channels):
        amounts = [*before[2:], *behind[2:]]
        if mode == "constant" and value == 0 and min(amounts) >= 0:
            remember_padding(builder, node, amounts)
            return
        chain = Chain(builder, node)
        _around(chain, amounts, mode, value)
        chain.end()
    elif mode == "constant" and min(channels, default=0) >= 0 and not any((*before[2:], *behind[2:])):
        _channels(builder, node, channels, value)
    else:
        raise node.error(f"padding by {before} and {behind}: only of images, or of channels by a constant")


def _amounts(builder: DefinitionBuilder, node: OnnxNode, count: int) -> tuple[list[int], list[int]]:
    """The amounts before and behind, for each axis of the value."""
    given = node.integers("pads") if node.has("pads") else builder.known_integers(node, 1)
    axes = list(range(count))
    if node.has_input(3):
        axes = [node.place(axis, count) for axis in builder.known_integers(node, 3)]
    if len(given) != 2 * len(axes):
        raise node.error(f"{len(given)} amounts for {len(axes)} axes")
    before, behind = [0] * count, [0] * count
    for place, axis in enumerate(axes):
        before[axis], behind[axis] = given[place], given[len(axes) + place]
    return before, behind


def _around(chain: Chain, amounts: list[int], mode: str, value: float) -> None:
    if len(amounts) == 2:
        chain.reshape([0, 0, 1, -1], "image")
        amounts = [0, amounts[0], 0, amounts[1]]
        line = True
    else:
        line = False
    param = chain.add("Pad").pad_param
    for name, amount in zip(("top", "left", "bottom", "right"), amounts):
        if amount:
            setattr(param, name, amount)
    if mode != "constant":
        param.mode = pb.PadParameter.Mode.Value(PAD_MODES[mode])
    elif value:
        param.value = value
    if line:
        chain.reshape([0, 0, -1], "line")


def _channels(builder: DefinitionBuilder, node: OnnxNode, counts: list[int], value: float) -> None:
    """Reads channels of one value before and behind as a Concat with constants."""
    shape, blobs = builder.shape(node, 0), [builder.blob(node, 0)]
    for place, count in enumerate(counts):
        if count:
            name = f"{node.result}:{place}"
            builder.source.room.take(node, (count, *shape[2:]))
            builder.source.constants[name] = np.full((1, count, *shape[2:]), value, np.float32)
            blobs.insert(0 if place == 0 else len(blobs), builder.constant_blob(node, name))
    builder.layer(node, "Concat", bottom=blobs)


# -- images of another size --------------------------------------------------------------------------------------------


def resize(builder: DefinitionBuilder, node: OnnxNode) -> None:
    before, after = builder.shape(node, 0), builder.output_shape(node)
    mode, how = node.text("mode", "nearest"), node.text("coordinate_transformation_mode", "half_pixel")
    rounding = node.text("nearest_mode", "round_prefer_floor")
    if node.op == "Upsample" or builder.source.opset < 11:  # of operator sets before 11
        how, rounding = "asymmetric", "floor"
    if len(before) != 4 or len(after) != 4 or before[:2] != after[:2] or min(after) < 1:
        raise node.error(f"from shape {before} to {after}")
    if how not in _transforms():
        raise node.error(f"coordinate_transformation_mode {how}")
    if node.text("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise node.error("a keep_aspect_ratio_policy")
    if builder.source.is_constant(node.input(0)):
        raise node.error("of a constant")
    factors = [new / old for old, new in zip(before[2:], after[2:])]
    antialias = node.flag("antialias") and mode != "nearest"
    if mode == "nearest" and factors[0] == factors[1] == int(factors[0]) and (how, rounding) == ("asymmetric", "floor"):
        builder.layer(node, "Upsample").upsample_param.scale = int(factors[0])
        return
    if mode not in ("nearest", "linear", "cubic"):
        raise node.error(f"mode {mode}")
    param = builder.layer(node, "Resize").resize_param
    scales = _scales(builder, node)
    if scales is not None and [int(n * s) for n, s in zip(before[2:], scales)] == list(after[2:]):
        param.scale_h, param.scale_w = scales
    else:
        param.height, param.width = after[2:]
    param.mode = getattr(pb.ResizeLayerParameter, mode.upper())
    if how != "half_pixel":
        param.transform = getattr(pb.ResizeLayerParameter, how.upper())
    if mode == "nearest" and rounding != "round_prefer_floor":
        param.rounding = pb.ResizeLayerParameter.Rounding.Value(rounding.upper())
    if mode == "cubic":
        param.cubic_a = node.number("cubic_coeff_a", -0.75)
    if node.flag("exclude_outside"):
        param.exclude_outside = True
    if antialias:
        param.antialias = True


def _transforms() -> list[str]:
    return [value.name.lower() for value in pb.ResizeLayerParameter.Transform.DESCRIPTOR.values]


def _scales(builder: DefinitionBuilder, node: OnnxNode) -> list[float] | None:
    """The factors for height and width, where the node gives factors."""
    index = 1 if node.op == "Upsample" or builder.source.opset < 11 else 2
    if node.op == "Upsample" and node.has("scales"):
        return None
    if not node.has_input(index) or not builder.source.is_constant(node.input(index)):
        return None
    values = builder.known(node, index).reshape(-1)
    return [float(value) for value in values[-2:]] if values.size in (2, 4) else None
