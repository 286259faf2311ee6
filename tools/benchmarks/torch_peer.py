"""A torch module that computes what a net of ours computes: made from the net's layers, with the net's weights.

    peer = make_peer(net, torch)
    tops = peer({"data": tensor, "label": tensor})      # name -> tensor, of every blob
    loss = peer.loss(tops)

Written as torch's users would write it: BatchNorm and the Scale behind it are one BatchNorm2d, a ReLU works in place where
ours does. A layer type that is missing in ``CONVERTERS`` raises NotImplementedError with its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sslnet import sslnet_pb2 as pb
from sslnet.net.net import Net


@dataclass
class Part:
    """One module of the peer, and the layers of the net that it replaces."""

    layers: list[str]
    type: str
    module: Callable[..., Any]
    bottoms: list[str]
    tops: list[str]


class Peer(nn.Module):
    """The net in torch. ``parts`` in the order of the net's layers."""

    def __init__(self, parts: list[Part], loss_weights: Mapping[str, float]) -> None:
        super().__init__()
        self.parts = parts
        self.loss_weights = dict(loss_weights)
        self.children_ = nn.ModuleList(part.module for part in parts if isinstance(part.module, nn.Module))

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        blobs = dict(inputs)
        for part in self.parts:
            put(blobs, part, part.module(*(blobs[name] for name in part.bottoms)))
        return blobs

    def loss(self, blobs: Mapping[str, Tensor]) -> Tensor:
        """The sum of the losses by their weights."""
        return sum((weight * blobs[name] for name, weight in self.loss_weights.items()), torch.zeros(()))

    def set_in_place(self, on: bool) -> None:
        """Whether a ReLU overwrites its input: single layers run one by one must not."""
        for module in self.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = on


def put(blobs: dict[str, Tensor], part: Part, result: Any) -> None:
    """The outputs of a part, by the names of its tops."""
    blobs.update(zip(part.tops, result if isinstance(result, tuple) else (result,)))


def make_peer(net: Net) -> Peer:
    """The net as a torch module in the net's phase, with copies of its weights.

    raises NotImplementedError for a layer type that has no converter
    """
    parts: list[Part] = []
    for layer, bottoms, tops, blobs in zip(net.layers, net.bottom_names, net.top_names, net.bottoms):
        if layer.IS_SOURCE or layer.TYPE in ("Accuracy", "Silence"):
            continue
        if layer.TYPE == "Scale" and parts and parts[-1].type == "BatchNorm" and bottoms == parts[-1].tops:
            _add_scale(parts[-1].module, layer)
            parts[-1].layers.append(layer.name)
            parts[-1].tops = list(tops)
            continue
        if layer.TYPE not in CONVERTERS:
            raise NotImplementedError(f'no converter for layer type {layer.TYPE} (layer "{layer.name}")')
        module = CONVERTERS[layer.TYPE](layer, blobs)
        if layer.TYPE == "ReLU" and isinstance(module, nn.ReLU):
            module.inplace = bottoms[0] == tops[0]
        parts.append(Part([layer.name], layer.TYPE, module, list(bottoms), list(tops)))
    return Peer(parts, net.loss_weights).train(net.phase == pb.TRAIN)


# -- the layers --------------------------------------------------------------------------------------------------------


def _parameter(blob: Any) -> nn.Parameter:
    return nn.Parameter(torch.from_numpy(blob.data.copy()))


def _convolution(layer: Any, bottoms: Sequence[Any]) -> nn.Module:
    window = layer.window
    settings = (tuple(window.kernel), tuple(window.stride), tuple(window.pad), tuple(window.dilation), layer.group)
    module = nn.Conv2d(bottoms[0].shape[1], layer.num_output, *settings, bias=len(layer.blobs) > 1, device="meta")
    return _with_blobs(module, layer)


def _inner_product(layer: Any, bottoms: Sequence[Any]) -> nn.Module:
    rows, columns = layer.blobs[0].shape
    module = _with_blobs(nn.Linear(columns, rows, bias=len(layer.blobs) > 1, device="meta"), layer)
    return nn.Sequential(nn.Flatten(), module) if len(bottoms[0].shape) > 2 else module


def _with_blobs(module: Any, layer: Any) -> Any:
    module.weight = _parameter(layer.blobs[0])
    if len(layer.blobs) > 1:
        module.bias = _parameter(layer.blobs[1])
    return module


def _batch_norm(layer: Any, bottoms: Sequence[Any]) -> nn.Module:
    """Without an affine part, which a Scale brings; running statistics move by torch's rule, not by ours."""
    kind = nn.BatchNorm2d if len(bottoms[0].shape) == 4 else nn.BatchNorm1d
    module = kind(layer.channels, eps=layer.param.batch_norm_param.eps)
    module.weight.requires_grad_(False)
    module.bias.requires_grad_(False)
    mean, variance, factor = (torch.from_numpy(blob.data.copy()) for blob in layer.blobs)
    if factor[0] != 0:
        module.running_mean, module.running_var = mean / factor, variance / factor
    elif layer.phase == pb.TEST:
        module.running_mean, module.running_var = torch.zeros_like(mean), torch.zeros_like(variance)
    return module


def _add_scale(module: Any, layer: Any) -> None:
    module.weight = _parameter(layer.blobs[0])
    if len(layer.blobs) > 1:
        module.bias = _parameter(layer.blobs[1])


def _relu(layer: Any, bottoms: Sequence[Any]) -> nn.Module:
    slope = layer.param.relu_param.negative_slope
    return nn.LeakyReLU(slope) if slope else nn.ReLU()


def _pooling(layer: Any, bottoms: Sequence[Any]) -> Callable[..., Any]:
    param, (height, width) = layer.param.pooling_param, bottoms[0].shape[2:]
    kernel = (param.kernel_h or param.kernel_size, param.kernel_w or param.kernel_size)
    stride = (param.stride_h or param.stride, param.stride_w or param.stride)
    pad = (param.pad_h or param.pad, param.pad_w or param.pad)
    if param.global_pooling:
        kernel, stride, pad = (height, width), (1, 1), (0, 0)
    if kernel == (1, 1) and pad == (0, 0):
        return lambda x: x[:, :, :: stride[0], :: stride[1]]
    ceil = param.round_mode == pb.PoolingParameter.CEIL
    if param.pool == pb.PoolingParameter.MAX:
        return nn.MaxPool2d(kernel, stride, pad, ceil_mode=ceil)
    if param.pool != pb.PoolingParameter.AVE:
        raise NotImplementedError(f'no converter for STOCHASTIC pooling (layer "{layer.name}")')
    return nn.AdaptiveAvgPool2d(1) if param.global_pooling else nn.AvgPool2d(kernel, stride, pad, ceil_mode=ceil)


def _lrn(layer: Any, bottoms: Sequence[Any]) -> Callable[..., Any]:
    param = layer.param.lrn_param
    size, alpha, beta = param.local_size, param.alpha, param.beta
    if param.norm_region == pb.LRNParameter.ACROSS_CHANNELS:
        return nn.LocalResponseNorm(size, alpha, beta, param.k)

    def within(x: Tensor) -> Tensor:
        return x * (1 + alpha * functional.avg_pool2d(x * x, size, 1, size // 2)).pow(-beta)

    return within


def _eltwise(layer: Any, bottoms: Sequence[Any]) -> Callable[..., Any]:
    param = layer.param.eltwise_param
    if param.operation != pb.EltwiseParameter.SUM or any(c != 1 for c in param.coeff):
        raise NotImplementedError(f'no converter for Eltwise other than a plain SUM (layer "{layer.name}")')

    def total(first: Tensor, *others: Tensor) -> Tensor:
        for other in others:
            first = first + other
        return first

    return total


def _power(layer: Any, bottoms: Sequence[Any]) -> Callable[..., Any]:
    power, scale, shift = (getattr(layer.param.power_param, name) for name in ("power", "scale", "shift"))
    if scale == 0 and shift == 0:
        return torch.zeros_like
    return lambda x: (shift + scale * x) ** power


def _concat(layer: Any, bottoms: Sequence[Any]) -> Callable[..., Any]:
    axis = layer.param.concat_param.axis
    return lambda *blobs: torch.cat(blobs, axis)


def _split(layer: Any, bottoms: Sequence[Any]) -> Callable[..., Any]:
    tops = len(layer.param.top)
    return lambda x: (x,) * tops


def _softmax_loss(layer: Any, bottoms: Sequence[Any]) -> Callable[..., Any]:
    return lambda x, labels: functional.cross_entropy(x.flatten(1) if x.shape[2:].numel() == 1 else x, labels)


class _Lstm(nn.Module):
    """torch has the gates in another order: i f g o, ours i f o g. Sequences start with the batch."""

    def __init__(self, layer: Any, bottoms: Sequence[Any]) -> None:
        super().__init__()
        size = layer.size
        order = np.r_[: 2 * size, 3 * size : 4 * size, 2 * size : 3 * size]
        self.lstm = nn.LSTM(bottoms[0].shape[-1], size)
        weights, bias, recurrent = (torch.from_numpy(blob.data[order].copy()) for blob in layer.blobs)
        self.lstm.weight_ih_l0, self.lstm.weight_hh_l0 = nn.Parameter(weights), nn.Parameter(recurrent)
        self.lstm.bias_ih_l0 = nn.Parameter(bias)
        self.lstm.bias_hh_l0 = nn.Parameter(torch.zeros_like(bias), requires_grad=False)

    def forward(self, x: Tensor, cont: Tensor) -> Tensor:
        return self.lstm(x)[0]


def _prelu(layer: Any, bottoms: Sequence[Any]) -> nn.Module:
    module = nn.PReLU(layer.blobs[0].count)
    module.weight = _parameter(layer.blobs[0])
    return module


CONVERTERS: dict[str, Callable[[Any, Sequence[Any]], Callable[..., Any]]] = {
    "BatchNorm": _batch_norm,
    "Concat": _concat,
    "Convolution": _convolution,
    "ConvolutionDepthwise": _convolution,
    "DepthwiseConvolution": _convolution,
    "Dropout": lambda layer, bottoms: nn.Dropout(layer.param.dropout_param.dropout_ratio),
    "ELU": lambda layer, bottoms: nn.ELU(layer.param.elu_param.alpha),
    "Eltwise": _eltwise,
    "Flatten": lambda layer, bottoms: nn.Flatten(),
    "InnerProduct": _inner_product,
    "LRN": _lrn,
    "LSTM": _Lstm,
    "PReLU": _prelu,
    "Pooling": _pooling,
    "Power": _power,
    "ReLU": _relu,
    "Sigmoid": lambda layer, bottoms: nn.Sigmoid(),
    "Softmax": lambda layer, bottoms: nn.Softmax(1),
    "SoftmaxWithLoss": _softmax_loss,
    "Split": _split,
    "TanH": lambda layer, bottoms: nn.Tanh(),
}
"""Layer type -> function that makes its module from the layer and its bottom blobs."""
