"""Rewrites a net in fields that Caffe 1.0, and programs that read its nets, such as OpenCV, know: for ``standard_only``.

    Bias after a layer          becomes a Scale by ones with a bias, as OpenCV has no Bias
    Pooling, round_mode FLOOR   becomes a depthwise convolution if the window is one value; otherwise round_mode is removed
                                if it makes no difference for the actual size
    DepthwiseConvolution        becomes a Convolution with as many groups as channels
    fields specific to sslnet   are removed for deployment

When OpenCV reads a message with an unknown field, it takes all absent fields as given with value 0, so it rejects even
fields that do not affect the outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.compress.compaction.build import Smaller
from sslnet.compress.compaction.channels import NetChannels
from sslnet.layers.depthwise_convolution import Depthwise
from sslnet.layers.pooling import Pooling
from sslnet.net.weights import Arrays

FLOOR = pb.PoolingParameter.FLOOR


def make_standard(smaller: Smaller, views: Sequence[NetChannels]) -> list[str]:
    """Rewrites the net for Caffe 1.0; returns sentences on what Caffe still cannot read.  [changes smaller]

    views   views of the phases from which ``smaller`` was built
    """
    for param, place in zip(smaller.message.layer, smaller.origin):
        if place < 0 and param.type == "Bias":
            _make_scale(smaller, param)
    places = {place: k for k, place in enumerate(smaller.origin) if place >= 0}
    stuck = []
    for view in views:
        for i, layer in enumerate(view.net.layers):
            k = places.get(layer.definition.index, -1)
            if k < 0 or layer.name in stuck:
                continue
            param = smaller.message.layer[k]
            if isinstance(layer, Depthwise):
                param.type = "Convolution"
                param.convolution_param.group = len(view.bottoms[i][0].keep)
            elif param.pooling_param.round_mode == FLOOR and not _round_up(view, i, param, smaller):
                stuck.append(layer.name)
    return [f"round_mode FLOOR, which Caffe 1.0 does not know, is kept in {', '.join(stuck)}"] if stuck else []


def make_readable(message: pb.NetParameter, arrays: Arrays) -> None:
    """Makes a definition for deployment readable by OpenCV.  [changes message]

    Removes fields specific to sslnet that do not affect the outputs. Adds a Silence before a Scale with one number per
    value instead of per channel: a convolution before it then has two readers, which keeps OpenCV from trying to fold the
    Scale into its weights, and failing.
    """
    for layer in message.layer:
        layer.ClearField("connectivity_mode")
        if layer.HasField("convolution_param"):
            layer.convolution_param.ClearField("conv_mode")
        for spec in layer.param:
            kept = pb.ParamSpec()
            for field, value in spec.ListFields():
                if field.name in CAFFE_SPEC:
                    setattr(kept, field.name, value)
            spec.CopyFrom(kept)
    for k in reversed(range(len(message.layer))):
        layer = message.layer[k]
        if layer.type == "Scale" and layer.name in arrays and arrays[layer.name][0].ndim > 1:
            silence = pb.LayerParameter(name=f"{layer.name}_apart", type="Silence", bottom=layer.bottom[:1])
            message.layer.insert(k, silence)


CAFFE_SPEC = ("name", "share_mode", "lr_mult", "decay_mult")
"""The fields of a ParamSpec that Caffe has."""


def _make_scale(smaller: Smaller, layer: pb.LayerParameter) -> None:
    """Replaces a Bias by a Scale by ones."""
    layer.type = "Scale"
    layer.scale_param.axis, layer.scale_param.num_axes = layer.bias_param.axis, layer.bias_param.num_axes
    layer.scale_param.bias_term = True
    layer.ClearField("bias_param")
    layer.param.add().CopyFrom(layer.param[0])
    (added,) = smaller.arrays[layer.name]
    smaller.arrays[layer.name] = [np.ones_like(added), added]


def _round_up(view: NetChannels, i: int, param: pb.LayerParameter, smaller: Smaller) -> bool:
    """Removes the round_mode from pooling layer i; returns whether that is possible.  [changes param, smaller]"""
    layer, size = view.net.layers[i], view.net.bottoms[i][0].shape[2:]
    assert isinstance(layer, Pooling)
    pooling = param.pooling_param
    if layer.kernel == (1, 1) and pooling.pool != pb.PoolingParameter.STOCHASTIC and len(param.top) == 1:
        channels = len(view.tops[i][0].keep)
        param.ClearField("pooling_param")
        param.type = "Convolution"
        convolution = param.convolution_param
        convolution.num_output = convolution.group = channels
        convolution.bias_term = False
        convolution.kernel_size.append(1)
        convolution.stride.extend(layer.stride[: 1 if layer.stride[0] == layer.stride[1] else 2])
        param.param.add(lr_mult=0, decay_mult=0)
        smaller.arrays[layer.name] = [np.ones((channels, 1, 1, 1), layer.dtype)]
        return True
    if layer.extents(size, floor=True) != layer.extents(size, floor=False):
        return False
    pooling.ClearField("round_mode")
    return True
