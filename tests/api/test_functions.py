"""The public functions: what they take, what they return, what they write, and what they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sslnet
from sslnet import layers as L
from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.api.net_result import NetResult
from sslnet.cli import main
from sslnet.errors import RunError, UsageError
from sslnet.net.net import Net
from sslnet.net.weights import read_weights
from sslnet.solver.solver import Solver

from ..support.compare import assert_same_outputs
from ..support.small_nets import conv_net, images, write_net

MODEL = conv_net({"conv1": {"num_output": 6}, "conv2": {"num_output": 4, "pad": 1}}, rectified={"conv1"})
DIGITS = Path(__file__).parents[2] / "models/digits/train_test.prototxt"


def with_zeros(net: Net) -> None:
    """Two filters of conv1 are zero, and emit a constant."""
    net.params["conv1"][0].data[[1, 4]] = 0
    net.params["conv1"][1].data[[1, 4]] = 1, -1


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return write_net(tmp_path, MODEL, with_zeros)


def assert_same_weights(first: Any, second: Any) -> None:
    ours, theirs = read_weights(first), read_weights(second)
    assert list(ours) == list(theirs)
    for name in ours:
        for a, b in zip(ours[name], theirs[name], strict=True):
            np.testing.assert_array_equal(a, b)


# -- what they take ----------------------------------------------------------------------------------------------------


def as_spec(message: pb.NetParameter) -> sslnet.NetSpec:
    spec = sslnet.NetSpec()
    spec.data = L.Input(shape={"dim": [3, 2, 6, 6]})
    spec.conv1 = L.Convolution(spec.data, num_output=6, kernel_size=3)
    spec.relu1 = L.ReLU(spec.conv1, in_place=True)
    spec.conv2 = L.Convolution(spec.relu1, num_output=4, kernel_size=3, pad=1)
    spec.ip = L.InnerProduct(spec.conv2, num_output=2)
    return spec


FORMS: dict[str, Callable[[Path, Path], tuple[Any, ...]]] = {
    "paths": lambda model, weights: (model, weights),
    "strings": lambda model, weights: (str(model), str(weights)),
    "message and Net": lambda model, weights: (MODEL, Net(model, weights)),
    "message with blobs": lambda model, weights: (Net(model, weights).to_proto(),),
    "definition": lambda model, weights: (prototxt.read_net(model), weights),
    "Net": lambda model, weights: (Net(model, weights),),
    "NetSpec": lambda model, weights: (as_spec(MODEL), weights),
}


@pytest.mark.parametrize("form", FORMS)
def test_models_and_weights_are_taken_in_every_form(form: str, files: tuple[Path, Path]) -> None:
    small = sslnet.compact(*FORMS[form](*files))
    shapes = {name: [array.shape for array in arrays] for name, arrays in read_weights(small.weights).items()}
    assert shapes["conv1"] == [(4, 2, 3, 3), (4,)]
    assert shapes["conv2"][0] == (4, 4, 3, 3)


def test_weights_that_a_model_does_not_bring_are_asked_for(files: tuple[Path, Path]) -> None:
    with pytest.raises(UsageError, match="weights are needed: this model brings none"):
        sslnet.compact(files[0])


def test_results_are_models_of_the_next_function(files: tuple[Path, Path]) -> None:
    pruned = sslnet.prune(*files, sparsity=0.5, group="FILTER", layers=["conv2"], take_bias=True)
    small = sslnet.compact(pruned)
    assert_same_outputs(
        Net(pb.NetParameter(layer=by_hand(pruned.definition)), pruned.weights),
        Net(pb.NetParameter(layer=by_hand(small.definition)), small.weights),
    )
    assert read_weights(small.weights)["conv2"][0].shape == (2, 4, 3, 3)
    taught = sslnet.teach(small, teacher=files[0], teacher_weights=files[1])
    assert {"conv1", "teacher/conv1"} <= set(read_weights(taught.weights))


def by_hand(message: pb.NetParameter) -> list[pb.LayerParameter]:
    """The layers from an Input to the scores: no random data, no loss."""
    data = pb.LayerParameter(name="data", type="Input", top=["data"])
    data.input_param.shape.add().dim.extend([3, 2, 6, 6])
    return [data, *(layer for layer in message.layer if layer.type not in ("DummyData", "SoftmaxWithLoss"))]


# -- what they return and write ----------------------------------------------------------------------------------------

COMMANDS: dict[str, tuple[list[str], Callable[[Path, Path], NetResult[Any]]]] = {
    "compact": ([], lambda model, weights: sslnet.compact(model, weights)),
    "prune": (["--sparsity", "0.5"], lambda model, weights: sslnet.prune(model, weights, sparsity=0.5)),
    "restructure": (
        ["--form", "spatial", "--fit", "--layers", "conv2", "--iterations", "0"],
        lambda model, weights: sslnet.restructure(model, weights, form="spatial", fit=True, layers=["conv2"]),
    ),
    "lowrank": (["--error", "0.9"], lambda model, weights: sslnet.low_rank(model, weights, error=0.9)),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_functions_write_what_the_command_writes(name: str, files: tuple[Path, Path], tmp_path: Path) -> None:
    words, function = COMMANDS[name]
    prefix = tmp_path / "command" / "net"
    assert main([name, "--model", str(files[0]), "--weights", str(files[1]), *words, "--output", str(prefix)]) == 0
    paths = function(*files).save(tmp_path / "function" / "net")
    assert {Path(path).name for path in paths.values()} == {path.name for path in prefix.parent.iterdir()}
    for path in paths.values():
        assert Path(path).read_bytes() == (prefix.parent / Path(path).name).read_bytes()


def test_compact_removes_what_is_zero_and_keeps_the_outputs(files: tuple[Path, Path], tmp_path: Path) -> None:
    small = sslnet.compact(*files)
    assert small.details.removed > 0
    assert small.details.difference.relative < 1e-4
    assert_same_outputs(
        Net(pb.NetParameter(layer=by_hand(MODEL)), str(files[1])),
        Net(pb.NetParameter(layer=by_hand(small.definition)), small.weights),
    )
    assert small.net().params["conv1"][0].shape == (4, 2, 3, 3)
    assert set(small.files("x")) == {"model", "deploy", "weights"}


def test_compact_cuts_the_state_of_a_run_to_train_on(files: tuple[Path, Path], tmp_path: Path) -> None:
    def solver(model: Path | str, **options: Any) -> Solver:
        text = (
            f'net: "{model}" base_lr: 0.01 lr_policy: "fixed" momentum: 0.9 max_iter: 9 snapshot_prefix: "{tmp_path}/r"'
        )
        return Solver(prototxt.parse(text, pb.SolverParameter), **options)

    run = solver(files[0], weights=[files[1]])
    run.step(1)
    with_zeros(run.net)
    run.net.params["conv1"][1].data[[1, 4]] = 0
    run.snapshot()
    state = tmp_path / "r_iter_1.solverstate"
    paths = sslnet.compact(files[0], tmp_path / "r_iter_1.caffemodel", snapshot=state).save(tmp_path / "small")
    on = solver(paths["model"], snapshot=paths["state"])
    assert on.iter == 1
    assert on.net.params["conv1"][0].shape == (4, 2, 3, 3)


def test_prune_zeroes_that_part_of_each_layer_and_leaves_a_net_as_it_is(files: tuple[Path, Path]) -> None:
    net = Net(*files)
    before = net.params["conv2"][0].data.copy()
    pruned = sslnet.prune(net, sparsity=0.25, layers=["conv2"])
    np.testing.assert_array_equal(net.params["conv2"][0].data, before)
    after = read_weights(pruned.weights)["conv2"][0]
    order = np.argsort(np.abs(before), axis=None)
    expected = before.copy()
    expected.ravel()[order[: before.size // 4]] = 0
    np.testing.assert_array_equal(after, expected)
    (layer,) = pruned.details.layers
    assert (layer.name, layer.groups, layer.zero) == ("conv2", before.size, before.size // 4)
    kept = {layer.name: layer.connectivity_mode for layer in pruned.definition.layer}
    assert kept["conv2"] == pb.DISCONNECTED_ELTWISE
    assert kept["conv1"] == pb.CONNECTED


def test_low_rank_keeps_the_error_of_a_factored_layer(files: tuple[Path, Path]) -> None:
    made = sslnet.low_rank(*files, error=0.9, layers=["conv2"], methods=["filters"])
    arrays, whole = read_weights(made.weights), read_weights(files[1])["conv2"][0].astype(np.float64)
    basis, mix = (arrays[name][0].astype(np.float64) for name in ("conv2_basis", "conv2"))
    product = np.einsum("or,rchw->ochw", mix[:, :, 0, 0], basis)
    error = np.linalg.norm(product - whole) / np.linalg.norm(whole)
    assert 0 < error <= 0.9
    (layer,) = made.details.layers
    assert layer.chosen is not None
    assert layer.chosen.error == pytest.approx(error, rel=1e-3)


def test_teach_trains_the_small_net_and_not_the_teacher(files: tuple[Path, Path], tmp_path: Path) -> None:
    taught = sslnet.teach(*files, teacher=MODEL, teacher_weights=Net(MODEL, seed=5), loss_weight=0.5)
    paths = taught.save(tmp_path / "taught")
    text = f'net: "{paths["model"]}" base_lr: 0.01 lr_policy: "fixed" max_iter: 1'
    solver = Solver(prototxt.parse(text, pb.SolverParameter), weights=[paths["weights"]])
    before = {name: blobs[0].data.copy() for name, blobs in solver.net.params.items()}
    solver.step(1)
    changed = {name for name, blobs in solver.net.params.items() if (blobs[0].data != before[name]).any()}
    assert changed == {"conv1", "conv2", "ip"}
    assert taught.details.weight == 0.5


def test_paths_in_a_definition_are_found_from_where_it_is_saved(tmp_path: Path) -> None:
    import h5py

    here = tmp_path / "here"
    here.mkdir()
    with h5py.File(here / "data.h5", "w") as file:
        file["data"], file["label"] = images(4), np.ones(4, np.float32)
    (here / "list.txt").write_text("data.h5\n")
    data = pb.LayerParameter(name="data", type="HDF5Data", top=["data", "label"])
    data.hdf5_data_param.source, data.hdf5_data_param.batch_size = "list.txt", 2
    files = write_net(here, pb.NetParameter(layer=[data, *MODEL.layer[1:]]), with_zeros)
    small = sslnet.compact(*files)
    small.net(sslnet.TRAIN).forward()
    Net(small.save(tmp_path / "there" / "net")["model"], phase=pb.TRAIN).forward()
    assert small.definition.layer[0].hdf5_data_param.source == "list.txt"


def test_save_writes_all_files_or_none(files: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "small.caffemodel").mkdir()
    with pytest.raises(RunError, match=r"cannot write .*small\.caffemodel"):
        sslnet.compact(*files).save(tmp_path / "small")
    assert not (tmp_path / "small.prototxt").exists()


def test_onnx_goes_there_and_back(files: tuple[Path, Path], tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    exported = sslnet.export_onnx(*files)
    path = tmp_path / "net.onnx"
    assert exported.save(path) == path.stat().st_size
    imported = sslnet.import_onnx(path, batch=3)
    x = images(3)
    ours = Net(pb.NetParameter(layer=by_hand(MODEL)), str(files[1])).forward(blobs=["ip"], data=x)["ip"]
    (prob,) = imported.net().forward(data=x).values()
    expected = np.exp(ours - ours.max(1, keepdims=True))
    np.testing.assert_allclose(prob, expected / expected.sum(1, keepdims=True), atol=1e-6)


def test_compress_net_makes_a_small_net_and_goes_on_with_its_folder(tmp_path: Path) -> None:
    options: dict[str, Any] = {"iterations": 240, "finetune": 5, "baseline_iterations": 5, "cut": True}
    told: list[str] = []
    result = sslnet.compress_net(DIGITS, target_flops=0.7, output=tmp_path / "out", tell=told.append, **options)
    assert next(line for line in told if line.startswith("stage")) == "stage 1 of 6: baseline"
    assert result.report == json.loads((tmp_path / "out/report.json").read_text())
    assert result.report["target"]["value"] == 0.7
    assert result.report["small"]["parameters"] < result.report["baseline"]["parameters"] == 35_914
    assert result.met
    small = result.net()
    assert sum(blob.count for blobs in small.params.values() for blob in blobs) == result.report["small"]["parameters"]
    told.clear()
    again = sslnet.compress_net(DIGITS, target_flops=0.7, output=tmp_path / "out", tell=told.append, **options)
    assert not told
    assert again.report == result.report


# -- what they refuse --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: sslnet.prune(m, sparsity=1.0), "sparsity must lie between 0 and 1, not 1"),
        (lambda m: sslnet.prune(m), "give sparsity X or quality Q"),
        (lambda m: sslnet.prune(m, quality=1, whole_net=True), "whole_net needs sparsity"),
        (lambda m: sslnet.low_rank(m, error=0.1, target_flops=0.5), "either error or target_flops, not both"),
        (lambda m: sslnet.low_rank(m, target_flops=2), "target_flops must lie between 0 and 1, not 2"),
        (lambda m: sslnet.low_rank(m, methods=["sdv"]), "methods must be of svd, filters, spatial, tucker, not 'sdv'"),
        (
            lambda m: sslnet.restructure(m, form="1d"),
            "form must be one of separable, spatial, bottleneck, inception, not '1d'",
        ),
        (lambda m: sslnet.restructure(m, form="spatial", fit=True), "fit needs weights: this model brings none"),
        (lambda m: sslnet.restructure(m, form="spatial", ratio=5), "ratio must lie between 0 and 4, not 5"),
        (lambda m: sslnet.teach(m, teacher=m, loss_weight=0), "loss_weight must be above 0, not 0"),
        (lambda m: sslnet.import_onnx("x.onnx", batch=0), "batch must be at least 1, not 0"),
        (
            lambda m: sslnet.compress_net("n.prototxt"),
            "say how small: one of target_flops, target_params and target_speedup",
        ),
        (lambda m: sslnet.compress_net(target_flops=0.5), "say which net: model or solver"),
        (lambda m: sslnet.compress_net("n.prototxt", target_speedup=1), "target_speedup must be above 1, not 1"),
        (
            lambda m: sslnet.compress_net("n.prototxt", target_params={"a": 3}),
            "target_params must lie between 0 and 1, not 3",
        ),
        (
            lambda m: sslnet.compress_net("n.prototxt", target_flops=0.5, speedup_batch=2),
            "speedup_batch is for target_speedup",
        ),
        (
            lambda m: sslnet.compress_net("n.prototxt", target_flops=0.5, iterations=0),
            "iterations must be 1 or more, not 0",
        ),
        (
            lambda m: sslnet.compress_net("n.prototxt", solver="s", target_flops=0.5, base_lr=1),
            "base_lr is for runs without solver",
        ),
        (
            lambda m: sslnet.compress_net("n.prototxt", target_flops=0.5, teach=True, finetune=0),
            "teach needs the fine-tuning",
        ),
    ],
)
def test_arguments_out_of_range_are_named_as_in_python(call: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        call(MODEL)
    assert error.value.message.startswith(message)
