"""Which values of a net are bytes, and the ranges of values on calibration images."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.blob import Blob
from sslnet.compress.pruning.calibration import CalibrationSet, batches
from sslnet.kernels.quantized.elementwise import ByteScale
from sslnet.layers.base import Layer
from sslnet.layers.concat import Concat
from sslnet.layers.dropout import Dropout
from sslnet.layers.eltwise import Eltwise
from sslnet.layers.pooling import Pooling
from sslnet.layers.regroup import Regroup
from sslnet.layers.relu import ReLU
from sslnet.layers.split import Split
from sslnet.net.net import Net

BINS = 2048
SHRINKS = np.linspace(0.1, 1.0, 91)
"""Ranges that are tried for the least squared error, relative to that of all values."""


class RangeGroups:
    """Blobs that must have one range, because layers between them copy bytes."""

    def __init__(self) -> None:
        self._of: dict[Blob, Blob] = {}

    def find(self, blob: Blob) -> Blob:
        """The blob that stands for the group of a blob."""
        blob = blob.owner("data")
        while self._of.get(blob, blob) is not blob:
            blob = self._of[blob]
        return blob

    def join(self, one: Blob, other: Blob) -> None:
        self._of[self.find(other)] = self.find(one)


@dataclass
class BytePlan:
    """What is in bytes.

    quantized   the layers with weights that run with whole numbers, by number
    bytes_      numbers of layers whose top is in bytes
    writes      those of them that need a range
    converts    numbers of quantised layers whose bottom is float, and needs a range
    """

    quantized: set[int]
    groups: RangeGroups = field(default_factory=RangeGroups)
    bytes_: set[int] = field(default_factory=set)
    writes: set[int] = field(default_factory=set)
    converts: set[int] = field(default_factory=set)


def plan_bytes(net: Net, quantized: set[int]) -> BytePlan:
    """Decides which values are bytes: those that a quantised layer writes and a layer that can take bytes reads."""
    plan = BytePlan(quantized)
    known: set[Blob] = set()
    for i, layer in enumerate(net.layers):
        bottom, top = net.bottoms[i], net.tops[i]
        owners = [blob.owner("data") for blob in bottom]
        inside = bool(owners) and all(owner in known for owner in owners)
        if i in quantized:
            if not inside:
                plan.converts.add(i)
            if _takes_bytes(net, i, plan):
                plan.writes.add(i)
                plan.bytes_.add(i)
                known.add(top[0].owner("data"))
            else:
                known.discard(top[0].owner("data"))
            continue
        if isinstance(layer, Split | Regroup):
            continue
        if inside and len(top) == 1 and _stays(layer, bottom):
            known.add(top[0].owner("data"))
            plan.bytes_.add(i)
            mean = isinstance(layer, Pooling) and layer.method == pb.PoolingParameter.AVE
            if mean or isinstance(layer, Eltwise):
                plan.writes.add(i)
            else:
                for owner in owners:
                    plan.groups.join(owner, top[0])
        else:
            known.difference_update(blob.owner("data") for blob in top)
    return plan


def _stays(layer: Layer, bottom: list[Blob]) -> bool:
    """Whether a layer without weights can take bytes and write bytes."""
    if isinstance(layer, Pooling):
        return layer.method != pb.PoolingParameter.STOCHASTIC and not layer.has_empty_window
    if isinstance(layer, Eltwise):
        return bool(layer.operation == pb.EltwiseParameter.SUM)
    if isinstance(layer, Concat):
        return layer.axis == 1 and len(bottom) > 1 and len(bottom[0].shape) in (2, 4)
    if isinstance(layer, Dropout):
        return not layer.samples and bool(layer.factor == 1)
    return isinstance(layer, ReLU)


def _takes_bytes(net: Net, i: int, plan: BytePlan) -> bool:
    """Whether a layer that gains by bytes reads what layer i writes, directly or behind ReLU and Dropout."""
    owner = net.tops[i][0].owner("data")
    for j in range(i + 1, len(net.layers)):
        layer = net.layers[j]
        reads = any(blob.owner("data") is owner for blob in net.bottoms[j])
        writes = any(blob.owner("data") is owner for blob in net.tops[j])
        if isinstance(layer, Split | Regroup) or not (reads or writes):
            continue
        if j in plan.quantized and reads:
            return True
        if reads and isinstance(layer, Pooling | Eltwise | Concat) and _stays(layer, net.bottoms[j]):
            return True
        if reads and isinstance(layer, ReLU | Dropout) and _stays(layer, net.bottoms[j]):
            if not writes and _takes_bytes(net, j, plan):
                return True
            continue
        if writes:
            return False
    return False


class Ranges:
    """Ranges of the values of groups of blobs, on calibration images.

    net    a calibration net, with inputs for a batch;  method: "minmax", or "mse", the least squared error
    """

    def __init__(self, net: Net, images: CalibrationSet, plan: BytePlan, method: str) -> None:
        self.net, self.plan, self.method = net, plan, method
        self._blobs: dict[Blob, list[Blob]] = {}
        for i in sorted(plan.writes):
            self._blobs.setdefault(plan.groups.find(net.tops[i][0]), []).append(self._shown(i))
        for i in sorted(plan.converts):
            owner = net.bottoms[i][0].owner("data")
            self._blobs.setdefault(plan.groups.find(owner), []).append(owner)
        self.limits = dict.fromkeys(self._blobs, (0.0, 0.0))
        for _ in batches(net, images):
            net.forward()
            for group, blobs in self._blobs.items():
                low, high = self.limits[group]
                low = min(low, *(float(blob.data.min()) for blob in blobs))
                self.limits[group] = low, max(high, *(float(blob.data.max()) for blob in blobs))
        self._counts: dict[Blob, np.ndarray] = {}
        if method == "mse":
            self._count(images)

    def _shown(self, i: int) -> Blob:
        """The blob whose values decide the range of what layer i writes: behind maxima and ReLUs that are its only readers,
        because values that these set to zero, or never choose, may be clipped before."""
        net, blob = self.net, self.net.tops[i][0].owner("data")
        while True:
            others = [j for j in range(i + 1, len(net.layers)) if self._reads(j, blob)]
            if len(others) != 1 or blob.name in net.outputs:
                return blob
            layer, top = net.layers[others[0]], net.tops[others[0]]
            is_max = isinstance(layer, Pooling) and layer.method == pb.PoolingParameter.MAX and len(top) == 1
            if not is_max and not (isinstance(layer, ReLU) and layer.slope == 0):
                return blob
            i, blob = others[0], top[0].owner("data")

    def _reads(self, j: int, blob: Blob) -> bool:
        """Whether layer j reads a blob, and does not only change it in place."""
        reads = any(b.owner("data") is blob for b in self.net.bottoms[j])
        writes = any(b.owner("data") is blob for b in self.net.tops[j])
        return reads and not writes

    def _count(self, images: CalibrationSet) -> None:
        for _ in batches(self.net, images):
            self.net.forward()
            for group, blobs in self._blobs.items():
                low, high = self.limits[group]
                for blob in blobs:
                    counts, _ = np.histogram(blob.data, BINS, (low, high if high > low else low + 1))
                    self._counts[group] = self._counts.get(group, 0) + counts

    def of(self, blob: Blob, bits: int) -> tuple[float, float]:
        """The range (low, high) for values of this many bits; it holds 0 and other values."""
        group = self.plan.groups.find(blob)
        low, high = self.limits[group]
        if not high > low:
            return (0.0, 1.0)
        if not (np.isfinite(low) and np.isfinite(high)):
            return (low, high)
        if group in self._counts:
            low, high = least_error(self._counts[group], low, high, bits)
        return (low, high)


def least_error(counts: np.ndarray, low: float, high: float, bits: int) -> tuple[float, float]:
    """The part of a range, with 0, whose quantised values have the least squared error.

    counts   (bins,) of values in equal bins from low to high
    """
    edges = np.linspace(low, high, len(counts) + 1)
    middles = (edges[1:] + edges[:-1]) / 2
    best, chosen = np.inf, (low, high)
    for shrink in SHRINKS:
        scale = ByteScale.of_range(low * shrink, high * shrink, bits)
        numbers = np.clip(np.rint(middles / scale.scale), -scale.zero, scale.top - scale.zero)
        error = float((counts * (numbers * scale.scale - middles) ** 2).sum())
        if error < best:
            best, chosen = error, (low * shrink, high * shrink)
    return chosen
