"""Reads arithmetic operators: of a value and a constant, of two values, of single values."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.exchange.builder import DefinitionBuilder
from sslnet.exchange.chain import Chain
from sslnet.exchange.node import OnnxNode
from sslnet.exchange.shape_readers import alias
from sslnet.exchange.shapes import along

Reader = Callable[[DefinitionBuilder, OnnxNode], None]


# -- with numbers ------------------------------------------------------------------------------------------------------


def clip(builder: DefinitionBuilder, node: OnnxNode) -> None:
    low, high = (_bound(builder, node, index, name) for index, name in ((1, "min"), (2, "max")))
    _clip(builder, node, low, high, [builder.blob(node, 0)])


def _clip(builder: DefinitionBuilder, node: OnnxNode, low: float | None, high: float | None, bottom: list[str]) -> None:
    """Reads Clip; an infinite bound in its own direction counts as no bound."""
    for bound in (low, high):
        if bound is not None and math.isnan(bound):
            raise node.error("a bound that is not a number")
    low, high = None if low == -math.inf else low, None if high == math.inf else high
    if low == 0 and high is None:
        builder.layer(node, "ReLU", bottom=bottom)
    elif (low, high) == (0, 6):
        builder.layer(node, "ReLU6", bottom=bottom)
    else:
        layer = builder.layer(node, "Clip", bottom=bottom)
        layer.clip_param.min = np.finfo(np.float32).min if low is None else low
        layer.clip_param.max = np.finfo(np.float32).max if high is None else high


def _bound(builder: DefinitionBuilder, node: OnnxNode, index: int, name: str) -> float | None:
    if node.has(name):
        return node.number(name, infinite=True)
    return builder.known_number(node, index) if node.has_input(index) else None


def power_of(**fields: float) -> Reader:
    """Adds layers for (shift + scale x) ^ power with these numbers."""

    def read(builder: DefinitionBuilder, node: OnnxNode) -> None:
        layer = builder.layer(node, "Power")
        for name, value in fields.items():
            setattr(layer.power_param, name, value)

    return read


def pow_(builder: DefinitionBuilder, node: OnnxNode) -> None:
    builder.layer(node, "Power").power_param.power = builder.known_number(node, 1)


# -- two values --------------------------------------------------------------------------------------------------------


def arithmetic(operation: str) -> Reader:
    """Reads Add, Sub, Mul, Div of two values, or of a value and a constant."""

    def read(builder: DefinitionBuilder, node: OnnxNode) -> None:
        first, second = (builder.source.is_constant(node.input(index)) for index in (0, 1))
        if first or second:
            _with_constant(builder, node, operation, 0 if first else 1)
        else:
            _of_two(builder, node, operation)

    return read


def _with_constant(builder: DefinitionBuilder, node: OnnxNode, operation: str, index: int) -> None:
    values = builder.weights(node, index)
    if operation in ("Sub", "Div") and index == 0:  # constant - x, constant / x
        exponent = 1.0 if operation == "Sub" else -1.0
        turned = builder.layer(node, "Power", bottom=[builder.blob(node, 1)], last=False, suffix="turned")
        turned.power_param.scale, turned.power_param.power = (-1.0, 1.0) if operation == "Sub" else (1.0, exponent)
        builder.constant_step(node, "Add" if operation == "Sub" else "Mul", values, turned.top[0])
        return
    if operation == "Sub":
        operation, values = "Add", -values
    elif operation == "Div":
        operation, values = "Mul", (1 / values).astype(np.float32)
    builder.constant_step(node, operation, values, builder.blob(node, 1 - index))


def _of_two(builder: DefinitionBuilder, node: OnnxNode, operation: str) -> None:
    if operation == "Mul" and any(_swish(builder, node, index) for index in (1, 0)):
        return
    shapes = builder.shape(node, 0, 0), builder.shape(node, 1, 0)
    blobs = [builder.blob(node, 0), builder.blob(node, 1)]
    if operation == "Div":
        inverse = builder.layer(node, "Power", bottom=[blobs[1]], last=False, suffix="inverse")
        inverse.power_param.power = -1
        blobs[1], operation = inverse.top[0], "Mul"
    if operation == "Sub" and shapes[0] != shapes[1]:
        minus = builder.layer(node, "Power", bottom=[blobs[1]], last=False, suffix="minus")
        minus.power_param.scale = -1
        blobs[1], operation = minus.top[0], "Add"
    if shapes[0] != shapes[1]:
        large = 0 if builder.output_shape(node) == shapes[0] else 1
        axis, shape = along(builder.output_shape(node), shapes[1 - large], batch=True)
        if axis >= 0 and builder.output_shape(node) == shapes[large]:
            _repeated(builder, node, operation, blobs[large], (blobs[1 - large], shapes[1 - large]), (axis, shape))
            return
        blobs = [
            builder.broadcast(node, blob, shape, builder.output_shape(node), f"{k}_")
            for k, (blob, shape) in enumerate(zip(blobs, shapes))
        ]
    layer = builder.layer(node, "Eltwise", bottom=blobs)
    if operation == "Mul":
        layer.eltwise_param.operation = pb.EltwiseParameter.PROD
    elif operation == "Sub":
        layer.eltwise_param.coeff.extend([1, -1])


def _swish(builder: DefinitionBuilder, node: OnnxNode, index: int) -> bool:
    """Writes x times sigmoid(beta x), which is input ``index`` and the node read last, as one layer; returns whether it
    is of this form."""
    gate, x = builder.last_layer(node, "Sigmoid", index=index), builder.blob(node, 1 - index)
    if gate is None:
        return False
    steep = builder.message.layer[-2] if list(gate.bottom) != [x] else None
    if steep is not None:
        fields = [field.name for field, _ in steep.power_param.ListFields()]
        scaled = steep.type == "Power" and fields == ["scale"] and list(steep.bottom) == [x]
        if not scaled or list(steep.top) != list(gate.bottom) or builder.readers(steep.top[0]) != 1:
            return False
        beta = steep.power_param.scale
        builder.take_back(node, index)
    builder.take_back(node, index)
    layer = builder.layer(node, "Swish", bottom=[x])
    if steep is not None:
        layer.swish_param.beta = beta
    return True


def _repeated(
    builder: DefinitionBuilder,
    node: OnnxNode,
    operation: str,
    blob: str,
    part: tuple[str, tuple[int, ...]],
    place: tuple[int, tuple[int, ...]],
) -> None:
    """Adds layers for a blob times, or plus, another blob (its name and shape) that lies along some of its axes (the
    first axis, and the sizes)."""
    (other, before), (axis, shape) = part, place
    if shape != before:
        reshaped = builder.layer(node, "Reshape", bottom=[other], last=False, suffix="axes")
        reshaped.reshape_param.shape.dim.extend([0, *shape[1:]] if axis == 0 else shape)
        other = reshaped.top[0]
    layer = builder.layer(node, "Scale" if operation == "Mul" else "Bias", bottom=[blob, other])
    param = layer.scale_param if operation == "Mul" else layer.bias_param
    param.axis = axis


def eltwise(operation: int) -> Reader:
    """Reads Max or Sum of any number of values; the maximum with a number is a Clip."""

    def read(builder: DefinitionBuilder, node: OnnxNode) -> None:
        if len(node.inputs) == 1:
            alias(builder, node)
        elif operation == pb.EltwiseParameter.MAX and _bounded(builder, node, "min"):
            pass
        else:
            blobs = [_whole(builder, node, j) for j in range(len(node.inputs))]
            builder.layer(node, "Eltwise", bottom=blobs).eltwise_param.operation = operation

    return read


def minimum(builder: DefinitionBuilder, node: OnnxNode) -> None:
    """Reads Min as min(a, b) = - max(-a, -b); with a number, as a Clip."""
    if len(node.inputs) == 1:
        alias(builder, node)
    elif not _bounded(builder, node, "max"):
        turned = []
        for j in range(len(node.inputs)):
            chain = Chain(builder, node, _whole(builder, node, j))
            chain.power(f"minus{j}", scale=-1)
            turned.append(chain.blob)
        chain = Chain(builder, node, turned[0])
        chain.add("Eltwise", "max", *turned[1:]).eltwise_param.operation = pb.EltwiseParameter.MAX
        chain.power("", scale=-1)
        chain.end()


def _bounded(builder: DefinitionBuilder, node: OnnxNode, side: str) -> bool:
    """Writes the extremum of a value and a number as a Clip; returns whether it is of this form."""
    known = [builder.source.is_constant(node.input(index)) for index in range(len(node.inputs))]
    if len(known) != 2 or sum(known) != 1 or builder.known(node, known.index(True)).size != 1:
        return False
    bound = float(builder.known(node, known.index(True)).ravel()[0])
    low, high = (bound, None) if side == "min" else (None, bound)
    _clip(builder, node, low, high, [builder.blob(node, known.index(False))])
    return True


def _whole(builder: DefinitionBuilder, node: OnnxNode, index: int) -> str:
    """The blob of an input, repeated to the shape of the node's output."""
    blob, shape = builder.blob(node, index), builder.shape(node, index, 0)
    return builder.broadcast(node, blob, shape, builder.output_shape(node), f"{index}_")
