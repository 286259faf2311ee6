"""Convolution and InnerProduct with whole numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sslnet.blob import Blob
from sslnet.kernels.conv.geometry import ConvGeometry
from sslnet.kernels.conv.packing import address
from sslnet.kernels.quantized.convolution import QuantizedConv, plan_quantized
from sslnet.kernels.quantized.elementwise import to_planes
from sslnet.kernels.runtime.change_detector import SameBits
from sslnet.kernels.runtime.memory import scratch
from sslnet.layers.convolution import Convolution
from sslnet.layers.inner_product import InnerProduct
from sslnet.net.integer_weights import IntegerWeights, find_integers, largest
from sslnet.net.steps.convolution import geometry_of
from sslnet.net.steps.integer.base import ByteSource, IntegerStep
from sslnet.net.steps.integer.values import ByteValue

MOST_BIAS = 2.0**29
"""The largest bias in units of the sums; weights that are so small beside their bias have a larger step."""


@dataclass(frozen=True)
class LayerIntegers:
    """The whole numbers of a layer.

    weights   (filters, columns) and their steps
    bias      (filters,) int64, in units of the sums
    unit      (filters,) float64: what 1 in a sum stands for
    """

    weights: IntegerWeights
    bias: np.ndarray
    unit: np.ndarray


class WeightedStep(IntegerStep):
    """A layer of sums of products: integer sums, one multiplication, rounding."""

    layer: Any

    def __init__(
        self, layer: Any, bottom: list[Blob], top: list[Blob], sources: list[ByteSource], target: ByteValue | None
    ) -> None:
        super().__init__(layer, bottom, top, sources, target)
        self.bits = layer.param.quantization_param.weight_bits
        self.source = sources[0].value
        self.geometry = self._geometry()
        self.plan: QuantizedConv = plan_quantized(
            self.geometry,
            weight_most=largest(self.bits),
            dense=self._dense(),
            floats=target is None,
        )
        self._packed = SameBits()
        self._held = self._fresh = False

    def _geometry(self) -> ConvGeometry:
        raise NotImplementedError

    def _dense(self) -> bool:
        return self.source.step != -(-self.source.size[1] // 4) * 4

    def _rows(self) -> np.ndarray:
        """The weights (filters, columns)."""
        raise NotImplementedError

    def _numbers(self, rows: np.ndarray) -> np.ndarray:
        """The numbers (filters, columns) in the shape of the plan's weights."""
        raise NotImplementedError

    def hold_weights(self, held: bool) -> None:
        self._held, self._fresh = held, False

    def _pack(self) -> None:
        """Packs the weights if they have changed."""
        if self._held and self._fresh:
            return
        if self._packed.changed(*(blob.data for blob in self.layer.blobs)):
            self._pack_new()
        self._fresh = True

    def integers(self) -> LayerIntegers:
        """The numbers of the weights and the bias as they are now."""
        rows, source = self._rows(), self.source.scale
        bias = self.layer.blobs[1].data if len(self.layer.blobs) > 1 else np.zeros(len(rows), np.float32)
        found = bounded(find_integers(rows, self.bits), rows, bias, source.scale, largest(self.bits))
        unit = np.float64(source.scale) * found.steps
        return LayerIntegers(found, np.rint(bias / unit).astype(np.int64), unit)

    def _pack_new(self) -> None:
        found, to, zero, top = self.integers(), 1.0, 0, 255
        if self.target is not None:
            scale = self.target.scale
            to, zero, top = scale.scale, scale.zero, scale.top
        self.plan.pack(
            self._numbers(found.weights.numbers),
            found.bias,
            (found.unit / to).astype(np.float32),
            source_zero=self.source.scale.zero,
            zero=zero,
            top=top,
        )

    def compute(self) -> None:
        self._pack()
        if self.target is not None:
            self.plan.run_at(self.source.address, self.target.address)
            return
        data = self.top[0].data
        filters, pixels = self.geometry.filters, data.size // (data.shape[0] * self.geometry.filters)
        if pixels == 1:
            self.plan.run_at(self.source.address, address(data))
            return
        rows = scratch("integer rows", data.size).reshape(-1, pixels, filters)
        self.plan.run_at(self.source.address, address(rows))
        to_planes(rows, data.reshape(-1, filters, pixels))

    @property
    def name(self) -> str:
        return self.plan.kernel


class IntegerConvolution(WeightedStep):
    """A convolution over two axes."""

    layer: Convolution

    def _geometry(self) -> ConvGeometry:
        return geometry_of(self.layer, self.bottom[0].shape)

    def _rows(self) -> np.ndarray:
        return self.layer.whole_weights().reshape(self.layer.num_output, -1)

    def _numbers(self, rows: np.ndarray) -> np.ndarray:
        return rows.reshape(self.geometry.weight_shape)


class IntegerProduct(WeightedStep):
    """A fully connected layer: a convolution of 1 x 1 whose channels are all bytes of an image, pixel after pixel."""

    layer: InnerProduct

    def _geometry(self) -> ConvGeometry:
        images, _, height, width = self.source.size
        return ConvGeometry(images, height * width * self.source.step, 1, 1, self.layer.num_output, 1, 1)

    def _dense(self) -> bool:
        return True

    def _rows(self) -> np.ndarray:
        weights = self.layer.blobs[0].data
        return weights.T if self.layer.transpose else weights

    def _numbers(self, rows: np.ndarray) -> np.ndarray:
        _, channels, height, width = self.source.size
        full = np.zeros((len(rows), height * width, self.source.step), np.int8)
        full[..., :channels] = rows.reshape(len(rows), channels, -1).transpose(0, 2, 1)
        return full.reshape(self.geometry.weight_shape)


def bounded(found: IntegerWeights, rows: np.ndarray, bias: np.ndarray, scale: float, top: int) -> IntegerWeights:
    """The numbers with a larger step where the bias would not fit into the sums, and with a step that suits the bias where
    all weights are zero."""
    steps = found.steps.astype(np.float64)
    needed = np.abs(bias.astype(np.float64)) / (scale * MOST_BIAS)
    empty = ~found.numbers.any(axis=1)
    steps[empty] = np.maximum(np.abs(bias[empty].astype(np.float64)) / (scale * 2.0**24), np.finfo(np.float32).tiny)
    small = steps < needed
    if not small.any() and not empty.any():
        return found
    numbers = found.numbers.copy()
    steps = np.maximum(steps, needed).astype(np.float32)
    numbers[small] = np.clip(np.rint(rows[small] / steps[small, None].astype(np.float64)), -top, top)
    return IntegerWeights(numbers, steps)
