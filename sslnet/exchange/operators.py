"""What each layer type becomes in ONNX: one function a type, from the layer as it is set up to nodes.

Each takes (graph, layer, inputs, bottom, top): the names of the input values and the blobs, whose shapes are known; it
returns the names of its values, one a top. A value that comes back unchanged needs no node.

Where the two sides define a thing differently (the borders of AVE pooling, the smallest index on a tie) the nodes are
those that give what the layer gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto

from sslnet import sslnet_pb2 as pb
from sslnet.blob import Blob
from sslnet.exchange.graph import Graph, Unsupported

Names = list[str]
Blobs = Sequence[Blob]
Writer = Callable[[Graph, Any, Names, Blobs, Blobs], Names]


def unsupported(layer: Any, what: str) -> Unsupported:
    return Unsupported(f"{what} cannot be written as ONNX", span=layer.definition.span(), layer=layer.name)


# -- layers with weights -----------------------------------------------------------------------------------------------


def convolution(graph: Graph, layer: Any, inputs: Names, bottom: Blobs, top: Blobs) -> Names:
    return _conv(graph, layer, inputs, "Conv")


def deconvolution(graph: Graph, layer: Any, inputs: Names, bottom: Blobs, top: Blobs) -> Names:
    return _conv(graph, layer, inputs, "ConvTranspose")


def _conv(graph: Graph, layer: Any, inputs: Names, operator: str) -> Names:
    if layer.axis != 1:
        raise unsupported(layer, f"a convolution along axis {layer.axis}")
    w = layer.window
    kernel, pads = list(w.kernel), [*w.pad, *w.pad]
    if getattr(layer, "kept", None) is None:
        params = [graph.param(layer, 0)]
    else:
        weights, pads = _without_border(layer.whole_weights(), w)
        kernel = list(weights.shape[2:])
        params = [graph.param(layer, 0, weights, "whole" + "_".join(map(str, pads)))]
    params += [graph.param(layer, j) for j in range(1, len(layer.blobs))]
    attributes = {
        "kernel_shape": kernel,
        "strides": list(w.stride),
        "pads": pads,
        "dilations": list(w.dilation),
        "group": layer.group,
    }
    return [graph.node(operator, [name, *params], **attributes) for name in inputs]


def _without_border(weights: np.ndarray, window: Any) -> tuple[np.ndarray, list[int]]:
    """Weights without rows and columns of zeros at their edges, as far as there is padding; and what is left of that.

    In ONNX the two sides of an image may be padded differently, and need no zeros for it.
    """
    front, behind = list(window.pad), list(window.pad)
    for n, axis in enumerate(range(2, weights.ndim)):
        used = np.flatnonzero((weights != 0).any(axis=tuple(a for a in range(weights.ndim) if a != axis)))
        if used.size:
            most = window.pad[n] // window.dilation[n]
            first, last = min(int(used[0]), most), min(weights.shape[axis] - 1 - int(used[-1]), most)
            weights = np.take(weights, range(first, weights.shape[axis] - last), axis=axis)
            front[n] -= first * window.dilation[n]
            behind[n] -= last * window.dilation[n]
    return weights, front + behind


def inner_product(graph: Graph, layer: Any, inputs: Names, bottom: Blobs, top: Blobs) -> Names:
    x, value = bottom[0], inputs[0]
    bias = [graph.param(layer, 1)] if len(layer.blobs) > 1 else []
    if layer.axis == 1:
        if x.num_axes != 2:
            value = graph.node("Flatten", [value], axis=1)
        return [graph.node("Gemm", [value, graph.param(layer, 0), *bias], transB=int(not layer.transpose))]
    weights = layer.blobs[0].data if layer.transpose else layer.blobs[0].data.T
    lead = x.shape[: layer.axis]
    value = graph.reshape(layer, value, x.shape, (*lead, weights.shape[0]) if lead else (1, weights.shape[0]))
    value = graph.node("MatMul", [value, graph.param(layer, 0, weights, "matrix")])
    if bias:
        value = graph.node("Add", [value, *bias])
    return [value if lead else graph.reshape(layer, value, (), top[0].shape)]


def embed(graph: Graph, layer: Any, inputs: Names, bottom: Blobs, top: Blobs) -> Names:
    index = graph.node("Cast", inputs, to=TensorProto.INT64)
    value = graph.node("Gather", [graph.param(layer, 0), index], axis=0)
    return [graph.node("Add", [value, graph.param(layer, 1)]) if len(layer.blobs) > 1 else value]


def batch_norm(graph: Graph, layer: Any, inputs: Names, bottom: Blobs, top: Blobs) -> Names:
    if not layer.use_global_stats:
        raise unsupported(layer, "BatchNorm with the statistics of the batch (use_global_stats: false)")
    if bottom[0].num_axes < 2:
        raise unsupported(layer, "BatchNorm of a blob with one axis")
    mean, variance, factor = (blob.data for blob in layer.blobs)
    scale = np.float32(1 / factor[0]) if factor[0] else np.float32(0)
    statistics = [
        graph.param(layer, 0, mean * scale, "mean"),
        graph.param(layer, 1, variance * scale, "variance"),
    ]
    ones = [graph.constant(np.ones(len(mean))), graph.constant(np.zeros(len(mean)))]
    return [graph.node("BatchNormalization", [inputs[0], *ones, *statistics], epsilon=layer.param.batch_norm_param.eps)]


def scale(graph: Graph, layer: Any, inputs: Names, bottom: Blobs, top: Blobs) -> Names:
    learned = len(bottom) == 1
    value = graph.node("Mul", [inputs[0], _spread_out(graph, layer, inputs, bottom, 0)])
    if layer.param.scale_param.bias_term:
        index = 1 if learned else 0
        shape = _spread_shape(layer, bottom[0], layer.blobs[index].shape)
        value = graph.node("Add", [value, graph.param(layer, index, layer.blobs[index].data.reshape(shape), "spread")])
    return [value]


def bias(graph: Graph, layer: Any, inputs: Names, bottom: Blobs, top: Blobs) -> Names:
    return [graph.node("Add", [inputs[0], _spread_out(graph, layer, inputs, bottom, 0)])]


def _spread_out(graph: Graph, layer: Any, inputs: Names, bottom: Blobs, index: int) -> str:
    """The learned blob, or the second bottom, with axes of size 1 so that it lies along the right axes of the first."""
    if len(bottom) == 1:
        shape = _spread_shape(layer, bottom[0], layer.blobs[index].shape)
        return graph.param(layer, index, layer.blobs[index].data.reshape(shape), "spread")
    end = layer.axis + bottom[1].num_axes
    new = [*range(layer.axis), *range(end, bottom[0].num_axes)]
    return str(graph.node("Unsqueeze", [inputs[1], graph.integers(new)])) if new else inputs[1]


def _spread_shape(layer: Any, x: Blob, shape: tuple[int, ...]) -> tuple[int, ...]:
    return (1,) * layer.axis + shape + (1,) * (x.num_axes - layer.axis - len(shape))


def prelu(graph: Graph, layer: Any, inputs: Names, bottom: Blobs, top: Blobs) -> Names:
    slopes = layer.blobs[0].data.reshape(-1, *(1,) * (bottom[0].num_axes - 2))
    return [graph.node("PRelu", [inputs[0], graph.param(layer, 0, slopes, "spread")])]


# -- windows -----------------------------------------------------------------------------------------------------------


def pooling(graph: Graph, layer: Any, inputs: Names, bottom: Blobs, top: Blobs) -> Names:
    if len(top) > 1:
        raise unsupported(layer, "the second top of MAX pooling")
    return [_pool(graph, layer, inputs[0], bottom[0], top[0].shape)]


def _pool(graph: Graph, layer: Any, value: str, x: Blob, shape: tuple[int, ...]) -> str:
    if layer.method == pb.PoolingParameter.STOCHASTIC:
        raise unsupported(layer, "STOCHASTIC pooling")
    kernel, stride, pad, out = layer.kernel, layer.stride, layer.pad, shape[2:]
    sizes = x.shape[2:]
    behind = [max((o - 1) * s + k - n - p, 0) for o, s, k, n, p in zip(out, stride, kernel, sizes, pad)]
    pads = [*pad, *behind]
    if layer.method == pb.PoolingParameter.MAX:
        return str(graph.node("MaxPool", [value], kernel_shape=list(kernel), strides=list(stride), pads=pads))
    if any(pads):
        value = graph.node("Pad", [value, graph.integers([0, 0, *pads[:2], 0, 0, *pads[2:]])])
    value = graph.node("AveragePool", [value], kernel_shape=list(kernel), strides=list(stride))
    counts = [_clipped(*numbers) for numbers in zip(out, stride, kernel, sizes, pad)]
    factor = kernel[0] * kernel[1] / np.outer(*counts)
    return str(value if (factor == 1).all() else graph.node("Mul", [value, graph.constant(factor)]))


def _clipped(out: int, stride: int, kernel: int, size: int, pad: int) -> np.ndarray:
    """Pixels of each window along one axis, padding included, what reaches behind the padding not."""
    start = np.arange(out) * stride
    return np.minimum(start + kernel, size + 2 * pad) - start


def spp(graph: Graph, layer: Any, inputs: Names, bottom: Blobs, top: Blobs) -> Names:
    parts = [
        graph.node("Flatten", [_pool(graph, pool, inputs[0], bottom[0], pooled.shape)], axis=1)
        for pool, pooled in layer.pools
    ]
    if len(parts) == 1:
        return [graph.reshape(layer, parts[0], top[0].shape[:2], top[0].shape)]
    return [graph.node("Concat", parts, axis=1)]


def lrn(graph: Graph, layer: Any, inputs: Names, bottom: Blobs, top: Blobs) -> Names:
    param = layer.param.lrn_param
    n = param.local_size
    if layer.across:
        return [graph.node("LRN", inputs, size=n, alpha=param.alpha, beta=param.beta, bias=param.k)]
    squares = graph.node("Mul", [inputs[0], inputs[0]])
    pads: dict[str, Any] = {"kernel_shape": [n, n], "strides": [1, 1], "pads": [n // 2] * 4, "count_include_pad": 1}
    mean = graph.node("AveragePool", [squares], **pads)
    s = graph.node("Add", [graph.node("Mul", [mean, graph.constant(param.alpha)]), graph.constant(1)])
    return [graph.node("Div", [inputs[0], graph.node("Pow", [s, graph.constant(param.beta)])])]


# -- value by value ----------------------------------------------------------------------------------------------------


def relu(graph: Graph, layer: Any, inputs: Names, bottom: Blobs, top: Blobs) -> Names:
    slope = layer.param.relu_param.negative_slope
    return [graph.node("LeakyRelu", inputs, alpha=slope) if slope else graph.node("Relu", inputs)]


def relu6(graph: Graph, layer: Any, inputs: Names, bottom: Blobs, top: Blobs) -> Names:
    return [graph.node("Clip", [inputs[0], graph.constant(0), graph.constant(6)])]


def clip(graph: Graph, layer: Any, inputs: Names, bottom: Blobs, top: Blobs) -> Names:
    param = layer.param.clip_param
    return [graph.node("Clip", [inputs[0], graph.constant(param.min), graph.constant(param.max)])]


def elu(graph: Graph, layer: Any, inputs: Names, bottom: Blobs, top: Blobs) -> Names:
    return [graph.node("Elu", inputs, alpha=layer.param.elu_param.alpha)]


def swish(graph: Graph, layer: Any, inputs: Names, bottom: Blobs, top: Blobs) -> Names:
    beta = layer.param.swish_param.beta
    steep = inputs[0] if beta == 1 else graph.node("Mul", [inputs[0], graph.constant(beta)])
    return [graph.node("Mul", [inputs[0], graph.node("Sigmoid", [steep])])]


def power(graph: Graph, layer: Any, inputs: Names, bottom: Blobs, top: Blobs) -> Names:
    param = layer.param.power_param
    value = _line(graph, inputs[0], param.scale, param.shift)
    return [value if param.power == 1 else graph.node("Pow", [value, graph.constant(param.power)])]


def exp(graph: Graph, layer: Any, inputs: Names, bottom: Blobs, top: Blobs) -> Names:
    param = layer.param.exp_param
    log_base = 1.0 if param.base == -1 else float(np.log(param.base))
    return [graph.node("Exp", [_line(graph, inputs[0], log_base * param.scale, log_base * param.shift)])]


def log(graph: Graph, layer: Any, inputs: Names, bottom: Blobs, top: Blobs) -> Names:
    param = layer.param.log_param
    value = graph.node("Log", [_line(graph, inputs[0], param.scale, param.shift)])
    return [value if param.base == -1 else graph.node("Mul", [value, graph.constant(1 / np.log(param.base))])]


def _line(graph: Graph, value: str, factor: float, summand: float) -> str:
    """factor value + summand."""
    if factor != 1:
        value = graph.node("Mul", [value, graph.constant(factor)])
    return str(graph.node("Add", [value, graph.constant(summand)]) if summand else value)


def threshold(graph: Graph, layer: Any, inputs: Names, bottom: Blobs, top: Blobs) -> Names:
    above = graph.node("Greater", [inputs[0], graph.constant(layer.param.threshold_param.threshold)])
    return [graph.node("Cast", [above], to=TensorProto.FLOAT)]


def simple(operator: str) -> Writer:
    """For layers that are one operator without options."""

    def write(graph: Graph, layer: Any, inputs: Names, bottom: Blobs, top: Blobs) -> Names:
        return [graph.node(operator, inputs)]

    return write


def same(graph: Graph, layer: Any, inputs: Names, bottom: Blobs, top: Blobs) -> Names:
    """Every top is the bottom (Dropout in TEST, Split); nothing where there is none (Silence)."""
    return [inputs[0] for _ in top]


# -- several blobs -----------------------------------------------------------------------------------------------------


def eltwise(graph: Graph, layer: Any, inputs: Names, bottom: Blobs, top: Blobs) -> Names:
    operation = layer.param.eltwise_param.operation
    if operation == pb.EltwiseParameter.MAX:
        return [graph.node("Max", inputs)]
    if operation == pb.EltwiseParameter.SUM:
        inputs = [_line(graph, name, float(coeff), 0) for name, coeff in zip(inputs, layer.coeffs)]
    operator = "Mul" if operation == pb.EltwiseParameter.PROD else "Add"
    value = inputs[0]
    for other in inputs[1:]:
        value = graph.node(operator, [value, other])
    return [value]


def axpy(graph: Graph, layer: Any, inputs: Names, bottom: Blobs, top: Blobs) -> Names:
    a, x, y = inputs
    if bottom[0].num_axes < bottom[1].num_axes:
        a = graph.node("Unsqueeze", [a, graph.integers(range(bottom[0].num_axes, bottom[1].num_axes))])
    return [graph.node("Add", [graph.node("Mul", [a, x]), y])]


def concat(graph: Graph, layer: Any, inputs: Names, bottom: Blobs, top: Blobs) -> Names:
    if layer.axis == 0:
        graph.fix_batch(layer)
    return [graph.node("Concat", inputs, axis=layer.axis)]


def slice_(graph: Graph, layer: Any, inputs: Names, bottom: Blobs, top: Blobs) -> Names:
    if len(top) == 1:
        return inputs
    if layer.axis == 0:
        graph.fix_batch(layer)
    return list(graph.node("Split", [inputs[0], graph.integers(layer.sizes)], outputs=len(top), axis=layer.axis))


def batch_reindex(graph: Graph, layer: Any, inputs: Names, bottom: Blobs, top: Blobs) -> Names:
    index = graph.node("Cast", [inputs[1]], to=TensorProto.INT64)
    graph.fix_batch(layer)
    return [graph.node("Gather", [inputs[0], index], axis=0)]


# -- shapes ------------------------------------------------------------------------------------------------------------


def reshape(graph: Graph, layer: Any, inputs: Names, bottom: Blobs, top: Blobs) -> Names:
    return [graph.reshape(layer, inputs[0], bottom[0].shape, top[0].shape)]


def permute(graph: Graph, layer: Any, inputs: Names, bottom: Blobs, top: Blobs) -> Names:
    if layer.order[0] != 0:
        graph.fix_batch(layer)
    return [graph.node("Transpose", inputs, perm=list(layer.order))]


def shuffle_channel(graph: Graph, layer: Any, inputs: Names, bottom: Blobs, top: Blobs) -> Names:
    shape = bottom[0].shape
    group = layer.param.shuffle_channel_param.group
    apart = (shape[0], group, shape[1] // group, *shape[2:])
    value = graph.reshape(layer, inputs[0], shape, apart)
    value = graph.node("Transpose", [value], perm=[0, 2, 1, *range(3, len(apart))])
    return [graph.reshape(layer, value, apart, shape)]


def crop(graph: Graph, layer: Any, inputs: Names, bottom: Blobs, top: Blobs) -> Names:
    cut = [(axis, s.start, s.stop) for axis, s in enumerate(layer.window) if s != slice(None)]
    return [_cut(graph, layer, inputs[0], bottom[0], cut)]


def _cut(graph: Graph, layer: Any, value: str, x: Blob, cut: list[tuple[int, int, int]]) -> str:
    """The value from start to stop along each axis."""
    cut = [(axis, start, stop) for axis, start, stop in cut if (start, stop) != (0, x.shape[axis])]
    if not cut:
        return value
    axes, starts, stops = zip(*cut)
    if 0 in axes:
        graph.fix_batch(layer)
    return str(graph.node("Slice", [value, *map(graph.integers, (starts, stops, axes))]))


def tile(graph: Graph, layer: Any, inputs: Names, bottom: Blobs, top: Blobs) -> Names:
    repeats = [after // before for before, after in zip(bottom[0].shape, top[0].shape)]
    if repeats[0] != 1:
        graph.fix_batch(layer)
    return [graph.node("Tile", [inputs[0], graph.integers(repeats)])]


def upsample(graph: Graph, layer: Any, inputs: Names, bottom: Blobs, top: Blobs) -> Names:
    if len(bottom) > 1:
        raise unsupported(layer, "Upsample by the places of a MAX pooling")
    scales = [1, 1, *(after / before for before, after in zip(bottom[0].shape[2:], top[0].shape[2:]))]
    options: dict[str, Any] = {
        "mode": "nearest",
        "coordinate_transformation_mode": "asymmetric",
        "nearest_mode": "floor",
    }
    return [graph.node("Resize", [inputs[0], "", graph.constant(scales)], **options)]


def interp(graph: Graph, layer: Any, inputs: Names, bottom: Blobs, top: Blobs) -> Names:
    param = layer.param.interp_param
    if param.interp_type != "bilinear":
        raise unsupported(layer, f"Interp with interp_type {param.interp_type}")
    x = bottom[0]
    cut = [(axis, -param.pad_beg, x.shape[axis] + param.pad_end) for axis in (2, 3)]
    value = _cut(graph, layer, inputs[0], x, cut)
    options: dict[str, Any] = {"mode": "linear", "coordinate_transformation_mode": "align_corners", "axes": [2, 3]}
    return [graph.node("Resize", [value, "", "", graph.integers(top[0].shape[2:])], **options)]


# -- over axes ---------------------------------------------------------------------------------------------------------


def softmax(graph: Graph, layer: Any, inputs: Names, bottom: Blobs, top: Blobs) -> Names:
    return [graph.node("Softmax", inputs, axis=layer.param.softmax_param.axis)]


def arg_max(graph: Graph, layer: Any, inputs: Names, bottom: Blobs, top: Blobs) -> Names:
    param = layer.param.argmax_param
    axis = param.axis if layer.along else 1
    value = inputs[0] if layer.along else graph.node("Flatten", inputs, axis=1)
    if param.top_k == 1 and not param.out_max_val:  # on a tie the later one, as in the layer
        index = graph.node("ArgMax", [value], axis=axis, keepdims=1, select_last_index=1)
        values = ""
    else:
        values, index = graph.node("TopK", [value, graph.integers([param.top_k])], outputs=2, axis=axis)
    result = graph.node("Cast", [index], to=TensorProto.FLOAT)
    if layer.along:
        return [values if param.out_max_val else result]
    if param.out_max_val:
        result = graph.node("Concat", [result, values], axis=1)
    return [graph.reshape(layer, result, (bottom[0].num,), top[0].shape)]


def reduction(graph: Graph, layer: Any, inputs: Names, bottom: Blobs, top: Blobs) -> Names:
    param, axes = layer.param.reduction_param, bottom[0].num_axes
    first = param.axis if param.axis >= 0 else param.axis + axes
    if first == 0:
        graph.fix_batch(layer)
    operators = {
        pb.ReductionParameter.SUM: "ReduceSum",
        pb.ReductionParameter.ASUM: "ReduceL1",
        pb.ReductionParameter.SUMSQ: "ReduceSumSquare",
        pb.ReductionParameter.MEAN: "ReduceMean",
    }
    over = graph.integers(range(first, axes))
    value = graph.node(operators[param.operation], [inputs[0], over], keepdims=0) if first < axes else inputs[0]
    return [_line(graph, value, param.coeff, 0)]


def mvn(graph: Graph, layer: Any, inputs: Names, bottom: Blobs, top: Blobs) -> Names:
    param, x = layer.param.mvn_param, bottom[0]
    axes = graph.integers(range(1 if param.across_channels else 2, x.num_axes))
    centred = graph.node("Sub", [inputs[0], graph.node("ReduceMean", [inputs[0], axes])])
    if not param.normalize_variance:
        return [centred]
    variance = graph.node("ReduceMean", [graph.node("Mul", [centred, centred]), axes])
    deviation = graph.node("Add", [graph.node("Sqrt", [variance]), graph.constant(param.eps)])
    return [graph.node("Div", [centred, deviation])]


def normalize(graph: Graph, layer: Any, inputs: Names, bottom: Blobs, top: Blobs) -> Names:
    param, x = layer.param.norm_param, bottom[0]
    axes = graph.integers(range(1, x.num_axes) if param.across_spatial else [1])
    squares = graph.node("Add", [graph.node("ReduceSumSquare", [inputs[0], axes]), graph.constant(param.eps)])
    scales = layer.blobs[0].data.reshape(-1, *(1,) * (x.num_axes - 2))
    value = graph.node("Div", [inputs[0], graph.node("Sqrt", [squares])])
    return [graph.node("Mul", [value, graph.param(layer, 0, scales, "spread")])]


def parameter(graph: Graph, layer: Any, inputs: Names, bottom: Blobs, top: Blobs) -> Names:
    return [graph.node("Identity", [graph.param(layer, 0)])]


WRITERS: dict[str, Writer] = {
    "AbsVal": simple("Abs"),
    "ArgMax": arg_max,
    "Axpy": axpy,
    "BatchNorm": batch_norm,
    "BatchReindex": batch_reindex,
    "Bias": bias,
    "BNLL": simple("Softplus"),
    "Clip": clip,
    "Concat": concat,
    "Convolution": convolution,
    "ConvolutionDepthwise": convolution,
    "Crop": crop,
    "Deconvolution": deconvolution,
    "DepthwiseConvolution": convolution,
    "Dropout": same,
    "Eltwise": eltwise,
    "ELU": elu,
    "Embed": embed,
    "Exp": exp,
    "Flatten": reshape,
    "InnerProduct": inner_product,
    "Interp": interp,
    "Log": log,
    "LRN": lrn,
    "MVN": mvn,
    "Normalize": normalize,
    "Parameter": parameter,
    "Permute": permute,
    "Pooling": pooling,
    "Power": power,
    "PReLU": prelu,
    "Reduction": reduction,
    "ReLU": relu,
    "ReLU6": relu6,
    "Reshape": reshape,
    "Scale": scale,
    "ShuffleChannel": shuffle_channel,
    "Sigmoid": simple("Sigmoid"),
    "Silence": same,
    "Slice": slice_,
    "Softmax": softmax,
    "Split": same,
    "SPP": spp,
    "Swish": swish,
    "TanH": simple("Tanh"),
    "Threshold": threshold,
    "Tile": tile,
    "Upsample": upsample,
}
"""Layer type -> how it is written."""
