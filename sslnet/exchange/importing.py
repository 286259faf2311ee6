"""``from_onnx``: reads an ONNX model as a prototxt and weights, ready to be trained and compressed.

Values become blobs of the same names, nodes become layers of the same names if they have one. Values that the model
computes only from constants and shapes are computed once; Dropout, Identity and similar nodes are omitted.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import json_format

from sslnet import sslnet_pb2 as pb
from sslnet.blob import Blob
from sslnet.compress.compaction.compare import Difference, blob_difference
from sslnet.errors import DataError, DefinitionError, ErrorList, RunError, SslnetError, printable
from sslnet.exchange.builder import DefinitionBuilder
from sslnet.exchange.channels_first import keep_channels_first
from sslnet.exchange.first_values import add_fillers
from sslnet.exchange.fusions import fused
from sslnet.exchange.limits import MOST_ERRORS, MOST_NAME, MOST_WORK, tidy
from sslnet.exchange.model_file import load
from sslnet.exchange.node import OnnxNode
from sslnet.exchange.padding import add_output_padding
from sslnet.exchange.readers import READERS
from sslnet.exchange.runtime import run_in_onnxruntime
from sslnet.exchange.source import OnnxModel, first_line
from sslnet.exchange.unread import Unread, remove_unread
from sslnet.layers.base import Layer
from sslnet.net.net import Net
from sslnet.prototxt import Definition

TOLERANCE = 1e-4


@dataclass
class Imported:
    """The result of an import.

    message     pb.NetParameter: the definition, for phase TEST
    weights     pb.NetParameter with the blobs of its layers
    difference  difference from the outputs of onnxruntime; None if that is not installed or the net is too large
    metadata    metadata of the model
    too_large   the reason why the net was not compared with the model, if it is the size
    """

    message: Any
    weights: Any
    difference: Difference | None
    metadata: dict[str, str] = field(default_factory=dict)
    too_large: str = ""


def from_onnx(path: str | Path, batch: int = 1) -> Imported:
    """Reads the model in a file as a definition and weights, compared with the outputs of onnxruntime.

    batch   number of images in the definition's inputs, if the model leaves it open

    raises DataError for a file that is not a model, DefinitionError (one for each node) for nodes without a counterpart,
    RunError if the outputs of the net differ
    """
    try:
        return _imported(path, batch)
    except SslnetError as error:
        error.path = error.path or str(path)
        raise


def _imported(path: str | Path, batch: int) -> Imported:
    source = load(path, batch)
    builder = DefinitionBuilder(source, Path(path).stem)
    unread = _read_nodes(source, builder, str(path))
    blobs = {value: builder.blob_of(value) for value in source.outputs if builder.blob_of(value)}
    remove_unread(builder.message, set(blobs.values()))
    errors = unread.errors if source.room.spent or len(unread.errors) >= MOST_ERRORS else unread.needed()
    if errors:
        raise errors[0] if len(errors) == 1 else ErrorList(errors[:MOST_ERRORS])
    if not blobs or not any(layer.type != "Input" for layer in builder.message.layer):
        raise DefinitionError("its outputs are constants, or its inputs as they are", path=str(path))
    keep_channels_first(builder.message, set(blobs.values()))
    builder.name_outputs()
    builder.message.name = tidy(source.metadata.get("name", "")) or builder.message.name
    _keep_preprocessing(builder.message, source.metadata)
    add_fillers(builder.message)
    weights = pb.NetParameter(name=builder.message.name)
    for layer in builder.message.layer:
        if layer.blobs:
            weights.layer.add(name=layer.name, type=layer.type).blobs.extend(layer.blobs)
            del layer.blobs[:]
    # Plain sums of products: Winograd's transforms round more, which says nothing about the import.
    net = Net(Definition(builder.message), weights if weights.layer else None, pb.TEST, plain=True)
    why = _too_large(net, source)
    difference = None if why else _compare(path, net, builder, source)
    return Imported(builder.message, weights, difference, source.metadata, why)


def _read_nodes(source: OnnxModel, builder: DefinitionBuilder, path: str) -> Unread:
    """Reads all nodes in order; returns the nodes without a counterpart, up to a maximum number."""
    unread = Unread(builder)
    constants: set[str] = set()  # values of such nodes that would be known ahead of time
    waiting = deque(source.nodes)
    while waiting and len(unread.errors) < MOST_ERRORS and not source.room.spent:
        node, before = waiting.popleft(), len(builder.message.layer)
        try:
            _read(node, source, builder, waiting)
        except SslnetError as error:
            del builder.message.layer[before:]
            folded = source.folds(node, constants)
            error.path = error.path or path
            unread.add(node, error, known=folded or node.op == "If" or node.op in READERS)
            if folded or not source.unknown(node, constants):
                constants.update(node.outputs)
    if not waiting and not source.room.spent:
        for node, fault in add_output_padding(builder):
            fault.path = fault.path or path
            unread.add(node, fault, known=False)
    return unread


def _read(node: OnnxNode, source: OnnxModel, builder: DefinitionBuilder, waiting: deque[OnnxNode]) -> None:
    """Reads one node. raises DefinitionError, which names the node, for any error in it"""
    try:
        if node.op == "If":
            waiting.extendleft(reversed(source.inline(node)))
            return
        source.infer(node)
        if source.fold(node):
            return
        if fused(builder, node):
            return
        if node.op not in READERS:
            raise DefinitionError(
                f"there is no layer for the operator {printable(node.op[:MOST_NAME])}", layer=node.name
            )
        READERS[node.op](builder, node)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        # The last line of defence: attributes or inputs are inconsistent in a way that the reader did not look for.
        raise node.error(
            f"its attributes or inputs are inconsistent ({type(error).__name__}: {first_line(error)})"
        ) from error


def _keep_preprocessing(message: Any, metadata: Mapping[str, str]) -> None:
    """Stores the preprocessing of images that ``sslnet export`` recorded at the first input, where the next export
    finds it."""
    try:
        told = json.loads(metadata.get("preprocessing", "{}"))
        steps = json_format.ParseDict(told if isinstance(told, dict) else {}, pb.TransformationParameter())
    except (ValueError, TypeError, RecursionError, json_format.ParseError):  # another writer's: told by the command
        return
    if steps.ListFields() and message.layer[0].type == "Input":
        message.layer[0].transform_param.CopyFrom(steps)


def _too_large(net: Net, source: OnnxModel) -> str:
    """The reason why the net is not run for a comparison; empty if it is run."""
    size = net.memory().total
    if not source.room.holds_values(size):
        return f"its values take {size / 2**20:,.0f} MiB, more than are spent on a model of this size"
    work = sum(_work(layer, bottoms, tops) for layer, bottoms, tops in zip(net.layers, net.bottoms, net.tops))
    if work > MOST_WORK:
        return f"it takes {work:.2g} multiplications, more than {MOST_WORK:.2g}"
    return ""


def _work(layer: Layer, bottoms: Sequence[Blob], tops: Sequence[Blob]) -> float:
    """Approximate number of multiplications, or other steps, of a layer."""
    return max(layer.flops(bottoms, tops) / 2, sum(top.count for top in tops))


def _compare(path: str | Path, net: Net, builder: DefinitionBuilder, source: OnnxModel) -> Difference | None:
    random = np.random.default_rng(0)
    inputs: dict[str, Any] = {
        name: random.standard_normal(shape, dtype=np.float32) for name, shape in source.inputs.items()
    }
    blobs = {value: builder.blob_of(value) for value in source.outputs if builder.blob_of(value)}
    theirs = run_in_onnxruntime(source.evaluated or str(path), inputs, list(blobs), error=DataError)
    if theirs is None:
        return None
    ours = net.forward(
        list(dict.fromkeys(blobs.values())), **{builder.blob_of(name): array for name, array in inputs.items()}
    )
    for value, blob in blobs.items():
        if theirs[value].shape != ours[blob].shape:
            raise RunError(
                f'"{tidy(value)}" has the shape {theirs[value].shape}, in the net {ours[blob].shape}; nothing was written',
                path=str(path),
            )
    difference = Difference(
        "random numbers", [blob_difference(value, theirs[value], ours[blob]) for value, blob in blobs.items()]
    )
    if not difference.relative <= TOLERANCE:
        worst = max(difference.blobs, key=lambda found: found.relative)
        raise RunError(
            f'the net differs by {worst.relative:.3g} of the largest value in "{tidy(worst.name)}"; nothing was written',
            path=str(path),
        )
    return difference
