"""``from_onnx``: an ONNX model as a prototxt and weights, ready to be trained and made sparse here.

Values become blobs of the same names, nodes layers of the same names where they have one. What the model computes from
constants and shapes alone is computed once; Dropout, Identity and the like vanish.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import json_format

from sslnet import sslnet_pb2 as pb
from sslnet.compress.compare import Difference, blob_difference
from sslnet.errors import DefinitionError, ErrorList, RunError, SslnetError
from sslnet.exchange.builder import Builder
from sslnet.exchange.readers import READERS
from sslnet.exchange.runtime import run_in_onnxruntime
from sslnet.exchange.source import Source, load
from sslnet.net import Net
from sslnet.prototxt import Definition

TOLERANCE = 1e-4


@dataclass
class Imported:
    """What an import made.

    message     pb.NetParameter: the definition, for phase TEST
    weights     pb.NetParameter with the blobs of its layers
    difference  from what onnxruntime makes of the model; None when that is not installed
    metadata    what the model says of itself
    """

    message: Any
    weights: Any
    difference: Difference | None
    metadata: dict[str, str] = field(default_factory=dict)


def from_onnx(path: str | Path, batch: int = 1) -> Imported:
    """The model in a file as a definition and weights, compared with what onnxruntime makes of it.

    batch   images that the definition's inputs take, where the model leaves it open

    raises DataError for a file that is no model, DefinitionError (one for each node) for what has no counterpart here,
    RunError when the net computes something else
    """
    source = load(path, batch)
    builder = Builder(source, Path(path).stem)
    errors: list[SslnetError] = []
    waiting = deque(source.nodes)
    while waiting:
        node = waiting.popleft()
        try:
            if node.op == "If":
                waiting.extendleft(reversed(source.inline(node)))
                continue
            if source.fold(node):
                continue
            if node.op not in READERS:
                raise DefinitionError(f"there is no layer for the operator {node.op}", layer=node.name)
            READERS[node.op](builder, node)
        except SslnetError as error:
            error.path = error.path or str(path)
            errors.append(error)
            for value in node.outputs:  # so that each fault is told once
                builder.become(value, value)
    errors += builder.unused_padding(str(path))
    if errors:
        raise errors[0] if len(errors) == 1 else ErrorList(errors[:20])
    builder.name_outputs()
    builder.message.name = source.metadata.get("name") or builder.message.name
    _keep_preprocessing(builder.message, source.metadata)
    weights = pb.NetParameter(name=builder.message.name)
    for layer in builder.message.layer:
        if layer.blobs:
            weights.layer.add(name=layer.name, type=layer.type).blobs.extend(layer.blobs)
            del layer.blobs[:]
    net = Net(Definition(builder.message), weights if weights.layer else None, pb.TEST)
    return Imported(builder.message, weights, _compare(path, net, builder, source), source.metadata)


def _keep_preprocessing(message: Any, metadata: Mapping[str, str]) -> None:
    """What ``sslnet export`` says of how images were prepared, into the first input, from where the next export has it."""
    try:
        steps = json_format.ParseDict(json.loads(metadata.get("preprocessing", "{}")), pb.TransformationParameter())
    except (ValueError, json_format.ParseError):  # another writer's: told by the command, as all metadata
        return
    if steps.ListFields() and message.layer[0].type == "Input":
        message.layer[0].transform_param.CopyFrom(steps)


def _compare(path: str | Path, net: Net, builder: Builder, source: Source) -> Difference | None:
    random = np.random.default_rng(0)
    inputs: dict[str, Any] = {name: random.standard_normal(shape).astype("f4") for name, shape in source.inputs.items()}
    theirs = run_in_onnxruntime(str(path), inputs, source.outputs)
    if theirs is None:
        return None
    blobs = {value: builder.blob_of(value) for value in source.outputs if builder.blob_of(value)}
    ours = net.forward(list(blobs.values()), **{builder.blob_of(name): array for name, array in inputs.items()})
    difference = Difference(
        "random numbers", [blob_difference(value, theirs[value], ours[blob]) for value, blob in blobs.items()]
    )
    if not difference.relative <= TOLERANCE:
        worst = max(difference.blobs, key=lambda found: found.relative)
        raise RunError(
            f'the net differs by {worst.relative:.3g} of the largest value in "{worst.name}"; nothing was written',
            path=str(path),
        )
    return difference
