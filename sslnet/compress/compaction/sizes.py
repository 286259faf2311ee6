"""The size of each layer before and after: filters, channels, parameters, FLOPs, bytes of its blobs."""

from __future__ import annotations

from dataclasses import dataclass, fields

from sslnet.layers.channels import channel_count
from sslnet.net.net import Net


@dataclass(frozen=True)
class Size:
    """The size of one layer, or of a net (the sum, without filters and channels).

    filters   number of channels of its first top
    channels  number of channels of its first bottom
    flops     FLOPs of one forward pass over the batch
    bytes     size of the data of its tops, without tops in place
    """

    filters: int = 0
    channels: int = 0
    parameters: int = 0
    flops: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class LayerSize:
    name: str
    type: str
    before: Size
    after: Size


def layer_sizes(before: Net, after: Net) -> list[LayerSize]:
    """Sizes of the layers of both nets, matched by name, in order, without layers added by the net (Split)."""
    ours, theirs = _sizes(before), _sizes(after)
    types = {layer.name: layer.TYPE for net in (after, before) for layer in net.layers}
    order = list(theirs) + [name for name in ours if name not in theirs]
    return [LayerSize(name, types[name], ours.get(name, Size()), theirs.get(name, Size())) for name in order]


def total_size(sizes: list[Size]) -> Size:
    """The sum of parameters, FLOPs and bytes."""
    summed = {f.name: sum(getattr(size, f.name) for size in sizes) for f in fields(Size)}
    return Size(**{**summed, "filters": 0, "channels": 0})


def _sizes(net: Net) -> dict[str, Size]:
    owned = {id(param.blob) for param in net.learnable}
    result = {}
    for layer, bottom, top in zip(net.layers, net.bottoms, net.tops):
        if layer.definition.index < 0 and not layer.IS_SOURCE:
            continue
        result[layer.name] = Size(
            filters=channel_count(top[0].shape) if top else 0,
            channels=channel_count(bottom[0].shape) if bottom else 0,
            parameters=sum(blob.count for blob in layer.blobs if id(blob) in owned),
            flops=layer.flops(bottom, top),
            bytes=sum(blob.nbytes for blob in top if all(blob is not b for b in bottom)),
        )
    return result
