"""``sslnet.compact``: removes zeros from a net."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from sslnet import sslnet_pb2 as pb
from sslnet.api.inputs import Model, Weights, read_model, read_weights
from sslnet.api.net_result import NetResult
from sslnet.compress.compaction import compact as compaction
from sslnet.compress.compaction.compact import Compaction


def compact(
    model: Model,
    weights: Weights | None = None,
    *,
    drop_constants: bool = False,
    standard_only: bool = False,
    snapshot: str | Path | None = None,
    phase: int = pb.TEST,
    level: int = 0,
    stages: Sequence[str] = (),
    seed: int = 0,
) -> NetResult[Compaction]:
    """Removes zero filters, channels and neurons, and everything that only they feed: a smaller net with the same outputs.

        small = sslnet.compact("models/digits/train_test.prototxt", "pruned.caffemodel")
        print(small.details.removed, small.details.difference.relative)
        small.save("small/digits")

    model           the net: path of a prototxt, pb.NetParameter, NetSpec, Net, or a result of another function
    weights         its weights: path of a .caffemodel, pb.NetParameter with blobs, Net; None: those of the model
    drop_constants  also drop the constant outputs (biases) of removed filters; the outputs of the net then change
    standard_only   write only fields that Caffe 1.0 and OpenCV read: all columns of the kernels, zero or not
    snapshot        path of a .solverstate of the run of these weights: it is compacted as well, to continue training
    phase           phase in which both nets are compared, sslnet.TEST or sslnet.TRAIN
    level, stages   level and stages for the net's include and exclude rules
    seed            seed of the random inputs, for nets without data of their own

    returns  the smaller net; ``details``: sizes of each layer before and after, the difference of the outputs, notes
    raises   RunError if a layer would lose every channel, or if the outputs of the smaller net differ by more than rounding
             (1e-4 of the largest output); WeightsError if weights and net do not fit
    """
    definition = read_model(model)
    result = compaction.compact(
        definition,
        read_weights(weights, model),
        phase=phase,
        level=level,
        stages=stages,
        drop_constants=drop_constants,
        standard_only=standard_only,
        seed=seed,
        snapshot=None if snapshot is None else os.fspath(snapshot),
    )
    return NetResult(result.message, result.weights, result, result.deploy, definition.path, result.state)
