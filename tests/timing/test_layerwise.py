"""Layer-wise time: what is run, in which order, and how it is put together. How long anything takes is not tested."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import UsageError
from sslnet.net.net import Net
from sslnet.net.steps import Step
from sslnet.timing import layerwise as timing
from sslnet.timing.layerwise import Spread, open_net, time_nets

from ..support.small_nets import conv_net

NET = conv_net({"conv": {"num_output": 4}}, rectified={"conv"})


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.prototxt"
    prototxt.save(NET, path)
    return path


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the layers of each timed call, "<" before those run backward; the clock says 1 second a layer."""
    seen: list[str] = []

    def fake(steps: list[Step], backward: bool = False) -> float:
        names = [f"{'<' if backward else ''}{step.layer.name}" for step in steps]
        seen.append(" ".join(names))
        return float(len(steps))

    monkeypatch.setattr(timing, "seconds_of", fake)
    monkeypatch.setattr(timing, "WARM_UP", 0)
    return seen


def test_spread_is_the_median_between_the_quartiles() -> None:
    assert Spread.of([5, 1, 2, 4, 3]) == Spread(median=3, low=2, high=4)


def test_each_layer_is_timed_forward_in_order_and_backward_in_reverse(model: Path, runs: list[str]) -> None:
    result = time_nets([open_net(model)], iterations=1)
    assert runs == [
        "conv", "relu", "ip", "loss", "<loss", "<ip", "<relu", "<conv",
        "conv relu ip loss", "<loss <ip <relu <conv",
    ]  # fmt: skip
    assert result.nets[0].forward.median == 4


def test_two_nets_take_turns(model: Path, runs: list[str]) -> None:
    nets = [open_net(model), open_net(model)]
    order: list[int] = []
    for index, net in enumerate(nets):
        for layer in net.layers:
            layer.name = f"{index}{layer.name}"
    time_nets(nets, iterations=4, forward_only=True)
    order = [int(run[0]) for run in runs if " " not in run and run.endswith("conv")]
    assert order == [0, 1, 1, 0, 0, 1, 1, 0]


def test_data_layers_are_listed_and_not_timed(model: Path, runs: list[str]) -> None:
    layers = time_nets([open_net(model)], iterations=1).nets[0].layers
    assert [layer.name for layer in layers] == ["data", "conv", "relu", "ip", "loss"]
    assert layers[0].source and layers[0].forward is None and layers[0].backward is None
    assert not any("data" in run for run in runs)


def test_forward_only_leaves_backward_out(model: Path, runs: list[str]) -> None:
    net = time_nets([open_net(model)], iterations=1, forward_only=True).nets[0]
    assert net.backward is None and all(layer.backward is None for layer in net.layers)
    assert not any("<" in run for run in runs)


def test_net_without_a_loss_is_timed_forward(tmp_path: Path, runs: list[str]) -> None:
    path = tmp_path / "deploy.prototxt"
    prototxt.save(pb.NetParameter(layer=NET.layer[:-1]), path)
    assert time_nets([open_net(path)], iterations=1).nets[0].backward is None


def test_flops_left_are_those_of_what_is_not_zero(model: Path) -> None:
    net = open_net(model)
    net.params["conv"][0].data[:1] = 0
    conv = time_nets([net], iterations=1).nets[0].layers[1]
    assert conv.flops == 3 * 16 * 4 * 2 * 9 * 2
    assert conv.flops_left == conv.flops * 3 // 4
    assert conv.filters is not None and (conv.filters.kept, conv.filters.total) == (3, 4)


def test_batch_repeats_or_cuts_what_the_data_layer_gave(model: Path) -> None:
    data = open_net(model).blobs["data"].data
    for batch in (2, 7):
        net = open_net(model, batch=batch)
        assert net.blobs["ip"].shape == (batch, 2)
        for i in range(batch):
            np.testing.assert_array_equal(net.blobs["data"].data[i], data[i % 3])
        np.testing.assert_array_equal(net.blobs["label"].data, np.ones(batch))


def test_timing_leaves_the_parameters_as_they_are(model: Path) -> None:
    net = open_net(model)
    before = {param.name: param.blob.data.copy() for param in net.learnable}
    time_nets([net], iterations=2)
    for param in net.learnable:
        np.testing.assert_array_equal(param.blob.data, before[param.name])


def test_inputs_of_a_deploy_net_get_random_numbers(tmp_path: Path) -> None:
    path = tmp_path / "deploy.prototxt"
    path.write_text(
        'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 4 } } }\n'
        'layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 2 } }\n'
    )
    assert open_net(path).blobs["data"].data.std() > 0


def test_rate_is_flops_over_seconds_forward(model: Path, runs: list[str]) -> None:
    layers = {layer.name: layer for layer in time_nets([open_net(model)], iterations=1).nets[0].layers}
    assert layers["ip"].rate == layers["ip"].flops == 3 * 2 * 64 * 2
    assert layers["relu"].rate is None


@pytest.mark.parametrize(("argument", "value"), [("batch", 0), ("iterations", 0)])
def test_numbers_below_one_are_refused(model: Path, argument: str, value: int) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        if argument == "batch":
            open_net(model, batch=value)
        else:
            time_nets([open_net(model)], iterations=value)


def test_plain_net_can_be_timed() -> None:
    net = Net(NET, phase=pb.TRAIN, seed=0, plain=True)
    net.forward()
    assert [layer.kernel for layer in time_nets([net], iterations=1).nets[0].layers] == ["", *["plain"] * 4]


def test_interrupt_leaves_what_was_measured(model: Path, runs: list[str]) -> None:
    def stop(done: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    result = time_nets([open_net(model)], iterations=50, partial=True, on_run=stop)
    assert result.iterations == 2 and result.nets[0].backward is not None


def test_interrupt_is_raised_unless_it_is_waited_for(model: Path, runs: list[str]) -> None:
    def stop(done: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        time_nets([open_net(model)], iterations=50, on_run=stop)


def test_runs_are_told_with_those_that_do_not_count(model: Path) -> None:
    told: list[int] = []
    time_nets([open_net(model)], iterations=2, on_run=told.append)
    assert told == list(range(1, timing.WARM_UP + 3))


def test_peak_is_measured_when_asked_for(model: Path, runs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "peak_flops", lambda: 5e9)
    assert time_nets([open_net(model)], iterations=1).peak is None
    assert time_nets([open_net(model)], iterations=1, peak=True).peak == 5e9
