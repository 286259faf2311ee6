"""Every net of the models folder: to compact a run and train the small net on is to train the large one on and compact.

A third of the filters is zero and held there. Weights, momentum, statistics of BatchNorm and the next batches must all fit.
The large nets are marked as slow.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.compress.compaction.compact import compact
from sslnet.compress.compaction.needed_channels import find_channels
from sslnet.solver.snapshot import write_state
from sslnet.solver.solver import Solver

from ..support.model_nets import BLOCKS, NAMES, SLOW, ends, light, prune, with_dummy_data

HEAVY = SLOW | {"googlenet", "mobilenet", "nin", "resnet32", "resnet56", "squeezenet"}


def without_chance(name: str) -> Any:
    """The definition for training, its data as they come from DummyData and Dropout's ratio 0."""
    message = with_dummy_data(name).message
    for layer in message.layer:
        if layer.type == "Dropout":
            layer.dropout_param.dropout_ratio = 0
    return message


def solver(message: Any, folder: Path, **more: Any) -> Solver:
    prototxt.save(message, str(folder / "net.prototxt"))
    settings = pb.SolverParameter(
        net=str(folder / "net.prototxt"), base_lr=1e-3, lr_policy="fixed", momentum=0.9, weight_decay=1e-3,
        max_iter=10, snapshot_prefix=str(folder / "run"), random_seed=3,
    )  # fmt: skip
    return Solver(prototxt.Definition(settings), **more)


def hold_zeros(run: Solver) -> None:
    """What is zero of the weights stays so. What such filters would emit is zero, biases also of layers that follow; where a
    Sigmoid makes a half of it, no neuron reads that."""
    (view,) = find_channels([run.net])
    constant = {id(layer): tops[0].constant for layer, tops in zip(run.net.layers, view.tops) if tops}
    for layer, bottoms in zip(run.net.layers, view.bottoms):
        if layer.TYPE == "InnerProduct":
            weights = layer.blobs[0].data
            weights.reshape(len(weights), bottoms[0].size, -1)[:, bottoms[0].constant] = 0
    for update in run.updates:
        blob, layer = update.param.blob, update.param.layer
        if layer.TYPE != "BatchNorm" and blob.num_axes == 1 and blob is layer.blobs[-1]:
            blob.data[constant[id(layer)]] = 0
    run._find_frozen()
    for update in run.updates:
        if update.param.layer.TYPE != "BatchNorm":
            update.keep = (update.param.blob.data != 0).astype(np.uint8).reshape(-1)


def random_biases(run: Solver) -> None:
    random = np.random.default_rng(1)
    for param in run.net.learnable:
        if param.blob.num_axes == 1 and param.layer.TYPE != "BatchNorm":
            param.blob.data[...] = random.uniform(0.5, 1, param.blob.shape)


@pytest.mark.parametrize("name", [light(name, HEAVY) for name in NAMES])
def test_small_net_trains_on_as_the_large_one(name: str, tmp_path: Path) -> None:
    message = without_chance(name)
    folders = [tmp_path / part for part in ("first", "large", "small")]
    for folder in folders:
        folder.mkdir()
    first = solver(message, folders[0])
    prune(first.net, ends(first.net))
    if name in BLOCKS:
        first.net.params[BLOCKS[name]][0].data[...] = 0
    random_biases(first)
    hold_zeros(first)
    first.step(2)
    weights, state = first.snapshot()

    result = compact(prototxt.Definition(message), weights, snapshot=state)
    assert result.removed > 0 and result.state is not None
    small_state, small_weights = (str(folders[2] / f"small.{kind}") for kind in ("solverstate", "caffemodel"))
    Path(small_weights).write_bytes(result.weights.SerializeToString())
    result.state.learned_net = small_weights
    write_state(small_state, result.state)

    large = solver(message, folders[1], snapshot=state)
    small = solver(result.message, folders[2], snapshot=small_state)
    assert sum(p.blob.count for p in small.net.learnable) < 0.8 * sum(p.blob.count for p in large.net.learnable)
    for run in (large, small):
        run.step(3)
    assert small.iter == large.iter == 5
    assert small.net.loss == pytest.approx(large.net.loss, rel=1e-4)
    afterwards = compact(prototxt.Definition(message), large.net.to_proto()).weights
    expected = {layer.name: [np.array(blob.data) for blob in layer.blobs] for layer in afterwards.layer}
    found = {layer.name: [blob.data.reshape(-1) for blob in layer.blobs] for layer in small.net.layers if layer.blobs}
    assert set(found) == set(expected)
    for layer, blobs in expected.items():
        for one, other in zip(found[layer], blobs, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-4 * np.abs(other).max(), err_msg=layer)
