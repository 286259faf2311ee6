"""IntegerStep: the base of the steps that run a layer with whole numbers, and how they get bytes."""

from __future__ import annotations

from typing import Any

from sslnet.blob import Blob
from sslnet.errors import UsageError
from sslnet.kernels.quantized.elementwise import ByteScale
from sslnet.layers.base import Layer
from sslnet.net.steps.base import Step
from sslnet.net.steps.integer.values import ByteValue


class ByteSource:
    """A bottom as bytes: those that a step before has made, or converted from float.

    made    whether a quantised layer makes the value; else it is converted in every run
    whole   the plan runs as a whole, so that the value of a quantised layer is always current
    """

    def __init__(self, blob: Blob, value: ByteValue, *, made: bool, whole: bool) -> None:
        self.blob, self.value = blob, value
        self.made, self.trusted = made, made and whole

    def ready(self) -> None:
        """Makes the bytes current."""
        if not self.trusted and not (self.made and self.value.is_shown()):
            self.value.convert(self.blob)


class IntegerStep(Step):
    """Runs one layer with whole numbers.

    sources   the bottoms as bytes
    target    what it writes; None: float values
    """

    def __init__(
        self, layer: Layer, bottom: list[Blob], top: list[Blob], sources: list[ByteSource], target: ByteValue | None
    ) -> None:
        super().__init__(layer, bottom, top, [False] * len(bottom))
        self.sources, self.target = sources, target
        self._unsure = [source for source in sources if not source.trusted]

    def forward(self) -> None:
        for source in self._unsure:
            source.ready()
        self.compute()
        if self.target is not None:
            self.target.publish()

    def compute(self) -> None:
        """Computes the target, or the float values, from the bytes of the sources."""
        raise NotImplementedError

    def backward(self) -> None:
        raise UsageError(
            f'layer "{self.layer.name}" runs with whole numbers, which have no gradient',
            hint="nets in phase TRAIN run quantised layers in float",
        )

    def backward_reads(self) -> list[Blob]:
        return []

    @property
    def kernel(self) -> str:
        converted = sum(not source.made for source in self.sources)
        note = " from float" if converted else ""
        return f"{self.name}{note}{' to float' if self.target is None else ''}"

    @property
    def name(self) -> str:
        """The kernel, for reports."""
        return "u8"


def scale_of(given: Any, bits: int) -> ByteScale:
    """The scale of a ValueRange."""
    return ByteScale.of_range(given.min, given.max, bits)


def check_param(layer: Layer) -> None:
    """Raises DefinitionError for a quantization_param that is out of range."""
    param = layer.param.quantization_param
    for name in ("weight_bits", "activation_bits"):
        if not 2 <= getattr(param, name) <= 8:
            raise layer.error(f"{name} must be 2 to 8, not {getattr(param, name)}", "quantization_param", name)
    ranges = [("input_range", i, given) for i, given in enumerate(param.input_range)]
    if param.HasField("output_range"):
        ranges.append(("output_range", -1, param.output_range))
    for name, index, given in ranges:
        place = ("quantization_param", name) if index < 0 else ("quantization_param", name, index)
        if not (given.min <= 0 <= given.max and given.max - given.min < float("inf")) or given.min == given.max:
            raise layer.error(f"a range holds 0 and other values, not {given.min:g} to {given.max:g}", *place)
