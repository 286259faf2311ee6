"""The nets in models/ and the solvers in solvers/: they are the published ones, run at their real size, and train without a warning.

The large nets are marked as slow.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.net.input_layers import fill_inputs, with_inputs
from sslnet.net.net import Net
from sslnet.prototxt.lint import lint_solver
from sslnet.solver.penalized_update import penalize
from sslnet.solver.updates import make_updates

ROOT = Path(__file__).resolve().parent.parent
MODELS = sorted(path.parent for path in ROOT.glob("models/*/deploy.prototxt"))
SOLVERS = sorted(path for path in ROOT.glob("solvers/*.prototxt") if not path.stem.startswith("thesis_"))
THESIS = sorted(ROOT.glob("models/thesis/*.prototxt"))

PARAMETERS = {
    "alexnet": 60_965_224,  # Krizhevsky 2012: 60 million; bvlc_alexnet.caffemodel
    "caffenet": 60_965_224,  # bvlc_reference_caffenet.caffemodel
    "cifar10_full": 89_578,  # 3*32*25 + 32*32*25 + 32*64*25 weights, 1024*10, a bias each
    "cifar10_full_dropout": 89_578,
    "cifar10_quick": 145_578,  # 3*32*25 + 32*32*25 + 32*64*25, 1024*64, 64*10, a bias each
    "digits": 35_914,  # 32*9 + 32*64*9, 256*64, 64*10, a bias each
    "googlenet": 6_998_552,  # Szegedy 2015: 7 million; bvlc_googlenet.caffemodel without loss1 and loss2
    "lenet": 431_080,  # 20*25 + 20*50*25, 800*500, 500*10, a bias each
    "mlp": 545_810,  # 784*500 + 500*300 + 300*10, a bias each
    "mnist_autoencoder": 2_837_314,  # 2 (784*1000 + 1000*500 + 500*250 + 250*30), a bias each
    "mobilenet": 4_231_976,  # Howard 2017: 4.2 million; Keras counts the same, statistics left out
    "mobilenet_ssd": 402_489,  # a quarter of MobileNet's channels, heads of 5 classes: by hand from the layers' shapes
    "nin": 7_595_176,  # nin_imagenet.caffemodel: 29 MB
    "resnet20": 269_722,  # He 2016, table 6: 0.27 million
    "resnet32": 464_154,  # 0.46 million
    "resnet56": 853_018,  # 0.85 million
    "squeezenet": 1_248_424,  # Iandola 2016, table 1; torchvision's squeezenet1_0
    "vgg16": 138_357_544,  # Simonyan 2015, table 2: 138 million; torchvision's vgg16
}
"""Parameters of the deploy net, statistics of BatchNorm left out: as published, to the last digit where that is known."""

SHAPES = {
    "alexnet": {"conv1": (96, 55, 55), "pool1": (96, 27, 27), "pool2": (256, 13, 13), "pool5": (256, 6, 6)},
    "caffenet": {"conv1": (96, 55, 55), "norm1": (96, 27, 27), "norm2": (256, 13, 13), "pool5": (256, 6, 6)},
    "cifar10_full": {"norm1": (32, 16, 16), "norm2": (32, 8, 8), "pool3": (64, 4, 4)},
    "cifar10_full_dropout": {"norm1": (32, 16, 16), "norm2": (32, 8, 8), "pool3": (64, 4, 4)},
    "cifar10_quick": {"pool1": (32, 16, 16), "pool2": (32, 8, 8), "pool3": (64, 4, 4), "ip1": (64,)},
    "digits": {"pool1": (32, 4, 4), "pool2": (64, 2, 2)},
    "googlenet": {  # Szegedy 2015, table 1
        "conv1/7x7_s2": (64, 112, 112),
        "conv2/3x3": (192, 56, 56),
        "inception_3a/output": (256, 28, 28),
        "inception_3b/output": (480, 28, 28),
        "inception_4a/output": (512, 14, 14),
        "inception_4d/output": (528, 14, 14),
        "inception_4e/output": (832, 14, 14),
        "inception_5b/output": (1024, 7, 7),
        "pool5/7x7_s1": (1024, 1, 1),
    },
    "lenet": {"conv1": (20, 24, 24), "pool1": (20, 12, 12), "pool2": (50, 4, 4), "ip1": (500,)},
    "mlp": {"ip1": (500,), "ip2": (300,)},
    "mnist_autoencoder": {"encode1": (1000,), "encode4": (30,), "decode4": (250,), "decode1": (784,)},
    "mobilenet": {  # Howard 2017, table 1
        "conv1": (32, 112, 112),
        "conv2_1/sep": (64, 112, 112),
        "conv2_2/dw": (64, 56, 56),
        "conv3_2/sep": (256, 28, 28),
        "conv5_5/sep": (512, 14, 14),
        "conv5_6/sep": (1024, 7, 7),
        "pool6": (1024, 1, 1),
    },
    "mobilenet_ssd": {
        "conv11": (128, 19, 19),
        "conv13": (256, 10, 10),
        "conv14_2": (128, 5, 5),
        "conv17_2": (64, 1, 1),
    },
    "nin": {"conv1": (96, 54, 54), "pool1": (96, 27, 27), "pool2": (256, 13, 13), "cccp8-1024": (1000, 6, 6)},
    "resnet20": {"res2c": (16, 32, 32), "res3a": (32, 16, 16), "res3c": (32, 16, 16), "res4c": (64, 8, 8)},
    "resnet32": {"res2e": (16, 32, 32), "res3e": (32, 16, 16), "res4e": (64, 8, 8), "pool5": (64, 1, 1)},
    "resnet56": {"res2i": (16, 32, 32), "res3i": (32, 16, 16), "res4i": (64, 8, 8), "pool5": (64, 1, 1)},
    "squeezenet": {  # Iandola 2016, table 1; the authors' own definition pads conv10
        "conv1": (96, 111, 111),
        "fire2/concat": (128, 55, 55),
        "fire4/concat": (256, 55, 55),
        "fire8/concat": (512, 27, 27),
        "fire9/concat": (512, 13, 13),
        "conv10": (1000, 15, 15),
    },
    "vgg16": {"pool1": (64, 112, 112), "conv3_3": (256, 56, 56), "pool5": (512, 7, 7), "fc7": (4096,)},
}
"""Shapes of some blobs, without the batch."""

LARGE = ("alexnet", "caffenet", "googlenet", "mobilenet", "nin", "squeezenet", "vgg16")
AUXILIARY = {"googlenet": ("loss1/", "loss2/")}
"""Parts of training nets that their deploy nets leave out."""

runs = pytest.mark.parametrize(
    "model", [pytest.param(m, marks=[pytest.mark.slow] if m.name in LARGE else [], id=m.name) for m in MODELS]
)


def name(path: Path) -> str:
    return path.stem if path.is_file() else path.name


def training_file(model: Path) -> Path:
    (path,) = [path for path in (model / "train_test.prototxt", model / "train_val.prototxt") if path.exists()]
    return path


def without_data(model: Path, batch: int = 1) -> prototxt.Definition:
    """The net for training with Input layers of the deploy net's image size in the place of its data layers."""
    (shape,) = prototxt.read_net(model / "deploy.prototxt").message.layer[0].input_param.shape
    label = np.shape(OBJECTS) if model.name in DETECTORS else (batch,)
    return with_inputs(prototxt.read_net(training_file(model)), {"data": (batch, *shape.dim[1:]), "label": label})


DETECTORS = ("mobilenet_ssd",)
OBJECTS = [[[[0, 1, 0, 0.1, 0.2, 0.4, 0.5, 0], [0, 3, 0, 0.3, 0.1, 0.9, 0.9, 0]]]]
"""Labels of a detector: two objects of an image."""


def fill(net: Net, model: Path) -> None:
    """Fills the inputs; the labels of a detector with objects."""
    fill_inputs(net)
    if model.name in DETECTORS:
        net.blobs["label"].data[...] = OBJECTS


def learned(net: Net) -> dict[str, tuple[int, ...]]:
    return {param.name: param.blob.shape for param in net.learnable if param.layer.TYPE != "BatchNorm"}


def load_tool(name: str) -> Any:
    loader = importlib.machinery.SourceFileLoader(name, str(ROOT / "tools" / name))
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look for their types
    loader.exec_module(module)
    return module


@pytest.fixture
def unfilled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights stay zeros that nobody has touched: a net of any size is built at once and takes no memory."""
    monkeypatch.setattr("sslnet.fillers.fill", lambda *args, **settings: None)


# -- the nets ----------------------------------------------------------------------------------------------------------


def test_models_are_those_of_the_tables_and_of_the_list() -> None:
    names = [model.name for model in MODELS]
    listed = re.findall(
        r"^\| \[(\w+)\]\(\1/README.md\) \| ([\d,]+) \|", (ROOT / "models/README.md").read_text(), re.MULTILINE
    )
    assert {name: int(count.replace(",", "")) for name, count in listed} == PARAMETERS
    assert sorted(PARAMETERS) == sorted(SHAPES) == names


@pytest.mark.parametrize("model", MODELS, ids=name)
def test_model_has_both_forms_and_a_readme_with_its_size(model: Path) -> None:
    assert training_file(model).exists()
    if model.name != "digits":
        assert (
            f"{PARAMETERS[model.name]:,} parameters" in (model / "README.md").read_text() or model.name == "googlenet"
        )


@pytest.mark.usefixtures("unfilled")
@pytest.mark.parametrize("model", MODELS, ids=name)
def test_model_has_as_many_parameters_as_published(model: Path) -> None:
    counts = [int(np.prod(shape)) for shape in learned(Net(model / "deploy.prototxt")).values()]
    assert sum(counts) == PARAMETERS[model.name]


@pytest.mark.usefixtures("unfilled")
def test_googlenet_trains_with_two_more_classifiers() -> None:
    counts = [int(np.prod(shape)) for shape in learned(Net(without_data(ROOT / "models" / "googlenet"))).values()]
    assert sum(counts) == 13_378_280  # bvlc_googlenet.caffemodel


@pytest.mark.usefixtures("unfilled")
@pytest.mark.parametrize("model", MODELS, ids=name)
def test_model_has_the_published_shapes(model: Path) -> None:
    net = Net(model / "deploy.prototxt")
    expected = SHAPES[model.name]
    assert {blob: net.blobs[blob].shape[1:] for blob in expected} == expected


@pytest.mark.usefixtures("unfilled")
@pytest.mark.parametrize("model", MODELS, ids=name)
def test_model_builds_in_both_phases_with_the_parameters_of_its_deploy_net(model: Path) -> None:
    deploy = learned(Net(model / "deploy.prototxt"))
    for phase in (pb.TRAIN, pb.TEST):
        net = Net(without_data(model), phase=phase)
        kept = {key: s for key, s in learned(net).items() if not key.startswith(AUXILIARY.get(model.name, ("-",)))}
        assert list(kept.items()) == list(deploy.items())
        assert net.loss_weights


@pytest.mark.usefixtures("unfilled")
@pytest.mark.parametrize("model", MODELS, ids=name)
def test_model_for_testing_tells_how_well_it_does(model: Path) -> None:
    net = Net(without_data(model), phase=pb.TEST)
    measures = [layer.name for layer in net.layers if layer.TYPE in ("Accuracy", "EuclideanLoss", "DetectionEvaluate")]
    ways = 2 if model.name in LARGE else 1  # ImageNet: the best guess, and the best five
    assert len(measures) == ways * (1 + len(AUXILIARY.get(model.name, ())))


@runs
def test_deploy_net_is_the_net_that_was_trained(model: Path) -> None:
    train = Net(without_data(model), phase=pb.TRAIN, seed=1)
    fill(train, model)
    train.forward()  # statistics of BatchNorm
    test = Net(without_data(model), phase=pb.TEST, share=train)
    deploy = Net(model / "deploy.prototxt", train.to_proto())
    assert deploy.inputs == ["data"]
    images = train.blobs["data"].data
    label = OBJECTS if model.name in DETECTORS else [0]
    test.forward(data=images, **({"label": label} if "label" in test.inputs else {}))
    ((output, values),) = deploy.forward(data=images).items()
    scores = deploy.bottom_names[-1][0]
    size = np.abs(test.blobs[scores].data).max()
    assert size > 0
    np.testing.assert_allclose(deploy.blobs[scores].data, test.blobs[scores].data, rtol=0, atol=1e-5 * size)
    if model.name in DETECTORS:
        assert output == "detection_out" and values.shape[3] == 7
    elif model.name != "mnist_autoencoder":  # gives an image
        assert output == "prob"
        assert values.size == (1000 if model.name in LARGE else 10)
        assert values.sum() == pytest.approx(1, abs=1e-5)


@runs
def test_model_runs_forward_and_backward_at_its_size(model: Path) -> None:
    net = Net(without_data(model), phase=pb.TRAIN, seed=1)
    fill(net, model)
    net.forward()
    net.backward()
    assert np.isfinite(net.loss)
    for param in net.learnable:
        if param.lr_mult:
            assert np.isfinite(param.blob.diff).all(), param.name
            # of one image and one pixel, BatchNorm leaves nothing; locations have a gradient where an object matches
            name = param.layer.name
            spared = model.name in DETECTORS and ("conv17" in name or name.endswith("_mbox_loc"))
            assert param.blob.diff.any() or spared, f"{param.name} is not reached"


# -- the nets of docs/thesis.md ----------------------------------------------------------------------------------------

THESIS_SIZES = {
    "autoencoder": 37_827,  # 32*9 + 64*32*9 + 64*32*9 + 32*9, a bias each, two numbers of each channel behind BatchNorm
    "cifar10": 1_069_706,  # 3*64*25 + 64*64*25, 2304*384 + 384*192 + 192*10, a bias each, two numbers behind BatchNorm
    "fc_summation": 4_001,  # 2*1000 + 1000, 1000 + 1
    "mnist": 454_922,  # 32*25 + 32*64*25 + 64*128*49 + 128*10, a bias each
}
THESIS_SHAPES = {
    "autoencoder": {"enc1": (32, 14, 14), "enc2": (64, 7, 7), "dec1": (32, 14, 14), "dec2": (1, 28, 28)},
    "cifar10": {"data": (3, 24, 24), "pool1": (64, 12, 12), "pool2": (64, 6, 6), "fc1": (384,), "fc3": (10,)},
    "fc_summation": {"ip1": (1000,), "ip2": (1,)},
    "mnist": {"conv1": (32, 28, 28), "pool2": (64, 7, 7), "conv3": (128, 1, 1)},
}


def thesis_net(path: Path, phase: int) -> Net:
    """The net with inputs for four images in place of its data."""
    definition = prototxt.read_net(path)
    if path.stem != "fc_summation":
        image = {"cifar10": (3, 24, 24)}.get(path.stem, (1, 28, 28))
        shapes = {"data": (4, *image), **({} if path.stem == "autoencoder" else {"label": (4,)})}
        definition = with_inputs(definition, shapes)
    return Net(definition, phase=phase, seed=1)


@pytest.mark.parametrize("path", THESIS, ids=name)
def test_net_of_the_thesis_has_its_size_and_trains(path: Path) -> None:
    net = thesis_net(path, pb.TRAIN)
    assert sum(int(np.prod(shape)) for shape in learned(net).values()) == THESIS_SIZES[path.stem]
    shapes = THESIS_SHAPES[path.stem]
    assert {blob: net.blobs[blob].shape[1:] for blob in shapes} == shapes
    if net.inputs:
        fill_inputs(net)
    net.forward()
    net.backward()
    assert np.isfinite(net.loss)
    assert all(param.blob.diff.any() for param in net.learnable if param.lr_mult and param.index == 0)
    assert f"{THESIS_SIZES[path.stem]:,}" in (path.parent / "README.md").read_text()


@pytest.mark.parametrize("path", THESIS, ids=name)
def test_net_of_the_thesis_has_a_solver_that_says_nothing_wrong(path: Path) -> None:
    definition = prototxt.read_solver(ROOT / "solvers" / f"thesis_{path.stem}.prototxt")
    assert definition.message.net == str(path.relative_to(ROOT))
    assert definition.message.snapshot_prefix == f"snapshots/thesis_{path.stem}/thesis_{path.stem}"
    assert [str(note) for note in lint_solver(definition, prototxt.read_net(path))] == []


def test_rows_of_the_thesis_are_settings_that_mean_something() -> None:
    from sslnet.compress.pruning.cycles import pruning_cycles

    tool = load_tool("thesis")
    for key, row in tool.ROWS.items():
        solver = prototxt.read_solver(ROOT / "solvers" / f"thesis_{row.model}.prototxt")
        settings = [f"max_iter={row.iterations}", *row.settings]
        cycles = pruning_cycles(prototxt.apply_overrides(solver, settings))
        assert (cycles is None) == key.startswith("fc_dead")


def test_page_of_the_thesis_shows_its_recorded_figures() -> None:
    tool = load_tool("thesis")
    record = json.loads(tool.RECORD.read_text())
    page = tool.PAGE.read_text()
    assert set(record) <= set(tool.ROWS)
    for model in tool.PER_LOSS:
        assert tool.table(model, record) in page, "run tools/thesis --write"


# -- residual nets -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [20, 32, 56])
def test_residual_net_is_what_its_tool_writes(depth: int) -> None:
    for file, text in load_tool("make_resnet").files(depth).items():
        assert (ROOT / file).read_text() == text, f"{file} is not what it writes: run tools/make_resnet"


@pytest.mark.usefixtures("unfilled")
@pytest.mark.parametrize(("depth", "count"), [(44, 658_586), (110, 1_727_962)])  # He 2016, table 6: 0.66, 1.7 million
def test_residual_net_of_another_depth_has_its_size(depth: int, count: int) -> None:
    net = Net(
        prototxt.parse(load_tool("make_resnet").files(depth)[f"models/resnet{depth}/deploy.prototxt"], pb.NetParameter)
    )
    assert sum(int(np.prod(shape)) for shape in learned(net).values()) == count


def test_residual_net_of_no_such_depth_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["make_resnet", "21"])
    with pytest.raises(SystemExit, match="2"):
        load_tool("make_resnet").main()
    assert "must be 6 n + 2 from 8 to 158 (20, 32, 44, 56, 110, ...), not 21" in capsys.readouterr().err


def test_residual_net_without_its_layers_is_every_fourth_pixel_of_its_first_features() -> None:
    """What is left when all blocks give zero are the shortcuts: the depth that SSL can take out."""
    net = Net(without_data(ROOT / "models" / "resnet20"), phase=pb.TEST, seed=1)
    for layer in net.layers:
        if layer.TYPE == "Scale" and layer.name != "scale_conv1":
            for blob in layer.blobs:
                blob.data[...] = 0
    fill_inputs(net)
    net.forward(end="res4c_relu")
    features, last = net.blobs["conv1"].data, net.blobs["res4c"].data
    assert features.any()
    np.testing.assert_array_equal(last[:, :16], features[:, :, ::4, ::4])
    assert not last[:, 16:].any()


# -- the solvers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS, ids=name)
def test_model_has_a_solver(model: Path) -> None:
    assert ROOT / "solvers" / f"{model.name}.prototxt" in SOLVERS


@pytest.mark.parametrize("solver", SOLVERS, ids=name)
def test_solver_trains_a_net_that_exists_and_says_nothing_wrong(solver: Path) -> None:
    definition = prototxt.read_solver(solver)
    assert definition.message.net == str(
        training_file(ROOT / "models" / solver.stem.partition("_ssl")[0]).relative_to(ROOT)
    )
    assert [str(note) for note in lint_solver(definition, prototxt.read_net(ROOT / definition.message.net))] == []


@pytest.mark.usefixtures("unfilled")
@pytest.mark.parametrize("solver", SOLVERS, ids=name)
def test_solver_has_penalties_that_fit_the_weights_of_its_net(solver: Path) -> None:
    definition = prototxt.read_solver(solver)
    net = Net(without_data(ROOT / "models" / solver.stem.partition("_ssl")[0]), phase=pb.TRAIN)
    penalties = penalize(make_updates(net.learnable, definition), net, definition)
    assert ("_ssl" in solver.stem) == bool(penalties)


@pytest.mark.parametrize("solver", SOLVERS, ids=name)
def test_solver_writes_into_a_folder_of_its_own(solver: Path) -> None:
    assert prototxt.read_solver(solver).message.snapshot_prefix == f"snapshots/{solver.stem}/{solver.stem}"
