"""Steps that run layers with whole numbers in phase TEST; ``integer_steps`` makes them for the quantised layers of a net.

A layer with weights runs so if it has a ``quantization_param``. The layers between them (pooling, sums, Concat, ReLU) stay in
bytes as far as they can; a layer that needs float values reads the blob, which is converted then. A blob whose value is
in bytes shows it as float values as soon as somebody reads them.
"""

from __future__ import annotations

from collections.abc import Sequence

from sslnet import sslnet_pb2 as pb
from sslnet.blob import Blob
from sslnet.kernels.quantized.elementwise import ByteScale
from sslnet.layers.base import Layer
from sslnet.layers.concat import Concat
from sslnet.layers.convolution import Convolution
from sslnet.layers.dropout import Dropout
from sslnet.layers.eltwise import Eltwise
from sslnet.layers.inner_product import InnerProduct
from sslnet.layers.pooling import Pooling
from sslnet.layers.regroup import Regroup
from sslnet.layers.relu import ReLU
from sslnet.layers.split import Split
from sslnet.net.integer_weights import has_quantization
from sslnet.net.layer_graph import LayerGraph
from sslnet.net.steps.base import EmptyStep, Step
from sslnet.net.steps.integer.base import ByteSource, IntegerStep, check_param, scale_of
from sslnet.net.steps.integer.others import IntegerConcat, IntegerPooling, IntegerReLU, IntegerSum, PassedStep
from sslnet.net.steps.integer.values import ByteValue, size_of
from sslnet.net.steps.integer.weighted import IntegerConvolution, IntegerProduct

__all__ = ["IntegerStep", "integer_steps", "is_quantized"]


def is_quantized(layer: Layer) -> bool:
    """Whether the layer has weights that are whole numbers in phase TEST."""
    return layer.HAS_WEIGHTS and has_quantization(layer.param)


def integer_steps(graph: LayerGraph, steps: list[Step], *, whole: bool) -> None:
    """Replaces the steps of layers that run with whole numbers; whole: the steps always run all, one after the other.

    raises DefinitionError for a quantization_param that is out of range, or lacks a range
    """
    if not any(is_quantized(layer) for layer in graph.layers):
        return
    made = _Maker(whole)
    for i, layer in enumerate(graph.layers):
        step = None
        if not isinstance(steps[i], EmptyStep):
            step = made.step(layer, graph.bottoms[i], graph.tops[i])
        if step is not None:
            steps[i] = step
        else:
            made.read_as_float(layer, graph.bottoms[i])
            made.forget(graph.tops[i], layer)
    for name in graph.outputs:
        made.show(graph.blobs[name])


class _Maker:
    """Makes the steps in order; knows the values that are in bytes so far."""

    def __init__(self, whole: bool) -> None:
        self.whole = whole
        self.values: dict[Blob, ByteValue] = {}

    def value(self, blob: Blob) -> ByteValue | None:
        """The bytes of a blob, or of the blob whose data it shows."""
        return self.values.get(blob.owner("data"))

    def show(self, blob: Blob) -> None:
        """Notes that the float values of a blob are read in every run."""
        value = self.value(blob)
        if value is not None and self.whole:
            value.eager = True

    def read_as_float(self, layer: Layer, bottom: Sequence[Blob]) -> None:
        """Notes that a float layer reads its bottoms."""
        if not isinstance(layer, Split | Regroup):
            for blob in bottom:
                self.show(blob)

    def forget(self, tops: Sequence[Blob], layer: Layer) -> None:
        """Notes that a float layer has overwritten its tops."""
        if not isinstance(layer, Split | Regroup):
            for blob in tops:
                self.values.pop(blob.owner("data"), None)

    def step(self, layer: Layer, bottom: list[Blob], top: list[Blob]) -> Step | None:
        """The step of a layer; None if it runs in float."""
        if has_quantization(layer.param):
            check_param(layer)
        if is_quantized(layer):
            return self._weighted(layer, bottom, top)
        values = [self.value(blob) for blob in bottom]
        known = [value for value in values if value is not None]
        if not bottom or len(known) < len(bottom) or len(top) != 1:
            return None
        if isinstance(layer, Split | Regroup):
            return None  # the top shares the data, so that the value is found under its owner
        if not all(value.fits(blob) for value, blob in zip(known, bottom)):
            return None
        return self._other(layer, bottom, top, known)

    def _sources(self, bottom: list[Blob], values: list[ByteValue]) -> list[ByteSource]:
        return [ByteSource(blob, value, made=True, whole=self.whole) for blob, value in zip(bottom, values)]

    def _other(self, layer: Layer, bottom: list[Blob], top: list[Blob], values: list[ByteValue]) -> Step | None:
        size, first = size_of(top[0]), values[0]
        if size is None:
            return None
        param = layer.param.quantization_param
        given = scale_of(param.output_range, param.activation_bits) if param.HasField("output_range") else None
        sources = self._sources(bottom, values)
        if isinstance(layer, Pooling) and len(bottom[0].shape) == 4 and not layer.has_empty_window:
            if layer.method == pb.PoolingParameter.MAX:
                return IntegerPooling(layer, bottom, top, sources, self._new(top[0], size, first.scale))
            if layer.method == pb.PoolingParameter.AVE:
                return IntegerPooling(layer, bottom, top, sources, self._new(top[0], size, given or first.scale))
        if isinstance(layer, Eltwise) and layer.operation == pb.EltwiseParameter.SUM and given is not None:
            return IntegerSum(layer, bottom, top, sources, self._new(top[0], size, given))
        same = len({value.scale for value in values}) == 1
        if isinstance(layer, Concat) and layer.axis == 1 and len(bottom) > 1 and same:
            return IntegerConcat(layer, bottom, top, sources, self._new(top[0], size, first.scale))
        passes = isinstance(layer, Dropout) and not layer.samples and layer.factor == 1
        if isinstance(layer, ReLU) or passes:
            target = first if top[0] is bottom[0] else self._new(top[0], size, first.scale)
            step = IntegerReLU if isinstance(layer, ReLU) else PassedStep
            return step(layer, bottom, top, sources, target)
        return None

    def _new(self, blob: Blob, size: tuple[int, int, int, int], scale: ByteScale) -> ByteValue:
        owner = blob.owner("data")
        value = self.values[owner] = ByteValue(owner, size, scale)
        return value

    def _weighted(self, layer: Layer, bottom: list[Blob], top: list[Blob]) -> Step:
        param = layer.param.quantization_param
        good: type[IntegerConvolution | IntegerProduct] | None = None
        if isinstance(layer, Convolution) and layer.num_spatial == 2 and layer.axis == 1 and len(bottom) == 1:
            good = IntegerConvolution
        if isinstance(layer, InnerProduct) and layer.axis == 1 and len(bottom[0].shape) in (2, 4):
            good = IntegerProduct
        if good is None:
            raise layer.error(
                f"a {layer.TYPE} of this kind cannot run with whole numbers",
                "quantization_param",
                hint="a Convolution over two axes with one bottom, or an InnerProduct, can",
            )
        value, made = self.value(bottom[0]), True
        if value is not None and good is IntegerConvolution and not value.fits(bottom[0]):
            self.show(bottom[0])
            value = None
        if value is None:
            if not param.input_range:
                raise layer.error(
                    f'input_range is missing: "{bottom[0].name}" is not quantised',
                    "quantization_param",
                    hint="sslnet quantize writes it",
                )
            size = size_of(bottom[0])
            assert size is not None
            scale, made = scale_of(param.input_range[0], param.activation_bits), False
            value = ByteValue(bottom[0], size, scale, dense=size[1] < 4 and good is IntegerConvolution)
        source = ByteSource(bottom[0], value, made=made, whole=self.whole)
        target = None
        if param.HasField("output_range"):
            out = size_of(top[0])
            assert out is not None
            target = self._new(top[0], out, scale_of(param.output_range, param.activation_bits))
        else:
            self.forget(top, layer)
        return good(layer, bottom, top, [source], target)
