"""Means and standard deviations of the numbers that box regression predicts (bbox_reg_param of MS-CNN, Cascade R-CNN)."""

from __future__ import annotations

import numpy as np

from sslnet.layers.base import Layer


def regression_moments(layer: Layer) -> tuple[np.ndarray, np.ndarray]:
    """(4) means and (4) deviations, 0 and 1 where they are not given; raises DefinitionError for others than four."""
    param = layer.param.bbox_reg_param
    means, deviations = np.array(param.bbox_mean), np.array(param.bbox_std)
    if not len(means) and not len(deviations):
        return np.zeros(4), np.ones(4)
    for name, values in (("bbox_mean", means), ("bbox_std", deviations)):
        if len(values) != 4:
            raise layer.error(f"{name} must be given four times, not {len(values)} times", "bbox_reg_param")
    if not (deviations > 0).all():
        raise layer.error("bbox_std must be above 0", "bbox_reg_param", "bbox_std", 0)
    return means, deviations
