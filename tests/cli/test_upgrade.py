"""sslnet upgrade: what it writes, what it says, what it refuses."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from google.protobuf import text_format

from sslnet import cli
from sslnet import sslnet_pb2 as pb
from sslnet.net.weights import read_weights

FORMATS = Path(__file__).parent.parent / "goldens" / "formats"
NET = """\
name: "net"
layers { name: "d" type: MEMORY_DATA top: "d" memory_data_param { batch_size: 1 } }
layers { name: "s" type: SOFTMAX bottom: "d" top: "s" }
"""


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> pytest.CaptureFixture[str]:
    return capsys


def weights_of_2014() -> None:
    net = pb.NetParameter(name="net", input=["data"])
    layer = net.layers.add(name="ip", type=pb.V1LayerParameter.INNER_PRODUCT, blobs_lr=[1, 2])
    layer.blobs.add(num=1, channels=1, height=2, width=3, data=range(6))
    layer.blobs.add(num=1, channels=1, height=1, width=2, data=[0.5, -0.5])
    Path("old.caffemodel").write_bytes(net.SerializeToString())


def test_upgrade_writes_a_net_in_todays_form(printed) -> None:
    Path("old.prototxt").write_text(NET)
    assert cli.main(["upgrade", "old.prototxt", "new.prototxt"]) == 0
    assert printed.readouterr().out == "old.prototxt: 2 layers of 2014\nnew.prototxt: written\n"
    net = text_format.Parse(Path("new.prototxt").read_text(), pb.NetParameter())
    assert [(layer.name, layer.type) for layer in net.layer] == [("d", "MemoryData"), ("s", "Softmax")]
    assert not net.layers


def test_upgrade_writes_a_solver_in_todays_form(printed) -> None:
    Path("old.prototxt").write_text('net: "net.prototxt"\nsolver_type: NESTEROV\n')
    assert cli.main(["upgrade", "old.prototxt", "new.prototxt"]) == 0
    assert "old.prototxt: solver_type\n" in printed.readouterr().out
    assert Path("new.prototxt").read_text() == 'net: "net.prototxt"\ntype: "Nesterov"\n'


def test_upgrade_says_when_nothing_was_old(printed) -> None:
    Path("now.prototxt").write_text('layer { name: "s" type: "Silence" }')
    assert cli.main(["upgrade", "now.prototxt", "new.prototxt"]) == 0
    assert "now.prototxt: in the form of today already\n" in printed.readouterr().out


def test_upgrade_shows_what_it_leaves_out(printed) -> None:
    Path("old.prototxt").write_text('layers { layer { name: "r" type: "relu" group: 2 } }\n')
    assert cli.main(["upgrade", "old.prototxt", "new.prototxt"]) == 0
    assert (
        'old.prototxt:1:41: warning: group does nothing in a layer of 2013 of type "relu"' in printed.readouterr().out
    )


@pytest.mark.parametrize("target", ["new.caffemodel", "new.caffemodel.h5"])
def test_upgrade_keeps_the_numbers_of_weights(target: str, printed) -> None:
    weights_of_2014()
    assert cli.main(["upgrade", "old.caffemodel", target]) == 0
    assert "old.caffemodel: 1 input field, 1 layer of 2014, 2 blobs with four sizes" in printed.readouterr().out
    arrays = read_weights(target)
    assert {name: [array.shape for array in values] for name, values in arrays.items()} == {"ip": [(2, 3), (2,)]}
    np.testing.assert_array_equal(arrays["ip"][0], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(arrays["ip"][1], [0.5, -0.5])


def test_upgrade_keeps_what_else_a_binary_file_says() -> None:
    weights_of_2014()
    assert cli.main(["upgrade", "old.caffemodel", "new.caffemodel"]) == 0
    net = pb.NetParameter.FromString(Path("new.caffemodel").read_bytes())
    assert (net.name, net.layer[0].type, [spec.lr_mult for spec in net.layer[0].param]) == (
        "net",
        "InnerProduct",
        [1, 2],
    )


@pytest.mark.parametrize("steps", [("a.h5", "b.caffemodel"), ("a.caffemodel.h5", "b.caffemodel", "c.caffemodel.h5")])
def test_upgrade_goes_between_binary_and_hdf5_without_loss(steps: tuple[str, ...]) -> None:
    names = [str(FORMATS / "tiny_binaryproto_iter_20.caffemodel"), *steps]
    for source, target in zip(names, steps):
        assert cli.main(["upgrade", source, target]) == 0
    first, last = read_weights(names[0]), read_weights(names[-1])
    assert first.keys() == last.keys()
    for name, arrays in first.items():
        for one, other in zip(arrays, last[name], strict=True):
            np.testing.assert_array_equal(one, other)


def test_upgrade_writes_hdf5_as_caffe_lays_it_out() -> None:
    weights_of_2014()
    cli.main(["upgrade", "old.caffemodel", "new.caffemodel.h5"])
    with h5py.File("new.caffemodel.h5") as file:
        assert file["data/ip/0"].shape == (2, 3)
        assert file["data/ip/1"].dtype == np.float32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["old.prototxt", "there.prototxt"], "error: there.prototxt exists\n  --force overwrites it"),
        (["old.prototxt", "old.prototxt"], "error: old.prototxt exists"),
        (["old.prototxt", "new.caffemodel"], "error: old.prototxt is a definition: it cannot become weights"),
        (["old.caffemodel", "new.prototxt"], "error: old.caffemodel holds weights: they cannot become a prototxt"),
        (["none.prototxt", "new.prototxt"], "none.prototxt: error: cannot be read: No such file"),
        (["none.caffemodel", "new.caffemodel"], "none.caffemodel: error: cannot be read: No such file"),
        (["text.caffemodel", "new.caffemodel"], "text.caffemodel: error: 14 bytes that are not a whole NetParameter"),
        (["empty.caffemodel", "new.caffemodel"], "empty.caffemodel: error: the file is empty"),
        (["mixed.caffemodel", "new.caffemodel"], "mixed.caffemodel: error: layers in two forms"),
        (["odd.caffemodel", "new.h5"], "odd.caffemodel: error: blob 0 has shape 1 x 1 x 2 x 2 and 3 values"),
        (["wrong.prototxt", "new.prototxt"], 'wrong.prototxt:2:1: error: SolverParameter has no field "bas_lr"'),
        (["wrong_net.prototxt", "new.prototxt"], 'wrong_net.prototxt:2:8: error: LayerParameter has no field "nam"'),
    ],
)
def test_upgrade_refuses_and_writes_nothing(arguments: list[str], message: str, printed) -> None:
    Path("old.prototxt").write_text(NET)
    Path("there.prototxt").write_text("# mine\n")
    Path("text.caffemodel").write_text('name: "a text"')
    Path("empty.caffemodel").write_bytes(b"")
    Path("wrong.prototxt").write_text('net: "net.prototxt"\nbas_lr: 1\n')
    Path("wrong_net.prototxt").write_text('name: "net"\nlayer {nam: "a"}\n')
    mixed = pb.NetParameter()
    mixed.layer.add(name="a").blobs.add(data=[1])
    mixed.layers.add(name="b").blobs.add(data=[1])
    Path("mixed.caffemodel").write_bytes(mixed.SerializeToString())
    odd = pb.NetParameter()
    odd.layers.add(name="a").blobs.add(num=1, channels=1, height=2, width=2, data=[1, 2, 3])
    Path("odd.caffemodel").write_bytes(odd.SerializeToString())
    weights_of_2014()
    before = {path: path.read_bytes() for path in Path().iterdir()}
    assert cli.main(["upgrade", *arguments]) == 2
    assert printed.readouterr().err.startswith(message)
    assert {path: path.read_bytes() for path in Path().iterdir()} == before


def test_upgrade_overwrites_by_force() -> None:
    shutil.copy(FORMATS / "net.prototxt", "net.prototxt")
    Path("old.prototxt").write_text(NET)
    assert cli.main(["upgrade", "old.prototxt", "net.prototxt", "--force"]) == 0
    assert cli.main(["upgrade", "old.prototxt", "old.prototxt", "--force"]) == 0
    assert Path("net.prototxt").read_text() == Path("old.prototxt").read_text()
