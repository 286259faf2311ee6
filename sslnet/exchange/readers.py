"""Reads ONNX operators: one function for each operator adds the layers that compute the same as a node.

Each function takes (builder, node). ``DefinitionBuilder`` (``builder.py``) knows the blob of each value, and adds layers.
"""

from __future__ import annotations

from collections.abc import Callable

from sslnet import sslnet_pb2 as pb
from sslnet.exchange.arithmetic_readers import arithmetic, clip, eltwise, minimum, pow_, power_of
from sslnet.exchange.attributes import write_field
from sslnet.exchange.axis_readers import arg_max, log_softmax, reduce, reduce_min, softmax
from sslnet.exchange.builder import DefinitionBuilder
from sslnet.exchange.chain import Chain
from sslnet.exchange.logic_readers import both, compare, equal, not_, sign, where
from sslnet.exchange.node import OnnxNode
from sslnet.exchange.norm_readers import (
    batch_normalization,
    group_normalization,
    instance_normalization,
    layer_normalization,
    lp_normalization,
)
from sslnet.exchange.resample_readers import pad, resize
from sslnet.exchange.shape_readers import (
    alias,
    concat,
    depth_to_space,
    dropout,
    expand,
    flatten,
    reshape,
    space_to_depth,
    split,
    tile,
    transpose,
)
from sslnet.exchange.slice_readers import gather, slice_
from sslnet.exchange.weight_readers import gemm, mat_mul, p_relu
from sslnet.exchange.window_readers import (
    average_pool,
    conv,
    conv_transpose,
    global_pool,
    lrn,
    max_pool,
)
from sslnet.layers import LAYERS
from sslnet.layers.onnx import OnnxOperator

Reader = Callable[[DefinitionBuilder, OnnxNode], None]


def one_layer(kind: str, operator: OnnxOperator) -> Reader:
    """Reads an operator that equals a single layer: its attributes become fields of the layer's definition."""

    def read(builder: DefinitionBuilder, node: OnnxNode) -> None:
        layer = builder.layer(node, kind)
        for attribute, path in operator.fields.items():
            write_field(node, attribute, layer, path)

    return read


def celu(builder: DefinitionBuilder, node: OnnxNode) -> None:
    """Reads Celu as alpha ELU(x / alpha)."""
    alpha = node.number("alpha", 1.0)
    chain = Chain(builder, node)
    if alpha != 1:
        chain.power("over_alpha", scale=1 / alpha)
    chain.add("ELU")
    if alpha != 1:
        chain.power("alpha", scale=alpha)
    chain.end()


READERS: dict[str, Reader] = {
    "Add": arithmetic("Add"),
    "And": both("And"),
    "ArgMax": arg_max,
    "AveragePool": average_pool,
    "BatchNormalization": batch_normalization,
    "Cast": alias,
    "CastLike": alias,
    "Celu": celu,
    "Clip": clip,
    "Concat": concat,
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "DepthToSpace": depth_to_space,
    "Div": arithmetic("Div"),
    "Dropout": dropout,
    "Equal": equal,
    "Expand": expand,
    "Flatten": flatten,
    "Gather": gather,
    "Gemm": gemm,
    "GlobalAveragePool": global_pool(pb.PoolingParameter.AVE),
    "GlobalMaxPool": global_pool(pb.PoolingParameter.MAX),
    "Greater": compare(False, negated=False),
    "GreaterOrEqual": compare(True, negated=True),
    "GroupNormalization": group_normalization,
    "Identity": alias,
    "InstanceNormalization": instance_normalization,
    "LayerNormalization": layer_normalization,
    "Less": compare(True, negated=False),
    "LessOrEqual": compare(False, negated=True),
    "LogSoftmax": log_softmax,
    "LpNormalization": lp_normalization,
    "LRN": lrn,
    "MatMul": mat_mul,
    "Max": eltwise(pb.EltwiseParameter.MAX),
    "MaxPool": max_pool,
    "Min": minimum,
    "Mul": arithmetic("Mul"),
    "Neg": power_of(scale=-1),
    "Not": not_,
    "Or": both("Or"),
    "Pad": pad,
    "Pow": pow_,
    "PRelu": p_relu,
    "Reciprocal": power_of(power=-1),
    "ReduceL1": reduce("L1"),
    "ReduceL2": reduce("L2"),
    "ReduceMax": reduce("MAX"),
    "ReduceMean": reduce("MEAN"),
    "ReduceMin": reduce_min,
    "ReduceSum": reduce("SUM"),
    "ReduceSumSquare": reduce("SQUARES"),
    "Reshape": reshape,
    "Resize": resize,
    "Sign": sign,
    "Slice": slice_,
    "Softmax": softmax,
    "SpaceToDepth": space_to_depth,
    "Split": split,
    "Sqrt": power_of(power=0.5),
    "Squeeze": reshape,
    "Sub": arithmetic("Sub"),
    "Sum": eltwise(pb.EltwiseParameter.SUM),
    "Tile": tile,
    "Transpose": transpose,
    "Unsqueeze": reshape,
    "Upsample": resize,
    "Where": where,
    "Xor": both("Xor"),
    **{operator.name: one_layer(kind, operator) for kind, layer in LAYERS.items() for operator in layer.ONNX},
}
"""Operator -> its reader; operators that equal a single layer are listed in the layer's ``ONNX``."""
