"""compact cuts a solver's state with the weights: training goes on with the small net as with the large one."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.cli import main
from sslnet.compress.compaction.compact import compact
from sslnet.errors import WeightsError
from sslnet.solver.snapshot import read_state, write_state
from sslnet.solver.solver import Solver

NET = """
layer { name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {
  shape { dim: 6 dim: 3 dim: 9 dim: 8 } shape { dim: 6 }
  data_filler { type: "gaussian" std: 1 } data_filler { type: "constant" value: 1 } } }
layer { name: "stem" type: "Convolution" bottom: "data" top: "stem"
  convolution_param { num_output: 6 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "relu0" type: "ReLU" bottom: "stem" top: "stem" }
layer { name: "a" type: "Convolution" bottom: "stem" top: "a"
  convolution_param { num_output: 8 kernel_size: 5 pad: 2 weight_filler { type: "xavier" } } }
layer { name: "relu1" type: "ReLU" bottom: "a" top: "a" }
layer { name: "b" type: "Convolution" bottom: "a" top: "b"
  convolution_param { num_output: 6 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "sum" type: "Eltwise" bottom: "stem" bottom: "b" top: "sum" }
layer { name: "c" type: "Convolution" bottom: "sum" top: "c"
  convolution_param { num_output: 6 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "sum2" type: "Eltwise" bottom: "sum" bottom: "c" top: "sum2" }
layer { name: "ip" type: "InnerProduct" bottom: "sum2" top: "ip"
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


def solver(net: Path, prefix: Path, kind: str, **more: object) -> Solver:
    message = pb.SolverParameter(
        net=str(net),
        type=kind,
        base_lr=0.01,
        lr_policy="fixed",
        max_iter=20,
        snapshot_prefix=str(prefix),
        random_seed=3,
    )
    if kind in ("SGD", "Nesterov", "Adam"):
        message.momentum = 0.9
    message.weight_decay = 0.001
    return Solver(prototxt.Definition(message), **more)


@pytest.fixture(params=["SGD", "Nesterov", "Adam", "AdaDelta"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str, str]:
    """A net, the rule, and a snapshot in its third iteration with filters, columns and a block held at zero."""
    (tmp_path / "net.prototxt").write_text(NET)
    first = solver(tmp_path / "net.prototxt", tmp_path / "big", request.param)
    params = {name: [blob.data for blob in blobs] for name, blobs in first.net.params.items()}
    for name, filters in (("a", [1, 4, 5]), ("c", slice(None))):
        params[name][0][filters] = params[name][1][filters] = 0
    params["a"][0].reshape(8, -1)[:, ::2] = 0
    params["b"][0][:, [1, 4, 5]] = 0
    first._find_frozen()
    zeros = {id(update): update.param.blob.data == 0 for update in first.updates}
    for update in first.updates:
        if update.param.blob.num_axes > 1:
            update.keep = (~zeros[id(update)]).reshape(-1).astype(np.uint8)
        elif update.param.layer.name in ("a", "c"):
            update.keep = (update.param.blob.data != 0).astype(np.uint8)
            update.keep[[0, 2, 3, 6, 7] if update.param.layer.name == "a" else []] = 1
    first.step(3)
    return tmp_path, request.param, first.snapshot()[1]


def test_small_net_trains_on_as_the_large_one(run: tuple[Path, str, str]) -> None:
    folder, kind, snapshot = run
    code = main(
        ["compact", "--model", str(folder / "net.prototxt"), "--snapshot", snapshot, "--output", str(folder / "small")]
    )
    assert code == 0
    assert read_state(folder / "small.solverstate").iteration == 3
    large = solver(folder / "net.prototxt", folder / "big2", kind, snapshot=snapshot)
    small = solver(folder / "small.prototxt", folder / "small2", kind, snapshot=folder / "small.solverstate")
    assert "c" not in small.net.params and small.net.params["a"][0].shape[0] == 5
    for _ in range(6):
        large.step(1)
        small.step(1)
        np.testing.assert_allclose(small.net.blobs["ip"].data, large.net.blobs["ip"].data, rtol=1e-4, atol=1e-5)
    large_ip = large.net.params["ip"][0].data
    np.testing.assert_allclose(small.net.params["ip"][0].data, large_ip, rtol=1e-4, atol=1e-6)


def test_state_of_another_net_is_refused(run: tuple[Path, str, str], tmp_path: Path) -> None:
    folder, _, snapshot = run
    state = read_state(snapshot)
    state.history = [*state.history[:-1], np.zeros(7, np.float32)]
    other = os.fspath(tmp_path / "other.solverstate")
    write_state(other, state)
    with pytest.raises(WeightsError, match="has 7 values"):
        compact(folder / "net.prototxt", snapshot.replace("solverstate", "caffemodel"), snapshot=other)
