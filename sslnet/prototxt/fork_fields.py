"""Fields of Caffe's forks that say nothing of the numbers a net computes: read past, and listed in one note.

They choose libraries, precisions of a GPU, threads, memory or what is logged. Fields of forks that do say something of
the numbers are in the schema, but for two (``WITH_EFFECT``) whose effect sslnet does not have, which the note says.
"""

from __future__ import annotations

ENGINE = "engine"
"""A field of any message: the library that computes a layer."""

_NET = {
    "mem_param": "",
    "multinode": "",
    "compile_net_state": "",
    "default_forward_type": "",
    "default_backward_type": "",
    "default_forward_math": "",
    "default_backward_math": "",
    "default_conv_algos_override": "",
    "default_cudnn_math_override": "",
    "global_grad_scale": "",
    "global_grad_scale_adaptive": "",
    "global_grad_scale_param": "",
    "reduce_buckets": "",
    "profile_info": "",
    "bn_stats_batch_size": "",
}
_LAYER = {
    "forward_type": "",
    "backward_type": "",
    "forward_math": "",
    "backward_math": "",
    "cudnn_math_override": "",
    "debug": "",
    "multinode": "",
}
_QUANTIZATION = (
    "precision", "rounding_scheme", "bw_layer_in", "bw_layer_out", "bw_params", "fl_layer_in", "fl_layer_out", "fl_params",
    "mant_bits", "exp_bits", "exp_min", "exp_max", "scale_in", "scale_out", "scale_params", "is_negative_input",
    "force_u8_input", "fl_layer_in_signed",
)  # fmt: skip
"""Fields of Ristretto's and Intel's quantization_param."""
_SOLVER = {
    "eval_type": "",
    "ap_version": "",
    "show_per_class_result": "",
    "store_blobs_in_old_format": "",
    "per_parameter_reduce": "",
    "local_lr_auto": "false",
    "local_gw_ratio": "",
    "larc": "false",
    "larc_policy": "",
    "larc_eta": "",
    "momentum_policy": '"fixed"',
    "weight_decay_policy": '"fixed"',
    "disabled_update": "",
    "multinode": "",
    "richness": "",
    "log_interval": "",
}
IGNORED: dict[str, dict[str, str]] = {
    "NetParameter": _NET,
    "LayerParameter": _LAYER,
    "V1LayerParameter": _LAYER,
    "SolverParameter": _SOLVER,
    "ParamSpec": {"force_mult": ""},
    "AccuracyParameter": {"min_is_better": ""},
    "ConvolutionParameter": {
        "conv_algos_override": "",
        "cudnn_convolution_algo_seeker": "",
        "cudnn_math_override": "",
        "allocate_workspace_at_runtime": "",
    },
    "DataParameter": {"threads": "", "parser_threads": "", "cache": "", "shuffle_cache": ""},
    "ImageDataParameter": {"threads": "", "parser_threads": "", "cache": ""},
    "WindowDataParameter": {"shuffle": "false"},
    "TransformationParameter": {"use_gpu_transform": ""},
    "QuantizationParameter": dict.fromkeys(_QUANTIZATION, ""),
}
"""Message -> field -> the only value with which it is ignored; empty: any value."""

WITH_EFFECT = {
    "force_mult": "there is no force regularization (Wen et al. 2017), so the net trains without it",
    **dict.fromkeys(_QUANTIZATION, "the layer computes with floats"),
    "bn_stats_batch_size": "in TRAIN, BatchNorm takes the statistics of the whole batch",
}
"""Ignored fields that do change what a fork computes in training, and what is done instead."""

REPEATED = {"SolverParameter": ("device_id",)}
"""Fields that forks let stand several times, or as a list, and that sslnet ignores in any case."""


def is_ignored(message: str, field: str, value: str) -> bool:
    """Whether a field that the schema lacks is read past.

    message  its name, as "SolverParameter"; value: the first word of the value
    """
    if field == ENGINE:
        return True
    only = IGNORED.get(message, {}).get(field)
    return only is not None and only in ("", value)
