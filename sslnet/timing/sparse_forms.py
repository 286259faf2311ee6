"""Times the algorithms for layers with zero weights side by side, on the data in the net.

    dense    all weights, zero or not
    kept     the rows and columns of the weight matrix that are not all zero, as stored by compaction
    csr      single non-zero weights, from a lowered matrix
    direct   single non-zero weights, from the padded image

A convolution has all four (``conv_mode`` selects one) and is timed as a whole, including lowering, padding and writing the
result; its weights are packed once, as for inference. InnerProduct has one, dense. The matrix products alone, of lowered
data and computed by libraries, are timed as well, because published speedups of sparse layers mostly refer to them. The
forms of a layer alternate, A B C, then C B A, each time the data of the layer are ready.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.blob import Blob
from sslnet.errors import UsageError
from sslnet.kernels.conv.pattern import SparsityPattern, find_kept
from sslnet.kernels.runtime.threads import num_threads
from sslnet.layers.convolution import Convolution
from sslnet.layers.inner_product import InnerProduct
from sslnet.net.net import Net
from sslnet.net.plan import Plan
from sslnet.net.steps import ConvolutionStep, InnerProductStep, Step
from sslnet.sparsity.measure import NonZero
from sslnet.timing.gemm_baseline import PRODUCTS, Products, lowered, transposed
from sslnet.timing.layerwise import Passes, Spread, batch_of, clock, repeat, seconds_of
from sslnet.timing.roofline import peak_flops

WAYS = {"dense": "dense", "kept": "kept", "csr": "lowered", "direct": "direct"}
"""Form -> the algorithm of ``kernels.conv.adaptive``."""
FORMS = tuple(WAYS)
BACKWARD = ("dense", "kept")
"""Forms with a gradient of their own."""
FASTEST = "fastest"
PARTS = ("forward", "backward", "product")


@dataclass(frozen=True)
class FormTime:
    """The time of one form of a layer, or of the whole net.

    kernel      algorithm of the forward pass; "" for a net
    flops       FLOPs that this form needs for one forward pass over the batch
    gradients   number of products of as many FLOPs in the backward pass: 1 or 2
    forward, backward   seconds of the whole layer; None if the form has no such pass
    product     seconds of the matrix product of the forward pass alone, by ``gemm_library``
    """

    kernel: str
    flops: int
    gradients: int
    forward: Spread | None
    backward: Spread | None
    product: Spread | None
    gemm_library: str

    def rate(self, part: str) -> float | None:
        """FLOP per second of one of ``PARTS``."""
        spread: Spread | None = getattr(self, part)
        times = self.gradients if part == "backward" else 1
        return times * self.flops / spread.median if spread is not None and spread.median else None


@dataclass(frozen=True)
class FormTimes:
    """The times of a layer, or of the whole net, by form; "dense" is always present, the others if there are zero
    weights."""

    name: str
    type: str
    forms: dict[str, FormTime]

    def limit(self, form: str) -> float | None:
        """Factor by which the form reduces the multiply-adds of dense; None if it needs none at all, or there is no
        such form."""
        own = self.forms[form].flops if form in self.forms else 0
        return self.forms["dense"].flops / own if own else None

    def speedup(self, form: str, part: str) -> float | None:
        """Time of dense divided by the time of the form; None if there is no such time."""
        if form not in self.forms:
            return None
        spread, dense = (getattr(self.forms[f], part) for f in (form, "dense"))
        return dense.median / spread.median if spread is not None and dense is not None and spread.median else None


@dataclass(frozen=True)
class LayerForms(FormTimes):
    """The non-zero parts of a layer's weight matrix: filters (rows), columns, single weights."""

    filters: NonZero
    columns: NonZero
    weights: NonZero


@dataclass(frozen=True)
class FormTiming:
    """The result for a net; the other fields are as in ``timing.NetTime`` and ``timing.Timing``."""

    name: str
    model: str
    phase: str
    batch: int
    threads: int
    iterations: int
    peak: float
    layers: list[LayerForms]
    whole: FormTimes

    def total(self, form: str, part: str) -> float | None:
        """Seconds of all layers, with dense for layers without the form; "fastest": with the fastest form of each
        layer. None if only dense layers would be included."""
        rows = [row for row in self.layers if getattr(row.forms["dense"], part) is not None]
        if form == FASTEST:
            return sum(min(_medians(row, part)) for row in rows) if rows else None
        if not any(form in row.forms and getattr(row.forms[form], part) is not None for row in rows):
            return None
        return sum(_median_or_dense(row, form, part) for row in rows)

    def speedup(self, form: str, part: str) -> float | None:
        """Speedup of the sum over all layers, as in ``total``."""
        own, dense = self.total(form, part), self.total("dense", part)
        return dense / own if own and dense else None

    def limit(self, form: str) -> float | None:
        """Factor by which the form reduces the multiply-adds of all layers, with dense for layers without the form;
        None if none are needed at all, and for "fastest"."""
        if form == FASTEST:
            return None
        runs = [(row.forms, form in row.forms and row.forms[form].forward is not None) for row in self.layers]
        own = sum(forms[form if present else "dense"].flops for forms, present in runs)
        return sum(forms["dense"].flops for forms, _ in runs) / own if own else None


def _medians(row: FormTimes, part: str) -> list[float]:
    return [spread.median for form in row.forms.values() if (spread := getattr(form, part)) is not None]


def _median_or_dense(row: FormTimes, form: str, part: str) -> float:
    spread = getattr(row.forms[form], part) if form in row.forms else None
    return float((spread if spread is not None else getattr(row.forms["dense"], part)).median)


def time_forms(
    net: Net,
    iterations: int = 50,
    *,
    forms: Sequence[str] = FORMS,
    forward_only: bool = False,
    partial: bool = False,
    on_run: Callable[[int], object] = lambda done: None,
) -> FormTiming:
    """Times the forms of every convolution and InnerProduct, and of the whole net, on the data in its input blobs.

    forms            forms to time; dense is always included
    partial, on_run  as for ``timing.repeat``

    raises UsageError if such layers have no zero weight, or only zero weights
    """
    wanted = [form for form in FORMS if form in forms or form == "dense"]
    watch = _TimedLayers(net, wanted, forward_only)
    done = repeat(watch.run, watch.forget, iterations, partial=partial, on_run=on_run)
    return FormTiming(
        name=net.name,
        model=net.definition.path or "",
        phase=pb.Phase.Name(net.phase),
        batch=batch_of(net),
        threads=num_threads(),
        iterations=done,
        peak=peak_flops(),
        layers=[timed.result() for timed in watch.timed_layers.values()],
        whole=watch.whole(),
    )


class _Samples:
    """Measured seconds by part and form."""

    def __init__(self) -> None:
        self.seconds: dict[tuple[str, str], list[float]] = {}

    def add(self, part: str, form: str, seconds: float) -> None:
        self.seconds.setdefault((part, form), []).append(seconds)

    def spread(self, part: str, form: str) -> Spread | None:
        return Spread.of(self.seconds[part, form]) if (part, form) in self.seconds else None

    def time(self, form: str, kernel: str, flops: int, gradients: int) -> FormTime:
        forward, backward, product = (self.spread(part, form) for part in PARTS)
        return FormTime(kernel, flops, gradients, forward, backward, product, PRODUCTS.get(form, ""))


class _TimedLayer:
    """The forms of one layer, to be timed.

    pattern, nonzero   rows and columns that are not all zero, and number of non-zero weights
    steps              by form, the step that runs the whole layer
    products           the matrix products alone
    """

    def __init__(
        self, layer: Any, pattern: SparsityPattern, nonzero: int, steps: dict[str, Step], products: Products
    ) -> None:
        self.layer = layer
        self.pattern = pattern
        self.nonzero = nonzero
        self.steps = steps
        self.products = products
        first = next(iter(steps.values()))
        self.gradients = int(layer.param_propagate_down[0]) + int(any(first.propagate_down))
        self.samples = _Samples()

    @property
    def forms(self) -> list[str]:
        return list(dict.fromkeys([*self.steps, *self.products.forms]))

    def forward(self, turn: int) -> None:
        """Times the whole layer in all its forms, then the products, on the current data of its bottoms."""
        for form in _order(self.steps, turn):
            self.samples.add("forward", form, seconds_of([self.steps[form]]))
        self.products.load()
        for form in _order(self.products.forms, turn):
            self.samples.add("product", form, self.products.seconds(form, clock()))

    def backward(self, turn: int) -> None:
        for form in _order([form for form in self.steps if form in BACKWARD], turn):
            self.samples.add("backward", form, seconds_of([self.steps[form]], backward=True))

    def flops(self, form: str) -> int:
        weights = {"dense": prod(self.pattern.shape), "kept": self.pattern.weights}.get(form, self.nonzero)
        return 2 * weights * self.products.pixels

    def result(self) -> LayerForms:
        filters, columns = (NonZero(sum(map(len, kept)), size) for kept, size in self._sides())
        return LayerForms(
            self.layer.name,
            self.layer.TYPE,
            {
                form: self.samples.time(
                    form, self.steps[form].kernel if form in self.steps else "", self.flops(form), self.gradients
                )
                for form in self.forms
            },
            filters,
            columns,
            NonZero(self.nonzero, prod(self.pattern.shape)),
        )

    def _sides(self) -> list[tuple[tuple[np.ndarray, ...], int]]:
        groups, filters, columns = self.pattern.shape
        return [(self.pattern.filters, groups * filters), (self.pattern.columns, groups * columns)]


class _TimedLayers:
    """The forms of a net's layers, by layer index, and one plan of the whole net for each form."""

    def __init__(self, net: Net, forms: Sequence[str], forward_only: bool) -> None:
        self.net = net
        self.passes = Passes(net, forward_only)
        self.single = net.plan(fused=False)
        timed_layers = {i: _timed_layer(step, forms) for i, step in enumerate(self.single.steps)}
        self.timed_layers = {i: timed for i, timed in timed_layers.items() if timed is not None}
        _check_zeros(net, [*self.timed_layers.values()])
        self.plans = {form: self._plan(form) for form in forms}
        self.samples = _Samples()

    def forget(self) -> None:
        self.samples = _Samples()
        for timed in self.timed_layers.values():
            timed.samples = _Samples()

    def run(self, turn: int) -> None:
        with self.single.running(self.passes.last):
            for i in self.passes.forward:
                if i in self.timed_layers:
                    self.timed_layers[i].forward(turn)
                else:
                    self.single.steps[i].forward()
            self.passes.set_loss_diffs()
            for i in self.passes.backward:
                if i in self.timed_layers:
                    self.timed_layers[i].backward(turn)
                else:
                    self.single.steps[i].backward()
        for form in _order(self.plans, turn):
            self._run_whole(form)

    def _run_whole(self, form: str) -> None:
        plan = self.plans[form]
        with plan.running(self.passes.last):
            steps = plan.steps
            self.samples.add("forward", form, seconds_of([steps[i] for i in self.passes.forward]))
            if self.passes.backward and form in BACKWARD:
                self.passes.set_loss_diffs()
                seconds = seconds_of([steps[i] for i in self.passes.backward], backward=True)
                self.samples.add("backward", form, seconds)

    def _plan(self, form: str) -> Plan:
        """The plan of the whole net with its convolutions in this form, if they have it."""
        plan = self.net.new_plan(fused=True)
        for i, timed in self.timed_layers.items():
            step, own = plan.steps[i], timed.steps.get(form, timed.steps["dense"])
            if isinstance(step, ConvolutionStep) and isinstance(own, ConvolutionStep):
                step.layer, step.way = own.layer, own.way
            elif isinstance(step, InnerProductStep):
                step.leaves_zeros = False
        plan.hold_weights(True)
        return plan

    def whole(self) -> FormTimes:
        net, rest = self.net, 0
        for i in self.passes.forward:
            if i not in self.timed_layers:
                rest += net.layers[i].flops(net.bottoms[i], net.tops[i])
        forms = {}
        for form in self.plans:
            present = [(timed, form if form in timed.steps else "dense") for timed in self.timed_layers.values()]
            flops = rest + sum(timed.flops(own) for timed, own in present)
            forms[form] = self.samples.time(form, "", flops, 0)
        return FormTimes(net.name, "", forms)


def _order(forms: Iterable[str], turn: int) -> list[str]:
    return list(forms) if turn % 2 == 0 else list(forms)[::-1]


def _check_zeros(net: Net, timed_layers: Sequence[_TimedLayer]) -> None:
    """Checks that the net has forms to compare; raises UsageError otherwise."""
    model = net.definition.path or net.name
    if not timed_layers:
        raise UsageError(f"{model} has no convolution and no InnerProduct that could run in several forms")
    if all(timed.nonzero == prod(timed.pattern.shape) for timed in timed_layers):
        raise UsageError(
            f"{model}: no weight is zero, so that there are no forms to compare",
            hint="give the weights of a net that was trained or pruned to be sparse with --weights",
        )
    if not any(timed.nonzero for timed in timed_layers):
        raise UsageError(f"{model}: all weights are zero", hint="give its weights with --weights")


def _timed_layer(step: Step, forms: Sequence[str]) -> _TimedLayer | None:
    """The forms of a layer that has several; forms other than dense only if weights are zero."""
    if isinstance(step, ConvolutionStep):
        return _convolution(step, forms)
    return _inner_product(step, forms) if isinstance(step, InnerProductStep) else None


def _convolution(step: ConvolutionStep, forms: Sequence[str]) -> _TimedLayer:
    layer, g = step.layer, step.geometry
    whole = layer.whole_weights()
    pattern, nonzero = find_kept(whole, g.groups), int(np.count_nonzero(whole))
    present = forms if nonzero < whole.size else ["dense"]
    steps: dict[str, Step] = {}
    for form in present:
        own = ConvolutionStep(_in_form(layer, pattern, form), step.bottom, step.top, step.propagate_down)
        own.way = WAYS[form]
        own.hold_weights(True)
        steps[form] = own
    matrices = steps["dense"].layer.blobs[0].data.reshape(pattern.shape)
    return _TimedLayer(
        layer, pattern, nonzero, steps, Products(matrices, pattern, present, lowered(layer, step.bottom))
    )


def _in_form(layer: Convolution, pattern: SparsityPattern, form: str) -> Convolution:
    """A copy of the layer with all columns of its weights; its gradient is, except for dense, of the kept weights only.
    It shares parameters that have all columns already."""
    own = copy.copy(layer)
    own.frozen = None
    if layer.kept is not None:
        blob = Blob(layer.whole_shape, name=layer.blobs[0].name, dtype=layer.dtype)
        blob.data[...] = layer.whole_weights()
        own.blobs, own.kept, own.columns = [blob, *layer.blobs[1:]], None, prod(layer.whole_shape[1:])
    if form != "dense":
        trained = np.zeros(pattern.shape, np.uint8)
        for matrix, filters, columns in zip(trained, pattern.filters, pattern.columns):
            matrix[np.ix_(filters, columns)] = 1
        own.frozen = trained
    return own


def _inner_product(step: InnerProductStep, forms: Sequence[str]) -> _TimedLayer:
    layer: InnerProduct = step.layer
    data = layer.blobs[0].data
    weights = np.ascontiguousarray(data.T if layer.transpose else data)
    pattern, nonzero = find_kept(weights), int(np.count_nonzero(weights))
    present = [form for form in forms if form in PRODUCTS] if nonzero < weights.size else ["dense"]
    own = InnerProductStep(layer, step.bottom, step.top, step.propagate_down)
    products = Products(weights[None], pattern, present, transposed(step.bottom[0], step.inputs))
    return _TimedLayer(layer, pattern, nonzero, {"dense": own}, products)
