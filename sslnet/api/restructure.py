"""``sslnet.restructure``: convolutions as cheaper structures."""

from __future__ import annotations

from collections.abc import Sequence

from sslnet import sslnet_pb2 as pb
from sslnet.api.inputs import Model, Weights, Word, as_argument, read_model, read_weights
from sslnet.api.net_result import NetResult
from sslnet.compress.restructure import restructure as replacing
from sslnet.compress.restructure.forms import check_form
from sslnet.compress.restructure.restructure import Restructured
from sslnet.errors import UsageError
from sslnet.net.net import Net


def restructure(
    model: Model,
    weights: Weights | None = None,
    *,
    form: str,
    layers: Sequence[str] = (),
    ratio: float | None = None,
    fit: bool = False,
    relu: bool = False,
    level: int = 0,
    stages: Sequence[str] = (),
    seed: int = 0,
) -> NetResult[Restructured]:
    """Replaces convolutions by cheaper structures, to be trained or fine-tuned.

        small = sslnet.restructure("models/digits/train_test.prototxt", "digits.caffemodel", form="spatial", fit=True)
        timing = small.details.time(iterations=20)
        print([net.forward.median for net in timing.nets])
        small.save("small/digits")

    model, weights  the net and its weights, as in ``sslnet.compact``; without weights, layers have those of their fillers
    form            "separable" (a kernel for each channel, then 1 x 1), "spatial" (kh x 1, then 1 x kw), "bottleneck" (1 x 1,
                    kh x kw, 1 x 1) or "inception" (branches of 1 x 1, 3 x 3 and kh x kw, concatenated)
    layers          names of the layers to replace; default: all that become cheaper in FLOPs
    ratio           width of the structure as a part of the layer's: spatial, of the filters; bottleneck, of channels and
                    filters; inception, of the channels; default 0.5
    fit             start from factors of the trained weights; else the new layers have weights from fillers
    relu            a ReLU after each new layer of a chain but the last; not with fit, whose chains are products
    level, stages   the rest of the state, beside phase TEST, that include and exclude rules are tried against
    seed            of fillers, and of the random inputs that outputs are compared on

    returns  the new net; ``details``: what became of each layer, sizes, difference of the outputs; ``details.time()``
             measures both nets
    raises   UsageError for options that exclude each other or are out of range, and layers that cannot take the form
    """
    part = check_options(form, ratio, fit, relu)
    definition = read_model(model)
    found = read_weights(weights, model) if weights is not None or _brings_weights(model) else None
    if fit and found is None:
        raise UsageError("fit needs weights: this model brings none")
    result = replacing.restructure(
        definition, found, form, layers=layers, ratio=part, fit=fit, relu=relu, level=level, stages=stages, seed=seed
    )
    return NetResult(result.after[0].message, result.after[1], result, result.deploy, definition.path)


def check_options(form: str, ratio: float | None, fit: bool, relu: bool, word: Word = as_argument) -> float:
    """The ratio to use. raises UsageError for options that exclude each other or are out of range"""
    part = check_form(form, ratio, word)
    if fit and relu:
        raise UsageError(f"{word('relu')} does not go with {word('fit')}: factors are a product of layers")
    return part


def _brings_weights(model: Model) -> bool:
    if isinstance(model, pb.NetParameter):
        return any(layer.blobs for layer in model.layer) or any(layer.blobs for layer in model.layers)
    return isinstance(model, NetResult | Net)
