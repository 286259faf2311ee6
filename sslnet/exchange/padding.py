"""Padding of windows: the operator's own, and zeros that a Pad in front of it adds, which convolutions and pooling include."""

from __future__ import annotations

from collections.abc import Sequence

from sslnet.errors import SslnetError
from sslnet.exchange.builder import DefinitionBuilder
from sslnet.exchange.node import OnnxNode


def remember_padding(builder: DefinitionBuilder, node: OnnxNode, amounts: list[int]) -> None:
    """Records zeros around images, for the layer that reads the value. amounts: before and behind, for each axis of the image"""
    builder.become(node.result, builder.blob(node, 0))
    builder.padding[node.result] = amounts


def add_output_padding(builder: DefinitionBuilder) -> list[tuple[OnnxNode, SslnetError]]:
    """Adds layers for outputs of the model that are padded values; returns the nodes where that fails, and why."""
    errors: list[tuple[OnnxNode, SslnetError]] = []
    makers = {value: node for node in builder.source.nodes for value in node.outputs}
    for value in [v for v in builder.source.outputs if v in builder.padding]:
        try:
            builder.add_padding(makers[value], value)
        except SslnetError as error:
            errors.append((makers[value], error))
    return errors


def padding(builder: DefinitionBuilder, node: OnnxNode) -> tuple[list[int], list[int]]:
    """Zeros that a Pad adds around the node's input: before and after, for each axis of the image."""
    amounts = builder.padding.get(node.input(0), [])
    half = len(amounts) // 2
    return amounts[:half], amounts[half:]


def own_pads(
    builder: DefinitionBuilder,
    node: OnnxNode,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> tuple[list[int], list[int]]:
    """The node's own padding: before and after, for each axis of the image."""
    axes, auto = len(kernel), node.text("auto_pad", "NOTSET")
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        pads = node.integers("pads", [0] * (2 * axes), count=2 * axes, least=0)
        return pads[:axes], pads[axes:]
    sizes = zip(builder.output_shape(node)[2:], strides, kernel, dilations, builder.shape(node, 0)[2:])
    missing = [max((out - 1) * s + (k - 1) * d + 1 - n, 0) for out, s, k, d, n in sizes]
    less, more = [m // 2 for m in missing], [m - m // 2 for m in missing]
    return (less, more) if auto == "SAME_UPPER" else (more, less)


def all_padding(
    builder: DefinitionBuilder,
    node: OnnxNode,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> tuple[list[int], list[int]]:
    """All padding of each axis, before and after, including that of a preceding Pad."""
    own, before = own_pads(builder, node, kernel, strides, dilations), padding(builder, node)
    front, behind = ([a + b for a, b in zip(o, p or [0] * len(o))] for o, p in zip(own, before))
    return front, behind
