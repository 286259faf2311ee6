"""What layers with weights and a bias have in common when compaction makes them smaller."""

from __future__ import annotations

from typing import Any

import numpy as np


def fold_shift(param: Any, sub: Any, bias: np.ndarray | None, shift: np.ndarray | None) -> np.ndarray | None:
    """The bias of the smaller layer, with what left-out constant channels contributed added to it.

    param   the smaller layer's LayerParameter; gets a ParamSpec for a bias that is new, trained as the weights are
            but not decayed towards 0, for the bias stands for what was constant
    sub     its convolution_param or inner_product_param; bias_term becomes true when there is a bias now
    bias    (kept outputs) or None
    shift   (kept outputs) or None
    """
    if shift is None:
        return bias
    if bias is not None:
        return (bias + shift).astype(bias.dtype)
    sub.ClearField("bias_term")
    if len(param.param):
        spec = param.param.add(decay_mult=0)
        if param.param[0].HasField("lr_mult"):
            spec.lr_mult = param.param[0].lr_mult
    return shift
