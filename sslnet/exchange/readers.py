"""What each ONNX operator becomes: one function an operator, from a node to the layers that compute the same.

Each takes (builder, node). ``DefinitionBuilder`` (``builder.py``) knows which blob each value is, and adds layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.exchange.builder import Chain, DefinitionBuilder, along
from sslnet.exchange.node import OnnxNode
from sslnet.exchange.shape_readers import (
    alias,
    concat,
    depth_to_space,
    expand,
    flatten,
    gather,
    reshape,
    slice_,
    split,
    transpose,
)
from sslnet.exchange.window_readers import (
    average_pool,
    conv,
    conv_transpose,
    global_pool,
    lrn,
    max_pool,
    over_pixels,
    pad,
    resize,
)

Reader = Callable[[DefinitionBuilder, OnnxNode], None]


# -- weights -----------------------------------------------------------------------------------------------------------


def gemm(builder: DefinitionBuilder, node: OnnxNode) -> None:
    weights = builder.weights(node, 1, 2, 2) * np.float32(node.number("alpha", 1.0))
    if node.flag("transA"):
        raise node.error("transA is for matrices that are no batch of images")
    weights = weights if node.flag("transB") else weights.T
    weights = builder.skip_flatten(node, weights)
    bias = [b * np.float32(node.number("beta", 1.0)) for b in builder.optional_weights(node, 2, len(weights))]
    _inner_product(builder, node, weights, bias, axis=1)


def mat_mul(builder: DefinitionBuilder, node: OnnxNode) -> None:
    weights = builder.weights(node, 1, 2, 2)
    axis = len(builder.shape(node, 0)) - 1
    weights = builder.skip_flatten(node, weights.T) if axis == 1 else weights.T
    _inner_product(builder, node, weights, [], axis=axis)


def _inner_product(
    builder: DefinitionBuilder, node: OnnxNode, weights: np.ndarray, bias: list[np.ndarray], axis: int
) -> None:
    layer = builder.layer(node, "InnerProduct", blobs=[weights, *bias])
    layer.inner_product_param.num_output = weights.shape[0]
    layer.inner_product_param.bias_term = bool(bias)
    if axis != 1:
        layer.inner_product_param.axis = axis


def batch_normalization(builder: DefinitionBuilder, node: OnnxNode) -> None:
    scale, bias, mean, variance = (builder.weights(node, j, 1, 1) for j in (1, 2, 3, 4))
    plain = bool((scale == 1).all() and (bias == 0).all())
    norm = builder.layer(node, "BatchNorm", blobs=[mean, variance, np.ones(1, np.float32)], last=plain)
    norm.batch_norm_param.eps = node.number("epsilon", 1e-5)
    norm.batch_norm_param.moving_average_fraction = node.number("momentum", 0.9)
    if not plain:
        layer = builder.layer(node, "Scale", bottom=list(norm.top), blobs=[scale, bias], suffix="scale")
        layer.scale_param.bias_term = True


def p_relu(builder: DefinitionBuilder, node: OnnxNode) -> None:
    slopes, shape = builder.weights(node, 1), builder.shape(node, 0, 2)
    layer = builder.layer(node, "PReLU")
    if slopes.size == 1:
        layer.prelu_param.channel_shared = True
        builder.add_blob(node, layer, slopes.reshape(()))
    elif slopes.shape[-(len(shape) - 1) :] == (shape[1], *(1,) * (len(shape) - 2)) and slopes.size == shape[1]:
        builder.add_blob(node, layer, slopes.reshape(-1))
    else:
        raise node.error(f"slopes of shape {slopes.shape} for values of shape {shape}")


# -- value by value ----------------------------------------------------------------------------------------------------


def simple(kind: str) -> Reader:
    """For operators that are a layer without options."""

    def read(builder: DefinitionBuilder, node: OnnxNode) -> None:
        builder.layer(node, kind)

    return read


def leaky_relu(builder: DefinitionBuilder, node: OnnxNode) -> None:
    builder.layer(node, "ReLU").relu_param.negative_slope = node.number("alpha", 0.01)


def elu(builder: DefinitionBuilder, node: OnnxNode) -> None:
    builder.layer(node, "ELU").elu_param.alpha = node.number("alpha", 1.0)


def clip(builder: DefinitionBuilder, node: OnnxNode) -> None:
    low, high = (_bound(builder, node, index, name) for index, name in ((1, "min"), (2, "max")))
    _clip(builder, node, low, high, [builder.blob(node, 0)])


def _clip(builder: DefinitionBuilder, node: OnnxNode, low: float | None, high: float | None, bottom: list[str]) -> None:
    """A bound that is infinite in its own direction is none."""
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
    """(shift + scale x) ^ power, with these numbers."""

    def read(builder: DefinitionBuilder, node: OnnxNode) -> None:
        layer = builder.layer(node, "Power")
        for name, value in fields.items():
            setattr(layer.power_param, name, value)

    return read


def pow_(builder: DefinitionBuilder, node: OnnxNode) -> None:
    builder.layer(node, "Power").power_param.power = builder.known_number(node, 1)


def hard_swish(builder: DefinitionBuilder, node: OnnxNode) -> None:
    """x relu6(x + 3) / 6."""
    shifted = builder.layer(node, "Power", last=False, suffix="shift")
    shifted.power_param.shift = 3
    gate = builder.layer(node, "ReLU6", bottom=list(shifted.top), last=False, suffix="gate")
    part = builder.layer(node, "Power", bottom=list(gate.top), last=False, suffix="sixth")
    part.power_param.scale = 1 / 6
    product = builder.layer(node, "Eltwise", bottom=[builder.blob(node, 0), part.top[0]])
    product.eltwise_param.operation = pb.EltwiseParameter.PROD


def hard_sigmoid(builder: DefinitionBuilder, node: OnnxNode) -> None:
    line = builder.layer(node, "Power", last=False, suffix="line")
    line.power_param.scale, line.power_param.shift = node.number("alpha", 0.2), node.number("beta", 0.5)
    layer = builder.layer(node, "Clip", bottom=list(line.top))
    layer.clip_param.min, layer.clip_param.max = 0, 1


def selu(builder: DefinitionBuilder, node: OnnxNode) -> None:
    chain = Chain(builder, node)
    chain.add("ELU").elu_param.alpha = node.number("alpha", 1.67326319217681884765625)
    chain.power("gamma", scale=node.number("gamma", 1.05070102214813232421875))
    chain.end()


def celu(builder: DefinitionBuilder, node: OnnxNode) -> None:
    """alpha ELU(x / alpha)."""
    alpha = node.number("alpha", 1.0)
    chain = Chain(builder, node)
    if alpha != 1:
        chain.power("over_alpha", scale=1 / alpha)
    chain.add("ELU")
    if alpha != 1:
        chain.power("alpha", scale=alpha)
    chain.end()


def mish(builder: DefinitionBuilder, node: OnnxNode) -> None:
    """x tanh(log(1 + exp x))."""
    chain = Chain(builder, node)
    for kind in ("BNLL", "TanH"):
        chain.add(kind, kind.lower())
    chain.add("Eltwise", "", builder.blob(node, 0)).eltwise_param.operation = pb.EltwiseParameter.PROD
    chain.end()


# -- two values --------------------------------------------------------------------------------------------------------


def arithmetic(operation: str) -> Reader:
    """Add, Sub, Mul, Div of two values, or of one and a constant."""

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


def _repeated(
    builder: DefinitionBuilder,
    node: OnnxNode,
    operation: str,
    blob: str,
    part: tuple[str, tuple[int, ...]],
    place: tuple[int, tuple[int, ...]],
) -> None:
    """A blob times, or plus, another (its name and shape) that lies along some of its axes (the first, and their sizes)."""
    (other, before), (axis, shape) = part, place
    if shape != before:
        reshaped = builder.layer(node, "Reshape", bottom=[other], last=False, suffix="axes")
        reshaped.reshape_param.shape.dim.extend([0, *shape[1:]] if axis == 0 else shape)
        other = reshaped.top[0]
    layer = builder.layer(node, "Scale" if operation == "Mul" else "Bias", bottom=[blob, other])
    param = layer.scale_param if operation == "Mul" else layer.bias_param
    param.axis = axis


def eltwise(operation: int) -> Reader:
    """Max or Sum of any number of values; the maximum with a number is a Clip."""

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
    """min(a, b) = - max(-a, -b); with a number, a Clip."""
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
    """Writes the extremum of a value and a number as a Clip; whether it is one."""
    known = [builder.source.is_constant(node.input(index)) for index in range(len(node.inputs))]
    if len(known) != 2 or sum(known) != 1 or builder.known(node, known.index(True)).size != 1:
        return False
    bound = float(builder.known(node, known.index(True)).ravel()[0])
    low, high = (bound, None) if side == "min" else (None, bound)
    _clip(builder, node, low, high, [builder.blob(node, known.index(False))])
    return True


def _whole(builder: DefinitionBuilder, node: OnnxNode, index: int) -> str:
    """The blob that an input is, in the shape of the node's output."""
    blob, shape = builder.blob(node, index), builder.shape(node, index, 0)
    return builder.broadcast(node, blob, shape, builder.output_shape(node), f"{index}_")


# -- over axes ---------------------------------------------------------------------------------------------------------


def reduce(operation: str) -> Reader:
    """MEAN, SUM, MAX, L1, L2 or SQUARES over some axes."""

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
        left = _reduced(chain, shape, axes, operation if operation in ("MEAN", "MAX") else "SUM")
        if operation == "L2":
            chain.power("root", power=0.5)
        after = builder.output_shape(node)
        if left != after:
            _to_shape(chain, left, after)
        chain.end()

    return read


def _to_shape(chain: Chain, before: tuple[int, ...], after: tuple[int, ...]) -> None:
    if before and after == (before[0], math.prod(before[1:])):
        chain.add("Flatten", "flatten")
    else:
        chain.reshape([0 if after[:1] == before[:1] else after[0], *after[1:]] if after else [])


def _reduced(chain: Chain, shape: tuple[int, ...], axes: list[int], kind: str) -> tuple[int, ...]:
    """Adds the layers of a reduction; returns the shape of what they make."""
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
    raise chain.node.error(f"over axes {axes} of {count}: only pixels, channels or the last axes can go")


def _over_channels(chain: Chain, shape: tuple[int, ...], kind: str) -> tuple[int, ...]:
    """A sum by a convolution of ones that are not trained; a maximum by pooling with the channels as pixels."""
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
    """For training, a SoftmaxWithLoss behind what it reads takes its place."""
    softmax(builder, node, last=False)
    builder.layer(node, "Log", bottom=[builder.message.layer[-1].top[0]], suffix="log")


def arg_max(builder: DefinitionBuilder, node: OnnxNode) -> None:
    layer = builder.layer(node, "ArgMax", last=node.flag("keepdims", True))
    layer.argmax_param.axis = node.axis(0, len(builder.shape(node, 0)))
    if not node.flag("keepdims", True):
        builder.reshape(node, list(layer.top))


READERS: dict[str, Reader] = {
    "Abs": simple("AbsVal"),
    "Add": arithmetic("Add"),
    "ArgMax": arg_max,
    "AveragePool": average_pool,
    "BatchNormalization": batch_normalization,
    "Cast": alias,
    "Celu": celu,
    "Clip": clip,
    "Concat": concat,
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "DepthToSpace": depth_to_space,
    "Div": arithmetic("Div"),
    "Dropout": alias,
    "Elu": elu,
    "Exp": simple("Exp"),
    "Expand": expand,
    "Flatten": flatten,
    "Gather": gather,
    "Gemm": gemm,
    "GlobalAveragePool": global_pool(pb.PoolingParameter.AVE),
    "GlobalMaxPool": global_pool(pb.PoolingParameter.MAX),
    "HardSigmoid": hard_sigmoid,
    "HardSwish": hard_swish,
    "Identity": alias,
    "LeakyRelu": leaky_relu,
    "Log": simple("Log"),
    "LogSoftmax": log_softmax,
    "LRN": lrn,
    "MatMul": mat_mul,
    "Max": eltwise(pb.EltwiseParameter.MAX),
    "MaxPool": max_pool,
    "Min": minimum,
    "Mish": mish,
    "Mul": arithmetic("Mul"),
    "Neg": power_of(scale=-1),
    "Pad": pad,
    "Pow": pow_,
    "PRelu": p_relu,
    "Reciprocal": power_of(power=-1),
    "ReduceL1": reduce("L1"),
    "ReduceL2": reduce("L2"),
    "ReduceMax": reduce("MAX"),
    "ReduceMean": reduce("MEAN"),
    "ReduceSum": reduce("SUM"),
    "ReduceSumSquare": reduce("SQUARES"),
    "Relu": simple("ReLU"),
    "Reshape": reshape,
    "Resize": resize,
    "Selu": selu,
    "Sigmoid": simple("Sigmoid"),
    "Slice": slice_,
    "Softmax": softmax,
    "Softplus": simple("BNLL"),
    "Split": split,
    "Sqrt": power_of(power=0.5),
    "Squeeze": reshape,
    "Sub": arithmetic("Sub"),
    "Sum": eltwise(pb.EltwiseParameter.SUM),
    "Tanh": simple("TanH"),
    "Transpose": transpose,
    "Unsqueeze": reshape,
    "Upsample": resize,
}
"""Operator -> how it is read."""
