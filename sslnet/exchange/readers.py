"""What each ONNX operator becomes: one function an operator, from a node to the layers that compute the same.

Each takes (builder, node). ``Builder`` (``importing.py``) knows which blob each value is, and adds layers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.exchange.source import Node

if TYPE_CHECKING:
    from sslnet.exchange.importing import Builder

Reader = Callable[["Builder", Node], None]


# -- weights -----------------------------------------------------------------------------------------------------------


def conv(builder: Builder, node: Node) -> None:
    weights = builder.weights(node, 1)
    layer = builder.layer(node, "Convolution", blobs=[weights, *builder.optional_weights(node, 2)])
    _window(builder, node, layer.convolution_param, weights.shape[2:])
    layer.convolution_param.num_output = weights.shape[0]
    layer.convolution_param.bias_term = len(layer.blobs) > 1


def conv_transpose(builder: Builder, node: Node) -> None:
    if any(node.get("output_padding", [])) or node.get("output_shape"):
        raise node.error("output_padding and output_shape have no counterpart")
    weights = builder.weights(node, 1)
    layer = builder.layer(node, "Deconvolution", blobs=[weights, *builder.optional_weights(node, 2)])
    _window(builder, node, layer.convolution_param, weights.shape[2:])
    layer.convolution_param.num_output = weights.shape[1] * node.get("group", 1)
    layer.convolution_param.bias_term = len(layer.blobs) > 1


def _window(builder: Builder, node: Node, param: Any, kernel: tuple[int, ...]) -> None:
    spatial = len(kernel)
    param.kernel_size.extend(kernel)
    strides = node.get("strides", [1] * spatial)
    dilations = node.get("dilations", [1] * spatial)
    pads = builder.symmetric_pads(node, kernel, strides, dilations)
    for field, values, default in (("stride", strides, 1), ("dilation", dilations, 1), ("pad", pads, 0)):
        if any(value != default for value in values):
            getattr(param, field).extend(values)
    if node.get("group", 1) != 1:
        param.group = node.get("group")


def gemm(builder: Builder, node: Node) -> None:
    weights = builder.weights(node, 1) * np.float32(node.get("alpha", 1.0))
    if node.get("transA", 0):
        raise node.error("transA is for matrices that are no batch of images")
    weights = weights if node.get("transB", 0) else weights.T
    builder.skip_flatten(node)
    bias = [b * np.float32(node.get("beta", 1.0)) for b in builder.optional_weights(node, 2)]
    _inner_product(builder, node, weights, [np.broadcast_to(b.reshape(-1), weights.shape[:1]) for b in bias], axis=1)


def mat_mul(builder: Builder, node: Node) -> None:
    weights = builder.weights(node, 1)
    if weights.ndim != 2:
        raise node.error(f"weights with {weights.ndim} axes")
    _inner_product(builder, node, weights.T, [], axis=len(builder.shape(node, 0)) - 1)


def _inner_product(builder: Builder, node: Node, weights: np.ndarray, bias: list[np.ndarray], axis: int) -> None:
    layer = builder.layer(node, "InnerProduct", blobs=[weights, *bias])
    layer.inner_product_param.num_output = weights.shape[0]
    layer.inner_product_param.bias_term = bool(bias)
    if axis != 1:
        layer.inner_product_param.axis = axis


def batch_normalization(builder: Builder, node: Node) -> None:
    scale, bias, mean, variance = (builder.weights(node, j) for j in (1, 2, 3, 4))
    plain = bool((scale == 1).all() and (bias == 0).all())
    norm = builder.layer(node, "BatchNorm", blobs=[mean, variance, np.ones(1, np.float32)], last=plain)
    norm.batch_norm_param.eps = node.get("epsilon", 1e-5)
    norm.batch_norm_param.moving_average_fraction = node.get("momentum", 0.9)
    if not plain:
        layer = builder.layer(node, "Scale", bottom=list(norm.top), blobs=[scale, bias], suffix="scale")
        layer.scale_param.bias_term = True


def p_relu(builder: Builder, node: Node) -> None:
    slopes, shape = builder.weights(node, 1), builder.shape(node, 0)
    layer = builder.layer(node, "PReLU")
    if slopes.size == 1:
        layer.prelu_param.channel_shared = True
        builder.add_blob(layer, slopes.reshape(()))
    elif slopes.shape[-(len(shape) - 1) :] == (shape[1], *(1,) * (len(shape) - 2)) and slopes.size == shape[1]:
        builder.add_blob(layer, slopes.reshape(-1))
    else:
        raise node.error(f"slopes of shape {slopes.shape} for values of shape {shape}")


# -- windows -----------------------------------------------------------------------------------------------------------


def max_pool(builder: Builder, node: Node) -> None:
    if len(node.outputs) > 1:
        raise node.error("its second output, the places of the maxima, counts them otherwise")
    _pool(builder, node, pb.PoolingParameter.MAX)


def average_pool(builder: Builder, node: Node) -> None:
    _pool(builder, node, pb.PoolingParameter.AVE)


def _pool(builder: Builder, node: Node, method: int) -> None:
    """Windows start where the padding in front lets them; how far they reach behind the image follows from their number."""
    kernel, strides = node.get("kernel_shape"), node.get("strides") or [1] * len(node.get("kernel_shape"))
    if len(kernel) != 2:
        raise node.error(f"pooling over {len(kernel)} axes; it is there for images, two axes")
    if any(d != 1 for d in node.get("dilations", [1, 1])):
        raise node.error("pooling with dilations")
    own, zeros = builder.pads(node, kernel, strides, [1, 1])[0], builder.padding(node)
    if zeros[0] and method == pb.PoolingParameter.MAX:
        raise node.error("the maximum over padding by zeros: the layer pads by nothing at all")
    pads = [a + b for a, b in zip(own, zeros[0] or [0, 0])]
    image = [
        n - sum(around) for n, around in zip(builder.shape(node, 0)[2:], zip(*zeros) if zeros[0] else [(0, 0)] * 2)
    ]
    out = builder.output_shape(node)[2:]
    over = [(n + 2 * p - k) % s != 0 for n, p, k, s in zip(image, pads, kernel, strides)]
    floor = tuple((n + 2 * p - k) // s + 1 for n, p, k, s in zip(image, pads, kernel, strides))
    ceil = tuple(f + o for f, o in zip(floor, over))
    ceil = tuple(c - (max(pads) > 0 and (c - 1) * s >= n + p) for c, s, n, p in zip(ceil, strides, image, pads))
    if out not in (floor, ceil):
        raise node.error(f"{out} windows where padding by {pads} in front makes {floor} or {ceil}")
    factor = _divisors(node, image, out, own, zeros, kernel, strides) if method == pb.PoolingParameter.AVE else None
    layer = builder.layer(node, "Pooling", last=factor is None)
    param = layer.pooling_param
    param.pool = method
    for field, values in (("kernel", kernel), ("stride", strides), ("pad", pads)):
        if values[0] != values[1]:
            setattr(param, f"{field}_h", values[0])
            setattr(param, f"{field}_w", values[1])
        elif values[0] != (1 if field == "stride" else 0):
            setattr(param, "kernel_size" if field == "kernel" else field, values[0])
    if out != ceil:
        param.round_mode = pb.PoolingParameter.FLOOR
    if factor is not None:
        builder.factor(node, factor, axis=2)


def _divisors(node: Node, image: Any, out: Any, own: Any, zeros: Any, kernel: Any, strides: Any) -> np.ndarray | None:
    """What the layer divides by over what the operator divides by, for each window; None where that is always the same.

    The layer counts padding but not what reaches beyond it; the operator counts all, or without its own padding.
    """
    counts = []
    for axis in range(2):
        n, k = image[axis], kernel[axis]
        front, behind = (zeros[0][axis], zeros[1][axis]) if zeros[0] else (0, 0)
        start = np.arange(out[axis]) * strides[axis] - own[axis] - front
        ours = np.minimum(start + k, n + own[axis] + front) - start
        theirs = np.minimum(start + k, n + behind) - np.maximum(start, -front)
        counts.append((ours, np.full(len(start), k) if node.get("count_include_pad", 0) else theirs))
    factor = np.outer(counts[0][0], counts[1][0]) / np.outer(counts[0][1], counts[1][1])
    return None if (factor == 1).all() else factor.astype(np.float32)


def global_pool(method: int) -> Reader:
    def read(builder: Builder, node: Node) -> None:
        layer = builder.layer(node, "Pooling")
        layer.pooling_param.pool = method
        layer.pooling_param.global_pooling = True

    return read


def reduce_mean(builder: Builder, node: Node) -> None:
    axes, shape = builder.axes(node), builder.shape(node, 0)
    keep = bool(node.get("keepdims", 1))
    if len(shape) == 4 and axes == [2, 3]:
        layer = builder.layer(node, "Pooling", last=keep)
        layer.pooling_param.pool = pb.PoolingParameter.AVE
        layer.pooling_param.global_pooling = True
        if not keep:
            builder.layer(node, "Flatten", bottom=list(layer.top), suffix="flatten")
    elif axes == list(range(axes[0], len(shape))):
        layer = builder.layer(node, "Reduction", last=not keep)
        layer.reduction_param.operation = pb.ReductionParameter.MEAN
        layer.reduction_param.axis = axes[0]
        if keep:
            builder.reshape(node, list(layer.top))
    else:
        raise node.error(f"the mean over axes {axes} of {len(shape)}: only the last ones can go")


def lrn(builder: Builder, node: Node) -> None:
    layer = builder.layer(node, "LRN")
    param = layer.lrn_param
    param.local_size = node.get("size")
    param.alpha, param.beta, param.k = node.get("alpha", 1e-4), node.get("beta", 0.75), node.get("bias", 1.0)
    if param.local_size % 2 == 0:
        raise node.error(f"size must be odd, not {param.local_size}")


def pad(builder: Builder, node: Node) -> None:
    """Zeros around an image: remembered, and given to the convolution or pooling that reads them."""
    amounts = node.get("pads") or [int(n) for n in builder.known(node, 1)]
    value = node.get("value", 0.0) or (builder.source.constant(node, 2) if len(node.inputs) > 2 else None)
    if node.get("mode", "constant") != "constant" or (value is not None and float(np.asarray(value).ravel()[0])):
        raise node.error("only padding by zeros can be taken over")
    if len(node.inputs) > 3 and node.inputs[3]:
        raise node.error("padding of given axes")
    builder.remember_padding(node, amounts)


# -- value by value ----------------------------------------------------------------------------------------------------


def simple(kind: str) -> Reader:
    """For operators that are a layer without options."""

    def read(builder: Builder, node: Node) -> None:
        builder.layer(node, kind)

    return read


def leaky_relu(builder: Builder, node: Node) -> None:
    builder.layer(node, "ReLU").relu_param.negative_slope = node.get("alpha", 0.01)


def elu(builder: Builder, node: Node) -> None:
    builder.layer(node, "ELU").elu_param.alpha = node.get("alpha", 1.0)


def clip(builder: Builder, node: Node) -> None:
    low, high = (_bound(builder, node, index, name) for index, name in ((1, "min"), (2, "max")))
    if low == 0 and high is None:
        builder.layer(node, "ReLU")
    elif (low, high) == (0, 6):
        builder.layer(node, "ReLU6")
    else:
        layer = builder.layer(node, "Clip")
        layer.clip_param.min = np.finfo(np.float32).min if low is None else low
        layer.clip_param.max = np.finfo(np.float32).max if high is None else high


def _bound(builder: Builder, node: Node, index: int, name: str) -> float | None:
    value = node.get(name)
    if value is None:
        value = builder.source.constant(node, index)
    return None if value is None else float(np.asarray(value).ravel()[0])


def power_of(**fields: float) -> Reader:
    """(shift + scale x) ^ power, with these numbers."""

    def read(builder: Builder, node: Node) -> None:
        layer = builder.layer(node, "Power")
        for name, value in fields.items():
            setattr(layer.power_param, name, value)

    return read


def pow_(builder: Builder, node: Node) -> None:
    exponent = builder.known(node, 1)
    if exponent.size != 1:
        raise node.error("more than one exponent")
    builder.layer(node, "Power").power_param.power = float(exponent.ravel()[0])


def hard_swish(builder: Builder, node: Node) -> None:
    """x relu6(x + 3) / 6."""
    shifted = builder.layer(node, "Power", last=False, suffix="shift")
    shifted.power_param.shift = 3
    gate = builder.layer(node, "ReLU6", bottom=list(shifted.top), last=False, suffix="gate")
    part = builder.layer(node, "Power", bottom=list(gate.top), last=False, suffix="sixth")
    part.power_param.scale = 1 / 6
    product = builder.layer(node, "Eltwise", bottom=[builder.blob(node, 0), part.top[0]])
    product.eltwise_param.operation = pb.EltwiseParameter.PROD


def hard_sigmoid(builder: Builder, node: Node) -> None:
    line = builder.layer(node, "Power", last=False, suffix="line")
    line.power_param.scale, line.power_param.shift = node.get("alpha", 0.2), node.get("beta", 0.5)
    layer = builder.layer(node, "Clip", bottom=list(line.top))
    layer.clip_param.min, layer.clip_param.max = 0, 1


def alias(builder: Builder, node: Node) -> None:
    """Nothing happens to the value (Dropout when it does not train, Identity, Cast between floats)."""
    builder.same(node.outputs[0], node.inputs[0])


# -- two values --------------------------------------------------------------------------------------------------------


def arithmetic(operation: str) -> Reader:
    """Add, Sub, Mul, Div of two values, or of one and a constant."""

    def read(builder: Builder, node: Node) -> None:
        first, second = (builder.source.is_constant(name) for name in node.inputs)
        if first or second:
            _with_constant(builder, node, operation, 0 if first else 1)
        else:
            _of_two(builder, node, operation)

    return read


def _with_constant(builder: Builder, node: Node, operation: str, index: int) -> None:
    values = builder.known(node, index).astype(np.float32)
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


def _of_two(builder: Builder, node: Node, operation: str) -> None:
    shapes = builder.shape(node, 0), builder.shape(node, 1)
    blobs = [builder.blob(node, 0), builder.blob(node, 1)]
    if operation == "Div":
        inverse = builder.layer(node, "Power", bottom=[blobs[1]], last=False, suffix="inverse")
        inverse.power_param.power = -1
        blobs[1], operation = inverse.top[0], "Mul"
    if shapes[0] == shapes[1]:
        layer = builder.layer(node, "Eltwise", bottom=blobs)
        if operation == "Mul":
            layer.eltwise_param.operation = pb.EltwiseParameter.PROD
        elif operation == "Sub":
            layer.eltwise_param.coeff.extend([1, -1])
        return
    large, small = (0, 1) if len(shapes[0]) > len(shapes[1]) or np.prod(shapes[0]) >= np.prod(shapes[1]) else (1, 0)
    if operation == "Sub":
        raise node.error(f"values of shapes {shapes[0]} and {shapes[1]}")
    axis, shape = builder.axis_of_parts(node, shapes[large], shapes[small])
    part = blobs[small]
    if shape != shapes[small]:
        reshaped = builder.layer(node, "Reshape", bottom=[part], last=False, suffix="axes")
        reshaped.reshape_param.shape.dim.extend([0, *shape[1:]] if axis == 0 else shape)
        part = reshaped.top[0]
    layer = builder.layer(node, "Scale" if operation == "Mul" else "Bias", bottom=[blobs[large], part])
    param = layer.scale_param if operation == "Mul" else layer.bias_param
    param.axis = axis


def eltwise(operation: int) -> Reader:
    """Max or Sum of any number of values of one shape."""

    def read(builder: Builder, node: Node) -> None:
        if len(node.inputs) == 1:
            alias(builder, node)
            return
        if len({builder.shape(node, j) for j in range(len(node.inputs))}) > 1:
            raise node.error("its inputs have different shapes")
        blobs = [builder.blob(node, j) for j in range(len(node.inputs))]
        builder.layer(node, "Eltwise", bottom=blobs).eltwise_param.operation = operation

    return read


def concat(builder: Builder, node: Node) -> None:
    axis = node.get("axis", 1)
    axis = axis if axis >= 0 else axis + len(builder.shape(node, 0))
    layer = builder.layer(node, "Concat", bottom=[builder.blob(node, j) for j in range(len(node.inputs))])
    if axis != 1:
        layer.concat_param.axis = axis


def split(builder: Builder, node: Node) -> None:
    axis = node.get("axis", 0)
    axis = axis if axis >= 0 else axis + len(builder.shape(node, 0))
    layer = builder.layer(node, "Slice")
    layer.slice_param.axis = axis
    sizes = [builder.source.shape(node, name)[axis] for name in node.outputs]
    layer.slice_param.slice_point.extend(int(point) for point in np.cumsum(sizes)[:-1])


def slice_(builder: Builder, node: Node) -> None:
    """One axis at a time: what is left out goes to a Silence."""
    shape = builder.shape(node, 0)
    if builder.source.opset < 10:
        starts, ends, axes, steps = node.get("starts"), node.get("ends"), node.get("axes"), None
    else:
        starts, ends = builder.known(node, 1), builder.known(node, 2)
        axes, steps = builder.source.constant(node, 3), builder.source.constant(node, 4)
    axes = range(len(starts)) if axes is None else axes
    if steps is not None and any(step != 1 for step in steps):
        raise node.error("steps other than 1")
    cuts = []
    for axis, start, end in zip(axes, starts, ends):
        axis = int(axis) % len(shape)
        first, last, _ = slice(int(start), int(end)).indices(shape[axis])
        if (first, last) != (0, shape[axis]):
            cuts.append((axis, first, last))
    if not cuts:
        alias(builder, node)
        return
    blob = builder.blob(node, 0)
    for number, (axis, first, last) in enumerate(cuts):
        is_last = number == len(cuts) - 1
        points = [point for point in (first, last) if 0 < point < shape[axis]]
        kept = 1 if first > 0 else 0
        layer = builder.layer(node, "Slice", bottom=[blob], last=False, suffix=f"axis{axis}", tops=len(points) + 1)
        layer.slice_param.axis = axis
        layer.slice_param.slice_point.extend(points)
        rest = [name for k, name in enumerate(layer.top) if k != kept]
        if is_last:
            layer.top[kept] = builder.new_blob(node.outputs[0])
            builder.become(node.outputs[0], layer.top[kept])
        blob = layer.top[kept]
        builder.silence(node, rest, f"axis{axis}_rest")


# -- shapes ------------------------------------------------------------------------------------------------------------


def reshape(builder: Builder, node: Node) -> None:
    builder.reshape(node, [builder.blob(node, 0)])


def flatten(builder: Builder, node: Node) -> None:
    if node.get("axis", 1) == 1:
        builder.layer(node, "Flatten")
    else:
        reshape(builder, node)


def transpose(builder: Builder, node: Node) -> None:
    axes = len(builder.shape(node, 0))
    builder.layer(node, "Permute").permute_param.order.extend(node.get("perm", list(range(axes))[::-1]))


def resize(builder: Builder, node: Node) -> None:
    before, after = builder.shape(node, 0), builder.output_shape(node)
    mode, how = node.get("mode", "nearest"), node.get("coordinate_transformation_mode", "half_pixel")
    factors = [b / a for a, b in zip(before, after)]
    if len(before) != 4 or factors[:2] != [1, 1]:
        raise node.error(f"from shape {before} to {after}")
    if mode == "nearest" and factors[2] == factors[3] and factors[2] == int(factors[2]):
        builder.layer(node, "Upsample").upsample_param.scale = int(factors[2])
    elif mode == "linear" and how == "align_corners":
        layer = builder.layer(node, "Interp")
        layer.interp_param.height, layer.interp_param.width = after[2:]
    else:
        raise node.error(f"mode {mode} with {how}, from {before[2:]} to {after[2:]}")


def softmax(builder: Builder, node: Node) -> None:
    axes = len(builder.shape(node, 0))
    axis = node.get("axis", -1 if builder.source.opset >= 13 else 1) % axes
    if builder.source.opset < 13 and axis != axes - 1:
        raise node.error("over several axes at once (operator sets before 13)")
    layer = builder.layer(node, "Softmax")
    if axis != 1:
        layer.softmax_param.axis = axis


def arg_max(builder: Builder, node: Node) -> None:
    layer = builder.layer(node, "ArgMax", last=bool(node.get("keepdims", 1)))
    layer.argmax_param.axis = node.get("axis", 0) % len(builder.shape(node, 0))
    if not node.get("keepdims", 1):
        builder.reshape(node, list(layer.top))


READERS: dict[str, Reader] = {
    "Abs": simple("AbsVal"),
    "Add": arithmetic("Add"),
    "ArgMax": arg_max,
    "AveragePool": average_pool,
    "BatchNormalization": batch_normalization,
    "Cast": alias,
    "Clip": clip,
    "Concat": concat,
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "Div": arithmetic("Div"),
    "Dropout": alias,
    "Elu": elu,
    "Exp": simple("Exp"),
    "Flatten": flatten,
    "Gemm": gemm,
    "GlobalAveragePool": global_pool(pb.PoolingParameter.AVE),
    "GlobalMaxPool": global_pool(pb.PoolingParameter.MAX),
    "HardSigmoid": hard_sigmoid,
    "HardSwish": hard_swish,
    "Identity": alias,
    "LeakyRelu": leaky_relu,
    "Log": simple("Log"),
    "LRN": lrn,
    "MatMul": mat_mul,
    "Max": eltwise(pb.EltwiseParameter.MAX),
    "MaxPool": max_pool,
    "Mul": arithmetic("Mul"),
    "Neg": power_of(scale=-1),
    "Pad": pad,
    "Pow": pow_,
    "PRelu": p_relu,
    "Reciprocal": power_of(power=-1),
    "ReduceMean": reduce_mean,
    "Relu": simple("ReLU"),
    "Reshape": reshape,
    "Resize": resize,
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
