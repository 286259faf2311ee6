"""``sslnet prune --group NEURON``: files, tables, JSON, and errors that name what to do."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.api.compact import compact
from sslnet.api.prune_channels import prune_channels
from sslnet.cli import main
from sslnet.net.net import Net

DATA = """
layer { name: "digits" type: "Data" top: "data" top: "label" include { phase: TRAIN }
        transform_param { scale: 0.0625 } data_param { source: "digits/train" backend: BUILTIN batch_size: 64 } }
layer { name: "digits" type: "Data" top: "data" top: "label" include { phase: TEST }
        transform_param { scale: 0.0625 } data_param { source: "digits/test" backend: BUILTIN batch_size: 50 } }
"""
NET = """
layer { name: "a" type: "Convolution" bottom: "data" top: "a"
        convolution_param { num_output: 8 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "a" top: "a" }
layer { name: "b" type: "InnerProduct" bottom: "a" top: "b"
        inner_product_param { num_output: 16 weight_filler { type: "xavier" } } }
layer { name: "out" type: "InnerProduct" bottom: "b" top: "out"
        inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
"""
AUXILIARY = """
layer { name: "aux" type: "InnerProduct" bottom: "a" top: "aux" include { phase: TRAIN }
        inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "aux_loss" type: "SoftmaxWithLoss" bottom: "aux" bottom: "label" top: "aux_loss" include { phase: TRAIN } }
"""
LOSS = """
layer { name: "accuracy" type: "Accuracy" bottom: "out" bottom: "label" top: "accuracy" include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "out" bottom: "label" top: "loss" }
"""


def write(folder: Path, text: str, phase: int = pb.TEST) -> list[str]:
    (folder / "net.prototxt").write_text(text)
    Net(folder / "net.prototxt", phase=phase, seed=0).save(folder / "net.caffemodel")
    return ["--model", str(folder / "net.prototxt"), "--weights", str(folder / "net.caffemodel")]


COMMAND = ["prune", "--group", "NEURON", "--images", "40"]


def test_pruned_net_is_written_and_compacts_to_the_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = write(tmp_path, DATA + NET + LOSS)
    assert main([*COMMAND, *files, "--target-flops", "0.5", "--test"]) == 0
    text = capsys.readouterr().out
    assert "of 8" in text and "of the FLOPs" in text and "test error:" in text and "sslnet compact" in text
    small = compact(tmp_path / "net_pruned.prototxt", tmp_path / "net_pruned.caffemodel").details
    sizes = [sum(getattr(layer, side).flops for layer in small.layers) for side in ("before", "after")]
    assert sizes[1] <= 0.5 * sizes[0]


def test_json_holds_what_the_python_function_returns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = write(tmp_path, DATA + NET + LOSS)
    options = ["--by", "magnitude", "--repair", "mean", "--share-out", "uniform", "--seed", "3", "--json"]
    assert main([*COMMAND, *files, "--target-flops", "0.5", *options]) == 0
    record = json.loads(capsys.readouterr().out)
    result = prune_channels(
        files[1], files[3], target_flops=0.5, by="magnitude", repair="mean", share_out="uniform", images=40, seed=3
    )
    assert record["flops"] == result.details.flops and record["error"] == pytest.approx(result.details.error)
    widths = {name: {"before": before, "after": after} for name, (before, after) in result.details.widths.items()}
    assert record["channels"] == widths and record["images"] == 40
    written, expected = Net(record["model"], record["weights"]), result.net()
    for name, blobs in expected.params.items():
        for mine, theirs in zip(written.params[name], blobs):
            np.testing.assert_array_equal(mine.data, theirs.data)


def test_several_criteria_are_a_table_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = write(tmp_path, DATA + NET + LOSS)
    before = sorted(tmp_path.iterdir())
    assert main([*COMMAND, *files, "--target-flops", "0.5", "--by", "magnitude,fisher,random", "--test"]) == 0
    out = capsys.readouterr().out
    rows = [line.split()[0] for line in out.splitlines() if "%" in line]
    assert rows == ["(whole", "magnitude", "fisher", "random"]
    assert sorted(tmp_path.iterdir()) == before
    assert main([*COMMAND, *files, "--target-flops", "0.5", "--by", "magnitude,random", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert [row["by"] for row in record["criteria"]] == ["magnitude", "random"] and record["whole"] is None


@pytest.mark.parametrize(
    "options, words",
    [
        (["--target-flops", "0.5", "--sparsity", "0.5"], "--sparsity is not for --group NEURON"),
        ([], "give --target-flops X"),
        (["--target-flops", "2"], "--target-flops must lie between 0 and 1"),
        (["--target-flops", "0.5", "--by", "size"], 'unknown criterion "size"'),
        (["--target-flops", "0.5", "--by", "random,magnitude", "--output", "x"], "--output is for one criterion"),
        (["--target-flops", "0.5", "--images", "1"], "--images must be at least 2"),
    ],
)
def test_wrong_options_are_errors(
    options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prune", "--group", "NEURON", *write(tmp_path, DATA + NET + LOSS), *options]) == 2
    assert words in capsys.readouterr().err


def test_options_of_channels_need_the_group(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prune", *write(tmp_path, DATA + NET + LOSS), "--sparsity", "0.5", "--target-flops", "0.5"]) == 2
    assert "--target-flops needs --group NEURON" in capsys.readouterr().err


def test_criterion_of_the_gradient_without_a_loss_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*COMMAND, *write(tmp_path, DATA + NET), "--target-flops", "0.5", "--by", "fisher"]) == 2
    text = capsys.readouterr().err
    assert "fisher needs the loss and labels" in text and "train_test.prototxt" in text


def test_net_without_data_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 1 dim: 8 dim: 8 } } }'
    files = write(tmp_path, source + NET)
    assert main([*COMMAND, *files, "--target-flops", "0.5"]) == 2
    assert "no data in phase TRAIN" in capsys.readouterr().err
    weights_alone = ["--by", "magnitude", "--repair", "none", "--share-out", "uniform"]
    assert main([*COMMAND, *files, "--target-flops", "0.5", *weights_alone]) == 0


def test_layers_of_phase_train_alone_lose_the_channels_too(tmp_path: Path) -> None:
    files = write(tmp_path, DATA + NET + AUXILIARY + LOSS, pb.TRAIN)
    assert main([*COMMAND, *files, "--target-flops", "0.5"]) == 0
    small = compact(tmp_path / "net_pruned.prototxt", tmp_path / "net_pruned.caffemodel")
    train = small.net(pb.TRAIN)
    assert train.params["a"][0].shape[0] < 8
    assert train.params["aux"][0].shape[1] == train.params["a"][0].shape[0] * 36


def test_model_that_was_made_in_python_is_pruned_on_given_images() -> None:
    source = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 1 dim: 8 dim: 8 } } }'
    net = Net(prototxt.parse(source + NET, pb.NetParameter), seed=0)
    before = net.params["b"][0].data.copy()
    images = np.random.default_rng(0).standard_normal((50, 1, 8, 8))
    result = prune_channels(net, target_flops=0.5, images={"data": images})
    assert result.details.images == 50 and result.details.flops <= 0.5 and result.details.error is not None
    np.testing.assert_array_equal(net.params["b"][0].data, before)
