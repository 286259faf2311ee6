"""Rewrites a net in fields that Caffe 1.0, and programs that read its nets, such as OpenCV, know: for ``standard_only``.

    Bias after a layer          becomes a Scale by ones with a bias, as OpenCV has no Bias
    Pooling, round_mode FLOOR   becomes a depthwise convolution if the window is one value; otherwise round_mode is removed
                                if it makes no difference for the actual size
    pad_type SAME               becomes padding of both sides alike, if that is what it is for the actual size
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
from sslnet.kernels.conv.im2col import same_padding
from sslnet.layers.convolution import Convolution
from sslnet.layers.deconvolution import Deconvolution
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
    stuck: list[str] = []
    same = _pad_explicitly(smaller, views, places)
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
    found = {"round_mode FLOOR": stuck, "pad_type SAME, with more padding at one end": same}
    return [
        f"{what}, which Caffe 1.0 does not know, is kept in {', '.join(names)}"
        for what, names in found.items()
        if names
    ]


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


def _pad_explicitly(smaller: Smaller, views: Sequence[NetChannels], places: dict[int, int]) -> list[str]:
    """Replaces pad_type SAME by the padding that it makes of the actual sizes, if that is the same at both ends and in all
    phases; returns the names of the layers that keep it.  [changes smaller]"""
    found: dict[int, list[pb.LayerParameter | None]] = {}
    for view in views:
        for layer, bottoms in zip(view.net.layers, view.net.bottoms):
            k = places.get(layer.definition.index, -1)
            if k < 0:
                continue
            if isinstance(layer, Pooling) and layer.same:
                found.setdefault(k, []).append(_padded_pooling(layer, smaller.message.layer[k], bottoms[0].shape[2:]))
            elif isinstance(layer, Convolution | Deconvolution) and layer.window.same:
                kernel = smaller.arrays[layer.name][0].shape[2:]
                sizes = bottoms[0].shape[layer.axis + 1 :]
                found.setdefault(k, []).append(_padded_window(layer, smaller.message.layer[k], sizes, kernel))
    kept = []
    for k, written in found.items():
        first = written[0]
        if first is None or any(param != first for param in written):
            kept.append(smaller.message.layer[k].name)
        else:
            smaller.message.layer[k].CopyFrom(first)
    return kept


def _padded_pooling(layer: Pooling, param: pb.LayerParameter, size: Sequence[int]) -> pb.LayerParameter | None:
    """The layer with Caffe's padding; None where its windows or, for AVE, its divisors would differ."""
    result = pb.LayerParameter()
    result.CopyFrom(param)
    pooling = result.pooling_param
    pooling.ClearField("pad_type")
    if any(layer.pad):
        pooling.pad_h, pooling.pad_w = layer.pad
    axes = list(zip(size, layer.kernel, layer.stride, layer.pad))
    if any(k > n + 2 * p for n, k, _, p in axes) or (pooling.pool == pb.PoolingParameter.AVE and any(layer.pad)):
        return None
    windows = [-(-(n + 2 * p - k) // s) + 1 for n, k, s, p in axes]
    if any(layer.pad):
        windows = [count - ((count - 1) * s >= n + p) for count, (n, _, s, p) in zip(windows, axes)]
    return result if windows == layer.extents(size, floor=False) else None


def _padded_window(
    layer: Convolution | Deconvolution, param: pb.LayerParameter, sizes: Sequence[int], kernel: Sequence[int]
) -> pb.LayerParameter | None:
    """The layer with equal padding on both sides; None where SAME pads more at one end."""
    window = layer.window
    if isinstance(layer, Deconvolution):
        sizes = [n * s for n, s in zip(sizes, window.stride)]
        if any(d * (k - 1) + 1 < s for k, s, d in zip(kernel, window.stride, window.dilation)):
            return None
    pads = [same_padding(*numbers) for numbers in zip(sizes, kernel, window.stride, window.dilation, strict=True)]
    if any(front != behind for front, behind in pads):
        return None
    result = pb.LayerParameter()
    result.CopyFrom(param)
    result.convolution_param.ClearField("pad_type")
    front = [front for front, _ in pads]
    result.convolution_param.pad[:] = front if len(set(front)) > 1 else front[:1]
    return result


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
