"""``sslnet.export_onnx`` and ``sslnet.import_onnx``: convert nets to ONNX models, and ONNX models to nets."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sslnet.api.inputs import Model, Weights, Word, as_argument, read_model, read_weights
from sslnet.api.net_result import NetResult
from sslnet.compress.compaction.compare import Difference
from sslnet.compress.compaction.deploy import deploy_net
from sslnet.errors import UsageError
from sslnet.files import atomic_write

if TYPE_CHECKING:
    from onnx import ModelProto

    from sslnet.exchange.importing import Imported


@dataclass(frozen=True)
class OnnxExport:
    """A net as an ONNX model, not written yet.

    model          onnx.ModelProto, for all functions of the onnx package: ``onnx.checker``, ``onnx.save``, ...
    difference     difference between the net and the model in onnxruntime, on random inputs; None if that is not installed
    preprocessing  preprocessing of images by the definition's data layers, also in the model's metadata
    """

    model: ModelProto
    difference: Difference | None
    preprocessing: dict[str, Any]

    def save(self, path: str | os.PathLike[str]) -> int:
        """Writes the model; the file is complete or not written at all. returns its size in bytes. raises RunError if
        it cannot be written"""
        data = self.model.SerializeToString()
        atomic_write(path, data)
        return len(data)


def export_onnx(
    model: Model,
    weights: Weights | None = None,
    *,
    level: int = 0,
    stages: Sequence[str] = (),
) -> OnnxExport:
    """Converts a net to an ONNX model, checks it with ONNX's own checker and, if installed, against onnxruntime.

        exported = sslnet.export_onnx("models/digits/deploy.prototxt", "digits.caffemodel")
        print(exported.difference.relative)
        exported.save("digits.onnx")

    model, weights  the net and its weights, as in ``sslnet.compact``. In a net for training, data layers become inputs, and
                    losses become outputs; the batch axis is free ("N") unless a layer only works for the net's batch size
    level, stages   level and stages for the net's include and exclude rules

    raises  UsageError without the package onnx (``pip install "sslnet[onnx]"``); DefinitionError for a net without
            inputs, or a layer that has no form in ONNX; RunError if the model's outputs differ from the net's
    """
    need_onnx()
    from sslnet.exchange.export import export, preprocessing

    net, message = deploy_net(read_model(model), read_weights(weights, model), level=level, stages=tuple(stages))
    steps = preprocessing(message)
    made, difference = export(net, {"preprocessing": steps, "channel_order": "as in the net's training data"})
    return OnnxExport(made, difference, steps)


def import_onnx(path: str | Path, *, batch: int = 1) -> NetResult[Imported]:
    """Converts an ONNX model to a definition and weights, compared with the outputs of onnxruntime if that is installed.

        net = sslnet.import_onnx("resnet.onnx")
        print(net.details.difference, net.definition.layer[0].name)
        net.save("nets/resnet")

    path   path of the model (.onnx); weights in files beside it are read from its folder
    batch  number of images in the net's inputs, 1 or more, if the model leaves it open

    returns  the net, for phase TEST: to train it, add data and a loss; ``details``: the difference, the model's metadata
    raises   UsageError without the package onnx; DataError for a file that is not a model; DefinitionError (one for each node)
             for nodes without a counterpart; RunError if the net's outputs differ
    """
    need_onnx()
    check_batch(batch)
    from sslnet.exchange.importing import from_onnx

    result = from_onnx(path, batch)
    return NetResult(result.message, result.weights, result)


def check_batch(batch: int, word: Word = as_argument) -> None:
    """Checks the batch size. raises UsageError for a batch without images"""
    if batch < 1:
        raise UsageError(f"{word('batch')} must be at least 1, not {batch}")


def need_onnx() -> None:
    """Checks that the package onnx is installed; raises UsageError if not."""
    try:
        import onnx  # noqa: F401
    except ImportError:
        raise UsageError("this needs the package onnx", hint='pip install "sslnet[onnx]"') from None
