"""``sslnet.low_rank``: replaces layers by products of smaller layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sslnet.api.inputs import Model, Weights, Word, as_argument, check_part, read_model, read_weights
from sslnet.api.net_result import NetResult
from sslnet.compress.low_rank import low_rank as factoring
from sslnet.compress.low_rank.factors import METHODS
from sslnet.compress.low_rank.low_rank import LowRank
from sslnet.errors import UsageError

ERROR = 0.3
"""Maximum error if neither an error nor a target is given."""


def low_rank(
    model: Model,
    weights: Weights | None = None,
    *,
    error: float | None = None,
    target_flops: float | None = None,
    target_speedup: float | None = None,
    speedup_batch: int | None = None,
    methods: Sequence[str] = tuple(METHODS),
    layers: Sequence[str] = (),
    level: int = 0,
    stages: Sequence[str] = (),
    seed: int = 0,
    tell: Callable[[str], object] = lambda text: None,
) -> NetResult[LowRank]:
    """Replaces layers by products of smaller ones (SVD, PCA over filters, spatial, Tucker); fine-tune the result.

        small = sslnet.low_rank("models/digits/train_test.prototxt", "digits.caffemodel", target_flops=0.5)
        print([(layer.name, layer.method) for layer in small.details.layers])
        small.save("small/digits")

    model, weights  the net and its weights, as in ``sslnet.compact``
    error           maximum relative error of a layer's weights, 0 to 1 (Frobenius norm); default 0.3; or
    target_flops    fraction of the net's FLOPs that may remain, 0 to 1: the smallest error that reaches it is used; or
    target_speedup  how many times as fast the deployed net's forward pass must be, above 1, as measured here
    speedup_batch   number of images to measure with; default: the batch of the net's data
    methods         methods of which each layer gets the cheapest: "svd" (InnerProduct), "filters", "spatial", "tucker"
                    (Convolution)
    layers          names of the layers to factor; default: all that become cheaper
    level, stages   level and stages for the net's include and exclude rules
    seed            seed of the random inputs to compare outputs with, for nets without data of their own
    tell            takes lines of progress while times are measured

    returns  the factored net; ``details``: of each layer the method, rank and error, sizes, the difference of the outputs
    raises   UsageError for numbers out of range, FLOPs that cannot be reached, and layers that cannot be factored; RunError
             for a speedup that is not reached
    """
    error = checked_error(error, target_flops, target_speedup, speedup_batch)
    check_methods(methods)
    definition = read_model(model)
    result = factoring.low_rank(
        definition,
        read_weights(weights, model),
        error=error,
        target_flops=target_flops,
        target_speedup=target_speedup,
        speedup_batch=speedup_batch,
        methods=methods,
        layers=layers,
        level=level,
        stages=stages,
        seed=seed,
        tell=tell,
    )
    return NetResult(result.message, result.weights, result, result.deploy, definition.path)


def checked_error(
    error: float | None,
    target_flops: float | None,
    target_speedup: float | None = None,
    speedup_batch: int | None = None,
    word: Word = as_argument,
) -> float | None:
    """The error to use; None if there is a target. raises UsageError if more than one is given, and for numbers out of range"""
    given = {"error": error, "target_flops": target_flops, "target_speedup": target_speedup}
    names = [word(name) for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise UsageError(f"either {' or '.join(names)}, not {'both' if len(names) == 2 else 'all'}")
    check_part(error, "error", word)
    check_part(target_flops, "target_flops", word)
    if target_speedup is not None and not 1 < target_speedup < float("inf"):
        raise UsageError(f"{word('target_speedup')} must be above 1, not {target_speedup:g}")
    if speedup_batch is not None and target_speedup is None:
        raise UsageError(f"{word('speedup_batch')} needs {word('target_speedup')}")
    if speedup_batch is not None and speedup_batch < 1:
        raise UsageError(f"{word('speedup_batch')} must be at least 1, not {speedup_batch}")
    return error if names else ERROR


def check_methods(methods: Sequence[str], word: Word = as_argument) -> None:
    """Checks the methods. raises UsageError if there are none, or for an unknown one"""
    if not methods or not set(methods) <= set(METHODS):
        raise UsageError(f"{word('methods')} must be of {', '.join(METHODS)}, not {','.join(methods)!r}")
