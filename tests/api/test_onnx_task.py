"""From an ONNX model and images to a net for training, and back to a model of the same form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
import onnx
from onnx import TensorProto, helper, numpy_helper

from sslnet import prototxt
from sslnet.api.onnx_task import onnx_task, small_onnx
from sslnet.cli import main
from sslnet.errors import DefinitionError, UsageError


def write_model(path: Path, *, softmax: bool = False, channels: int = 3, flat: bool = True) -> Path:
    """A model whose scores are the means of red, green and blue, less their mean over ImageNet times 255."""
    weights = np.eye(channels, dtype=np.float32)[:, :, None, None]
    nodes = [
        helper.make_node("Conv", ["image", "conv.weight"], ["a"]),
        helper.make_node("GlobalAveragePool", ["a"], ["b"]),
        helper.make_node("Flatten", ["b"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["prob"], axis=1),
    ]
    last = ("prob" if softmax else "scores") if flat else "a"
    count = {"prob": 4, "scores": 3, "a": 1}[last]
    graph = helper.make_graph(
        nodes[:count],
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", channels, 8, 8])],
        [helper.make_empty_tensor_value_info(last)],
        initializer=[numpy_helper.from_array(weights, "conv.weight")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(onnx.shape_inference.infer_shapes(made), str(path))
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Images of red, green or blue, labelled 0, 1, 2, as a .npz."""
    random = np.random.default_rng(0)
    labels = np.arange(300) % 3
    pixels = random.integers(60, 120, (300, 8, 8, 3))
    pixels[np.arange(300), :, :, labels] += 100
    np.savez(tmp_path / "images.npz", images=pixels.astype(np.uint8), labels=labels)
    return tmp_path / "images.npz"


def test_preprocessing_is_the_one_with_which_the_model_is_right(tmp_path: Path, images: Path) -> None:
    """Channels in the order blue, green, red take red for blue: a third of the images remain right."""
    lines: list[str] = []
    task = onnx_task(write_model(tmp_path / "m.onnx"), images, tmp_path / "out", batch=30, val=0.4, tell=lines.append)
    assert task.accuracy["unit"] == 1 and task.accuracy["imagenet-caffe"] < 0.5
    assert task.preprocessing != "imagenet-caffe"
    assert any(line.startswith("accuracy of the model by preprocessing") for line in lines)
    assert not any(line.startswith("warning") for line in lines)


def test_model_that_is_right_by_chance_is_warned_of(tmp_path: Path, images: Path) -> None:
    stored = dict(np.load(images))
    np.savez(images, images=stored["images"], labels=np.roll(stored["labels"], 1))
    task = onnx_task(write_model(tmp_path / "m.onnx"), images, tmp_path / "out", batch=30, val=0.4)
    assert any(line.startswith("warning") and "near chance for 3 classes" in line for line in task.notes)


@pytest.mark.parametrize("softmax", [False, True])
def test_net_for_training_goes_back_to_a_model_of_the_same_form(tmp_path: Path, images: Path, softmax: bool) -> None:
    source = write_model(tmp_path / "m.onnx", softmax=softmax)
    task = onnx_task(source, images, tmp_path / "out", preprocessing="unit")
    definition = prototxt.read_net(task.model).message
    assert [layer.type for layer in definition.layer if layer.type == "Softmax"] == []
    assert definition.layer[-2].type == "SoftmaxWithLoss" and list(definition.layer[-2].bottom) == ["scores", "label"]
    back, difference = small_onnx(task.model, task.weights, source)
    assert difference is not None and difference.relative < 1e-6
    before = onnx.load(str(source))
    assert [info.name for info in back.graph.input] == ["image"]
    assert [info.name for info in back.graph.output] == [info.name for info in before.graph.output]
    operators = [node.op_type.replace("Flatten", "Reshape") for node in before.graph.node]
    assert [node.op_type for node in back.graph.node] == operators
    assert back.graph.input[0].type.tensor_type.shape.dim[0].dim_param


def test_what_cannot_be_trained_this_way_is_one_error(tmp_path: Path, images: Path) -> None:
    good = write_model(tmp_path / "m.onnx")
    out = tmp_path / "out"
    with pytest.raises(DefinitionError, match=r"not \(N, classes\)"):
        onnx_task(write_model(tmp_path / "a.onnx", flat=False), images, out)
    with pytest.raises(DefinitionError, match="5 channels: images have 1 or 3"):
        onnx_task(write_model(tmp_path / "b.onnx", channels=5), images, out)
    with pytest.raises(UsageError, match="does not exist"):
        onnx_task(good, tmp_path / "nothing", out)
    with pytest.raises(UsageError, match="no data that are recognised"):
        onnx_task(good, good, out)
    with pytest.raises(UsageError, match="unknown for 3 channels"):
        onnx_task(good, images, out, preprocessing="imagenet")
    with pytest.raises(UsageError, match="val must be above 0 and below 1, not 1"):
        onnx_task(good, images, out, val=1.0)
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "m.onnx"], "is an ONNX model, not a definition"),
        (["--onnx", "m.onnx"], "--onnx needs images: --data"),
        (["--onnx", "m.onnx", "--data", "x", "--weights", "w"], "it excludes --model, --weights and --solver"),
        (["--onnx", "m.onnx", "--data", "x"], "m.onnx does not exist"),
        (["--model", "m.prototxt", "--data", "x"], "--data is for --onnx"),
    ],
)
def test_wrong_options_say_what_to_type(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compress", *options, "--target-flops", "0.4"]) == 2
    assert message in capsys.readouterr().err
