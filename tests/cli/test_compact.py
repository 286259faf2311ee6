"""sslnet compact, from files to files."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.cli import main
from sslnet.net.net import Net

from ..support.small_nets import conv_net, write_net

MODEL = conv_net({"conv1": {"num_output": 6, "stride": 2}, "conv2": {"num_output": 4, "pad": 1}}, rectified={"conv1"})


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A model, and weights in which two filters of conv1 are zero and emit a constant."""

    def prune(net: Net) -> None:
        net.params["conv1"][0].data[[1, 4]] = 0
        net.params["conv1"][1].data[[1, 4]] = 1, -1

    model, weights = write_net(tmp_path, MODEL, prune)
    return model, weights.rename(tmp_path / "pruned.caffemodel")


def run(*arguments: object) -> int:
    return main(["compact", *map(str, arguments)])


def test_compact_writes_three_files_beside_the_weights(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    model, weights = files
    assert run("--model", model, "--weights", weights) == 0
    stem = weights.parent / "pruned_compact"
    small = Net(f"{stem}.prototxt", f"{stem}.caffemodel", pb.TEST, seed=0)
    assert small.params["conv1"][0].shape == (4, 2, 3, 3)
    assert small.params["conv2_constant"][0].shape == (4, 2, 2)
    pruned = Net(model, weights, pb.TEST, seed=0)
    deploy = Net(f"{stem}_deploy.prototxt", f"{stem}.caffemodel")
    pruned.forward()
    for image, expected in zip(pruned.blobs["data"].data, pruned.blobs["ip"].data):
        found = deploy.forward(["ip"], data=image[None])["ip"][0]
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(pruned.blobs["ip"].data).max())
    text = capsys.readouterr().out
    assert "6 -> 4" in text and "largest difference from the pruned net" in text


def test_compact_prints_commands_that_are_taken(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    model, weights = files
    assert run("--model", model, "--weights", weights) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    commands = {shlex.split(line)[1]: shlex.split(line) for line in lines if line.startswith("sslnet ")}
    assert set(commands) == {"time", "test", "train"}
    assert main([*commands["time"][1:], "--iterations", "1"]) == 0
    assert main([*commands["test"][1:], "--iterations", "1"]) == 0


def test_training_the_smaller_net_on_keeps_the_snapshots_of_the_pruned_one(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    model, weights = files
    solver = model.parent / "solver.prototxt"
    prefix = weights.parent / "pruned"
    solver.write_text(f'net: "{model}" base_lr: 0.01 lr_policy: "fixed" max_iter: 1 snapshot_prefix: "{prefix}"')
    assert run("--model", model, "--weights", weights) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("  sslnet train "))
    before = set(model.parent.iterdir())
    assert main(shlex.split(line.replace("SOLVER", shlex.quote(str(solver))))[1:]) == 0
    new = {path.name for path in set(model.parent.iterdir()) - before}
    assert new == {"pruned_compact_iter_1.caffemodel", "pruned_compact_iter_1.solverstate", "metrics.jsonl"}


def test_sizes_say_for_how_many_images_they_are(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    model, weights = files
    assert run("--model", model, "--weights", weights) == 0
    assert "forward pass over 3 images" in capsys.readouterr().out


def test_random_layers_of_phase_train_are_named_where_the_nets_differ(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    model, weights = files
    for blob in ("ip", "conv1"):  # behind the last weights, and on a channel that is to become a constant
        layers = list(MODEL.layer)
        reader = [layer.name for layer in layers].index("loss" if blob == "ip" else "conv2")
        layers.insert(reader, pb.LayerParameter(name="drop", type="Dropout", bottom=[blob], top=[blob]))
        prototxt.save(pb.NetParameter(layer=layers), model)
        assert run("--model", model, "--weights", weights, "--phase", "TRAIN") == 1
        assert "compare in phase TEST" in capsys.readouterr().err
    assert run("--model", model, "--weights", weights) == 0


def test_compact_json_says_what_was_done(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    model, weights = files
    assert run("--model", model, "--weights", weights, "--output", weights.parent / "small", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result) == {
        "model", "weights", "output", "batch", "layers", "total", "weights_bytes", "difference", "constants", "notes",
    }  # fmt: skip
    assert result["output"]["weights"] == str(weights.parent / "small.caffemodel")
    assert result["weights_bytes"]["after"] == (weights.parent / "small.caffemodel").stat().st_size
    assert result["total"]["before"]["parameters"] == 6 * 19 + 4 * 55 + 2 * 17
    assert result["total"]["after"]["parameters"] == 4 * 19 + 4 * 37 + 2 * 17 + 4 * 4
    assert result["constants"] == {"bias": [], "map": ["conv2"], "factor": [], "carrier": []}
    assert result["difference"]["relative"] < 1e-5


@pytest.mark.parametrize("output", ["out", "out/", "out/small.prototxt"])
def test_compact_takes_a_folder_or_a_prefix(files: tuple[Path, Path], output: str) -> None:
    model, weights = files
    (model.parent / "out").mkdir()
    assert run("--model", model, "--weights", weights, "--output", f"{model.parent}/{output}") == 0
    name = "small" if "small" in output else "pruned_compact"
    assert sorted(path.name for path in (model.parent / "out").iterdir()) == [
        f"{name}.caffemodel", f"{name}.prototxt", f"{name}_deploy.prototxt",
    ]  # fmt: skip


def test_compact_refuses_to_overwrite_what_it_reads(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    model, weights = files
    before = model.read_bytes(), weights.read_bytes()
    for output in ("net", "pruned"):
        assert run("--model", model, "--weights", weights, "--output", model.parent / output) == 2
        assert "is an input of this command and would be overwritten" in capsys.readouterr().err
    assert (model.read_bytes(), weights.read_bytes()) == before
    assert len(list(model.parent.iterdir())) == 2


def test_compact_writes_nothing_when_a_layer_would_be_empty(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    model, weights = files
    net = Net(model, weights, pb.TEST)
    net.params["conv1"][0].data[...] = 0
    net.save(weights)
    assert run("--model", model, "--weights", weights) == 1
    assert 'layer "conv1"' in capsys.readouterr().err
    assert len(list(model.parent.iterdir())) == 2


def test_compact_says_when_there_is_nothing_to_remove(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    model, weights = files
    net = Net(model, phase=pb.TEST, seed=0)
    net.save(weights)
    assert run("--model", model, "--weights", weights) == 0
    assert "nothing to remove" in capsys.readouterr().out
    assert (model.parent / "pruned_compact.caffemodel").stat().st_size > 0


def test_compact_keeps_relative_names_of_files_findable(tmp_path: Path) -> None:
    """The list of an HDF5Data layer stands beside the model, the output goes elsewhere."""
    import h5py

    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    with h5py.File(here / "data.h5", "w") as file:
        file["data"] = np.random.default_rng(0).standard_normal((4, 2, 6, 6)).astype(np.float32)
        file["label"] = np.ones(4, np.float32)
    (here / "list.txt").write_text("data.h5\n")
    data = pb.LayerParameter(name="data", type="HDF5Data", top=["data", "label"])
    data.hdf5_data_param.source, data.hdf5_data_param.batch_size = "list.txt", 2
    model, weights = here / "net.prototxt", here / "net.caffemodel"
    prototxt.save(pb.NetParameter(layer=[data, *MODEL.layer[1:]]), model)
    Net(model, phase=pb.TEST, seed=0).save(weights)
    assert run("--model", model, "--weights", weights, "--output", f"{there}/") == 0
    Net(there / "net_compact.prototxt", there / "net_compact.caffemodel", pb.TEST).forward()
