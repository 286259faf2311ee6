"""``sslnet.quantize``: a net that runs with whole numbers, from a trained net and a few images without labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sslnet.api.inputs import Model, Weights, Word, as_argument, read_model, read_weights
from sslnet.api.net_result import NetResult
from sslnet.compress.quantization import quantize as quantizing
from sslnet.compress.quantization.bit_widths import TARGETS, parse_bits, parse_layers
from sslnet.compress.quantization.quantize import Quantized
from sslnet.errors import UsageError

RANGES = ("minmax", "mse")
ROUNDINGS = ("nearest", "second-order")


def quantize(
    model: Model,
    weights: Weights | None = None,
    *,
    images: int = 100,
    bits: str | int = 8,
    layers: Mapping[str, str | int] | None = None,
    range: str = "minmax",
    rounding: str | None = None,
    target: str = "this",
    level: int = 0,
    stages: Sequence[str] = (),
    seed: int = 0,
    tell: Callable[[str], object] = lambda text: None,
) -> NetResult[Quantized]:
    """Quantises weights and activations after training: the result runs with integer kernels in phase TEST.

        small = sslnet.quantize("models/digits/train_test.prototxt", "digits.caffemodel", images=100, bits="4/8")
        print([(layer.name, str(layer.bits), layer.noise) for layer in small.details.layers])
        small.save("small/digits")

    model, weights  the net with its data in phase TRAIN, and its weights, as in ``sslnet.compact``
    images          number of images that ranges of values are taken from; labels are not used
    bits            2 to 8, of weights and activations; "4/8": of weights / of activations
    layers          {layer: bits}, where they differ; "float": the layer is not quantised
    range           ranges of activations: "minmax" of the images, or "mse", with the least squared error
    rounding        of weights: "nearest", or "second-order" (GPTQ); default: second order below 8 bits
    target          machine to make the net for: "this", "vnni", "avx2" or "any". Where products of 8-bit weights are slow, bits=8
                    means weights of 7 bits; 8/8 means 8
    level, stages   level and stages for the net's include and exclude rules
    seed            seed that draws the images

    returns  the quantised net; ``details``: of each layer bits, range, signal to noise and bytes; layers that are folded, and
             those that stay float between quantised ones
    raises   UsageError for arguments out of range, a net without data in phase TRAIN, and layers that cannot be quantised
    """
    check_choices(range, rounding, target)
    widths = parse_bits(str(bits), target)
    own = parse_layers([f"{name}={value}" for name, value in (layers or {}).items()], target)
    definition = read_model(model)
    result = quantizing.quantize(
        definition, read_weights(weights, model), images=images, bits=widths, layers=own, method=range,
        rounding=rounding, level=level, stages=stages, seed=seed, tell=tell,
    )  # fmt: skip
    return NetResult(result.message, result.weights, result, result.deploy, definition.path)


def check_choices(range: str, rounding: str | None, target: str, word: Word = as_argument) -> None:
    """Raises UsageError for a word that is none of the choices."""
    for name, value, choices in (
        ("range", range, RANGES), ("rounding", rounding or "nearest", ROUNDINGS), ("target", target, TARGETS),
    ):  # fmt: skip
        if value not in choices:
            raise UsageError(f"{word(name)} must be one of {', '.join(choices)}, not {value!r}")
