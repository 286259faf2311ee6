"""Reads groups of ONNX nodes that compute one layer: GELU, HardSwish, LRN, GroupNorm, ShuffleChannel, L2 normalisation.

A pattern is recognised at its last node, by looking back over the nodes before it. The layers of the other nodes, which were
added already, are removed at the end of the import where nothing else reads them (``unread.py``).
"""

from __future__ import annotations

import math
from collections.abc import Callable

from sslnet import sslnet_pb2 as pb
from sslnet.exchange.builder import DefinitionBuilder
from sslnet.exchange.chain import Chain
from sslnet.exchange.node import OnnxNode
from sslnet.exchange.norm_readers import group_norm, unit_length

SHAPES = {"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"}
"""Operators that only change the shape."""


class Lookback:
    """The nodes before a node, and the constants that they read."""

    def __init__(self, builder: DefinitionBuilder, node: OnnxNode) -> None:
        self.builder, self.source, self.node = builder, builder.source, node

    def maker(self, value: str, *ops: str) -> OnnxNode | None:
        """The node that computes a value, if it is of one of these operators and the value is no constant."""
        node = None if self.source.is_constant(value) else self.source.maker(value)
        while node is not None and node.op in ("Identity", "Cast") and node.op not in ops:
            value = node.inputs[0]
            node = self.source.maker(value)
        return node if node is not None and node.op in ops and node.inputs else None

    def number(self, value: str) -> float | None:
        """The value of a constant of one number."""
        values = self.source.constants.get(value)
        return float(values.reshape(-1)[0]) if values is not None and values.size == 1 else None

    def with_number(self, node: OnnxNode) -> tuple[str, float] | None:
        """The computed input and the number of a node with one of each, as Add(x, 3)."""
        found = [(x, self.number(c)) for x, c in (node.inputs[:2], node.inputs[1::-1]) if self.number(c) is not None]
        if len(node.inputs) != 2 or len(found) != 1 or self.source.is_constant(found[0][0]):
            return None
        return found[0][0], float(found[0][1] or 0.0)

    def same(self, a: str, b: str) -> bool:
        blob = self.builder.blob_of(a)
        return a == b or bool(blob and blob == self.builder.blob_of(b))

    def factors(self, value: str, depth: int = 0) -> tuple[list[str], float]:
        """The values whose product a value is, and its constant factor."""
        scale = self.number(value)
        if scale is not None:
            return [], scale
        node = self.maker(value, "Mul", "Div")
        if node is None or depth > 4 or (node.op == "Div" and self.number(node.input(1)) is None):
            return [value], 1.0
        values, scale = self.factors(node.input(0), depth + 1)
        others, other = self.factors(node.input(1), depth + 1)
        return values + others, scale * other if node.op == "Mul" else scale / other

    def shape(self, value: str) -> tuple[int, ...]:
        return self.source.shapes.get(value, ())


def fused(builder: DefinitionBuilder, node: OnnxNode) -> bool:
    """Adds the layer of a pattern that ends in this node; returns whether there is one."""
    look = Lookback(builder, node)
    return any(pattern(look) for pattern in PATTERNS.get(node.op, ()))


# -- activations -------------------------------------------------------------------------------------------------------


def _activation(look: Lookback, kind: str, x: str) -> pb.LayerParameter | None:
    if not look.builder.has_blob(x) or x in look.builder.padding:
        return None
    found: pb.LayerParameter = look.builder.layer(look.node, kind, bottom=[look.builder.blob_of(x)])
    return found


def _gelu(look: Lookback) -> bool:
    """x (1 + erf(x / sqrt 2)) / 2, or (1 + tanh(...)) in the place of erf, in any order."""
    values, scale = look.factors(look.node.result)
    if len(values) != 2 or not math.isclose(scale, 0.5, rel_tol=1e-5):
        return False
    for x, other in (values, values[::-1]):
        add = look.maker(other, "Add")
        pair = look.with_number(add) if add is not None else None
        if pair is None or pair[1] != 1:
            continue
        erf, tanh = look.maker(pair[0], "Erf"), look.maker(pair[0], "Tanh")
        if erf is not None:
            inner, factor = look.factors(erf.input(0))
            if len(inner) == 1 and look.same(inner[0], x) and math.isclose(factor, math.sqrt(0.5), rel_tol=1e-5):
                return _activation(look, "GELU", x) is not None
        if tanh is not None and _tanh_inside(look, tanh.input(0), x):
            layer = _activation(look, "GELU", x)
            if layer is not None:
                layer.gelu_param.approximate = pb.GELUParameter.TANH
            return layer is not None
    return False


def _tanh_inside(look: Lookback, value: str, x: str) -> bool:
    """Whether the value is sqrt(2 / pi) (x + 0.044715 x^3)."""
    inner, factor = look.factors(value)
    add = look.maker(inner[0], "Add") if len(inner) == 1 else None
    if add is None or not math.isclose(factor, math.sqrt(2 / math.pi), rel_tol=1e-5):
        return False
    for plain, cubic in (add.inputs[:2], add.inputs[1::-1]):
        parts, slope = look.factors(cubic)
        if not look.same(plain, x) or not math.isclose(slope, 0.044715, rel_tol=1e-5):
            continue
        power = look.maker(parts[0], "Pow") if len(parts) == 1 else None
        if power is not None:
            return look.same(power.input(0), x) and look.number(power.input(1)) == 3
        return len(parts) == 3 and all(look.same(part, x) for part in parts)
    return False


def _sixth_of_clip(look: Lookback, value: str) -> tuple[str, float] | None:
    """x and f of f clip(x + 3, 0, 6)."""
    parts, factor = look.factors(value)
    clip = look.maker(parts[0], "Clip") if len(parts) == 1 else None
    if clip is None:
        return None
    bounds = [_bound(look, clip, index, name) for index, name in ((1, "min"), (2, "max"))]
    add = look.maker(clip.input(0), "Add")
    pair = look.with_number(add) if add is not None else None
    return (pair[0], factor) if pair is not None and pair[1] == 3 and bounds == [0, 6] else None


def _bound(look: Lookback, node: OnnxNode, index: int, name: str) -> float | None:
    return node.number(name) if node.has(name) else look.number(node.inputs[index]) if node.has_input(index) else None


def _hard(look: Lookback) -> bool:
    """clip(x + 3, 0, 6) / 6, or x times it."""
    values, scale = look.factors(look.node.result)
    if len(values) == 1:
        found = _sixth_of_clip(look, look.node.result)
        if found is not None and math.isclose(found[1], 1 / 6, rel_tol=1e-5):
            layer = _activation(look, "HardSigmoid", found[0])
            if layer is not None:
                layer.hard_sigmoid_param.alpha, layer.hard_sigmoid_param.beta = 1 / 6, 0.5
            return layer is not None
    if len(values) != 2:
        return False
    for x, gate in (values, values[::-1]):
        found = _sixth_of_clip(look, gate)
        if found is not None and look.same(found[0], x) and math.isclose(scale * found[1], 1 / 6, rel_tol=1e-5):
            return _activation(look, "HardSwish", x) is not None
        hard = look.maker(gate, "HardSigmoid")
        if hard is not None and scale == 1 and look.same(hard.input(0), x):
            numbers = hard.number("alpha", 0.2), hard.number("beta", 0.5)
            if math.isclose(numbers[0], 1 / 6, rel_tol=1e-5) and numbers[1] == 0.5:
                return _activation(look, "HardSwish", x) is not None
    return False


def _mish(look: Lookback) -> bool:
    """x tanh(log(1 + e^x))."""
    values, scale = look.factors(look.node.result)
    for x, gate in (values, values[::-1]) if len(values) == 2 and scale == 1 else ():
        tanh = look.maker(gate, "Tanh")
        soft = look.maker(tanh.input(0), "Softplus") if tanh is not None else None
        if soft is not None and look.same(soft.input(0), x):
            return _activation(look, "Mish", x) is not None
    return False


# -- normalisation -----------------------------------------------------------------------------------------------------


def _group_norm(look: Lookback) -> bool:
    """Reshape to (N, G, -1), InstanceNormalization, Reshape back."""
    norm = look.maker(look.node.input(0), "InstanceNormalization")
    first = look.maker(norm.input(0), "Reshape") if norm is not None else None
    if norm is None or first is None or not look.builder.has_blob(first.input(0)):
        return False
    plain = all(
        look.source.is_constant(name) and (look.source.constants[name] == value).all()
        for name, value in zip(norm.inputs[1:3], (1, 0))
    )
    before, middle = look.shape(first.input(0)), look.shape(norm.input(0))
    after = look.shape(look.node.result)
    if not plain or before != after or len(before) < 2 or len(middle) != 3 or middle[0] != before[0]:
        return False
    if before[1] % middle[1]:
        return False
    chain = Chain(look.builder, look.node, look.builder.blob_of(first.input(0)))
    group_norm(chain, 0 if middle[1] == before[1] else middle[1], norm.number("epsilon", 1e-5))
    chain.end()
    return True


def _unit_length(look: Lookback) -> bool:
    """x / max(L2 norm of its channels, eps), which may be expanded."""
    x, norm = look.node.input(0), look.maker(look.node.input(1), "Expand", "Clip", "Max", "ReduceL2")
    least = 0.0
    if norm is not None and norm.op == "Expand":
        norm = look.maker(norm.input(0), "Clip", "Max", "ReduceL2")
    if norm is not None and norm.op in ("Clip", "Max"):
        if norm.op == "Clip":
            bound, upper, inner = _bound(look, norm, 1, "min"), _bound(look, norm, 2, "max"), norm.input(0)
        else:
            pair = look.with_number(norm)
            bound, upper, inner = (pair[1], None, pair[0]) if pair else (None, None, "")
        if bound is None or not 0 <= bound <= 1e-3 or (upper is not None and upper < 1e30):
            return False
        least, norm = bound, look.maker(inner, "ReduceL2")
    if norm is None or norm.op != "ReduceL2" or not look.same(norm.input(0), x) or not look.builder.has_blob(x):
        return False
    if look.builder.axes(norm) != [1] or not norm.flag("keepdims", True) or x in look.builder.padding:
        return False
    chain = Chain(look.builder, look.node, look.builder.blob_of(x))
    unit_length(chain, least)
    chain.end()
    return True


def _local_response(look: Lookback) -> bool:
    """x / (k + alpha mean of x^2 over neighbouring channels)^beta, as torch writes it."""
    power = look.maker(look.node.input(1), "Pow")
    beta = look.number(power.input(1)) if power is not None else None
    add = look.maker(power.input(0), "Add") if power is not None else None
    pair = look.with_number(add) if add is not None else None
    if pair is None or beta is None:
        return False
    values, alpha = look.factors(pair[0])
    pool = look.maker(_before_shapes(look, values[0]), "AveragePool") if len(values) == 1 else None
    x = look.node.input(0)
    if pool is None or not look.builder.has_blob(x) or len(look.shape(x)) < 3:
        return False
    kernel = pool.integers("kernel_shape")
    size, rest = max(kernel), sorted(kernel)[:-1]
    pad = look.maker(_before_shapes(look, pool.input(0)), "Pad")
    square = _before_shapes(look, pad.input(0) if pad is not None else pool.input(0))
    parts, one = look.factors(square)
    squared = look.maker(square, "Pow")
    both = len(parts) == 2 and one == 1 and all(look.same(part, x) for part in parts)
    if squared is not None:
        both = look.same(squared.input(0), x) and look.number(squared.input(1)) == 2
    if not both or size % 2 == 0 or any(n != 1 for n in rest) or any(n != 1 for n in pool.integers("strides", [1])):
        return False
    layer = look.builder.layer(look.node, "LRN", bottom=[look.builder.blob_of(x)])
    param = layer.lrn_param
    param.local_size, param.alpha, param.beta, param.k = size, alpha, beta, pair[1]
    return True


def _before_shapes(look: Lookback, value: str) -> str:
    """The value before operators that only change its shape."""
    while (node := look.maker(value, *SHAPES)) is not None:
        value = node.input(0)
    return value


# -- channels ----------------------------------------------------------------------------------------------------------


def _shuffle(look: Lookback) -> bool:
    """Reshape to (N, G, C / G, ...), Transpose of these two axes, Reshape back."""
    turn = look.maker(look.node.input(0), "Transpose")
    first = look.maker(turn.input(0), "Reshape") if turn is not None else None
    if turn is None or first is None or not look.builder.has_blob(first.input(0)):
        return False
    before, middle = look.shape(first.input(0)), look.shape(turn.input(0))
    count = len(middle)
    if count < 4 or turn.integers("perm", []) != [0, 2, 1, *range(3, count)]:
        return False
    if look.shape(look.node.result) != before or middle != (before[0], middle[1], middle[2], *before[2:]):
        return False
    if first.input(0) in look.builder.padding or middle[1] * middle[2] != before[1]:
        return False
    layer = look.builder.layer(look.node, "ShuffleChannel", bottom=[look.builder.blob_of(first.input(0))])
    layer.shuffle_channel_param.group = middle[1]
    return True


Pattern = Callable[[Lookback], bool]

PATTERNS: dict[str, tuple[Pattern, ...]] = {
    "Mul": (_gelu, _hard, _mish),
    "Div": (_gelu, _hard, _unit_length, _local_response),
    "Reshape": (_group_norm, _shuffle),
}
"""Operator of the last node -> patterns that may end there."""
