"""Calibration images: the few images without labels that criteria and repairs see, and the nets that run them.

They are drawn at random from the data of phase TRAIN, prepared as in phase TEST (no random crops or mirroring).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import ErrorList, ShapeError, UsageError
from sslnet.layers.base import LayerDefinition
from sslnet.layers.prefetched import PrefetchedLayer
from sslnet.net.graph import PhaseState, filter_layers
from sslnet.net.input_layers import is_source, source_shapes, with_inputs
from sslnet.net.net import Net
from sslnet.prototxt import Definition, upgrade_net

BATCH_BYTES = 1 << 29
"""Size of the blobs of a batch of calibration images, in bytes."""


@dataclass(frozen=True)
class CalibrationSet:
    """Calibration images.

    arrays  for the tops of all source layers
    count   number of images
    """

    arrays: dict[str, np.ndarray]

    @property
    def count(self) -> int:
        return min(len(array) for array in self.arrays.values())


def draw_images(net: Net, count: int, seed: int = 0) -> CalibrationSet:
    """Draws images from the data of phase TRAIN for a net in phase TEST.

    count  number of images; all, if the data have fewer
    raises UsageError if phase TRAIN of the definition does not fill the net's inputs from data
    """
    arrays: dict[str, np.ndarray] = {}
    definition = upgrade_net(net.definition)
    train = PhaseState(pb.TRAIN, net.state.level, net.state.stages)
    filled = [layer.param for layer in filter_layers(definition, train) if is_source(layer.param)]
    for layer in net.layers:
        if not layer.IS_SOURCE:
            continue
        (source, *_) = [param for param in filled if set(layer.param.top) <= set(param.top)] or [None]
        if source is None or source.type == "Input":
            raise no_data(net)
        arrays.update(_draw(net, layer.param, source, count, seed))
    if not arrays:
        raise no_data(net)
    return CalibrationSet(arrays)


def no_data(net: Net) -> UsageError:
    """An error for a net whose definition names no training data."""
    where = net.definition.path or f'the net "{net.name}"'
    return UsageError(
        f"{where} has no data in phase TRAIN to take calibration images from",
        hint="give the net with its data layers, train_test.prototxt or train_val.prototxt, or repair none and a "
        "criterion of weights alone, as magnitude",
    )


def _draw(net: Net, test: pb.LayerParameter, train: pb.LayerParameter, count: int, seed: int) -> dict[str, np.ndarray]:
    """Arrays for the tops of one source layer of phase TEST, from the source of phase TRAIN."""
    param = pb.LayerParameter()
    param.CopyFrom(train)
    for field in ("include", "exclude", "transform_param"):
        param.ClearField(field)
    if test.HasField("transform_param"):
        param.transform_param.CopyFrom(test.transform_param)
    settings = next((value for _, value in param.ListFields() if hasattr(value, "batch_size")), None)
    if settings is not None:
        settings.batch_size = 1
        if hasattr(settings, "rand_skip"):
            settings.ClearField("rand_skip")
    alone = pb.NetParameter(name=net.name)
    alone.layer.append(param)
    source = Net(_written(alone, net), phase=pb.TEST, seed=seed)
    (layer,) = source.layers[:1]
    rows: list[list[np.ndarray]] = []
    if isinstance(layer, PrefetchedLayer) and layer.epoch_records() is not None:
        records = layer.epoch_records() or 1
        chosen = np.random.default_rng(seed).choice(records, min(count, records), replace=False)
        rows = [layer.read(int(position)) for position in np.sort(chosen)]
    else:
        while sum(len(row[0]) for row in rows) < count:
            layer.forward(source.bottoms[0], source.tops[0])
            rows.append([blob.data.copy() for blob in source.tops[0]])
    return {
        name: np.concatenate([row[j] for row in rows])[:count]
        for j, name in enumerate(source.top_names[0])
        if name in test.top
    }


def calibration_net(net: Net, images: CalibrationSet, batch: int | None = None, *, separate: bool = False) -> Net:
    """The net with inputs for ``batch`` images (default: all) in place of its data; it shares the net's parameters.

    separate  gives every layer that works in place a top of its own, so that all values can be read after a run
    raises    UsageError for images that do not fit the net; RunError where they would not fit into memory
    """
    size = batch or images.count
    shapes = {name: (size, *array.shape[1:]) for name, array in images.arrays.items()}
    missing = set(source_shapes(net)) - set(shapes)
    if missing:
        raise UsageError(f"calibration images are missing for {', '.join(sorted(missing))}")
    definition = with_inputs(upgrade_net(net.definition), shapes)
    if separate:
        definition = _written(_separate(filter_layers(definition, net.state)), net)
    try:
        return Net(
            definition, phase=net.phase, level=net.state.level, stages=net.state.stages, seed=net.seed, share=net
        )
    except (ShapeError, ErrorList) as error:
        raise UsageError(f"the calibration images do not fit the net: {error.message}", hint=error.hint) from error


def fill(net: Net, images: CalibrationSet, first: int = 0) -> None:
    """Copies the images from number ``first`` on into the inputs of a calibration net."""
    for name in net.inputs:
        blob = net.blobs[name]
        blob.data[...] = images.arrays[name][first : first + len(blob.data)].reshape(blob.shape)


def batches(net: Net, images: CalibrationSet) -> Iterator[int]:
    """Fills a calibration net with one batch after the other; yields the number of the first image of each."""
    size = net.blobs[net.inputs[0]].shape[0]
    for first in range(0, images.count - size + 1, size):
        fill(net, images, first)
        yield first


def batch_within(net: Net, images: CalibrationSet, size: int = BATCH_BYTES) -> int:
    """The largest batch of these images, at least one, whose blobs take at most ``size`` bytes; if one batch does not
    hold all images, such that the batches are of nearly equal size."""
    one = sum(blob.count for blob in net.blobs.values()) * 4 / max(1, _batch_of(net))
    most = max(1, min(images.count, int(size / max(1.0, one))))
    return images.count // -(-images.count // most)


def _batch_of(net: Net) -> int:
    """Number of images in a batch of the net."""
    return next((shape[0] for shape in source_shapes(net).values() if shape), 1)


def _separate(layers: Sequence[LayerDefinition]) -> pb.NetParameter:
    """A message with these layers, each top with a name of its own."""
    message = pb.NetParameter()
    current: dict[str, str] = {}
    used: set[str] = set()
    for layer in layers:
        param = message.layer.add()
        param.CopyFrom(layer.param)
        param.ClearField("include")
        param.ClearField("exclude")
        param.bottom[:] = [current.get(name, name) for name in layer.param.bottom]
        for j, name in enumerate(layer.param.top):
            param.top[j] = name if name not in used else f"{name}/{param.name}"
            used.add(param.top[j])
            current[name] = param.top[j]
    return message


def _written(message: pb.NetParameter, net: Net) -> Definition:
    """The message as a definition whose files are found as those of the net."""
    message.name = net.name
    return prototxt.parse(prototxt.write(message), pb.NetParameter, net.definition.path)
