"""The nets on which every layer type is checked, in alphabetical order of type; `harness.Case` says how to write one."""

from __future__ import annotations

import numpy as np

from sslnet import sslnet_pb2 as pb

from .fork_cases import FORKS
from .harness import Case, inputs

X = inputs(x=(2, 3, 4, 5))
IMAGES = inputs(x=(2, 4, 5, 6))
SCORES = inputs(x=(5, 4), label=(5,))
MAPS = inputs(x=(2, 4, 3, 2), label=(2, 1, 3, 2))


def single(type_: str, param: str = "", x: str = X) -> str:
    """The layer between an input x and the output y."""
    return x + f'layer {{ name: "l" type: "{type_}" bottom: "x" top: "y" {param} }}'


def in_place(type_: str, param: str = "") -> str:
    """The layer in place behind another one."""
    convolution = 'type: "Convolution" bottom: "x" top: "y" convolution_param { num_output: 3 kernel_size: 2 }'
    return (
        IMAGES
        + f'layer {{ name: "c" {convolution} }} layer {{ name: "l" type: "{type_}" bottom: "y" top: "y" {param} }}'
    )


def recurrent(type_: str, *hidden: str) -> list[Case | str]:
    """The recurrent layer plainly, with a static input, and with its hidden states outside."""
    bottoms = "".join(f' bottom: "{name}"' for name in hidden)
    tops = "".join(f' top: "{name}_end"' for name in hidden)
    shapes = {"x": (4, 2, 3), "cont": (4, 2)}
    plain = (
        f'layer {{ name: "l" type: "{type_}" bottom: "x" bottom: "cont" top: "y" recurrent_param {{ num_output: 3 }} }}'
    )
    static = f'layer {{ name: "l" type: "{type_}" bottom: "x" bottom: "cont" bottom: "s" top: "y" recurrent_param {{ num_output: 2 }} }}'
    exposed = (
        f'layer {{ name: "l" type: "{type_}" bottom: "x" bottom: "cont"{bottoms} top: "y"{tops}'
        " recurrent_param { num_output: 3 expose_hidden: true } }"
    )
    values = {"cont": [[1, 0], [1, 1], [0, 1], [1, 1]]}
    return [
        Case(inputs(**shapes) + plain, values=values),
        Case(inputs(**shapes, s=(2, 5)) + static, values=values),
        Case(inputs(**shapes, **dict.fromkeys(hidden, (1, 2, 3))) + exposed, values=values),
    ]


REGIONS = {"rois": [[0, 0, 0, 4, 3], [1, 1, 2, 4, 5], [0, -3, 1, 9, 9], [1, 3, 3, 3, 3]]}


def smooth_l1(type_: str) -> list[Case | str]:
    """The loss without weights, with inside weights and both, and with a sum for each image."""
    names = ["a", "b", "positive_inside", "positive_outside"]
    bottoms = [" ".join(f'bottom: "{name}"' for name in names[:count]) for count in (2, 3, 4)]
    layers = [
        f'layer {{ name: "l" type: "{type_}" {each} top: "y" smooth_l1_loss_param {{ sigma: 0.8 }} }}'
        for each in bottoms
    ]
    texts = [inputs(**dict.fromkeys(names[:count], (3, 4, 2))) + layer for count, layer in zip((2, 3, 4), layers)]
    several = Case(texts[0].replace('top: "y"', 'top: "y" top: "each"'), ignore=("each",))
    return [*texts, several]


PRIORS = [[[0.1, 0.1, 0.5, 0.6, 0.3, 0.2, 0.9, 0.8, 0.0, 0.5, 0.4, 1.0, 0.6, 0.1, 1.1, 0.5], [0.1, 0.1, 0.2, 0.2] * 4]]
OBJECTS = [[[[0, 1, 0, 0.1, 0.15, 0.5, 0.5, 0], [0, 2, 0, 0.35, 0.2, 0.8, 0.8, 0], [1, 2, 0, 0.05, 0.5, 0.4, 0.9, 1]]]]


def multibox(sets: int, loss: str, param: str) -> Case:
    """MultiBoxLoss of four priors and three classes, with ``sets`` locations a prior."""
    return Case(
        inputs(loc=(2, 16 * sets), conf=(2, 12), priors=(1, 2, 16), label=(1, 1, 3, 8))
        + 'layer { name: "l" type: "MultiBoxLoss" bottom: "loc" bottom: "conf" bottom: "priors" bottom: "label" top: "y"'
        f" propagate_down: true propagate_down: true propagate_down: false propagate_down: false"
        f" loss_param {{ {loss} }} multibox_loss_param {{ num_classes: 3 code_type: CENTER_SIZE {param} }} }}",
        values={"priors": PRIORS, "label": OBJECTS},
    )


CASES: dict[str, list[Case | str]] = {
    "AbsVal": [single("AbsVal"), in_place("AbsVal")],
    "Axpy": [
        inputs(a=a, x=(2, 3, 4, 5), b=(2, 3, 4, 5))
        + 'layer { name: "l" type: "Axpy" bottom: "a" bottom: "x" bottom: "b" top: "y" }'
        for a in ((2, 3), (2, 3, 1, 1))
    ],
    "BatchNorm": [
        single("BatchNorm", x=inputs(x=(4, 3, 2, 2))),
        single("BatchNorm", "batch_norm_param { eps: 0.1 }", x=inputs(x=(6, 4))),
        single("BatchNorm", x=inputs(x=(6,))),
        in_place("BatchNorm"),
        single("BatchNorm", "batch_norm_param { use_global_stats: true }"),
        Case(single("BatchNorm"), phase=pb.TEST),
        Case(in_place("BatchNorm", "batch_norm_param { use_global_stats: false }"), phase=pb.TEST),
    ],
    "BatchReindex": [
        inputs(x=(4, 3, 2), label=(6,))
        + 'layer { name: "l" type: "BatchReindex" bottom: "x" bottom: "label" top: "y" }',
    ],
    "Bias": [
        X + 'layer { name: "l" type: "Bias" bottom: "x" top: "y" }',
        X + 'layer { name: "l" type: "Bias" bottom: "x" top: "y" bias_param { axis: 0 num_axes: -1 } }',
        X + 'layer { name: "l" type: "Bias" bottom: "x" top: "y" bias_param { axis: -2 num_axes: 2 } }',
        X + 'layer { name: "l" type: "Bias" bottom: "x" top: "y" bias_param { num_axes: 0 } }',
        inputs(x=(2, 3, 4, 5), b=(3, 4)) + 'layer { name: "l" type: "Bias" bottom: "x" bottom: "b" top: "y" }',
        inputs(x=(4, 3))
        + 'layer { name: "i" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 3 } }'
        + 'layer { name: "l" type: "Bias" bottom: "y" top: "y" }',
    ],
    "BNLL": [single("BNLL"), in_place("BNLL")],
    "Clip": [
        single("Clip", "clip_param { min: -0.5 max: 0.8 }"),
        in_place("Clip", "clip_param { min: -0.5 max: 0.8 }"),
    ],
    "Concat": [
        inputs(a=(2, 3, 4), b=(2, 1, 4), c=(2, 2, 4))
        + 'layer { name: "l" type: "Concat" bottom: "a" bottom: "b" bottom: "c" top: "y" }',
        inputs(a=(2, 3), b=(4, 3))
        + 'layer { name: "l" type: "Concat" bottom: "a" bottom: "b" top: "y" concat_param { axis: 0 } }',
        inputs(a=(2, 3, 4), b=(2, 3, 1))
        + 'layer { name: "l" type: "Concat" bottom: "a" bottom: "b" top: "y" concat_param { axis: -1 } }',
        single("Concat"),
    ],
    "Constant": [
        single("Constant", "constant_param { shape { dim: 4 dim: 2 } filler { value: 0.7 } }"),
        single("Constant", "constant_param { shape { } }"),
    ],
    "ContrastiveLoss": [
        # Inside the margin Caffe's gradient is not quite that of its loss: the golden case compares it.
        Case(
            inputs(a=(5, 3), b=(5, 3), label=(5,))
            + 'layer { name: "l" type: "ContrastiveLoss" bottom: "a" bottom: "b" bottom: "label" top: "loss"'
            f" contrastive_loss_param {{ {param} }} }}",
            values={"label": [1, 0, 1, 0, 0]},
        )
        for param in ("margin: 0.01", "margin: 9 legacy_version: true")
    ],
    "Convolution": [
        IMAGES + 'layer { name: "l" type: "Convolution" bottom: "x" top: "y" convolution_param {'
        " num_output: 3 kernel_size: 3 pad: 1 } }",
        IMAGES + 'layer { name: "l" type: "Convolution" bottom: "x" top: "y" convolution_param {'
        " num_output: 6 kernel_h: 2 kernel_w: 3 stride_h: 2 stride_w: 1 pad_h: 0 pad_w: 2 group: 2 } }",
        IMAGES + 'layer { name: "l" type: "Convolution" bottom: "x" top: "y" convolution_param {'
        " num_output: 4 kernel_size: 2 dilation: 2 group: 4 bias_term: false } }",
        IMAGES + 'layer { name: "l" type: "Convolution" bottom: "x" top: "y" convolution_param {'
        " num_output: 3 kernel_size: 1 } }",
        inputs(x=(2, 2, 7)) + 'layer { name: "l" type: "Convolution" bottom: "x" top: "y" convolution_param {'
        " num_output: 3 kernel_size: 3 stride: 2 pad: 1 } }",
        inputs(x=(1, 2, 3, 4, 3)) + 'layer { name: "l" type: "Convolution" bottom: "x" top: "y" convolution_param {'
        " num_output: 2 kernel_size: 2 kernel_size: 3 kernel_size: 2 pad: 0 pad: 1 pad: 0 } }",
        inputs(x=(3, 2)) + 'layer { name: "l" type: "Convolution" bottom: "x" top: "y" convolution_param {'
        " num_output: 3 } }",
        inputs(x=(2, 2, 3, 4, 3)) + 'layer { name: "l" type: "Convolution" bottom: "x" top: "y" convolution_param {'
        " axis: 2 num_output: 2 kernel_size: 2 } }",
        inputs(a=(2, 3, 4, 4), b=(2, 3, 4, 4))
        + 'layer { name: "l" type: "Convolution" bottom: "a" bottom: "b" top: "y" top: "z" convolution_param {'
        " num_output: 2 kernel_size: 3 } }",
        IMAGES + 'layer { name: "l" type: "Convolution" bottom: "x" top: "y" convolution_param {'
        " num_output: 3 kernel_size: 3 kernel_size: 2 stride: 2 pad_type: SAME } }",
        IMAGES + 'layer { name: "l" type: "Convolution" bottom: "x" top: "y" loss_weight: 0.5 convolution_param {'
        " num_output: 2 kernel_size: 3 } }",
    ],
    "ConvolutionDepthwise": [
        single("ConvolutionDepthwise", "convolution_param { num_output: 3 kernel_size: 2 stride: 2 }"),
    ],
    "Crop": [
        inputs(x=(2, 3, 6, 5), size=(1, 1, 4, 5))
        + 'layer { name: "l" type: "Crop" bottom: "x" bottom: "size" top: "y" crop_param { offset: 1 offset: 0 } }',
        inputs(x=(2, 3, 4), size=(2, 2, 3))
        + 'layer { name: "l" type: "Crop" bottom: "x" bottom: "size" top: "y" crop_param { axis: -2 offset: 1 } }',
    ],
    "Deconvolution": [
        single("Deconvolution", f"convolution_param {{ {param} }}", x=inputs(x=(2, 4, 3, 4)))
        for param in (
            "num_output: 3 kernel_size: 3 stride: 2 pad: 1",
            "num_output: 6 kernel_h: 2 kernel_w: 3 stride_h: 3 stride_w: 1 pad_h: 0 pad_w: 1 group: 2",
            "num_output: 4 kernel_size: 2 dilation: 2 group: 4 bias_term: false",
            "num_output: 3 kernel_size: 3 kernel_size: 2 stride: 2 stride: 3 pad_type: SAME",
            "num_output: 3 kernel_size: 3 stride: 2 stride: 3 pad: 1 output_pad: 1 output_pad: 2",
        )
    ]
    + [
        single("Deconvolution", "convolution_param { num_output: 3 kernel_size: 3 stride: 2 }", x=inputs(x=(2, 2, 5))),
        inputs(a=(2, 3, 3, 2), b=(2, 3, 3, 2))
        + 'layer { name: "l" type: "Deconvolution" bottom: "a" bottom: "b" top: "y" top: "z" convolution_param {'
        " num_output: 2 kernel_size: 3 } }",
    ],
    "DepthwiseConvolution": [
        single("DepthwiseConvolution", "convolution_param { num_output: 6 kernel_size: 3 pad: 1 }"),
        single("DepthwiseConvolution", "convolution_param { num_output: 6 kernel_size: 3 stride: 2 pad_type: SAME }"),
    ],
    "Dropout": [
        X + 'layer { name: "l" type: "Dropout" bottom: "x" top: "y" }',
        X + 'layer { name: "l" type: "Dropout" bottom: "x" top: "y" dropout_param { dropout_ratio: 0.8 } }',
        Case(X + 'layer { name: "l" type: "Dropout" bottom: "x" top: "y" }', phase=pb.TEST),
        X + 'layer { name: "i" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 9 } }'
        'layer { name: "l" type: "Dropout" bottom: "y" top: "y" }',
    ],
    "Eltwise": [
        inputs(a=(2, 3), b=(2, 3), c=(2, 3))
        + 'layer { name: "l" type: "Eltwise" bottom: "a" bottom: "b" bottom: "c" top: "y"'
        f" eltwise_param {{ {param} }} }}"
        for param in (
            "",
            "coeff: 2 coeff: -0.5 coeff: 1",
            "operation: PROD",
            "operation: PROD stable_prod_grad: false",
            "operation: MAX",
        )
    ]
    + [X + 'layer { name: "l" type: "Eltwise" bottom: "x" bottom: "x" top: "y" eltwise_param { operation: PROD } }'],
    "ELU": [
        single("ELU"),
        single("ELU", "elu_param { alpha: 0.3 }"),
        in_place("ELU", "elu_param { alpha: 0.3 }"),
        in_place("ELU", "elu_param { alpha: -0.7 }"),
    ],
    "Embed": [
        inputs(label=(3, 4)) + f'layer {{ name: "l" type: "Embed" bottom: "label" top: "y" embed_param {{ {param} }} }}'
        for param in ("num_output: 5 input_dim: 3", "num_output: 2 input_dim: 4 bias_term: false")
    ],
    "EuclideanLoss": [
        inputs(a=(3, 4), b=(3, 4)) + 'layer { name: "l" type: "EuclideanLoss" bottom: "a" bottom: "b" top: "loss" }',
        inputs(a=(3, 4, 1), b=(3, 2, 2))
        + 'layer { name: "l" type: "EuclideanLoss" bottom: "a" bottom: "b" loss_weight: -2.5 }',
    ],
    "Exp": [
        single("Exp"),
        single("Exp", "exp_param { base: 2 scale: 0.7 shift: -1 }"),
        in_place("Exp", "exp_param { scale: 0.2 shift: 0.5 }"),
    ],
    "Filter": [
        Case(
            inputs(a=(4, 3), b=(4, 2, 2), label=(4,))
            + 'layer { name: "l" type: "Filter" bottom: "a" bottom: "b" bottom: "label" top: "y" top: "z" }',
            values={"label": np.ones(4)},
        ),
        single("Filter", "param { lr_mult: 0 } filter_param { num_output: 2 }"),
    ],
    "Flatten": [single("Flatten"), single("Flatten", "flatten_param { axis: -3 end_axis: -2 }")],
    "GELU": [
        single("GELU"),
        single("GELU", "gelu_param { approximate: TANH }"),
        in_place("GELU"),
        in_place("GELU", "gelu_param { approximate: TANH }"),
    ],
    "GroupNorm": [
        single("GroupNorm"),
        single("GroupNorm", "group_norm_param { group: 2 eps: 0.1 }", x=IMAGES),
        single("GroupNorm", "group_norm_param { group: 2 }", x=inputs(x=(3, 6))),
    ],
    "HardSigmoid": [
        single("HardSigmoid"),
        in_place("HardSigmoid", "hard_sigmoid_param { alpha: 0.6 beta: 0.3 }"),
    ],
    "HardSwish": [single("HardSwish"), in_place("HardSwish")],
    "HingeLoss": [
        SCORES + 'layer { name: "l" type: "HingeLoss" bottom: "x" bottom: "label" loss_weight: 0.3 }',
        SCORES + 'layer { name: "l" type: "HingeLoss" bottom: "x" bottom: "label" hinge_loss_param { norm: L2 } }',
    ],
    "Im2col": [
        single("Im2col", "convolution_param { kernel_size: 3 stride: 2 pad: 1 }", x=IMAGES),
        single("Im2col", "convolution_param { kernel_size: 2 dilation: 2 }", x=inputs(x=(2, 2, 6))),
    ],
    "InfogainLoss": [
        inputs(x=(5, 4), label=(5,), positive=(4, 4))
        + 'layer { name: "l" type: "InfogainLoss" bottom: "x" bottom: "label" bottom: "positive" }',
        inputs(x=(2, 4, 3, 2), label=(2, 1, 3, 2), positive=(1, 1, 4, 4))
        + 'layer { name: "l" type: "InfogainLoss" bottom: "x" bottom: "label" bottom: "positive" loss_weight: 2'
        " loss_param { ignore_label: 1 } }",
    ],
    "InnerProduct": [
        X + 'layer { name: "l" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 3 } }',
        X + 'layer { name: "l" type: "InnerProduct" bottom: "x" top: "y" inner_product_param {'
        " num_output: 7 axis: -1 bias_term: false } }",
        X + 'layer { name: "l" type: "InnerProduct" bottom: "x" top: "y" inner_product_param {'
        " num_output: 3 transpose: true } }",
        inputs(x=(3, 2)) + 'layer { name: "l" type: "InnerProduct" bottom: "x" top: "y" inner_product_param {'
        " num_output: 4 axis: 0 } }",
        X + 'layer { name: "l" type: "InnerProduct" bottom: "x" top: "y" loss_weight: 3'
        " inner_product_param { num_output: 2 } }",
        inputs(x=(3, 2)) + 'layer { name: "l" type: "InnerProduct" bottom: "x" top: "y" param { lr_mult: 0 }'
        " inner_product_param { num_output: 4 } }",
    ],
    "Interp": [
        single("Interp", f"interp_param {{ {param} }}")
        for param in (
            "height: 7 width: 3",
            "zoom_factor: 3",
            "shrink_factor: 2 pad_beg: -1",
            'height: 3 width: 9 interp_type: "nearest_neighbor"',
        )
    ]
    + [
        inputs(x=(2, 3, 4, 5), size=(1, 2, 6, 3))
        + 'layer { name: "l" type: "Interp" bottom: "x" bottom: "size" top: "y" interp_param { use_blob_size: true } }'
    ],
    "LayerNorm": [
        single("LayerNorm"),
        single("LayerNorm", "layer_norm_param { axis: 1 num_axes: 1 eps: 0.1 }"),
        single("LayerNorm", "layer_norm_param { axis: 1 }"),
        single("LayerNorm", "layer_norm_param { axis: 0 num_axes: 2 }"),
    ],
    "Log": [
        single("Log", "log_param { base: 3 scale: 0.5 shift: 9 }"),
        inputs(x=(2, 5)) + 'layer { name: "p" type: "Power" bottom: "x" top: "y" power_param { power: 2 } }'
        'layer { name: "l" type: "Log" bottom: "y" top: "y" log_param { shift: 0.2 } }',
    ],
    "LRN": [
        IMAGES + 'layer { name: "l" type: "LRN" bottom: "x" top: "y" lrn_param { local_size: 3 alpha: 2 } }',
        IMAGES + 'layer { name: "l" type: "LRN" bottom: "x" top: "y" lrn_param { local_size: 9 beta: 1.5 k: 2 } }',
        inputs(x=(1, 2, 10, 13)) + 'layer { name: "l" type: "LRN" bottom: "x" top: "y" lrn_param { alpha: 2 } }',
        IMAGES + 'layer { name: "l" type: "LRN" bottom: "x" top: "y" lrn_param {'
        " local_size: 3 alpha: 2 norm_region: WITHIN_CHANNEL } }",
        IMAGES + 'layer { name: "l" type: "LRN" bottom: "x" top: "y" lrn_param {'
        " local_size: 7 alpha: 9 beta: 0.5 norm_region: WITHIN_CHANNEL } }",
    ],
    "LSTM": recurrent("LSTM", "h", "c"),
    "MatMul": [
        inputs(a=a, b=b)
        + f'layer {{ name: "l" type: "MatMul" bottom: "a" bottom: "b" top: "y" mat_mul_param {{ {param} }} }}'
        for a, b, param in (
            ((2, 3, 4, 5), (2, 3, 5, 2), ""),
            ((2, 5, 4), (2, 5, 2), "transpose_a: true"),
            ((2, 4, 5), (2, 2, 5), "transpose_b: true"),
            ((5, 4), (2, 5), "transpose_a: true transpose_b: true"),
        )
    ]
    + [inputs(x=(2, 3, 3)) + 'layer { name: "l" type: "MatMul" bottom: "x" bottom: "x" top: "y" }'],
    "Mish": [single("Mish"), in_place("Mish")],
    "MultiBoxLoss": [
        multibox(1, "", ""),
        multibox(1, "normalization: BATCH_SIZE", "mining_type: NONE conf_loss_type: LOGISTIC loc_loss_type: L2"),
        multibox(1, "normalization: FULL", "mining_type: HARD_EXAMPLE sample_size: 3 encode_variance_in_target: true"),
        multibox(
            3, "normalization: NONE", "mining_type: NONE share_location: false match_type: BIPARTITE bp_inside: true"
        ),
    ],
    "MultinomialLogisticLoss": [
        inputs(positive=(5, 4), label=(5,))
        + 'layer { name: "l" type: "MultinomialLogisticLoss" bottom: "positive" bottom: "label" loss_weight: 2 }',
    ],
    "MVN": [
        single("MVN"),
        single("MVN", "mvn_param { across_channels: true }"),
        single("MVN", "mvn_param { normalize_variance: false }"),
    ],
    "Normalize": [
        single("Normalize", f"norm_param {{ {param} }}")
        for param in ("", "across_spatial: false", "channel_shared: false eps: 0.5", "across_spatial: false eps: 2")
    ],
    "Pad": [
        single("Pad", f"pad_param {{ top: 1 left: 2 right: 3 {param} }}")
        for param in ("", "value: 0.5", "mode: REFLECT", "mode: EDGE bottom: -1", "mode: WRAP")
    ],
    "Parameter": [
        'layer { name: "l" type: "Parameter" top: "y" parameter_param { shape { dim: 2 dim: 3 } } }',
        inputs(x=(2, 3)) + 'layer { name: "l" type: "Parameter" top: "w" parameter_param { shape { dim: 2 dim: 3 } } }'
        'layer { name: "p" type: "Eltwise" bottom: "w" bottom: "x" bottom: "w" top: "y" eltwise_param { operation: PROD } }',
    ],
    "Permute": [
        single("Permute", "permute_param { order: 0 order: 2 order: 3 order: 1 }"),
        single("Permute", "permute_param { order: 3 }"),
    ],
    "Pooling": [
        IMAGES + f'layer {{ name: "l" type: "Pooling" bottom: "x" top: "y" pooling_param {{ {param} }} }}'
        for param in (
            "kernel_size: 2 stride: 2",
            "kernel_size: 3 stride: 2 pad: 1",
            "kernel_h: 1 kernel_w: 3 stride_h: 3 stride_w: 1 pad_h: 0 pad_w: 2",
            "kernel_size: 2 stride: 4",
            "global_pooling: true",
            "pool: AVE kernel_size: 3 stride: 2",
            "pool: AVE kernel_size: 3 stride: 1 pad: 2",
            "pool: AVE kernel_h: 3 kernel_w: 2 stride_h: 1 stride_w: 3 pad_h: 2 pad_w: 1 round_mode: FLOOR",
            "pool: AVE kernel_size: 2 stride: 5",
            "pool: AVE global_pooling: true",
            "kernel_size: 3 stride: 2 pad_type: SAME",
            "pool: AVE kernel_h: 3 kernel_w: 4 stride_h: 2 stride_w: 1 pad_type: SAME",
        )
    ]
    + [
        Case(
            IMAGES + 'layer { name: "l" type: "Pooling" bottom: "x" top: "y" top: "place"'
            " pooling_param { kernel_size: 3 } }",
            ignore=("place",),
        ),
        inputs(positive=(2, 3, 5, 5)) + 'layer { name: "l" type: "Pooling" bottom: "positive" top: "y" pooling_param {'
        " pool: STOCHASTIC kernel_size: 3 stride: 2 } }",
        Case(
            inputs(positive=(2, 3, 5, 4))
            + 'layer { name: "l" type: "Pooling" bottom: "positive" top: "y" pooling_param {'
            " pool: STOCHASTIC kernel_size: 2 stride: 2 } }",
            phase=pb.TEST,
        ),
    ],
    "Power": [
        single("Power"),
        single("Power", "power_param { power: 2 scale: 0.5 shift: 1 }"),
        single("Power", "power_param { power: 3 }"),
        single("Power", "power_param { power: -1.5 scale: 0.3 shift: 4 }"),
        single("Power", "power_param { power: 2 scale: 0 shift: 3 }"),
        single("Power", "power_param { power: 0 }"),
        in_place("Power", "power_param { power: 2 shift: 0.3 }"),
        in_place("Power", "power_param { scale: -2 shift: 0.3 }"),
    ],
    "PReLU": [
        single("PReLU"),
        single("PReLU", "prelu_param { channel_shared: true }"),
        single("PReLU", x=inputs(x=(4, 6))),
        in_place("PReLU"),
    ],
    "Reduction": [
        single("Reduction", f"reduction_param {{ operation: {operation} axis: {axis} coeff: -0.7 }}")
        for operation in ("SUM", "ASUM", "SUMSQ", "MEAN")
        for axis in (0, -2)
    ],
    "Flip": [
        single("Flip", x=IMAGES),
        single("Flip", "flip_param { flip_height: true }", x=IMAGES),
        single("Flip", "flip_param { flip_width: false }", x=IMAGES),
    ],
    "PSROIPooling": [
        Case(
            inputs(x=(2, 8, 6, 5), rois=(4, 5))
            + 'layer { name: "l" type: "PSROIPooling" bottom: "x" bottom: "rois" top: "y"'
            " psroi_pooling_param { spatial_scale: 0.8 output_dim: 2 group_size: 2 } }",
            values=REGIONS,
        )
    ],
    "Reorg": [
        single("Reorg", x=inputs(x=(2, 4, 4, 6))),
        single("Reorg", "reorg_param { reverse: true }", x=inputs(x=(2, 8, 3, 2))),
    ],
    "Resize": [
        single("Resize", f"resize_param {{ {param} }}")
        for param in (
            "height: 7 width: 3",
            "scale_h: 1.5 scale_w: 0.7 mode: NEAREST transform: ASYMMETRIC rounding: FLOOR",
            "scale_h: 2 scale_w: 2 mode: CUBIC transform: PYTORCH_HALF_PIXEL",
            "height: 2 width: 2 mode: CUBIC antialias: true exclude_outside: true",
            "height: 1 width: 1 transform: ALIGN_CORNERS",
        )
    ],
    "ROIAlign": [
        Case(
            inputs(x=(2, 2, 6, 7), rois=(4, 5))
            + 'layer { name: "l" type: "ROIAlign" bottom: "x" bottom: "rois" top: "y"'
            f" roi_align_param {{ pooled_h: 2 pooled_w: 3 spatial_scale: 0.7 sampling_ratio: {ratio} }} }}",
            values=REGIONS,
        )
        for ratio in (0, 2)
    ],
    "ROIPooling": [
        Case(
            inputs(x=(2, 3, 6, 5), rois=(4, 5))
            + 'layer { name: "l" type: "ROIPooling" bottom: "x" bottom: "rois" top: "y"'
            " roi_pooling_param { pooled_h: 2 pooled_w: 3 } }",
            values=REGIONS,
        )
    ],
    "SmoothL1Loss": smooth_l1("SmoothL1Loss"),
    "SmoothL1LossOHEM": smooth_l1("SmoothL1LossOHEM"),
    "SoftmaxWithLossOHEM": [
        SCORES + 'layer { name: "l" type: "SoftmaxWithLossOHEM" bottom: "x" bottom: "label" top: "y" }',
        Case(
            MAPS
            + 'layer { name: "l" type: "SoftmaxWithLossOHEM" bottom: "x" bottom: "label" top: "y" top: "p" top: "each"'
            " loss_param { weight_by_label_freqs: true class_weighting: 1 class_weighting: 0.5 class_weighting: 2"
            " class_weighting: 3 } }",
            ignore=("p", "each"),
        ),
    ],
    "Transpose": [
        single("Transpose", "transpose_param { dim: 0 dim: 1 dim: 3 dim: 2 }"),
        single("Transpose", "transpose_param { dim: 3 dim: 0 dim: 2 dim: 1 }"),
    ],
    "ReLU": [
        X + 'layer { name: "l" type: "ReLU" bottom: "x" top: "y" }',
        X + 'layer { name: "l" type: "ReLU" bottom: "x" top: "y" relu_param { negative_slope: 0.3 } }',
        X + 'layer { name: "i" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 9 } }'
        'layer { name: "l" type: "ReLU" bottom: "y" top: "y" relu_param { negative_slope: 0.1 } }',
    ],
    "ReLU6": [
        single("ReLU6"),
        single("ReLU6", "relu6_param { negative_slope: 0.2 }"),
        inputs(x=(4, 5)) + 'layer { name: "p" type: "Power" bottom: "x" top: "y" power_param { scale: 6 } }'
        'layer { name: "l" type: "ReLU6" bottom: "y" top: "y" relu6_param { negative_slope: 0.2 } }',
    ],
    "Reshape": [
        single("Reshape", "reshape_param { shape { dim: 0 dim: -1 } }"),
        single("Reshape", "reshape_param { shape { dim: 2 dim: 2 } axis: -3 num_axes: 1 }"),
    ],
    "RNN": recurrent("RNN", "h"),
    "Scale": [
        single("Scale", f"scale_param {{ {param} bias_term: true }}")
        for param in ("", "axis: 0 num_axes: -1", "axis: -2 num_axes: 2", "num_axes: 0")
    ]
    + [
        single("Scale", x=inputs(x=(5, 4))),
        in_place("Scale", "scale_param { bias_term: true }"),
        inputs(x=(2, 3, 4), s=(2, 3))
        + 'layer { name: "l" type: "Scale" bottom: "x" bottom: "s" top: "y" scale_param { axis: 0 } }',
        inputs(x=(2, 3, 4), s=(3,))
        + 'layer { name: "i" type: "Power" bottom: "x" top: "y" }'
        + 'layer { name: "l" type: "Scale" bottom: "y" bottom: "s" top: "y" scale_param { bias_term: true } }',
    ],
    "ShuffleChannel": [single("ShuffleChannel", "shuffle_channel_param { group: 3 }", x=inputs(x=(2, 6, 2)))],
    "Sigmoid": [single("Sigmoid"), in_place("Sigmoid")],
    "SigmoidCrossEntropyLoss": [
        inputs(x=(4, 3, 2), label=(4, 3, 2))
        + 'layer { name: "l" type: "SigmoidCrossEntropyLoss" bottom: "x" bottom: "label" loss_weight: 2'
        f" loss_param {{ {param} }} }}"
        for param in (
            "",
            "ignore_label: 2",
            "ignore_label: 2 normalization: VALID",
            "normalization: FULL",
            "normalization: NONE",
            "focal_gamma: 2 ignore_label: 2",
            "focal_gamma: 1.5 focal_alpha: 0.25",
        )
    ],
    "Silence": [
        X + 'layer { name: "l" type: "Silence" bottom: "x" } layer { name: "p" type: "Power" bottom: "x" top: "y" }'
    ],
    "Slice": [
        X + f'layer {{ name: "l" type: "Slice" bottom: "x" {tops} slice_param {{ {param} }} }}'
        for tops, param in (
            ('top: "a" top: "b"', "axis: -2"),
            ('top: "a" top: "b" top: "c"', "axis: 3 slice_point: 1 slice_point: 3"),
            ('top: "a" top: "b"', "slice_dim: 0"),
            ('top: "a"', ""),
        )
    ],
    "SELU": [
        single("SELU"),
        in_place("SELU", "selu_param { lambda: 0.8 alpha: 0.3 }"),
        in_place("SELU", "selu_param { alpha: -0.7 }"),
    ],
    "SiLU": [single("SiLU"), in_place("SiLU")],
    "Softmax": [
        X + 'layer { name: "l" type: "Softmax" bottom: "x" top: "y" }',
        X + 'layer { name: "l" type: "Softmax" bottom: "x" top: "y" softmax_param { axis: -1 } }',
        X + 'layer { name: "l" type: "Softmax" bottom: "x" top: "y" softmax_param { axis: 0 } }',
        inputs(x=(2, 37)) + 'layer { name: "l" type: "Softmax" bottom: "x" top: "y" }',
        inputs(x=(4, 3))
        + 'layer { name: "i" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 5 } }'
        + 'layer { name: "l" type: "Softmax" bottom: "y" top: "y" }',
    ],
    "SoftmaxWithLoss": [
        SCORES + 'layer { name: "l" type: "SoftmaxWithLoss" bottom: "x" bottom: "label" top: "loss" }',
        SCORES + 'layer { name: "l" type: "SoftmaxWithLoss" bottom: "x" bottom: "label" loss_weight: 0.3 }',
        Case(
            SCORES + 'layer { name: "l" type: "SoftmaxWithLoss" bottom: "x" bottom: "label" top: "loss" top: "prob" }',
            ignore=("prob",),
        ),
        inputs(x=(2, 3, 5), label=(2, 3))
        + 'layer { name: "l" type: "SoftmaxWithLoss" bottom: "x" bottom: "label" softmax_param { axis: 2 } }',
    ]
    + [
        MAPS + 'layer { name: "l" type: "SoftmaxWithLoss" bottom: "x" bottom: "label" loss_weight: 2'
        f" loss_param {{ {param} }} }}"
        for param in (
            "ignore_label: 1",
            "ignore_label: 1 normalization: FULL",
            "ignore_label: 1 normalization: BATCH_SIZE",
            "ignore_label: 1 normalization: NONE",
            "ignore_label: 1 normalize: false",
            "normalize: true",
            "label_smoothing: 0.2 ignore_label: 1",
            "label_smoothing: 0.2 weight_by_label_freqs: true"
            " class_weighting: 1 class_weighting: 0.5 class_weighting: 2 class_weighting: 3",
            "focal_gamma: 2 ignore_label: 1",
            "focal_gamma: 0.5 weight_by_label_freqs: true"
            " class_weighting: 1 class_weighting: 0.5 class_weighting: 2 class_weighting: 3",
        )
    ],
    "Split": [
        X + 'layer { name: "l" type: "Split" bottom: "x" top: "y" }',
        X + 'layer { name: "l" type: "Split" bottom: "x" top: "y" top: "z" }',
        X + 'layer { name: "l" type: "Split" bottom: "x" top: "y" top: "z" top: "v" top: "w" }',
    ],
    "SPP": [
        single("SPP", "spp_param { pyramid_height: 1 }", x=IMAGES),
        single("SPP", "spp_param { pyramid_height: 3 }", x=inputs(x=(2, 2, 8, 9))),
        single("SPP", "spp_param { pyramid_height: 2 pool: AVE }", x=IMAGES),
    ],
    "Swish": [single("Swish"), in_place("Swish", "swish_param { beta: 1.7 }")],
    "TanH": [single("TanH"), in_place("TanH")],
    "Tile": [single("Tile", "tile_param { tiles: 3 }"), single("Tile", "tile_param { axis: -1 tiles: 2 }")],
    "Upsample": [
        single("Upsample", "upsample_param { scale: 2 }"),
        Case(
            inputs(x=(1, 2, 2, 2), place=(1, 2, 2, 2))
            + 'layer { name: "l" type: "Upsample" bottom: "x" bottom: "place" top: "y" }',
            values={"place": np.array([0, 3, 13, 10, 1, 2, 4, 15]).reshape(1, 2, 2, 2)},
        ),
    ],
}
"""Configurations of each type: gradients against differences, inputs unchanged, diffs overwritten or added to."""

CASES |= FORKS

WITHOUT_GRADIENT: dict[str, str] = {
    "ContinuationIndicator": "constant",
    "LabelsequenceAccuracy": "piecewise constant",
    "SegAccuracy": "piecewise constant",
    "Accuracy": "piecewise constant",
    "ArgMax": "piecewise constant",
    "BoxAnnotatorOHEM": "chooses",
    "BoxOutput": "chooses",
    "DecodeBBox": "chooses",
    "DetectionEvaluate": "counts",
    "Proposal": "chooses",
    "Region": "the gradient is that of RegionLoss",
    "RegionLoss": "its gradient is not that of its value, as in YOLO: test_yolo has both from a loop",
    "YoloDetectionOutput": "chooses",
    "Yolov3": "its gradient is not that of its value, as in YOLO: test_yolo has both from a loop",
    "Yolov3DetectionOutput": "chooses",
    "DetectionOutput": "chooses",
    "PriorBox": "constant",
    "HDF5Output": "nothing comes after it",
    "Input": "nothing comes before it",
    "Python": "the user's code has the gradient: test_python",
    "Threshold": "piecewise constant",
}
"""Types that no gradient check can be made of, and why. Layers that bring data from outside need no line."""

IN_FORKS = "compared with loops in float64, or with PyTorch: test_fork_layers"
PAIRS = "its crops are random: test_image_pairs compares it with the files"
IN_OPENCV = "compared with OpenCV's: test_detection"
BY_LOOP_HERE = "compared with loops in float64: test_detection_boxes"
BY_LOOP_YOLO = "compared with loops in float64: test_yolo"
BY_LOOP = "compared with loops in float64: test_detection"
BEYOND_CAFFE = "Caffe 1.0 does not have it: test_beyond_caffe compares it with its definition"

WITHOUT_GOLDEN: dict[str, str] = {
    **dict.fromkeys(("DenseImageData", "ImageLabelmapData", "ImageSegData"), PAIRS),
    **dict.fromkeys((*FORKS, "ContinuationIndicator", "LabelsequenceAccuracy", "SegAccuracy"), IN_FORKS),
    "ArrayData": "Caffe does not have it: test_array_data compares it with NumPy",
    "Axpy": BEYOND_CAFFE,
    "AnnotatedData": "compared with its steps written out: test_annotated_data",
    "BoxAnnotatorOHEM": BY_LOOP,
    "BoxOutput": BY_LOOP_HERE,
    "DecodeBBox": BY_LOOP_HERE,
    "DetectionEvaluate": BY_LOOP_HERE,
    "MultiBoxLoss": "compared with loops in float64: test_multibox_loss",
    "Proposal": IN_OPENCV,
    "Region": IN_OPENCV,
    "RegionLoss": BY_LOOP_YOLO,
    "ROIAlign": BY_LOOP_HERE,
    "YoloDetectionOutput": BY_LOOP_YOLO,
    "Yolov3": BY_LOOP_YOLO,
    "Yolov3DetectionOutput": BY_LOOP_YOLO,
    "DetectionOutput": IN_OPENCV,
    "Flip": "mirrored by NumPy: test_beyond_caffe",
    "PriorBox": IN_OPENCV,
    "PSROIPooling": IN_OPENCV,
    "Reorg": IN_OPENCV,
    "ROIPooling": IN_OPENCV,
    "SmoothL1Loss": BY_LOOP,
    "SmoothL1LossOHEM": BY_LOOP,
    "SoftmaxWithLossOHEM": BY_LOOP,
    "Transpose": "transposed by NumPy: test_beyond_caffe",
    "Constant": "its values are its parameter: test_onnx_layers",
    "MatMul": "multiplied by NumPy: test_onnx_layers",
    "ConvolutionDepthwise": BEYOND_CAFFE,
    "DepthwiseConvolution": BEYOND_CAFFE,
    "ImageFolderData": "Caffe does not have it: test_image_folder_data compares it with the files",
    "Interp": BEYOND_CAFFE,
    "MemoryData": "its values come from the program: test_data_layers",
    "Normalize": BEYOND_CAFFE,
    "Permute": BEYOND_CAFFE,
    "Python": "runs the user's code: test_python",
    "ReLU6": BEYOND_CAFFE,
    "ShuffleChannel": BEYOND_CAFFE,
    "Split": "the net inserts it where a blob is read twice: cases split_implicit and net_residual_tiny",
    "Upsample": BEYOND_CAFFE,
    "WindowData": "draws its windows at random: test_window_data compares each with its definition",
}
"""Types that no file in goldens/layers or goldens/data names, and why, or where they are compared instead."""
