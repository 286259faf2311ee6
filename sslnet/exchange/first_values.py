"""Writes fillers into the layers of an imported net, so that it can also be trained from scratch."""

from __future__ import annotations

from typing import Any

import numpy as np

from sslnet.net.blob_arrays import blob_array

PARAMS = {
    "Convolution": "convolution_param",
    "Deconvolution": "convolution_param",
    "InnerProduct": "inner_product_param",
}


def add_fillers(message: Any) -> None:
    """Adds a filler to each layer with weights. message: pb.NetParameter, with the blobs in its layers

    Weights that are trained get ``msra``. Weights that are not (lr_mult 0), as those of a sum over channels, get the value
    that all of them have.
    """
    for layer in message.layer:
        field = PARAMS.get(layer.type)
        fixed = bool(layer.param) and layer.param[0].lr_mult == 0 and layer.param[0].HasField("lr_mult")
        if field and not fixed:
            getattr(layer, field).weight_filler.type = "msra"
        elif fixed and layer.blobs:
            value = _single(layer.blobs[0])
            if value is None:
                continue
            filler = None
            if field:
                filler = getattr(layer, field).weight_filler
            elif layer.type == "Scale":
                filler = layer.scale_param.filler
            elif layer.type == "Constant" and value:
                filler = layer.constant_param.filler
            if filler is not None:
                filler.type, filler.value = "constant", value


def _single(blob: Any) -> float | None:
    """The value that all of a blob's numbers have; None if they differ."""
    values = np.asarray(blob_array(blob)).reshape(-1)
    return float(values[0]) if values.size and (values == values[0]).all() else None
