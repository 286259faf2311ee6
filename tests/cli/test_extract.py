"""sslnet extract: the rows of the data and of what is computed of them, in HDF5 and LMDB; nothing half-made."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import lmdb
import numpy as np
import pytest

from sslnet import cli
from sslnet import sslnet_pb2 as pb
from sslnet.sources.lmdb import LmdbSource

GOLDENS = Path(__file__).parent.parent / "goldens" / "data"
NET = """
layer { name: "d" type: "Data" top: "data" top: "label" data_param { source: "raw_lmdb" backend: LMDB batch_size: 30 } }
layer { name: "ip/1" type: "InnerProduct" bottom: "data" top: "ip/1" inner_product_param { num_output: 4 bias_term: false } }
layer { name: "sum" type: "Reduction" bottom: "data" top: "sum" }
layer { name: "six" type: "Reshape" bottom: "data" top: "six" reshape_param { shape { dim: 0 dim: 3 dim: 2 dim: 4 dim: 8 } } }
"""
WEIGHTS = np.random.default_rng(3).standard_normal((4, 3 * 8 * 8)).astype(np.float32)


@pytest.fixture(autouse=True)
def net_in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(GOLDENS / "raw_lmdb", "raw_lmdb")
    Path("net.prototxt").write_text(NET)
    message = pb.NetParameter()
    blob = message.layer.add(name="ip/1", type="InnerProduct").blobs.add(data=WEIGHTS.ravel().tolist())
    blob.shape.dim.extend(WEIGHTS.shape)
    Path("net.caffemodel").write_bytes(message.SerializeToString())


def extract(blobs: str, output: str, *options: str) -> int:
    arguments = ["--model", "net.prototxt", "--weights", "net.caffemodel", "--blobs", blobs, "--output", output]
    return cli.main(["extract", *arguments, *options])


def source() -> tuple[np.ndarray, np.ndarray]:
    with np.load(GOLDENS / "raw.npz") as raw:
        return raw["images"], raw["labels"]


def test_every_record_becomes_a_row_of_hdf5(capsys: pytest.CaptureFixture[str]) -> None:
    images, labels = source()
    assert extract("data,label,ip/1", "features.h5") == 0
    with h5py.File("features.h5") as file:
        np.testing.assert_array_equal(file["data"], images)
        np.testing.assert_array_equal(file["label"], labels)
        np.testing.assert_allclose(file["ip/1"], images.reshape(200, -1) @ WEIGHTS.T, rtol=1e-4, atol=0.05)
    assert capsys.readouterr().out.splitlines() == [
        "features.h5: data, 200 rows of 3 x 8 x 8",
        "features.h5: label, 200 rows of 1 number",
        "features.h5: ip/1, 200 rows of 4",
    ]


def test_iterations_are_whole_batches_that_start_over() -> None:
    _, labels = source()
    assert extract("label", "features.h5", "--iterations", "8") == 0
    with h5py.File("features.h5") as file:
        np.testing.assert_array_equal(file["label"], np.resize(labels, 240))


def test_blob_without_a_row_for_each_record_gets_one_a_batch() -> None:
    images, _ = source()
    assert extract("sum", "features.h5", "--iterations", "2") == 0
    with h5py.File("features.h5") as file:
        np.testing.assert_allclose(file["sum"], images[:60].reshape(2, -1).sum(axis=1), rtol=1e-5)


def test_lmdb_holds_datums_under_caffes_keys() -> None:
    images, _ = source()
    assert extract("data", "features_lmdb") == 0
    environment = lmdb.open("features_lmdb", readonly=True, lock=False)
    with environment.begin() as transaction:
        records = [(bytes(key), bytes(value)) for key, value in transaction.cursor()]
    environment.close()
    assert [key for key, _ in records] == [f"{i:010d}".encode() for i in range(200)]
    for image, (_, value) in zip(images, records):
        datum = pb.Datum.FromString(value)
        assert (datum.channels, datum.height, datum.width) == (3, 8, 8)
        assert not datum.data and not datum.HasField("encoded")
        np.testing.assert_array_equal(np.array(datum.float_data).reshape(3, 8, 8), image)


def test_folder_gets_an_lmdb_for_each_blob() -> None:
    _, labels = source()
    assert extract("ip/1,label", "features/") == 0
    assert sorted(path.name for path in Path("features").iterdir()) == ["ip_1_lmdb", "label_lmdb"]
    found = LmdbSource("features/label_lmdb").read(np.arange(200), labels=False).images
    np.testing.assert_array_equal(found, labels.reshape(200, 1, 1, 1))
    assert LmdbSource("features/ip_1_lmdb").shape == (4, 1, 1)


@pytest.mark.parametrize("output", ["features.h5", "features_lmdb"])
def test_interrupted_run_leaves_nothing_behind(output: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = sorted(path.name for path in tmp_path.iterdir())
    calls = []

    def interrupted(self: object, *args: object, **kwargs: object) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("sslnet.net.net.Net.forward", interrupted)
    assert extract("data", output) == 130
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_existing_output_is_overwritten_only_when_told(capsys: pytest.CaptureFixture[str]) -> None:
    Path("features.h5").write_bytes(b"old")
    assert extract("label", "features.h5") == 2
    assert capsys.readouterr().err == "error: features.h5 exists\n  --force overwrites it\n"
    assert Path("features.h5").read_bytes() == b"old"
    assert extract("label", "features.h5", "--force") == 0
    assert extract("label", "features_lmdb") == 0
    assert extract("label", "features_lmdb") == 1
    assert "it exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("blobs", "output", "options", "message"),
    [
        ("labl", "f.h5", [], 'error: the net has no blob "labl"\n  did you mean "label"?'),
        (" , ", "f.h5", [], "error: --blobs names no blob"),
        ("data,label", "f_lmdb", [], "error: an LMDB holds one blob, not 2"),
        ("six", "f_lmdb", [], 'error: a Datum holds rows of 3 axes at most, "six" has (3, 2, 4, 8)'),
        ("data", "f.h5", ["--iterations", "0"], "error: --iterations must be at least 1, not 0"),
    ],
)
def test_bad_input_is_told(
    blobs: str, output: str, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert extract(blobs, output, *options) == 2
    assert capsys.readouterr().err.startswith(message)
    assert not Path(output).exists()


@pytest.mark.parametrize(
    ("first", "message"),
    [
        (
            'type: "Input" input_param { shape { dim: 2 dim: 3 } }',
            "error: the net has no data: no data layer fills data",
        ),
        (
            'type: "DummyData" dummy_data_param { shape { dim: 2 dim: 3 } }',
            "error: the number of records is not known: give --iterations",
        ),
    ],
)
def test_nets_without_an_end_of_their_data_need_iterations(
    first: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("net.prototxt").write_text(f'layer {{ name: "d" top: "data" {first} }}')
    assert extract("data", "f.h5") == 2
    assert capsys.readouterr().err.startswith(message)


def test_names_that_hdf5_cannot_hold_together_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    Path("net.prototxt").write_text(NET.replace('top: "sum"', 'top: "ip"'))
    assert extract("ip,ip/1", "f.h5") == 2
    assert 'error: an HDF5 file cannot hold "ip/1" beside the blobs before it' in capsys.readouterr().err
    assert not Path("f.h5").exists()
