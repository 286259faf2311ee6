"""Structures: where a product can be exact it is; elsewhere the error is what was promised; nets keep all else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.cli import main
from sslnet.compress.low_rank.factors import Stage, Weights
from sslnet.compress.restructure.forms import FORMS, Structure, inception, separable, unsuitable
from sslnet.compress.restructure.forms import bottleneck as bottleneck_of
from sslnet.compress.restructure.restructure import restructure
from sslnet.errors import UsageError
from sslnet.net.net import Net
from sslnet.net.weights import read_weights
from sslnet.report.restructure import restructure_table
from sslnet.timing.layerwise import Spread, Timing


@st.composite
def convolutions(draw: st.DrawFn, form: str) -> Weights:
    """Convolutions that can take the form, with kernels of rank one."""
    random = np.random.default_rng(draw(st.integers(0, 99)))
    group = draw(st.sampled_from([1, 2])) if form in ("spatial", "bottleneck") else 1
    n, channels = group * draw(st.integers(4, 6)), draw(st.integers(1, 5))
    odd = form == "inception"
    kh, kw = (draw(st.sampled_from([3, 5] if odd else [2, 3, 5])) for _ in "hw")
    pair = st.tuples(st.integers(1, 2), st.integers(1, 2))
    stride, dilation = draw(pair), draw(pair)
    pad = draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    if odd:
        pad = (dilation[0] * (kh // 2), dilation[1] * (kw // 2))
    mixing, down, along = (random.standard_normal(shape) for shape in ((n, channels), kh, kw))
    if form == "bottleneck":
        mixing = np.concatenate([np.outer(*map(random.standard_normal, (n // group, channels))) for _ in range(group)])
    array = np.einsum("nc,h,w->nchw", mixing, down, along).astype(np.float32)
    return Weights(array, group, stride, pad, dilation, (13, 12))


def layer_text(name: str, bottom: str, stage: Stage, group: int) -> str:
    windows = (
        ("kernel_size", stage.kernel),
        ("stride", stage.stride),
        ("pad", stage.pad),
        ("dilation", stage.dilation),
    )
    fields = " ".join(f"{field}: {value}" for field, values in windows for value in values)
    return (
        f'layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}" convolution_param {{ '
        f"num_output: {len(stage.array)} group: {group if stage.group is None else stage.group} bias_term: false {fields} }} }}\n"
    )


def outputs(weights: Weights, structure: Structure, x: np.ndarray) -> np.ndarray:
    """The outputs of a structure, built by hand in float64: chains, concatenated."""
    text = f'layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ {" ".join(f"dim: {d}" for d in x.shape)} }} }} }}\n'
    arrays, lasts = {}, []
    for b, stages in enumerate(structure.branches):
        bottom = "x"
        for k, stage in enumerate(stages):
            name = f"c{b}_{k}"
            text += layer_text(name, bottom, stage, weights.group)
            arrays[name], bottom = stage.array, name
        lasts.append(bottom)
    net = Net(prototxt.parse(text, pb.NetParameter), seed=0, dtype=np.float64)
    for name, array in arrays.items():
        net.params[name][0].data[...] = array
    net.forward(x=x)
    flops = sum(layer.flops(b, t) for layer, b, t in zip(net.layers, net.bottoms, net.tops))
    assert flops == len(x) * structure.flops(weights)
    return np.concatenate([net.blobs[name].data for name in lasts], axis=1)


def layer_outputs(weights: Weights, x: np.ndarray) -> np.ndarray:
    w = weights
    return outputs(w, Structure([[Stage(w.array, w.kernel, w.stride, w.pad, w.dilation)]], 0.0), x)


@pytest.mark.parametrize("form", ["separable", "spatial", "bottleneck"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_kernels_of_rank_one_give_the_same_outputs(form: str, data: st.DataObject) -> None:
    weights = data.draw(convolutions(form))
    assert not unsuitable(form, weights)
    structure = FORMS[form](weights, 1.0 if form == "spatial" else 0.01)  # a bottleneck of one channel holds it
    assert structure.error < 1e-6
    x = np.random.default_rng(1).standard_normal((2, weights.array.shape[1] * weights.group, *weights.sizes))
    expected = layer_outputs(weights, x)
    np.testing.assert_allclose(outputs(weights, structure, x), expected, atol=1e-5 * np.abs(expected).max())


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_an_inception_of_filters_within_its_branches_gives_the_same_outputs(data: st.DataObject) -> None:
    weights = data.draw(convolutions("inception"))
    n, _, kh, kw = weights.array.shape
    sides = [(1, 1), (3, 3)] if min(kh, kw) > 3 else [(1, 1)]
    for k, (height, width) in enumerate(sides):
        mask = np.zeros((kh, kw), np.float32)
        mask[(kh - height) // 2 : (kh + height) // 2, (kw - width) // 2 : (kw + width) // 2] = 1
        weights.array[k * (n // 4) : (k + 1) * (n // 4)] *= mask
    structure = inception(weights, 1.0)
    assert structure.error < 1e-5
    x = np.random.default_rng(1).standard_normal((2, weights.array.shape[1], *weights.sizes))
    expected = layer_outputs(weights, x)
    np.testing.assert_allclose(outputs(weights, structure, x), expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=10, deadline=None)
@given(data=st.data(), ratio=st.sampled_from([0.3, 0.5, 1.0]))
def test_error_is_what_the_factors_lose(form: str, data: st.DataObject, ratio: float) -> None:
    """An impulse gives back the kernels that a structure stands for."""
    given_weights = data.draw(convolutions(form))
    shape = given_weights.array.shape
    array = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    pad = (shape[2] // 2, shape[3] // 2) if form == "inception" else (0, 0)
    weights = Weights(array, given_weights.group, pad=pad, sizes=(13, 12))
    structure = FORMS[form](weights, ratio)
    lost = 0.0
    for channel in range(shape[1] * weights.group):
        x = np.zeros((1, shape[1] * weights.group, *weights.sizes))
        x[0, channel, 6, 6] = 1
        lost += ((layer_outputs(weights, x) - outputs(weights, structure, x)) ** 2).sum()
    assert np.sqrt(lost) / np.linalg.norm(array) == pytest.approx(structure.error, abs=1e-5)


def test_separable_factors_are_the_best_of_rank_one() -> None:
    array = np.random.default_rng(0).standard_normal((6, 3, 3, 3)).astype(np.float32)
    matrices = array.astype(np.float64).transpose(1, 0, 2, 3).reshape(3, 6, 9)
    values = np.linalg.svd(matrices, compute_uv=False)
    lost = np.sqrt((values[:, 1:] ** 2).sum())  # Eckart, Young 1936, channel by channel
    assert separable(Weights(array), 0.5).error == pytest.approx(lost / np.linalg.norm(array))


def test_iterated_bottleneck_is_not_worse_than_one_sweep() -> None:
    """HOSVD, from which De Lathauwer's iteration starts."""
    array = np.random.default_rng(0).standard_normal((8, 6, 3, 3)).astype(np.float32)
    part = array.astype(np.float64)
    outer = np.linalg.svd(part.reshape(8, -1), full_matrices=False)[0][:, :4]
    inner = np.linalg.svd(part.swapaxes(0, 1).reshape(6, -1), full_matrices=False)[0][:, :3]
    core = np.einsum("nchw,ns,cr->srhw", part, outer, inner)
    plain = np.sqrt((part**2).sum() - (core**2).sum()) / np.linalg.norm(part)
    assert bottleneck_of(Weights(array), 0.5).error < plain


# -- whole nets ----------------------------------------------------------------------------------------------------------

MODEL = """
name: "net"
layer { name: "data" type: "DummyData" top: "data" top: "label" include { phase: TRAIN } dummy_data_param {
        shape { dim: 3 dim: 4 dim: 12 dim: 12 } shape { dim: 3 } data_filler { type: "gaussian" }
        data_filler { type: "constant" value: 1 } } }
layer { name: "data" type: "DummyData" top: "data" top: "label" include { phase: TEST } dummy_data_param {
        shape { dim: 2 dim: 4 dim: 12 dim: 12 } shape { dim: 2 } data_filler { type: "gaussian" }
        data_filler { type: "constant" value: 1 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1" param { lr_mult: 1 } param { lr_mult: 2 }
        convolution_param { num_output: 16 kernel_size: 5 pad: 2 weight_filler { type: "gaussian" std: 0.1 }
        bias_filler { type: "constant" value: 0.5 } } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "conv1_basis" type: "Convolution" bottom: "conv1" top: "conv2"
        convolution_param { num_output: 8 kernel_size: 3 pad: 1 stride: 2 weight_filler { type: "xavier" } } }
layer { name: "ip" type: "InnerProduct" bottom: "conv2" top: "ip"
        inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A net whose first convolution has kernels of rank one."""
    model, weights = tmp_path / "net.prototxt", tmp_path / "w.caffemodel"
    model.write_text(MODEL)
    net, random = Net(model, seed=0), np.random.default_rng(0)
    mixing, down, along = (random.standard_normal(shape) for shape in ((16, 4), 5, 5))
    net.params["conv1"][0].data[...] = np.einsum("nc,h,w->nchw", mixing, down, along)
    net.params["conv1"][1].data[...] = random.standard_normal(16)
    net.save(weights)
    return model, weights


@pytest.mark.parametrize("form", ["separable", "spatial"])
def test_fitted_net_has_the_same_outputs_and_keeps_the_rest(form: str, files: tuple[Path, Path]) -> None:
    result = restructure(str(files[0]), str(files[1]), form, layers=["conv1"], fit=True)
    assert result.difference is not None and result.difference.relative < 1e-5
    message = result.after[0].message
    names = [layer.name for layer in message.layer]
    assert names == [
        "data",
        "data",
        "conv1_basis_",
        "conv1",
        "relu1",
        "conv1_basis",
        "ip",
        "loss",
    ]  # conv1_basis is taken
    original = prototxt.parse(MODEL, pb.NetParameter).message.layer
    kept = [layer for layer in message.layer if layer.name not in ("conv1", "conv1_basis_")]
    assert kept == [layer for layer in original if layer.name != "conv1"]
    first, last = message.layer[2:4]
    assert [spec.lr_mult for spec in last.param] == [1, 2]
    assert not first.convolution_param.bias_term and last.convolution_param.num_output == 16
    assert first.convolution_param.group == (4 if form == "separable" else 1)
    assert {layer.convolution_param.weight_filler.type for layer in (first, last)} == {"msra"}
    assert last.top == ["conv1"]


@pytest.mark.parametrize("form", ["separable", "spatial"])
def test_one_sided_padding_stays_that_of_the_layer(form: str, files: tuple[Path, Path], tmp_path: Path) -> None:
    """pad_type SAME with stride 2: two pixels in front of 12, one behind."""
    model = tmp_path / "same.prototxt"
    model.write_text(MODEL.replace("kernel_size: 5 pad: 2", "kernel_size: 5 stride: 2 pad_type: SAME"))
    weights = read_weights(files[1])
    net = Net(model, seed=0)
    for blob, array in zip(net.params["conv1"], weights["conv1"]):
        blob.data[...] = array
    net.save(tmp_path / "same.caffemodel")
    result = restructure(str(model), str(tmp_path / "same.caffemodel"), form, layers=["conv1"], fit=True)
    assert result.difference is not None and result.difference.relative < 1e-5
    sizes = {size.name: size.after.flops for size in result.sizes}
    assert result.layers[0].flops[1] * 2 == sizes["conv1_basis_"] + sizes["conv1"]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_trains_from_fillers_with_the_other_weights_kept(form: str, files: tuple[Path, Path]) -> None:
    result = restructure(str(files[0]), str(files[1]), form, relu=True)
    assert result.difference is None
    assert {row.name for row in result.layers} == {"conv1", "conv1_basis"}
    assert all(row.error is None and row.flops[1] < row.flops[0] for row in result.layers)
    definition, weights = result.after
    net = Net(definition, weights, pb.TRAIN)
    np.testing.assert_array_equal(net.params["ip"][0].data, read_weights(files[1])["ip"][0])
    before = Net(str(files[0]), str(files[1]), pb.TRAIN)
    assert net.blobs["conv2"].shape == before.blobs["conv2"].shape
    assert np.isfinite(net.forward_backward())
    assert all(blobs[0].diff.any() for blobs in net.params.values())
    relus = [layer for layer in definition.message.layer if layer.type == "ReLU"]
    within = {"separable": 1, "spatial": 1, "bottleneck": 2, "inception": 1}[form]
    large = 2 if form == "inception" else within  # conv1 is 5 x 5: it has a branch more
    assert len(relus) == 1 + large + within
    again = restructure(str(files[0]), str(files[1]), form, relu=True)
    assert again.after[1] == weights  # fillers are seeded


def test_inception_hands_its_bias_to_the_branches(files: tuple[Path, Path]) -> None:
    result = restructure(str(files[0]), str(files[1]), "inception", layers=["conv1"], fit=True)
    (row,) = result.layers
    assert row.names == ("conv1_1x1", "conv1_3x3_basis", "conv1_3x3", "conv1_5x5_basis", "conv1_5x5", "conv1")
    arrays, whole = read_weights(result.after[1]), read_weights(files[1])["conv1"]
    biases = [arrays[name][1] for name in ("conv1_1x1", "conv1_3x3", "conv1_5x5")]
    np.testing.assert_array_equal(np.concatenate(biases), whole[1])
    np.testing.assert_allclose(arrays["conv1_1x1"][0][:, :, 0, 0], whole[0][:4, :, 2, 2], rtol=1e-6)


@pytest.mark.parametrize(
    "form, options, message",
    [
        ("spatial", {"layers": ["cnov1"]}, 'the net has no layer "cnov1" with weights'),
        ("spatial", {"layers": ["ip"]}, 'layer "ip" cannot become spatial: it is of type InnerProduct'),
        ("spatial", {"ratio": 4.0}, "no layer can become spatial with less FLOPs"),
    ],
)
def test_what_cannot_be_done_is_an_error(form: str, options: Any, message: str, files: tuple[Path, Path]) -> None:
    with pytest.raises(UsageError, match=message):
        restructure(str(files[0]), str(files[1]), form, **options)


@pytest.mark.parametrize(
    "form, weights, message",
    [
        ("separable", Weights(np.ones((4, 2, 1, 1))), "its kernel is 1 x 1"),
        ("spatial", Weights(np.ones((4, 2, 1, 3))), "its kernel is 1 x 3: it lies along one axis already"),
        ("separable", Weights(np.ones((4, 2, 3, 3)), 2), "it has 2 groups"),
        ("inception", Weights(np.ones((4, 2, 4, 3))), "its kernel is 4 x 3: branches are centred on odd kernels"),
        ("inception", Weights(np.ones((4, 2, 3, 3))), "its padding is not 1 x 1"),
        ("inception", Weights(np.ones((3, 2, 3, 3)), pad=(1, 1)), "it has less than 4 filters"),
    ],
)
def test_layer_that_does_not_suit_says_why(form: str, weights: Weights, message: str) -> None:
    assert unsuitable(form, weights).startswith(message)


def test_table_warns_where_fewer_flops_take_more_time(files: tuple[Path, Path]) -> None:
    result = restructure(str(files[0]), str(files[1]), "spatial", layers=["conv1"], fit=True)
    timing = result.time(1)
    times = {"conv1": 1.0, "conv1_basis_": 2.0}

    def slowed(part: int) -> Any:
        net = timing.nets[part]
        spread = Spread(3.0 + part, 3.0, 3.0)
        layers = [
            replace(layer, forward=Spread(times.get(layer.name, 0.5), 0, 0), backward=None) for layer in net.layers
        ]
        return replace(net, layers=layers, forward=spread, backward=None)

    text = restructure_table(result, Timing([slowed(0), slowed(1)], 1, 1, None)).text()
    share = result.layers[0].flops[1] / result.layers[0].flops[0]
    assert f"warning: conv1 has {100 * share:.1f} % of its FLOPs, but takes 300.0 % of its time" in text
    assert "of its FLOPs, but takes 133.3 % of its time" in text
    assert "warning" not in restructure_table(result, None).text()


def test_command_writes_nets_and_prints_times(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["restructure", "--form", "spatial", "--model", str(files[0]), "--weights", str(files[1])]
    assert main([*arguments, "--fit", "--iterations", "2"]) == 0
    out = capsys.readouterr().out
    assert "factors, error 0.000" in out and "sum of layers" in out and "sslnet train --solver SOLVER" in out
    stem = f"{files[1].parent}/w_spatial"
    x = np.random.default_rng(0).standard_normal((2, 4, 12, 12)).astype(np.float32)
    scores = []
    for model, weights in ((files[0], files[1]), (f"{stem}.prototxt", f"{stem}.caffemodel")):
        net = Net(str(model), str(weights), pb.TEST)
        net.forward()
        net.blobs["data"].data[...] = x
        net.forward(start="conv1" if model is files[0] else "conv1_basis_")
        scores.append(net.blobs["conv1"].data.copy())
    np.testing.assert_allclose(*scores, atol=1e-4 * np.abs(scores[0]).max())
    assert Net(f"{stem}_deploy.prototxt", f"{stem}.caffemodel").outputs == ["prob"]
    assert main([*arguments, "--json", "--iterations", "1", "--forward-only"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert {"before", "after"} == set(record["layers"][0]["seconds"]) == set(record["total"])
    assert len(record["timing"]["nets"]) == 2


@pytest.mark.parametrize(
    "options, message",
    [
        (["--form", "separable", "--ratio", "0.5"], "--ratio: separable has no width to choose"),
        (["--form", "spatial", "--ratio", "0"], "--ratio must lie between 0 and 4, not 0"),
        (["--form", "spatial", "--fit", "--relu"], "--relu does not go with --fit"),
        (["--form", "spatial", "--iterations", "-1"], "--iterations must be 0 or more, not -1"),
        (["--form", "spatial", "--batch", "0"], "--batch must be at least 1, not 0"),
    ],
)
def test_option_out_of_range_is_an_error(
    options: list[str], message: str, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["restructure", "--model", str(files[0]), "--weights", str(files[1]), *options]) == 2
    assert message in capsys.readouterr().err
    assert not [*files[0].parent.glob("*_spatial*")]


def test_fit_without_weights_is_an_error(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["restructure", "--form", "spatial", "--fit", "--model", str(files[0])]) == 2
    assert "--fit needs --weights" in capsys.readouterr().err


def test_without_weights_all_is_from_fillers(files: tuple[Path, Path]) -> None:
    assert main(["restructure", "--form", "separable", "--model", str(files[0]), "--iterations", "0"]) == 0
    stem = str(files[0]).removesuffix(".prototxt") + "_separable"
    assert np.isfinite(Net(f"{stem}.prototxt", f"{stem}.caffemodel", pb.TRAIN).forward_backward())
