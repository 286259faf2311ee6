"""Low rank: at full rank the factors are the layer; below, the error is what was promised and the best there is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.cli import main
from sslnet.compress.low_rank.factors import Weights, choose, factorise
from sslnet.compress.low_rank.low_rank import low_rank
from sslnet.errors import UsageError
from sslnet.net.net import Net

METHODS = ("svd", "filters", "spatial", "tucker")


@st.composite
def convolutions(draw: st.DrawFn) -> Weights:
    group = draw(st.sampled_from([1, 1, 2]))
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    shape = (group * draw(st.integers(1, 5)), draw(st.integers(1, 5)), *kernel)
    pair = st.tuples(st.integers(1, 2), st.integers(1, 2))
    pad = draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    array = np.random.default_rng(draw(st.integers(0, 99))).standard_normal(shape).astype(np.float32)
    return Weights(array, group, draw(pair), pad, draw(pair), (9, 8))


def net_of(weights: Weights, stages: list[Any] | None = None) -> Net:
    """An input and the convolution, or the convolutions in its place, without biases."""
    w = weights
    chain = stages or [
        type("S", (), {"array": w.array, **{n: getattr(w, n) for n in ("kernel", "stride", "pad", "dilation")}})
    ]
    channels = w.array.shape[1] * w.group
    text = f'layer {{ name: "x" type: "Input" top: "x0" input_param {{ shape {{ dim: 2 dim: {channels} dim: {w.sizes[0]} dim: {w.sizes[1]} }} }} }}\n'
    for k, s in enumerate(chain):
        fields = " ".join(
            f"{name}: {value}"
            for name, values in (
                ("kernel_size", s.kernel),
                ("stride", s.stride),
                ("pad", s.pad),
                ("dilation", s.dilation),
            )
            for value in values
        )
        text += f'layer {{ name: "c{k}" type: "Convolution" bottom: "x{k}" top: "x{k + 1}" convolution_param {{ num_output: {len(s.array)} group: {w.group} bias_term: false {fields} }} }}\n'
    net = Net(prototxt.parse(text, pb.NetParameter), seed=0, dtype=np.float64)
    for k, s in enumerate(chain):
        net.params[f"c{k}"][0].data[...] = s.array
    return net


@settings(max_examples=60, deadline=None)
@given(weights=convolutions())
def test_factors_of_full_rank_are_the_convolution(weights: Weights) -> None:
    whole = net_of(weights)
    x = np.random.default_rng(1).standard_normal(whole.blobs["x0"].shape)
    expected = next(iter(whole.forward(x0=x).values())).copy()
    for factors in factorise(weights, METHODS):
        last = factors.candidates[-1]
        assert last.error < 1e-6
        stages = factors.stages(last.rank)
        assert sum(stage.array.size for stage in stages) == last.parameters
        net = net_of(weights, stages)
        found = next(iter(net.forward(x0=x).values()))
        np.testing.assert_allclose(found, expected, atol=1e-9 * np.abs(expected).max())
        assert sum(layer.flops(b, t) for layer, b, t in zip(net.layers, net.bottoms, net.tops)) == 2 * last.flops


@settings(max_examples=40, deadline=None)
@given(weights=convolutions(), place=st.floats(0, 1))
def test_error_is_what_the_factors_lose(weights: Weights, place: float) -> None:
    """On an impulse a chain without stride and padding gives back the weights that its product stands for."""
    plain = Weights(weights.array, weights.group, sizes=weights.sizes)
    norm = np.linalg.norm(plain.array)
    for factors in factorise(plain, METHODS):
        candidate = factors.candidates[int(place * (len(factors.candidates) - 1))]
        chain = net_of(plain, factors.stages(candidate.rank))
        whole = net_of(plain)
        lost = 0.0
        for channel in range(plain.array.shape[1] * plain.group):
            x = np.zeros(whole.blobs["x0"].shape)
            x[0, channel, 4, 4] = 1
            difference = next(iter(whole.forward(x0=x).values())) - next(iter(chain.forward(x0=x).values()))
            lost += (difference**2).sum()
        assert np.sqrt(lost) / norm == pytest.approx(candidate.error, abs=1e-6)


def test_svd_is_the_best_matrix_of_its_rank() -> None:
    w = np.random.default_rng(0).standard_normal((7, 12)).astype(np.float32)
    (factors,) = factorise(Weights(w), METHODS)
    values = np.linalg.svd(w.astype(np.float64), compute_uv=False)
    for rank in range(1, 8):
        first, last = factors.stages((rank,))
        lost = np.linalg.norm(w - last.array @ first.array)
        assert lost == pytest.approx(np.sqrt((values[rank:] ** 2).sum()), abs=1e-9)  # Eckart, Young 1936
        assert factors.candidates[rank - 1].error * np.linalg.norm(w) == pytest.approx(lost, abs=1e-6)


def test_layer_that_would_cost_more_stays_as_it_is() -> None:
    w = np.random.default_rng(0).standard_normal((8, 8, 1, 1)).astype(np.float32)
    assert choose(factorise(Weights(w, sizes=(5, 5)), METHODS), error=1e-7) is None


# -- whole nets ----------------------------------------------------------------------------------------------------------

MODEL = """
name: "net"
layer { name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {
        shape { dim: 3 dim: 4 dim: 10 dim: 10 } shape { dim: 3 } data_filler { type: "gaussian" }
        data_filler { type: "constant" value: 1 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" param { lr_mult: 1 } param { lr_mult: 2 }
        convolution_param { num_output: 12 kernel_size: 3 pad: 1 stride: 2 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "conv_basis" type: "Convolution" bottom: "conv" top: "other"
        convolution_param { num_output: 12 kernel_size: 3 group: 2 weight_filler { type: "xavier" } } }
layer { name: "ip" type: "InnerProduct" bottom: "other" top: "ip"
        inner_product_param { num_output: 20 weight_filler { type: "xavier" } bias_filler { type: "constant" value: 1 } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A net whose weights are nearly of low rank."""
    model, weights = tmp_path / "net.prototxt", tmp_path / "w.caffemodel"
    model.write_text(MODEL)
    net, random = Net(model, seed=0), np.random.default_rng(0)
    for name, rank in (("conv", 3), ("ip", 4)):
        shape = net.params[name][0].shape
        matrix = random.standard_normal((shape[0], rank)) @ random.standard_normal((rank, int(np.prod(shape[1:]))))
        net.params[name][0].data[...] = matrix.reshape(shape)
    net.save(weights)
    return model, weights


def test_net_of_low_rank_loses_nothing(files: tuple[Path, Path]) -> None:
    result = low_rank(str(files[0]), str(files[1]), error=0.001)
    rows = {row.name: row for row in result.layers}
    assert rows["conv"].chosen is not None and rows["ip"].chosen is not None
    assert rows["ip"].chosen.rank == (4,)
    assert rows["conv_basis"].chosen is None
    assert result.difference.relative < 1e-5
    names = [layer.name for layer in result.message.layer]
    assert names[:3] == ["data", "conv_basis_", "conv"]  # conv_basis is another layer's name
    assert [spec.lr_mult for spec in result.message.layer[2].param] == [1, 2]


@pytest.mark.parametrize("target", [0.9, 0.3, 0.1])
def test_target_of_flops_is_kept_to(target: float, files: tuple[Path, Path]) -> None:
    result = low_rank(str(files[0]), str(files[1]), target_flops=target)
    before, after = (sum(getattr(size, side).flops for size in result.sizes) for side in ("before", "after"))
    assert after <= target * before
    if result.error < 1e-3:  # nothing is lost yet: there is no smaller error to try
        return
    tighter = low_rank(str(files[0]), str(files[1]), error=result.error * 0.999)
    assert sum(size.after.flops for size in tighter.sizes) > target * before


@pytest.mark.parametrize(
    "options, message",
    [
        ({"target_flops": 0.001}, "low rank cannot reduce the net to 0.001 of its FLOPs"),
        ({"error": 0.1, "layers": ["cnov"]}, 'the net has no layer "cnov" with weights'),
    ],
)
def test_what_cannot_be_done_is_an_error(options: Any, message: str, files: tuple[Path, Path]) -> None:
    with pytest.raises(UsageError, match=message):
        low_rank(str(files[0]), str(files[1]), **options)


def test_command_writes_a_net_that_trains_on(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["lowrank", "--model", str(files[0]), "--weights", str(files[1]), "--target-flops", "0.5"]
    assert main(arguments) == 0
    assert "sslnet train --solver SOLVER" in capsys.readouterr().out
    stem = f"{files[1].parent}/w_lowrank"
    net = Net(f"{stem}.prototxt", f"{stem}.caffemodel", pb.TRAIN)
    assert np.isfinite(net.forward_backward())
    assert net.params["conv"][0].diff.any()
    assert Net(f"{stem}_deploy.prototxt", f"{stem}.caffemodel").outputs == ["prob"]
    assert main([*arguments, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["total"]["after"]["flops"] <= 0.5 * record["total"]["before"]["flops"]


def test_plot_is_a_picture(files: tuple[Path, Path], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    arguments = ["lowrank", "--model", str(files[0]), "--weights", str(files[1]), "--plot"]
    assert main([*arguments, str(tmp_path / "ranks.png")]) == 0
    assert (tmp_path / "ranks.png").read_bytes().startswith(b"\x89PNG")
    assert main([*arguments, str(tmp_path / "ranks.txt")]) == 2


@pytest.mark.parametrize(
    "options", [["--error", "0"], ["--error", "0.1", "--target-flops", "0.5"], ["--methods", "lu"]]
)
def test_option_out_of_range_is_an_error(options: list[str], files: tuple[Path, Path]) -> None:
    assert main(["lowrank", "--model", str(files[0]), "--weights", str(files[1]), *options]) == 2
