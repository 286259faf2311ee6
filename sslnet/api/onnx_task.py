"""From an ONNX model and images to a net for training, and from a smaller net back to an ONNX model of the same form."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.api.inputs import Word, as_argument
from sslnet.api.onnx import check_batch, need_onnx
from sslnet.errors import DefinitionError, UsageError
from sslnet.files import atomic_write
from sslnet.net.net import Net
from sslnet.prototxt import Definition, parse, read_net, write

PREPROCESSING = {
    "imagenet-torch": "preset: IMAGENET_TORCH",
    "cifar10": "preset: CIFAR10",
    "imagenet-caffe": "preset: IMAGENET_CAFFE",
    "unit": "channel_order: RGB scale: 0.00392156862745098",
    "signed": "channel_order: RGB mean_value: 127.5 scale: 0.00784313725490196",
    "raw": "channel_order: RGB",
}
"""Name -> transform_param. unit: pixels from 0 to 1, signed: from -1 to 1, raw: from 0 to 255."""
GRAY = {
    "unit": "scale: 0.00392156862745098",
    "signed": "mean_value: 127.5 scale: 0.00784313725490196",
    "raw": "",
}
"""The same for images with one channel."""
PROBE_IMAGES = 256
"""Number of images on which the kinds of preprocessing are compared."""
LOSSES = ("SoftmaxWithLoss",)


@dataclass(frozen=True)
class OnnxTask:
    """A net for training made from an ONNX model, as files in a folder.

    model, weights   paths of its definition, with data layers and a loss, and of its weights
    source           path of the ONNX model
    preprocessing    name of the preprocessing, a key of PREPROCESSING
    accuracy         name -> accuracy of the model on images prepared so; empty if it was given
    notes            what was recognised and assumed, a line each
    """

    model: str
    weights: str
    source: str
    preprocessing: str
    accuracy: dict[str, float]
    notes: list[str] = field(default_factory=list)


def onnx_task(
    path: str | Path,
    data: str | Path,
    folder: str | Path,
    *,
    preprocessing: str | None = None,
    val: float | None = None,
    batch: int = 64,
    loss: str = "SoftmaxWithLoss",
    tell: Callable[[str], None] = lambda line: None,
    word: Word = as_argument,
) -> OnnxTask:
    """Imports an ONNX model, adds data layers and a loss, and writes the net into a folder.

    path           the model (.onnx), with one input of images (N, C, H, W), whose first output is scores (N, classes)
    data           a folder with a folder of images per class, or with such folders for training and validation; a .csv of
                   path,label; a .npz with images and labels; an LMDB
    folder         folder where model.prototxt and model.caffemodel are written
    preprocessing  a key of PREPROCESSING; None: the one with which the model is most accurate
    val            share of the images for validation, above 0 and below 1; None: 0.1, unless the folder has its own
    batch          images in a batch
    loss           type of the loss layer, one of LOSSES
    tell           gets a line for each thing that was recognised

    raises UsageError for arguments out of range, DefinitionError for a model of another form, DataError for data that cannot
    be read
    """
    need_onnx()
    check_batch(batch, word)
    if loss not in LOSSES:
        raise UsageError(f"{word('loss')} {loss}: not a loss that is added here", hint=f"one of {', '.join(LOSSES)}")
    if val is not None and not 0 < val < 1:
        raise UsageError(f"{word('val')} must be above 0 and below 1, not {val:g}")
    from sslnet.exchange.importing import from_onnx

    imported = from_onnx(path, 1)
    net = Net(Definition(imported.message), imported.weights, pb.TEST, plain=True)
    shape = _image_input(net, str(path))
    known = PREPROCESSING if shape[1] == 3 else GRAY
    if preprocessing is not None and preprocessing not in known:
        raise UsageError(
            f"{word('preprocessing')} {preprocessing}: unknown for {shape[1]} channels",
            hint=f"one of {', '.join(known)}",
        )
    source = _data_layer(os.fspath(data), shape, val)

    def made(name: str, probe: bool = False) -> str:
        return _training_net(imported.message, net, source, known[name], batch, loss, probe)

    accuracy: dict[str, float] = {}
    notes = [f"input {net.inputs[0]}: {shape[1]} x {shape[2]} x {shape[3]}, output {net.outputs[0]}"]
    if preprocessing is None:
        accuracy = {name: _accuracy(made(name, True), imported.weights, batch, notes) for name in known}
        preprocessing = max(accuracy, key=lambda name: accuracy[name])
        notes += _judged(accuracy, preprocessing, net.blobs[net.outputs[0]].shape[1])
    for line in notes:
        tell(line)
    os.makedirs(folder, exist_ok=True)
    model, weights = (os.path.join(folder, f"model.{kind}") for kind in ("prototxt", "caffemodel"))
    atomic_write(model, made(preprocessing).encode())
    atomic_write(weights, imported.weights.SerializeToString())
    return OnnxTask(model, weights, str(path), preprocessing, accuracy, notes)


def _image_input(net: Net, path: str) -> tuple[int, ...]:
    """The shape of the net's input. raises DefinitionError for a net that does not take images, or gives no scores"""
    shape = net.blobs[net.inputs[0]].shape
    if len(net.inputs) != 1 or len(shape) != 4:
        raise DefinitionError(
            f"the model takes {', '.join(f'{name} {net.blobs[name].shape}' for name in net.inputs)}, not one batch of "
            "images (N, C, H, W)",
            path=path,
            hint="sslnet import, then data layers of your own (docs/onnx.md)",
        )
    if shape[1] not in (1, 3):
        raise DefinitionError(
            f"the model takes {shape[1]} channels: images have 1 or 3",
            path=path,
            hint="a model with channels last: export it with channels first; else sslnet import",
        )
    scores = net.blobs[net.outputs[0]].shape
    if len(scores) != 2:
        raise DefinitionError(
            f'the output "{net.outputs[0]}" has the shape {scores}, not (N, classes)',
            path=path,
            hint="sslnet import, then a loss of your own (docs/onnx.md)",
        )
    return shape


def _data_layer(data: str, shape: tuple[int, ...], val: float | None) -> str:
    """The text of the data layers, with {phase}, {transform} and {batch} to be replaced.

    raises UsageError for data of an unknown kind
    """
    height, width = shape[2:]
    share = 0.1 if val is None else val
    path = _quoted(os.path.abspath(data))
    if os.path.isfile(os.path.join(data, "data.mdb")):
        raise UsageError(
            f"{data} is one LMDB: it has no part for validation",
            hint="a folder per class or a .npz is divided; for two databases: sslnet import, then Data layers",
        )
    if os.path.isdir(data) or data.endswith(".csv"):
        parts = os.path.isdir(data) and val is None and _has_parts(data)
        split = "" if parts else f" split {{ val_share: {share:g} }}"
        color = "" if shape[1] == 3 else " is_color: false"
        return (
            f'type: "ImageFolderData" image_folder_data_param {{ source: {path} batch_size: {{batch}}{split}{color} '
            f"new_height: {height} new_width: {width} shuffle: true }}"
        )
    if data.endswith((".npz", ".npy")):
        return (
            f'type: "ArrayData" array_data_param {{ source: {path} batch_size: {{batch}} '
            f"split {{ val_share: {share:g} }} shuffle: true }}"
        )
    if not os.path.exists(data):
        raise UsageError(
            f"{data} does not exist", hint="a folder with a folder per class, a .npz, or a .csv of path,label"
        )
    raise UsageError(f"{data}: no data that are recognised", hint="a folder per class, a .npz, or a .csv of path,label")


def _has_parts(folder: str) -> bool:
    from sslnet.sources.image_folder import TRAIN_NAMES, VAL_NAMES

    names = {name.lower() for name in os.listdir(folder) if os.path.isdir(os.path.join(folder, name))}
    return bool(names) and names <= {*TRAIN_NAMES, *VAL_NAMES} and bool(names & set(VAL_NAMES))


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _training_net(message: Any, net: Net, source: str, transform: str, batch: int, loss: str, probe: bool) -> str:
    """The text of the definition for training: data layers in the place of the input, a loss behind the scores.

    probe   whether the images for validation come in a random order, so that the first of them are of all classes
    """
    made = pb.NetParameter()
    made.CopyFrom(message)
    first, scores = net.inputs[0], net.outputs[0]
    layers = [layer for layer in made.layer if layer.type != "Input"]
    if loss == "SoftmaxWithLoss":
        layers, scores = _without_softmax(layers, scores)
    text = f"name: {_quoted(made.name or 'net')}\n"
    for phase in ("TRAIN", "TEST"):
        data = source.replace("{batch}", str(batch))
        if phase == "TEST" and not probe:
            data = data.replace(" shuffle: true", "")
        steps = f"{transform} mirror: true" if phase == "TRAIN" else transform
        text += (
            f'layer {{ name: "data" top: {_quoted(first)} top: "label" include {{ phase: {phase} }} {data} '
            f"transform_param {{ {steps} }} }}\n"
        )
    del made.layer[:]
    made.name = ""
    made.layer.extend(layers)
    body = write(made)
    body = "\n".join(line for line in body.splitlines() if line.strip() != 'name: ""')
    target = "label"
    text += body + "\n"
    text += f'layer {{ name: "loss" type: "{loss}" bottom: {_quoted(scores)} bottom: "{target}" top: "loss" }}\n'
    text += (
        f'layer {{ name: "accuracy" type: "Accuracy" bottom: {_quoted(scores)} bottom: "label" top: "accuracy" '
        "include { phase: TEST } }\n"
    )
    return text


def _without_softmax(layers: list[Any], scores: str) -> tuple[list[Any], str]:
    """The layers without a Softmax, and Log, at the end, which the loss contains; and the name of the scores."""
    for kind in ("Log", "Softmax"):
        last = layers[-1]
        if last.type == kind and list(last.top) == [scores]:
            layers, scores = layers[:-1], last.bottom[0]
    return layers, scores


def _accuracy(text: str, weights: Any, batch: int, notes: list[str]) -> float:
    """The accuracy of the net on some images for validation."""
    net = Net(parse(text, pb.NetParameter), weights, pb.TEST, plain=True, seed=1)
    for layer in net.layers:
        for note in getattr(layer, "notes", []):
            if note not in notes:
                notes.append(note)
    count = max(1, PROBE_IMAGES // batch)
    return float(np.mean([float(net.forward(["accuracy"])["accuracy"]) for _ in range(count)]))


def _judged(accuracy: dict[str, float], best: str, classes: int) -> list[str]:
    """Lines on the kinds of preprocessing, and a warning where none fits."""
    each = ", ".join(f"{name} {value:.1%}" for name, value in accuracy.items())
    lines = [f"accuracy of the model by preprocessing: {each}; taken: {best} (--preprocess sets another)"]
    if accuracy[best] < 2 / classes + 0.02:
        lines.append(
            f"warning: {accuracy[best]:.1%} is near chance for {classes} classes. Either the model is not trained, its classes "
            "have another order than the sorted names of the folders, or its images are prepared differently"
        )
    return lines


# -- back to ONNX ------------------------------------------------------------------------------------------------------


def small_onnx(model: str | Path, weights: str | Path, source: str | Path) -> tuple[Any, Any]:
    """The small net of a compression as an ONNX model with the inputs and outputs of the original.

    model, weights   paths of the small net's definition for training and testing, and of its weights
    source           the original model (.onnx)
    returns          the onnx.ModelProto, and the difference from the net in onnxruntime, or None if that is not installed
    raises           RunError if the model's outputs differ from the net's
    """
    from sslnet.exchange.export import export
    from sslnet.exchange.importing import from_onnx

    original = from_onnx(source, 1)
    definition = read_net(model)
    inputs = [layer for layer in original.message.layer if layer.type == "Input"]
    small = pb.NetParameter(name=original.message.name)
    small.layer.extend(inputs)
    names = {layer.name for layer in definition.message.layer}
    for layer in definition.message.layer:
        if layer.type in (*LOSSES, "Accuracy") or "label" in layer.top or layer.type == "Input":
            continue
        small.layer.add().CopyFrom(layer)
    tail = [layer for layer in original.message.layer if layer.name not in names and layer.type in ("Softmax", "Log")]
    small.layer.extend(tail)
    net = Net(Definition(small), str(weights), pb.TEST)
    return export(net, {"preprocessing": "outside, as in the original"})
