"""Training on with zeros kept: they stay, all else learns, and the compacted net learns the same as the one with zeros.

The nets get another batch in each iteration and run in float64, where rounding hides nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.compress.compaction.compact import compact
from sslnet.net.net import Net
from sslnet.solver.solver import Solver

BATCH, CLASSES = 8, 4


def layer(name: str, type_: str, bottom: str, top: str = "", more: str = "") -> str:
    bottoms = " ".join(f'bottom: "{each}"' for each in bottom.split())
    return f'layer {{ name: "{name}" type: "{type_}" {bottoms} top: "{top or name}" {more} }}\n'


def conv(name: str, bottom: str, outputs: int, more: str = "kernel_size: 3 pad: 1") -> str:
    settings = f"num_output: {outputs} {more} weight_filler {{ type: 'msra' }}"
    return layer(name, "Convolution", bottom, more=f"MODE convolution_param {{ {settings} }}")


def inner_product(name: str, bottom: str, outputs: int) -> str:
    settings = f"num_output: {outputs} weight_filler {{ type: 'xavier' }}"
    return layer(name, "InnerProduct", bottom, more=f"MODE inner_product_param {{ {settings} }}")


def norm(name: str, bottom: str, relu: bool = True) -> str:
    text = layer(f"{name}_bn", "BatchNorm", bottom, bottom)
    text += layer(f"{name}_scale", "Scale", bottom, bottom, "scale_param { bias_term: true }")
    return text + (layer(f"{name}_relu", "ReLU", bottom, bottom) if relu else "")


def pool(name: str, bottom: str, kind: str = "MAX") -> str:
    return layer(name, "Pooling", bottom, more=f"pooling_param {{ pool: {kind} kernel_size: 2 stride: 2 }}")


BARE = "kernel_size: 3 pad: 1 bias_term: false"
NETS = {
    "lenet": conv("conv1", "data", 6, "kernel_size: 5")
    + pool("pool1", "conv1")
    + conv("conv2", "pool1", 8)
    + pool("pool2", "conv2")
    + inner_product("ip1", "pool2", 10)
    + layer("relu1", "ReLU", "ip1", "ip1")
    + inner_product("score", "ip1", CLASSES),
    "batch norm": conv("conv1", "data", 6, BARE)
    + norm("conv1", "conv1")
    + conv("conv2", "conv1", 8, BARE + " stride: 2")
    + norm("conv2", "conv2")
    + pool("pool2", "conv2", "AVE")
    + inner_product("score", "pool2", CLASSES),
    "residual": conv("conv1", "data", 6, BARE)
    + norm("conv1", "conv1")
    + conv("conv2", "conv1", 6, BARE)
    + norm("conv2", "conv2")
    + conv("conv3", "conv2", 6, BARE)
    + norm("conv3", "conv3", relu=False)
    + layer("sum", "Eltwise", "conv1 conv3")
    + layer("sum_relu", "ReLU", "sum", "sum")
    + inner_product("score", "sum", CLASSES),
    "conv groups": conv("conv1", "data", 6)
    + layer("relu1", "ReLU", "conv1", "conv1")
    + conv("conv2", "conv1", 8, "kernel_size: 3 group: 2")
    + layer("relu2", "ReLU", "conv2", "conv2")
    + inner_product("score", "conv2", CLASSES),
}
DEAD = {
    "lenet": {"conv1": [1, 4], "conv2": [0, 5, 6], "ip1": [2, 3, 9]},
    "batch norm": {"conv1": [0, 3], "conv2": [2, 7]},
    "residual": {"conv2": [1, 2, 5]},
    "conv groups": {"conv1": [1, 4], "conv2": [0, 3, 5, 7]},
}
"""Filters and neurons that are zero, with all that reads them."""
READERS = {
    "lenet": {"conv1": "conv2", "conv2": "ip1", "ip1": "score"},
    "batch norm": {"conv1": "conv2", "conv2": "score"},
    "residual": {"conv2": "conv3"},
    "conv groups": {"conv1": "conv2", "conv2": "score"},
}
SETTINGS = {
    "SGD": 'type: "SGD" base_lr: 0.02 momentum: 0.9 weight_decay: 0.01',
    "SGD, l1": 'type: "SGD" base_lr: 0.02 momentum: 0.9 weight_decay: 0.001 regularization_type: "L1"',
    "Nesterov": 'type: "Nesterov" base_lr: 0.02 momentum: 0.9 weight_decay: 0.01',
    "Adam": 'type: "Adam" base_lr: 0.003 momentum: 0.9 weight_decay: 0.01',
    "AdamW": 'type: "AdamW" base_lr: 0.003 momentum: 0.9 weight_decay: 0.1',
    "AdaGrad": 'type: "AdaGrad" base_lr: 0.02 weight_decay: 0.01',
    "RMSProp": 'type: "RMSProp" base_lr: 0.002 rms_decay: 0.98 weight_decay: 0.01',
    "AdaDelta": 'type: "AdaDelta" base_lr: 1 momentum: 0.95 delta: 1e-6 weight_decay: 0.01',
}
ITERATIONS = 12


def definition(name: str, mode: str) -> Any:
    def inputs(top: str, shape: str) -> str:
        return (
            f'layer {{ name: "{top}" type: "Input" top: "{top}" input_param {{ shape {{ dim: {BATCH} {shape} }} }} }}\n'
        )

    text = inputs("data", "dim: 2 dim: 12 dim: 12") + inputs("label", "") + NETS[name]
    text = text.replace("MODE", f"connectivity_mode: {mode}").replace("'", '"')
    return prototxt.parse(text + layer("loss", "SoftmaxWithLoss", "score label", "loss"), pb.NetParameter).message


def pruned(name: str, mode: str) -> tuple[Any, Any]:
    """A net and weights of which whole filters are zero, and whole columns, and single weights."""
    message = definition(name, mode)
    net, random = Net(message, phase=pb.TRAIN, seed=2), np.random.default_rng(5)
    for param in net.learnable:
        if param.layer.TYPE in ("Convolution", "InnerProduct") and param.index == 0:
            weights = param.blob.data.reshape(param.blob.shape[0], -1)
            weights[random.random(weights.shape) < 0.2] = 0
            if param.layer.name != "score":  # a neuron that nobody reads goes, and columns that it alone has with it
                weights[:, random.random(weights.shape[1]) < 0.3] = 0
        elif param.layer.TYPE != "BatchNorm":
            param.blob.data[...] = random.uniform(0.2, 1, param.blob.shape)
    for dead, filters in DEAD[name].items():
        for blob in (*net.params[dead], *net.params.get(f"{dead}_scale", ())):
            blob.data[filters] = 0
        reader = net.params[READERS[name][dead]][0].data
        groups = net.params[dead][0].shape[0] // reader.shape[1] if reader.ndim == 4 else 1
        inputs = reader.shape[1] if reader.ndim == 4 else net.params[dead][0].shape[0]
        banks = reader.reshape(groups, reader.shape[0] // groups, inputs, -1)
        for channel in filters:
            banks[channel // inputs, :, channel % inputs] = 0
    return message, net.to_proto()


def solver(message: Any, weights: Any, settings: str, folder: Path, more: str = "") -> Solver:
    path = folder / "weights.caffemodel"
    path.write_bytes(weights.SerializeToString())
    text = f'{settings} lr_policy: "inv" gamma: 0.01 power: 0.75 random_seed: 3 {more}'
    param = prototxt.parse(text, pb.SolverParameter).message
    param.net_param.CopyFrom(message)
    return Solver(prototxt.Definition(param), weights=[path], dtype=np.float64)


def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    random = np.random.default_rng(11)
    while True:
        yield random.standard_normal((BATCH, 2, 12, 12)), random.integers(0, CLASSES, BATCH)


def train(runs: list[Solver], iterations: int = ITERATIONS) -> list[list[float]]:
    """All on the same batches; the losses of each."""
    losses: list[list[float]] = [[] for _ in runs]
    for _, (data, label) in zip(range(iterations), batches()):
        for run, values in zip(runs, losses):
            run.net.blobs["data"].data[...] = data
            run.net.blobs["label"].data[...] = label
            run.step(1)
            values.append(run.net.loss)
    return losses


def blobs_of(weights: Any) -> dict[str, list[np.ndarray]]:
    return {
        each.name: [np.array(blob.double_data or blob.data).reshape(list(blob.shape.dim)) for blob in each.blobs]
        for each in weights.layer
        if each.blobs
    }


def kept_at_zero(weights: np.ndarray, mode: str, groups: int = 1) -> np.ndarray:
    """Which weights the mode freezes."""
    zero = weights == 0
    if mode == "DISCONNECTED_ELTWISE":
        return zero
    banks = zero.reshape(groups, weights.shape[0] // groups, -1)
    frozen = banks.all(axis=2, keepdims=True) | banks.all(axis=1, keepdims=True)
    return np.broadcast_to(frozen, banks.shape).reshape(weights.shape)


MODES = ["DISCONNECTED_ELTWISE", "DISCONNECTED_GRPWISE"]
PENALTIES = {
    "no penalty": "",
    "rows": "breadth_decay: 0.01",
    "rows and columns": "breadth_decay: 0.01 kernel_shape_decay: 0.005",
}


CASES = [(mode, name, rule) for mode in MODES for name in NETS for rule in ("SGD", "Adam")]
CASES += [(MODES[1], "batch norm", rule) for rule in SETTINGS if rule not in ("SGD", "Adam")]


@pytest.mark.parametrize(("mode", "name", "settings"), CASES)
def test_compacted_net_learns_what_the_net_with_zeros_learns(
    mode: str, name: str, settings: str, tmp_path: Path
) -> None:
    message, weights = pruned(name, mode)
    small = compact(prototxt.Definition(message), weights, phase=pb.TRAIN)
    assert small.removed > 0
    large, little = (
        solver(net, values, SETTINGS[settings], tmp_path)
        for net, values in ((message, weights), (small.message, small.weights))
    )
    losses, expected = train([little, large])
    assert len(set(expected)) == ITERATIONS
    np.testing.assert_allclose(losses, expected, rtol=1e-8)
    again = blobs_of(compact(prototxt.Definition(message), large.net.to_proto(), phase=pb.TRAIN).weights)
    found, before = blobs_of(little.net.to_proto()), blobs_of(small.weights)
    assert set(again) == set(found)
    for layer_name, blobs in again.items():
        for one, other in zip(found[layer_name], blobs, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6 * np.abs(other).max(), err_msg=layer_name)
    assert any(np.abs(a - b).max() > 1e-3 for a, b in zip(found["score"], before["score"])), "it learns"


def test_compaction_in_phase_train_does_not_move_statistics() -> None:
    message, weights = pruned("residual", MODES[0])
    before, after = blobs_of(weights), blobs_of(compact(prototxt.Definition(message), weights, phase=pb.TRAIN).weights)
    for name in ("conv1_bn", "conv3_bn"):
        for one, other in zip(after[name], before[name], strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("mode", MODES)
def test_zeros_stay_and_all_else_learns(mode: str, settings: str, penalty: str, tmp_path: Path) -> None:
    message, weights = pruned("conv groups", mode)
    if penalty != "no penalty":
        for each in message.layer:
            if each.type in ("Convolution", "InnerProduct"):
                spec = each.param.add()
                spec.breadth_decay_mult, spec.kernel_shape_decay_mult = 1, float("columns" in penalty)
    run = solver(message, weights, SETTINGS[settings], tmp_path, PENALTIES[penalty] + " iter_size: 2 clip_gradients: 5")
    before = {name: blobs[0].data.copy() for name, blobs in run.net.params.items()}
    train([run], 4)
    for name, blobs in run.net.params.items():
        groups = 2 if name == "conv2" else 1
        frozen = kept_at_zero(before[name], mode, groups)
        assert frozen.any() and not frozen.all()
        np.testing.assert_array_equal(blobs[0].data[frozen], 0)
        moved = blobs[0].data != before[name]
        if penalty == "no penalty":
            assert moved[~frozen].mean() > 0.95, name
        if mode == "DISCONNECTED_GRPWISE":
            single = (before[name] == 0) & ~frozen
            assert single.any() and moved[single].any(), "single zeros between the others learn"


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("settings", ["SGD", "Nesterov", "Adam", "AdaDelta"])
@pytest.mark.parametrize("mode", MODES)
def test_zeros_that_are_loaded_into_a_running_solver_stay(
    mode: str, settings: str, penalty: str, tmp_path: Path
) -> None:
    """What the solver remembers of the weights that were there before moves none of them."""
    message, weights = pruned("lenet", mode)
    if penalty != "no penalty":
        for each in message.layer:
            if each.type in ("Convolution", "InnerProduct"):
                spec = each.param.add()
                spec.breadth_decay_mult, spec.kernel_shape_decay_mult = 1, float("columns" in penalty)
    run = solver(message, Net(message, seed=1).to_proto(), SETTINGS[settings], tmp_path, PENALTIES[penalty])
    train([run], 3)
    path = tmp_path / "pruned.caffemodel"
    path.write_bytes(weights.SerializeToString())
    run.load(path)
    before = {name: blobs[0].data.copy() for name, blobs in run.net.params.items()}
    train([run], 3)
    for name, blobs in run.net.params.items():
        np.testing.assert_array_equal(blobs[0].data[kept_at_zero(before[name], mode)], 0)
