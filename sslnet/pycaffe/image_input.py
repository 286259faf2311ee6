"""The preprocessing of images for a net with one input, common to Classifier and Detector."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sslnet.errors import DefinitionError
from sslnet.net.net import Net
from sslnet.pycaffe import io


def image_transformer(
    net: Net,
    what: str,
    mean: np.ndarray | None,
    input_scale: float | None,
    raw_scale: float | None,
    channel_swap: Sequence[int] | None,
) -> io.Transformer:
    """What makes the net's input of an image (H, W, K).

    what    what the net is to be, for messages: "classifier"
    others  as for ``io.Transformer``; None: not used
    raises  DefinitionError unless the net has one input (N, K, H, W)
    """
    if len(net.inputs) != 1 or net.blobs[net.inputs[0]].num_axes != 4:
        raise DefinitionError(
            f"a {what} needs one input of shape (N, K, H, W); the net has {net.inputs or 'none'}",
            path=net.definition.path,
            hint="use the deploy prototxt",
        )
    name = net.inputs[0]
    transformer = io.Transformer({name: net.blobs[name].shape})
    transformer.set_transpose(name, (2, 0, 1))
    if mean is not None:
        transformer.set_mean(name, mean)
    if input_scale is not None:
        transformer.set_input_scale(name, input_scale)
    if raw_scale is not None:
        transformer.set_raw_scale(name, raw_scale)
    if channel_swap is not None:
        transformer.set_channel_swap(name, channel_swap)
    return transformer
