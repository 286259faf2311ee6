"""Ranks for a measured speedup, with a clock that counts FLOPs: the least error that is fast enough, and none that is not."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from sslnet import sslnet_pb2 as pb
from sslnet.cli import main
from sslnet.compress.low_rank import speedup
from sslnet.compress.low_rank.low_rank import low_rank
from sslnet.errors import RunError
from sslnet.layers.convolution import Convolution
from sslnet.net.net import Net

MODEL = """
name: "net"
layer { name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {
        shape { dim: 3 dim: 4 dim: 10 dim: 10 } shape { dim: 3 } data_filler { type: "gaussian" }
        data_filler { type: "constant" value: 1 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 24 kernel_size: 5 pad: 2 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "conv2" type: "Convolution" bottom: "conv" top: "conv2"
        convolution_param { num_output: 24 kernel_size: 3 stride: 2 weight_filler { type: "xavier" } } }
layer { name: "ip" type: "InnerProduct" bottom: "conv2" top: "ip"
        inner_product_param { num_output: 20 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    model, weights = tmp_path / "net.prototxt", tmp_path / "w.caffemodel"
    model.write_text(MODEL)
    Net(model, seed=0).save(weights)
    return str(model), str(weights)


def cost(net: Net, slow: Callable[[Convolution], float] = lambda layer: 1.0) -> float:
    """Seconds by FLOPs; ``slow`` times as many for a convolution."""
    return sum(
        1e-9 * layer.flops(bottom, top) * (slow(layer) if isinstance(layer, Convolution) else 1)
        for layer, bottom, top in zip(net.layers, net.bottoms, net.tops)
    )


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Convolution], float]], None]:
    def use(slow: Callable[[Convolution], float]) -> None:
        def fastest(nets: Sequence[Net], runs: int) -> list[float]:
            return [cost(net, slow) for net in nets]

        monkeypatch.setattr(speedup, "fastest", fastest)

    use(lambda layer: 1.0)
    return use


@pytest.mark.parametrize("target", [1.2, 2.0, 5.0])
@pytest.mark.usefixtures("clock")
def test_target_is_met_with_little_more_error_than_needed(target: float, files: tuple[str, str]) -> None:
    result = low_rank(*files, target_speedup=target)
    assert result.speedup is not None and result.speedup.speedup >= target
    before, after = (sum(getattr(size, side).flops for size in result.sizes) for side in ("before", "after"))
    assert before / after >= 0.9 * target  # the loss counts in the net that is tested, not in the deployed one
    by_flops = low_rank(*files, target_flops=1 / (1.1 * target))
    assert result.error <= by_flops.error  # with this clock, a target of FLOPs is the same search
    assert all(row.chosen is None or row.chosen.error <= result.error for row in result.layers)


def test_what_is_slow_in_spite_of_its_flops_is_not_chosen(
    clock: Callable[[Callable[[Convolution], float]], None], files: tuple[str, str]
) -> None:
    assert "filters" in {row.method for row in low_rank(*files, target_speedup=1.5).layers}
    clock(lambda layer: 20.0 if layer.window.kernel == (1, 1) else 1.0)
    result = low_rank(*files, target_speedup=1.5)
    assert result.speedup is not None and result.speedup.speedup >= 1.5
    assert not {"filters", "tucker"} & {row.method for row in result.layers}


def test_a_prediction_that_is_wrong_is_corrected_by_the_measurement(
    monkeypatch: pytest.MonkeyPatch, files: tuple[str, str]
) -> None:
    """Whole nets are a third slower than their layers say."""

    def fastest(nets: Sequence[Net], runs: int) -> list[float]:
        whole = [any(layer.name == "relu" for layer in net.layers) and "conv_basis" in net.params for net in nets]
        return [cost(net) * (4 / 3 if later else 1) for net, later in zip(nets, whole)]

    monkeypatch.setattr(speedup, "fastest", fastest)
    told: list[str] = []
    result = low_rank(*files, target_speedup=1.5, layers=["conv"], tell=told.append)
    assert result.speedup is not None and result.speedup.speedup >= 1.5
    measured = [line for line in told if line.startswith("error ")]
    assert 1 < len(measured) <= speedup.ROUNDS
    assert told[0] == "timing conv (1 of 1)"


@pytest.mark.usefixtures("clock")
def test_target_out_of_reach_is_an_error_and_nothing_is_written(
    files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(
        RunError, match="low rank does not make the net 1000 times as fast: the fastest that was measured"
    ):
        low_rank(*files, target_speedup=1000)
    arguments = ["lowrank", "--model", files[0], "--weights", files[1], "--target-speedup", "1000"]
    assert main(arguments) == 1
    assert "the fastest that was measured is" in capsys.readouterr().err
    assert len([*Path(files[0]).parent.iterdir()]) == 2


def test_net_that_no_rank_makes_faster_is_an_error(
    clock: Callable[[Callable[[Convolution], float]], None], files: tuple[str, str]
) -> None:
    clock(lambda layer: 1000.0 if layer.name.endswith(("_0", "_1")) else 1.0)
    with pytest.raises(RunError, match="no rank is faster"):
        low_rank(*files, target_speedup=1.5, layers=["conv", "conv2"])


def test_command_measures_and_tells(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """With the machine's own clock: a product of rank one is faster than 5 x 5 over 24 filters by far."""
    arguments = ["lowrank", "--model", files[0], "--weights", files[1], "--target-speedup", "1.05", "--threads", "1"]
    assert main([*arguments, "--speedup-batch", "8", "--json"]) == 0
    captured = capsys.readouterr()
    record = json.loads(captured.out)
    assert record["speedup"]["value"] >= 1.05 and record["speedup"]["batch"] == 8
    assert "timing conv (1 of 3)" in captured.err
    net = Net(record["output"]["model"], record["output"]["weights"], pb.TRAIN)
    assert np.isfinite(net.forward_backward())


@pytest.mark.parametrize(
    "options, message",
    [
        (["--target-speedup", "1"], "--target-speedup must be above 1, not 1"),
        (["--target-speedup", "nan"], "--target-speedup must be above 1, not nan"),
        (["--speedup-batch", "4"], "--speedup-batch needs --target-speedup"),
        (["--target-speedup", "2", "--speedup-batch", "0"], "--speedup-batch must be at least 1, not 0"),
        (["--target-speedup", "2", "--error", "0.1"], "either --error or --target-speedup, not both"),
    ],
)
def test_option_out_of_range_is_an_error(
    options: list[str], message: str, files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lowrank", "--model", files[0], "--weights", files[1], *options]) == 2
    assert message in capsys.readouterr().err
