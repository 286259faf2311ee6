"""``check``: whether two nets compute the same, on the same data, batch by batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sslnet.compress.compaction.compare import BlobDifference, Difference, blob_difference, compared_blobs
from sslnet.compress.compaction.sizes import LayerSize, layer_sizes
from sslnet.errors import UsageError
from sslnet.net.input_layers import copy_sources, fill_inputs, source_shapes
from sslnet.net.net import Net


@dataclass(frozen=True)
class Check:
    """The result of a check.

    difference  largest difference over all batches, for each output
    layers      sizes of both nets' layers, by name
    batches     number of batches that both nets ran
    images      number of images in a batch
    """

    difference: Difference
    layers: list[LayerSize]
    batches: int
    images: int


def check(
    first: Net, second: Net, *, batches: int = 1, seed: int = 0, on_batch: Callable[[int], None] = lambda done: None
) -> Check:
    """Runs both nets on the same data and compares their common outputs (for losses and measures, the blobs they read).

    first     provides the data, or gets random numbers if it has inputs
    second    must have inputs of the same names and shapes instead of data layers (``sslnet.net.input_layers.with_inputs``)
    on_batch  called with the number of batches done

    raises UsageError when the nets have no output in common, or one needs an input that the other has not
    """
    shapes = source_shapes(first)
    foreign = [name for name in source_shapes(second) if name not in shapes]
    if foreign:
        raise UsageError(
            f'the second net reads "{foreign[0]}", which the first does not have',
            hint=f"data of the first: {', '.join(shapes) or 'none'}",
        )
    names, others = compared_blobs(first), compared_blobs(second)
    common = [name for name in names if name in others]
    if not common:
        raise UsageError(
            "the nets have no output of the same name",
            hint=f"outputs of the first: {', '.join(names) or 'none'}; of the second: {', '.join(others) or 'none'}",
        )
    worst: dict[str, BlobDifference] = {}
    inputs = "data of the net"
    for batch in range(batches):
        if fill_inputs(first, seed + batch):
            inputs = "random numbers"
        outputs = first.forward(common)
        before = {name: outputs[name].copy() for name in common}
        copy_sources(first, second)
        after = second.forward(common)
        for name in common:
            found = blob_difference(name, before[name], after[name])
            worst[name] = max(worst.get(name, found), found, key=lambda blob: blob.relative)
        on_batch(batch + 1)
    images = next((shape[0] for shape in shapes.values() if shape), 1)
    return Check(Difference(inputs, list(worst.values())), layer_sizes(first, second), batches, images)
