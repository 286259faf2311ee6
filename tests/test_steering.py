"""Steering: the target is met, what is zero then stays zero, and a resumed run is the same run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.cli import main
from sslnet.compress import compact
from sslnet.net import Net
from sslnet.solver import Solver
from sslnet.steering import Left, Steering, left

DIGITS = Path(__file__).parents[1] / "solvers" / "digits_ssl.prototxt"


def solver(steering: Steering, *overrides: str) -> Solver:
    definition = prototxt.apply_overrides(
        prototxt.read_solver(DIGITS), ["max_iter=900", "stepvalue=700", "snapshot=0", *overrides]
    )
    return Solver(definition, steering=steering)


@pytest.mark.parametrize("of", ["flops", "params"])
def test_target_is_met_and_kept(of: str) -> None:
    told: list[str] = []
    steering = Steering(of, 0.3, told.append)
    one = solver(steering, "momentum=0.9")
    one.step(900)
    assert steering.met
    assert getattr(left(one.net), of) <= 0.3
    assert "the target is met" in told[0]
    assert one.penalty() == 0
    compaction = compact(one.net.definition, one.net.to_proto())
    sums = [
        sum(
            getattr(getattr(layer, side), {"flops": "flops", "params": "parameters"}[of]) for layer in compaction.layers
        )
        for side in ("before", "after")
    ]
    assert sums[1] <= 0.33 * sums[0]  # constants of dead filters may need a Bias


def test_what_is_left_is_what_compaction_leaves() -> None:
    text = """
    layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }
    layer { name: "a" type: "Convolution" bottom: "x" top: "a" convolution_param { num_output: 4 kernel_size: 3 } }
    layer { name: "p" type: "Pooling" bottom: "a" top: "p" pooling_param { kernel_size: 2 stride: 2 } }
    layer { name: "b" type: "Convolution" bottom: "p" top: "b" convolution_param { num_output: 6 kernel_size: 3 } }
    layer { name: "c" type: "InnerProduct" bottom: "b" top: "c" inner_product_param { num_output: 5 } }
    """
    net = Net(prototxt.parse(text, pb.NetParameter), seed=0)
    random = np.random.default_rng(0)
    for param in net.learnable:
        param.blob.data[...] = random.standard_normal(param.blob.shape)
    assert left(net) == Left(1.0, 1.0)
    net.params["a"][0].data[1] = 0
    net.params["b"][0].data[[0, 5]] = 0
    net.params["c"][0].data[:, 4:8] = 0  # of b's filter 1: nobody reads it any more
    compaction = compact(net.definition, net.to_proto())
    before, after = (
        [(getattr(layer, side).flops, getattr(layer, side).parameters) for layer in compaction.layers]
        for side in ("before", "after")
    )
    assert not compaction.maps
    expected = [sum(column) / sum(whole) for column, whole in zip(zip(*after), zip(*before))]
    found = left(net)
    assert (found.flops, found.params) == pytest.approx(tuple(expected), rel=1e-6)


def test_net_cut_in_two_has_nothing_left() -> None:
    text = """
    layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 3 } } }
    layer { name: "a" type: "InnerProduct" bottom: "x" top: "a" inner_product_param { num_output: 4 } }
    layer { name: "b" type: "InnerProduct" bottom: "a" top: "b" inner_product_param { num_output: 2 } }
    """
    assert left(Net(prototxt.parse(text, pb.NetParameter))) == Left(0.0, 0.0)


@pytest.mark.parametrize("stop", [60, 240])
def test_resumed_run_is_the_same_run(stop: int, tmp_path: Path) -> None:
    """Stopped before the target is met, and after."""
    prefix = f"snapshot_prefix={tmp_path}/run"
    whole = solver(Steering("flops", 0.9), prefix)
    whole.step(stop + 30)
    first = solver(Steering("flops", 0.9), prefix)
    first.step(stop)
    _, state = first.snapshot()
    second = solver(Steering("flops", 0.9), prefix)
    second.restore(state)
    second.step(30)
    for name, blobs in whole.net.params.items():
        for blob, other in zip(blobs, second.net.params[name]):
            np.testing.assert_array_equal(blob.data, other.data)
    assert second.steering.state().tolist() == whole.steering.state().tolist()  # type: ignore[union-attr]


def test_command_steers_and_says_when_it_could_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = ["--set", "max_iter=6", "--set", f"snapshot_prefix={tmp_path}/run", "--set", "test_interval=100"]
    assert main(["train", "--solver", str(DIGITS), *short, "--target-params", "0.01"]) == 0
    assert "the target was not met: 100.0 % of the parameters are left, not 1.0 %" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options, message",
    [
        (["--target-flops", "1.5"], "--target-flops must lie between 0 and 1"),
        (["--target-flops", "0.5", "--target-params", "0.5"], "not both"),
        (
            ["--target-flops", "0.5", "--set", "group_lasso_update=SUBGRADIENT"],
            "no parameter of the net has a group lasso",
        ),
    ],
)
def test_target_that_makes_no_sense_is_an_error(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--solver", str(DIGITS), *options]) == 2
    assert message in capsys.readouterr().err
