"""Nets that others trained with Caffe, pruned by magnitude: compaction takes out what was pruned, and the outputs stay.

Their files, and the images of MNIST and CIFAR-10, are found through SSLNET_TEST_DATA, see ../test_caffemodels.py. Where
OpenCV is installed, it reads the standard form and computes the same.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import lzma
from pathlib import Path

import numpy as np
import pytest

from sslnet.cli import main
from sslnet.compress.compaction.compact import Compaction, compact
from sslnet.compress.pruning.magnitude import prune
from sslnet.errors import UsageError
from sslnet.net.net import Net

from ..support.model_nets import opencv_outputs
from ..test_caffemodels import DATA, REFERENCES, TOLERANCE, Reference, difference

pytestmark = pytest.mark.data

SHARE = 0.3
"""Of the groups of a layer that are set to zero."""
KINDS = {"filters": ("FILTER", "OUTPUT_NEURON"), "columns": ("SHAPE",), "channels": ("CHANNEL", "INPUT_NEURON")}


def pruned(reference: Reference, kind: str, tmp_path: Path) -> tuple[Net, set[str]]:
    """The net, and the layers that lost groups of that kind."""
    net, layers = reference.net(tmp_path), set()
    for group in KINDS[kind]:
        with contextlib.suppress(UsageError):  # nets without InnerProduct layers have no neurons
            layers |= {layer.name for layer in prune(net, sparsity=SHARE, group=group)}
    return net, layers


def run(net: Net, data: np.ndarray) -> dict[str, np.ndarray]:
    (name,) = net.inputs
    net.blobs[name].reshape(data.shape)
    net.reshape()
    return {blob: np.array(array) for blob, array in net.forward(**{name: data}).items()}


def part_left(result: Compaction, layers: set[str]) -> float:
    """Parameters of these layers, after by before."""
    sizes = [layer for layer in result.layers if layer.name in layers]
    return sum(size.after.parameters for size in sizes) / sum(size.before.parameters for size in sizes)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", REFERENCES, ids=lambda path: path.stem.removeprefix("ref_"))
def test_pruned_net_compacts_in_proportion_and_computes_the_same(path: Path, kind: str, tmp_path: Path) -> None:
    reference = Reference(path)
    net, layers = pruned(reference, kind, tmp_path)
    result = compact(net.definition, net.to_proto())
    assert part_left(result, layers) < 1 - 0.8 * SHARE
    standard = compact(net.definition, net.to_proto(), standard_only=True)
    data = reference.input("real")[:4]
    expected = run(net, data)
    for blob, found in run(Net(result.message, result.weights), data).items():
        assert difference(found, expected[blob]) <= TOLERANCE
    small = Net(standard.message, standard.weights)
    for blob, found in run(small, data).items():
        assert difference(found, expected[blob]) <= TOLERANCE
    with contextlib.suppress(ImportError):
        for blob, found in opencv_outputs(small, data, tmp_path).items():
            assert difference(found, expected[blob]) <= TOLERANCE


def mnist(count: int) -> np.ndarray:
    packed = (DATA / "data" / "mnist" / "t10k-images-idx3-ubyte.gz").read_bytes()
    pixels = np.frombuffer(gzip.decompress(packed), np.uint8)[16:].reshape(-1, 1, 28, 28)
    return pixels[:count] / np.float32(256)


def cifar10(count: int) -> np.ndarray:
    folder = DATA / "data" / "cifar10"
    records = np.frombuffer(lzma.decompress((folder / "test_batch.bin.xz").read_bytes()), np.uint8).reshape(-1, 3073)
    images = records[:count, 1:].reshape(-1, 3, 32, 32)
    return images - np.load(folder / "mean_image.npy").astype(np.float32)


@pytest.mark.parametrize(("name", "images"), [("lenet_iter_10000", mnist), ("cifar10_full_iter_70000", cifar10)])
def test_real_images_get_the_same_classes(name: str, images: object, tmp_path: Path) -> None:
    (path,) = (path for path in REFERENCES if path.stem == f"ref_{name}")
    net, _ = pruned(Reference(path), "filters", tmp_path)
    result = compact(net.definition, net.to_proto())
    data = images(400)  # type: ignore[operator]
    expected, found = run(net, data)["prob"], run(Net(result.message, result.weights), data)["prob"]
    assert difference(found, expected) <= TOLERANCE
    np.testing.assert_array_equal(found.argmax(axis=1), expected.argmax(axis=1))
    assert len(set(expected.argmax(axis=1))) == 10


def test_commands_lead_from_a_trained_net_to_a_small_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = DATA / "caffemodels" / "lenet"
    net = ["--model", str(folder / "lenet.prototxt"), "--weights", str(folder / "lenet_iter_10000.caffemodel")]
    assert main(["prune", *net, "--group", "FILTER", "--sparsity", "0.5", "--output", str(tmp_path / "a")]) == 0
    files = ["--model", str(tmp_path / "a.prototxt"), "--weights", str(tmp_path / "a.caffemodel")]
    assert main(["compact", *files, "--standard-only", "--output", str(tmp_path / "b")]) == 0
    second = ["--model2", str(tmp_path / "b.prototxt"), "--weights2", str(tmp_path / "b.caffemodel")]
    capsys.readouterr()
    assert main(["check", *files, *second, "--json"]) == 0
    checked = json.loads(capsys.readouterr().out)
    assert checked["same"]
    assert checked["total"]["second"]["parameters"] < 0.7 * checked["total"]["first"]["parameters"]
    assert checked["weights_bytes"]["second"] < 0.7 * checked["weights_bytes"]["first"]
    times = ["time", *files, *second, "--phase", "TEST", "--forward-only", "--iterations", "2", "--json"]
    assert main(times) == 0
    assert json.loads(capsys.readouterr().out)
