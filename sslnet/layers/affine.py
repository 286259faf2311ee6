"""Helpers for compaction of layers with weights and a bias."""

from __future__ import annotations

from typing import Any

import numpy as np


def fold_shift(param: Any, sub: Any, bias: np.ndarray | None, shift: np.ndarray | None) -> np.ndarray | None:
    """The bias of the smaller layer, with the contribution of removed constant channels added to it.

    param   the smaller layer's LayerParameter; gets a ParamSpec for a new bias, with the learning rate of the weights
            and no weight decay, because the bias replaces constants
    sub     its convolution_param or inner_product_param; bias_term becomes true when there is a bias
    bias    (kept outputs) or None
    shift   (kept outputs) or None
    """
    if shift is None:
        return bias
    if bias is not None:
        total: np.ndarray = (bias + shift).astype(bias.dtype)
        return total
    sub.ClearField("bias_term")
    if len(param.param):
        spec = param.param.add(decay_mult=0)
        if param.param[0].HasField("lr_mult"):
            spec.lr_mult = param.param[0].lr_mult
    return shift
