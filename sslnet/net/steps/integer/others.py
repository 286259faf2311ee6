"""Pooling, Eltwise, Concat, ReLU and layers that only pass values on, with whole numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.blob import Blob
from sslnet.kernels.quantized.elementwise import QuantizedSum, copy_channels, lookup
from sslnet.kernels.quantized.pooling import QuantizedPool
from sslnet.layers.eltwise import Eltwise
from sslnet.layers.pooling import Pooling
from sslnet.layers.relu import ReLU
from sslnet.net.steps.integer.base import ByteSource, IntegerStep
from sslnet.net.steps.integer.values import ByteValue


class IntegerPooling(IntegerStep):
    """Maximum, or mean."""

    target: ByteValue

    def __init__(
        self, layer: Pooling, bottom: list[Blob], top: list[Blob], sources: list[ByteSource], target: ByteValue
    ) -> None:
        super().__init__(layer, bottom, top, sources, target)
        source = sources[0].value
        images, channels, *size = source.size
        self.plan = QuantizedPool(
            images, channels, (size[0], size[1]), target.size[2:], layer.reach, layer.stride, layer.pad,
            mean=layer.method == pb.PoolingParameter.AVE, inside=layer.same,
        )  # fmt: skip
        ratio = source.scale.scale / target.scale.scale
        self.plan.set(source_zero=source.scale.zero, ratio=ratio, zero=target.scale.zero, top=target.scale.top)

    def compute(self) -> None:
        self.plan.run_at(self.sources[0].value.address, self.target.address)

    @property
    def name(self) -> str:
        return self.plan.kernel


class IntegerSum(IntegerStep):
    """The weighted sum of the bottoms."""

    layer: Eltwise
    target: ByteValue
    _sum: QuantizedSum | None = None

    def compute(self) -> None:
        if self._sum is None:
            values, to = [source.value for source in self.sources], self.target
            factors = [float(c) for c in self.layer.coeffs]
            self._sum = QuantizedSum([v.bytes for v in values], [v.scale for v in values], factors, to.bytes, to.scale)
        self._sum.run()

    @property
    def name(self) -> str:
        return "u8 sum"


class IntegerConcat(IntegerStep):
    """The channels of all bottoms, one after the other; all have one scale."""

    target: ByteValue

    def compute(self) -> None:
        first = 0
        for source in self.sources:
            copy_channels(source.value.bytes, self.target.bytes, source.value.size[1], first)
            first += source.value.size[1]

    @property
    def name(self) -> str:
        return "u8 copy"


class IntegerReLU(IntegerStep):
    """max(0, x), or a slope below 0, by a table; nothing where no byte stands for a negative value."""

    layer: ReLU
    target: ByteValue

    def __init__(self, layer: Any, bottom: list[Blob], top: list[Blob], sources: list[ByteSource], target: ByteValue):
        super().__init__(layer, bottom, top, sources, target)
        values = target.scale.values(np.arange(256, dtype=np.uint8))
        self.table = target.scale.quantized(np.where(values > 0, values, values * np.float32(layer.slope)))
        self.same = bool((self.table[: target.scale.top + 1] == np.arange(target.scale.top + 1)).all())
        # the bytes that the step before has made are the result
        self.IDLE = self.same and sources[0].value is target and sources[0].trusted  # type: ignore[misc]

    def compute(self) -> None:
        source = self.sources[0].value
        if not self.same or source is not self.target:
            lookup(source.bytes, self.target.bytes, self.table)

    @property
    def name(self) -> str:
        return "u8 joined" if self.same else "u8 table"


class PassedStep(IntegerStep):
    """A layer that changes nothing."""

    target: ByteValue

    def compute(self) -> None:
        source = self.sources[0].value
        if source is not self.target:
            self.target.bytes[...] = source.bytes

    @property
    def name(self) -> str:
        return "u8 joined"
