"""The nets on which layers of Caffe's forks for sequences, faces, optical flow and segmentation are checked."""

from __future__ import annotations

from .harness import Case, inputs

X = inputs(x=(2, 3, 4, 5))
ROWS = inputs(x=(5, 4), label=(5,))


def layer(type_: str, bottoms: str = "x", param: str = "", tops: str = "y") -> str:
    """The layer "l" with these bottoms and tops, blanks between them."""
    names = "".join(f' bottom: "{name}"' for name in bottoms.split()) + "".join(f' top: "{t}"' for t in tops.split())
    return f'layer {{ name: "l" type: "{type_}"{names} {param} }}'


FIXED = "param { lr_mult: 0 }"
LSTM_ROWS = inputs(x=(6, 4), cont=(3, 2)) + layer("Lstm", "x cont", "lstm_param { num_output: 3 batch_size: 2 }")
SCORES = inputs(x=(5, 2, 4))

FORKS: dict[str, list[Case | str]] = {
    "AutoCrop": [inputs(x=(2, 3, 6, 5), size=(1, 1, 3, 4)) + layer("AutoCrop", "x size")],
    "CenterLoss": [
        ROWS + layer("CenterLoss", "x label", FIXED + " center_loss_param { num_output: 3 }"),
        inputs(x=(3, 2, 2, 2), label=(3,))
        + layer("CenterLoss", "x label", FIXED + " loss_weight: 0.3 center_loss_param { num_output: 4 }"),
    ],
    "ChannelScale": [
        inputs(x=(2, 3, 4, 5), s=(2, 1, 4, 5)) + layer("ChannelScale", "x s"),
        inputs(x=(4, 3), s=(4, 1)) + layer("ChannelScale", "x s"),
    ],
    "Correlation": [
        inputs(a=(1, 2, 6, 5), b=(1, 2, 6, 5)) + layer("Correlation", "a b", f"correlation_param {{ {param} }}")
        for param in (
            "kernel_size: 1 max_displacement: 1 pad: 1",
            "kernel_size: 3 max_displacement: 2 pad: 3 stride_1: 2 stride_2: 2",
            "kernel_size: 1 max_displacement: 1 correlation_type: SUBTRACT",
        )
    ],
    "CtcLoss": [
        Case(
            inputs(x=(5, 1, 4), label=(1, 3)) + layer("CtcLoss", "x label", "ctc_loss_param { blank_label: 3 }"),
            values={"label": [[1, 1, 3]]},
        )
    ],
    "CTCLoss": [
        Case(SCORES + inputs(label=(2, 2)) + layer("CTCLoss", "x label"), values={"label": [[1, 0], [2, -1]]}),
        Case(
            SCORES
            + inputs(cont=(5, 2), label=(2, 2))
            + layer("CTCLoss", "x cont label", "loss_weight: 2 ctc_loss_param { blank_index: 0 output_delay: 1 }"),
            values={"cont": [[0, 0], [1, 1], [1, 1], [1, 1], [1, 0]], "label": [[1, 2], [1, -1]]},
        ),
    ],
    "FlowWarp": [inputs(x=(2, 3, 4, 5), flow=(2, 2, 4, 5)) + layer("FlowWarp", "x flow")],
    "InnerDistance": [
        inputs(x=(3, 4)) + layer("InnerDistance", "x", "inner_distance_param { num_output: 2 }"),
        inputs(x=(3, 4)) + layer("InnerDistance", "x", 'inner_distance_param { num_output: 2 distance_type: "L1" }'),
        inputs(x=(3, 2, 2), w=(5, 4)) + layer("InnerDistance", "x w"),
    ],
    "LabelSpecificAdd": [
        ROWS + layer("LabelSpecificAdd", "x label", "label_specific_add_param { bias: -0.3 }"),
        Case(
            ROWS
            + layer(
                "LabelSpecificAdd",
                "x label",
                "label_specific_add_param { bias_base: -0.3 bias_gamma: 0.1 bias_min: -1 bias_max: 1 }",
                "y bias",
            ),
            ignore=("bias",),
        ),
        inputs(x=(5, 4), label=(5,))
        + 'layer { name: "i" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 3 } }'
        + layer("LabelSpecificAdd", "y label", "label_specific_add_param { bias: -0.3 }"),
    ],
    "Lstm": [
        inputs(x=(6, 2, 2)) + layer("Lstm", "x", "lstm_param { num_output: 3 batch_size: 2 }"),
        Case(LSTM_ROWS, values={"cont": [[1, 0], [0, 1], [1, 1]]}),
    ],
    "LSTMUnit": [
        Case(
            inputs(c=(1, 2, 3), a=(1, 2, 12), cont=(1, 2)) + layer("LSTMUnit", "c a cont", "", "cell hidden"),
            values={"cont": [[1, 0]]},
        )
    ],
    "MarginInnerProduct": [
        ROWS + layer("MarginInnerProduct", "x label", FIXED + " margin_inner_product_param { num_output: 3 }"),
    ],
    "Resample": [
        X + layer("Resample", "x", f"resample_param {{ {param} }}")
        for param in (
            "height: 7 width: 9",
            "height: 2 width: 3 type: CUBIC",
            "height: 3 width: 2 antialias: false",
            "height: 6 width: 7 type: NEAREST",
        )
    ]
    + [inputs(x=(2, 3, 4, 5), size=(1, 1, 6, 4)) + layer("Resample", "x size")],
    "Reverse": [
        X + layer("Reverse"),
        X + layer("Reverse", "x", "reverse_param { axis: 1 axis: -1 }"),
    ],
    "Sparsify": [
        X + layer("Sparsify", "x", "sparsify_param { thre: 0.4 }"),
        X + layer("Sparsify"),
        inputs(x=(3, 4))
        + 'layer { name: "i" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 3 } }'
        + layer("Sparsify", "y", "sparsify_param { thre: 0.4 }"),
    ],
}
"""Configurations of each type, as in ``cases.CASES``."""
