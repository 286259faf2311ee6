"""GradientLayout: the gradients of a net side by side in one array, in the order in which the backward pass completes
them, divided into buckets: what is exchanged between ranks at a time is a slice of it, and nothing is packed or copied."""

from __future__ import annotations

import numpy as np

from sslnet.net.net import Net
from sslnet.net.parameters import Param

BUCKET = 4 << 20
"""Bytes from which on a bucket is complete: enough that the latency of a network matters little."""
ALIGNED = 16
"""A gradient begins at a multiple of this many elements, a cache line of float32."""


def completed_by(net: Net) -> dict[int, int]:
    """For each diff of a parameter, by the id of the blob that owns it: the number of the layer after whose backward step
    it is complete, when the whole net runs. A step may run the backward pass of layers above it, and a shared parameter
    is complete when the lowest of its layers has run."""
    steps = net.plan(fused=True).steps
    found: dict[int, int] = {}
    for i, (layer, step) in enumerate(zip(net.layers, steps)):
        last = min(i, max(0, i - step.backward_below()))
        for blob in layer.blobs:
            owner = id(blob.owner("diff"))
            found[owner] = min(found.get(owner, i), last)
    return found


class GradientLayout:
    """Where the gradients of a net's trained parameters are in one array.

    count    number of elements of the array, gaps included
    places   the parameters with their first and last place, in the order of completion
    buckets  (first, last) of each bucket
    ready    for each layer after whose backward step buckets are complete: their numbers
    """

    def __init__(self, net: Net, bucket: int = BUCKET) -> None:
        completed = completed_by(net)
        params = [param for param in net.learnable if param.lr_mult]
        params.sort(key=lambda param: -completed[id(param.blob)])
        self.places: list[tuple[Param, int, int]] = []
        self.buckets: list[tuple[int, int]] = []
        self.ready: dict[int, list[int]] = {}
        begin = place = 0
        for k, param in enumerate(params):
            self.places.append((param, place, place + param.blob.count))
            place += -(-param.blob.count // ALIGNED) * ALIGNED
            if (place - begin) * net.dtype.itemsize >= bucket or k == len(params) - 1:
                self.ready.setdefault(completed[id(param.blob)], []).append(len(self.buckets))
                self.buckets.append((begin, place))
                begin = place
        self.count = place

    def attach(self, array: np.ndarray) -> None:
        """Makes the diffs of the parameters slices of the array.  array: (count), zeros"""
        for param, first, last in self.places:
            param.blob.adopt_diff(array[first:last].reshape(param.blob.shape))
