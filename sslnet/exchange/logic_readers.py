"""Reads comparisons and logic as arithmetic with 0 and 1: Threshold, Eltwise and Power layers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.exchange.builder import DefinitionBuilder
from sslnet.exchange.chain import Chain
from sslnet.exchange.node import OnnxNode

Reader = Callable[[DefinitionBuilder, OnnxNode], None]


def operand(builder: DefinitionBuilder, node: OnnxNode, index: int) -> str | float:
    """An input repeated to the shape of the node's output: the name of its blob, or its value if it is one number."""
    value = node.input(index)
    if builder.source.is_constant(value):
        numbers = builder.source.constants[value]
        if numbers.size == 1 and numbers.dtype.kind in "fiub":
            return float(numbers.reshape(-1)[0])
    after = builder.output_shape(node)
    if builder.source.is_constant(value):
        return _whole_constant(builder, node, value, after)
    return builder.broadcast(node, builder.blob(node, index), builder.shape(node, index, 0), after, f"{index}_")


def _whole_constant(builder: DefinitionBuilder, node: OnnxNode, value: str, after: tuple[int, ...]) -> str:
    numbers = builder.source.constants[value]
    full = numbers.reshape((1,) * (len(after) - numbers.ndim) + numbers.shape)
    if full.ndim != len(after) or any(old not in (1, new) for old, new in zip(full.shape, after)):
        raise node.error(f"values of shapes {numbers.shape} and {after}")
    builder.source.room.take(node, after)
    builder.source.constants[f"{node.result}:{value}"] = np.broadcast_to(full, (full.shape[0], *after[1:])).astype(
        np.float32
    )
    return builder.constant_blob(node, f"{node.result}:{value}")


def above(chain: Chain, a: str | float, b: str | float, suffix: str) -> None:
    """Adds layers for 1 where a > b, else 0; one of them is a blob."""
    if isinstance(b, float):
        chain.blob = str(a)
        chain.add("Threshold", suffix).threshold_param.threshold = b
        return
    if isinstance(a, float):
        chain.blob = b
        chain.power(f"{suffix}_minus", scale=-1.0)
        chain.add("Threshold", suffix).threshold_param.threshold = -a
        return
    chain.blob = a
    chain.add("Eltwise", f"{suffix}_difference", b).eltwise_param.coeff.extend([1, -1])
    chain.add("Threshold", suffix)


def compare(swapped: bool, *, negated: bool) -> Reader:
    """Reads Greater (a > b) and its variants: swapped: b > a; negated: 1 where this does not hold."""

    def read(builder: DefinitionBuilder, node: OnnxNode) -> None:
        a, b = (operand(builder, node, index) for index in ((1, 0) if swapped else (0, 1)))
        chain = Chain(builder, node, next(x for x in (a, b) if isinstance(x, str)))
        above(chain, a, b, "above")
        if negated:
            chain.power("not", scale=-1, shift=1)
        chain.end()

    return read


def equal(builder: DefinitionBuilder, node: OnnxNode) -> None:
    """Reads Equal as 1 - (a > b) - (b > a)."""
    a, b = (operand(builder, node, index) for index in (0, 1))
    chain = Chain(builder, node, next(x for x in (a, b) if isinstance(x, str)))
    above(chain, a, b, "above")
    more = chain.blob
    above(chain, b, a, "below")
    chain.add("Eltwise", "different", more)
    chain.power("equal", scale=-1, shift=1)
    chain.end()


def sign(builder: DefinitionBuilder, node: OnnxNode) -> None:
    """Reads Sign as (x > 0) - (0 > x)."""
    x = builder.blob(node, 0)
    chain = Chain(builder, node, x)
    above(chain, 0.0, x, "below")
    less = chain.blob
    above(chain, x, 0.0, "above")
    chain.add("Eltwise", "sign", less).eltwise_param.coeff.extend([1, -1])
    chain.end()


def not_(builder: DefinitionBuilder, node: OnnxNode) -> None:
    chain = Chain(builder, node)
    chain.power("not", scale=-1, shift=1)
    chain.end()


def both(operation: str) -> Reader:
    """Reads And, Or or Xor of two values that are 0 or 1: product, maximum, 1 where they differ."""

    def read(builder: DefinitionBuilder, node: OnnxNode) -> None:
        a, b = (operand(builder, node, index) for index in (0, 1))
        blobs = [x for x in (a, b) if isinstance(x, str)]
        chain = Chain(builder, node, blobs[0])
        if len(blobs) == 1:
            known = bool(next(x for x in (a, b) if isinstance(x, float)))
            turns = operation == "Xor" and known
            fixed = (operation == "And" and not known) or (operation == "Or" and known)
            chain.power(
                "logic", scale=0.0 if fixed else -1.0 if turns else 1.0, shift=float(known and (turns or fixed))
            )
        elif operation == "Xor":
            chain.add("Eltwise", "difference", blobs[1]).eltwise_param.coeff.extend([1, -1])
            chain.add("AbsVal", "xor")
        else:
            kind = pb.EltwiseParameter.PROD if operation == "And" else pb.EltwiseParameter.MAX
            chain.add("Eltwise", "logic", blobs[1]).eltwise_param.operation = kind
        chain.end()

    return read


def where(builder: DefinitionBuilder, node: OnnxNode) -> None:
    """Reads Where(c, a, b) as c a + (1 - c) b; values that are not finite have no counterpart."""
    condition, a, b = (operand(builder, node, index) for index in range(3))
    if isinstance(condition, float):
        builder.same(node.result, node.input(1 if condition else 2))
        return
    for value in (a, b):
        if isinstance(value, float) and not np.isfinite(value):
            raise node.error(f"the value {value}", hint="a large number, such as -1e4, works in a mask for a softmax")
    chain = Chain(builder, node, condition)
    _times(chain, a, "then")
    first = chain.blob
    chain.blob = condition
    chain.power("not", scale=-1, shift=1)
    _times(chain, b, "else")
    chain.add("Eltwise", "where", first)
    chain.end()


def _times(chain: Chain, factor: str | float, suffix: str) -> None:
    if isinstance(factor, float):
        chain.power(suffix, scale=factor)
    else:
        chain.add("Eltwise", suffix, factor).eltwise_param.operation = pb.EltwiseParameter.PROD
