"""``quantize``: a net whose layers run with whole numbers in phase TEST, made from a trained net and a few images.

BatchNorm, Scale and Bias are folded first. Ranges of values come from calibration images of phase TRAIN, without labels.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.compress.compaction.deploy import deploy_definition
from sslnet.compress.pruning.calibration import CalibrationSet, batches, calibration_net, draw_images
from sslnet.compress.pruning.linear_layer import LinearLayer, find_shared, is_linear
from sslnet.compress.quantization.bit_widths import BitWidths
from sslnet.compress.quantization.fold import Folded, fold_affine
from sslnet.compress.quantization.ranges import BytePlan, Ranges, plan_bytes
from sslnet.compress.quantization.rounding import MOST_COLUMNS, nearest, second_order, steps_of
from sslnet.errors import RunError, UsageError, suggestion
from sslnet.layers.base import Layer
from sslnet.layers.convolution import Convolution
from sslnet.layers.deconvolution import Deconvolution
from sslnet.layers.regroup import Regroup
from sslnet.layers.split import Split
from sslnet.net.blob_arrays import blob_proto
from sslnet.net.graph import PhaseState
from sslnet.net.input_layers import source_shapes
from sslnet.net.integer_weights import has_quantization, packed_blob
from sslnet.net.net import Net
from sslnet.net.weights import Arrays, WeightSource, copy_all_weights, stored_weights
from sslnet.prototxt import Definition, upgrade_net

BATCH = 20
"""Calibration images that run at once."""
PLACES = 200
"""Output positions of each image that the second moments are taken from."""
NEAREST_FROM = 8
"""Bits of weights from which the nearest numbers are as good as those of second order."""
CLIP_BELOW = 7
"""Bits of weights below which the largest weights of a filter may be clipped, for a smaller step."""


@dataclass(frozen=True)
class QuantizedLayer:
    """One layer with weights of the quantised net.

    bits          of weights and activations; None: it stays float
    range         values of the top; None: its top is float
    noise         decibels of the layer's outputs with float weights to their change by the numbers; None without data, inf
                  where nothing changed
    parameters    bytes of the blobs before and after
    rounding      "nearest" or "second-order"
    """

    name: str
    type: str
    bits: BitWidths | None
    range: tuple[float, float] | None
    noise: float | None
    parameters: tuple[int, int]
    rounding: str = ""


@dataclass
class Quantized:
    """The result of ``quantize``: definitions, weights and statistics.

    islands   layers that read or write float values between quantised ones, with types
    """

    message: pb.NetParameter
    deploy: pb.NetParameter | None
    weights: pb.NetParameter
    layers: list[QuantizedLayer]
    folded: list[str]
    islands: list[tuple[str, str]]
    images: int
    arrays: Arrays
    """The folded weights in float."""
    float_message: pb.NetParameter
    """The folded definition."""
    notes: list[str] = field(default_factory=list)


def quantize(
    model: str | Path | Definition,
    weights: WeightSource,
    *,
    images: int = 100,
    bits: BitWidths,
    layers: Mapping[str, BitWidths | None] | None = None,
    method: str = "minmax",
    rounding: str | None = None,
    level: int = 0,
    stages: Sequence[str] = (),
    seed: int = 0,
    tell: Callable[[str], object] = lambda text: None,
) -> Quantized:
    """Quantises a net. Writes no files.

    images     number of calibration images, drawn from the data of phase TRAIN
    bits       of all layers but those in ``layers`` (None: the layer stays float)
    method     ranges of activations: "minmax", or "mse", the least squared error
    rounding   "nearest" or "second-order"; None: second order below 8 bits
    tell       takes a line for each step

    raises UsageError for a net without data in phase TRAIN, and for layers that it does not have or that cannot be quantised
    """
    calibration = prepare(model, weights, images=images, level=level, stages=stages, seed=seed, tell=tell)
    return calibration.quantize(bits, layers or {}, method=method, rounding=rounding, tell=tell)


def prepare(
    model: str | Path | Definition,
    weights: WeightSource,
    *,
    images: int,
    level: int = 0,
    stages: Sequence[str] = (),
    seed: int = 0,
    tell: Callable[[str], object] = lambda text: None,
) -> Calibration:
    """Reads and folds a net, and draws its calibration images; from then on it can be quantised in several ways."""
    if images < 1:
        raise UsageError(f"the number of calibration images must be at least 1, not {images}")
    definition = upgrade_net(model if isinstance(model, Definition) else prototxt.read_net(os.fspath(model)))
    state = PhaseState(pb.TEST, level, tuple(stages))
    net = Net(definition, phase=pb.TEST, level=level, stages=stages, seed=seed, lean=True)
    stored = stored_weights(weights)
    copy_all_weights(net.params, stored)
    if any(has_quantization(layer.param) for layer in net.layers):
        raise UsageError("the net is quantised already", hint="give the float net and its weights")
    arrays = {name: [np.asarray(b.data, np.float32) for b in blobs] for name, blobs in net.params.items()}
    folded = fold_affine(net, definition.message, stored.arrays | arrays)
    tell(f"drawing {images} calibration images")
    drawn = draw_images(net, images, seed)
    return Calibration(definition, state, folded, drawn, seed)


class Calibration:
    """A folded float net with calibration images.

    net   runs a batch of the images
    """

    def __init__(
        self, definition: Definition, state: PhaseState, folded: Folded, images: CalibrationSet, seed: int
    ) -> None:
        self.definition, self.state, self.folded, self.images, self.seed = definition, state, folded, images, seed
        smaller = definition.with_message(folded.message)
        own = Net(smaller, phase=pb.TEST, level=state.level, stages=state.stages, seed=seed, lean=True)
        copy_all_weights(own.params, _message_of(folded.message, folded.arrays))
        self.shapes = source_shapes(own)
        self.net = calibration_net(own, images, min(BATCH, images.count))

    def candidates(self) -> dict[str, int]:
        """Layers that can run with whole numbers, by name, with their numbers."""
        net, shared = self.net, find_shared(self.net)
        found = {}
        for i, layer in enumerate(net.layers):
            if not is_linear(net, i) or isinstance(layer, Deconvolution) or i in shared or len(net.tops[i]) != 1:
                continue
            if isinstance(layer, Convolution) and layer.num_spatial != 2:
                continue
            if len(net.bottoms[i][0].shape) in (2, 4):
                found[layer.name] = i
        return found

    def quantize(
        self,
        bits: BitWidths,
        layers: Mapping[str, BitWidths | None],
        *,
        method: str = "minmax",
        rounding: str | None = None,
        tell: Callable[[str], object] = lambda text: None,
    ) -> Quantized:
        """The quantised net; arguments as of ``quantize``."""
        candidates = self.candidates()
        if not candidates:
            raise UsageError("the net has no layer that can run with whole numbers")
        for name in layers:
            if name not in candidates:
                known = name in self.net.params
                message = (
                    f'layer "{name}" cannot be quantised' if known else f'the net has no layer "{name}" with weights'
                )
                raise UsageError(message, hint=suggestion(name, candidates) or f"layers: {', '.join(candidates)}")
        widths = {name: layers.get(name, bits) for name in candidates}
        plan = plan_bytes(self.net, {i for name, i in candidates.items() if widths[name] is not None})
        tell(f"ranges of values ({method})")
        ranges = Ranges(self.net, self.images, plan, method)
        arrays, noise, used = self._rounded(widths, candidates, rounding, tell)
        changed = self._message(plan, ranges, widths, bits)
        return self._result(changed, plan, ranges, widths, bits, arrays, noise, used)

    # -- weights -------------------------------------------------------------------------------------------------------

    def _rounded(
        self, widths: Mapping[str, BitWidths | None], candidates: dict[str, int], rounding: str | None,
        tell: Callable[[str], object],
    ) -> tuple[Arrays, dict[str, float], dict[str, str]]:  # fmt: skip
        """The weights on their grids, the noise of each layer in decibels, and how each was rounded.

        Layers are rounded in the order of the net, and those that follow see what the rounded ones give.
        """
        net = self.net
        arrays = {name: list(values) for name, values in self.folded.arrays.items()}
        saved = {name: net.params[name][0].data.copy() for name in candidates}
        noise, used = {}, {}
        try:
            for name, i in candidates.items():
                width = widths[name]
                if width is None:
                    continue
                how = rounding or ("nearest" if width.weights >= NEAREST_FROM else "second-order")
                linear = LinearLayer(net, i)
                if how == "second-order" and linear.columns > MOST_COLUMNS:
                    how = "nearest"
                used[name] = how
                if how == "second-order":
                    tell(f"{name}: second order, {linear.columns} columns")
                moments = self._moments(linear, i) if linear.columns <= MOST_COLUMNS else None
                before = linear.matrix()
                after = np.empty_like(before)
                for g in range(linear.groups):
                    rows = np.ascontiguousarray(before[g].T)
                    steps = steps_of(rows, width.weights, clip=width.weights < CLIP_BELOW)
                    if how == "second-order":
                        assert moments is not None
                        after[g] = second_order(rows, steps, moments[g], width.weights).T
                    else:
                        after[g] = nearest(rows, steps, width.weights).T
                if not np.isfinite(after).all():
                    raise RunError(f'layer "{name}" has weights that are not numbers')
                linear.put_matrix(after)
                arrays[name] = [net.params[name][0].data.copy(), *arrays[name][1:]]
                if moments is not None:
                    noise[name] = _decibels(before, after, moments)
        finally:
            for name, values in saved.items():
                net.params[name][0].data[...] = values
        return arrays, noise, used

    def _moments(self, linear: LinearLayer, i: int) -> np.ndarray:
        """The second moments (groups, columns, columns) of what a layer reads."""
        net, random = self.net, np.random.default_rng(self.seed)
        total, count = np.zeros((linear.groups, linear.columns, linear.columns)), 0
        for _ in batches(net, self.images):
            if i:
                net.forward(end=net.layer_names[i - 1])
            data = net.bottoms[i][0].data
            x = linear.inputs(data, linear.draw_places(len(data), random, PLACES))
            for g in range(linear.groups):
                total[g] += x[g].T.astype(np.float64) @ x[g]
            count += x.shape[1]
        return total / max(count, 1)

    # -- results -------------------------------------------------------------------------------------------------------

    def _message(
        self, plan: BytePlan, ranges: Ranges, widths: Mapping[str, BitWidths | None], bits: BitWidths
    ) -> pb.NetParameter:
        """The folded definition with a quantization_param in every layer that needs one."""
        message = pb.NetParameter()
        message.CopyFrom(self.folded.message)
        given: dict[tuple[str, str], pb.QuantizationParameter] = {}
        for i, layer in enumerate(self.net.layers):
            param = pb.QuantizationParameter()
            width = widths.get(layer.name) if i in plan.quantized else bits
            if width is None or (i not in plan.quantized and i not in plan.writes):
                continue
            if i in plan.quantized:
                param.weight_bits = width.weights
            param.activation_bits = width.activations
            if i in plan.converts:
                _put(param.input_range.add(), ranges.of(self.net.bottoms[i][0], width.activations))
            if i in plan.writes:
                _put(param.output_range, ranges.of(self.net.tops[i][0], width.activations))
            given[layer.name, layer.TYPE] = param
        for new in message.layer:
            found = given.get((new.name, new.type))
            if found is not None:
                new.quantization_param.CopyFrom(found)
        return message

    def _result(
        self, message: pb.NetParameter, plan: BytePlan, ranges: Ranges, widths: Mapping[str, BitWidths | None],
        bits: BitWidths, arrays: Arrays, noise: dict[str, float], used: dict[str, str],
    ) -> Quantized:  # fmt: skip
        rows = []
        stored = _message_of(message, arrays, widths)
        size = {layer.name: sum(_bytes(blob) for blob in layer.blobs) for layer in stored.layer}
        for i, layer in enumerate(self.net.layers):
            if not layer.HAS_WEIGHTS:
                continue
            width = widths.get(layer.name)
            shown = ranges.of(self.net.tops[i][0], width.activations) if width and i in plan.writes else None
            before = sum(4 * blob.count for blob in layer.blobs)
            after = size.get(layer.name, before)
            rows.append(
                QuantizedLayer(
                    layer.name,
                    layer.TYPE,
                    width,
                    shown,
                    noise.get(layer.name),
                    (before, after),
                    used.get(layer.name, ""),
                )
            )
        changed = self.definition.with_message(message)
        islands = _islands(self.net, plan)
        return Quantized(
            message=message,
            deploy=deploy_definition(changed, self.state, self.shapes),
            weights=stored,
            layers=rows,
            folded=self.folded.names,
            islands=islands,
            images=self.images.count,
            arrays=self.folded.arrays,
            float_message=self.folded.message,
            notes=[
                f"{row.name} stays float: a {row.type} has no integer kernel" for row in rows if row.name not in widths
            ],
        )


def _put(target: pb.ValueRange, limits: tuple[float, float]) -> None:
    """Writes a range with seven digits, which float32 holds."""
    target.min, target.max = (float(f"{limit:.7g}") for limit in limits)


def _decibels(before: np.ndarray, after: np.ndarray, moments: np.ndarray) -> float:
    """10 log10 of the energy of the outputs, by that of their change: weights (groups, columns, outputs)."""
    signal = error = 0.0
    for w, q, h in zip(before, after, moments):
        signal += float(np.einsum("io,ij,jo->", w, h, w, optimize=True))
        error += float(np.einsum("io,ij,jo->", q - w, h, q - w, optimize=True))
    return 10 * float(np.log10(signal / error)) if error > 0 and signal > 0 else float("inf")


def _islands(net: Net, plan: BytePlan) -> list[tuple[str, str]]:
    """Layers in float that read what a quantised layer has written, or write what one converts: between quantised layers."""
    firsts, lasts = min(plan.quantized, default=0), max(plan.quantized, default=0)
    return [
        (net.layer_names[i], net.layers[i].TYPE)
        for i in range(firsts, lasts)
        if i not in plan.bytes_ and i not in plan.quantized and net.tops[i] and not _moves_nothing(net.layers[i])
    ]


def _moves_nothing(layer: Layer) -> bool:
    return isinstance(layer, Split | Regroup) or layer.IS_SOURCE or not layer.DEPLOYED


def _bytes(blob: pb.BlobProto) -> int:
    if blob.HasField("packed"):
        return len(blob.packed.numbers) + 4 * len(blob.packed.step)
    return 4 * len(blob.data)


def _message_of(
    message: pb.NetParameter, arrays: Arrays, widths: Mapping[str, BitWidths | None] | None = None
) -> pb.NetParameter:
    """The weights file of a definition; weights with a width are packed numbers."""
    result, left = pb.NetParameter(name=message.name), dict(arrays)
    for layer in message.layer:
        values = left.pop(layer.name, None)
        if values is None:
            continue
        width = (widths or {}).get(layer.name)
        target = result.layer.add(name=layer.name, type=layer.type)
        for index, array in enumerate(values):
            packed = packed_blob(array, width.weights) if width is not None and index == 0 else None
            target.blobs.append(packed or blob_proto(np.ascontiguousarray(array, np.float32)))
    return result
