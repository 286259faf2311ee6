"""sslnet mean: the file that Caffe's compute_image_mean writes, the means it prints, what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sslnet import cli
from sslnet import sslnet_pb2 as pb
from sslnet.sources.lmdb import write_lmdb
from sslnet.sources.mean import read_mean

GOLDENS = Path(__file__).parent.parent / "goldens" / "data"


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def database(path: str, *images: np.ndarray) -> None:
    records = []
    for i, image in enumerate(images):
        channels, height, width = image.shape
        datum = pb.Datum(channels=channels, height=height, width=width, label=i)
        if image.dtype == np.uint8:
            datum.data = image.tobytes()
        else:
            datum.float_data.extend(image.ravel().tolist())
        records.append((f"{i:08d}".encode(), datum.SerializeToString()))
    write_lmdb(path, records)


def test_mean_is_the_one_caffe_computes(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["mean", str(GOLDENS / "raw_lmdb"), "mean.binaryproto"]) == 0
    with np.load(GOLDENS / "raw_mean.npz") as golden:
        expected = golden["mean"]
    np.testing.assert_allclose(read_mean("mean.binaryproto"), expected, rtol=1e-6)
    blob = pb.BlobProto.FromString(Path("mean.binaryproto").read_bytes())
    assert (blob.num, blob.channels, blob.height, blob.width) == (1, 3, 8, 8)
    assert not blob.HasField("shape")
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:4] == [f"mean_value channel [{c}]: {expected[c].mean(dtype=float):g}" for c in range(3)]
    assert lines[4] == "mean.binaryproto: written"


def test_mean_is_written_as_npy_by_its_name() -> None:
    assert cli.main(["mean", str(GOLDENS / "raw_lmdb"), "mean.npy"]) == 0
    with np.load(GOLDENS / "raw_mean.npz") as golden:
        np.testing.assert_allclose(np.load("mean.npy"), golden["mean"], rtol=1e-6)


def test_mean_without_a_file_writes_none(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    database("db", np.array([[[1, 3]]], np.uint8), np.array([[[2, 200]]], np.uint8))
    assert cli.main(["mean", "db"]) == 0
    assert capsys.readouterr().out == "db: 2 records of 1 x 1 x 2\nmean_value channel [0]: 51.5\n"
    assert [path.name for path in tmp_path.iterdir()] == ["db"]


def test_mean_of_floats_and_of_encoded_images(capsys: pytest.CaptureFixture[str]) -> None:
    database("db", np.array([[[0.25]], [[-1.0]]], np.float32), np.array([[[0.75]], [[-2.0]]], np.float32))
    assert cli.main(["mean", "db"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["mean_value channel [0]: 0.5", "mean_value channel [1]: -1.5"]
    assert cli.main(["mean", str(GOLDENS / "encoded_png_lmdb"), "mean.npy"]) == 0
    with np.load(GOLDENS / "encoded_rgb_source.npz") as source:
        expected = source["rgb"].mean(axis=0)[:, :, ::-1].transpose(2, 0, 1)
    np.testing.assert_allclose(np.load("mean.npy"), expected, rtol=1e-6)


def test_images_of_two_sizes_have_no_mean(capsys: pytest.CaptureFixture[str]) -> None:
    database("db", np.zeros((1, 2, 2), np.uint8), np.zeros((1, 2, 3), np.uint8))
    assert cli.main(["mean", "db", "mean.npy"]) == 2
    assert "db: error: record 1 is 1 x 2 x 3, but the first one is 1 x 2 x 2" in capsys.readouterr().err
    assert not Path("mean.npy").exists()


def test_numbers_that_are_not_finite_have_no_mean(capsys: pytest.CaptureFixture[str]) -> None:
    database("db", np.array([[[np.inf]]], np.float32), np.array([[[-np.inf]]], np.float32))
    assert cli.main(["mean", "db"]) == 2
    assert "db: error: a record holds numbers that are not finite" in capsys.readouterr().err


def test_existing_mean_is_overwritten_only_when_told(capsys: pytest.CaptureFixture[str]) -> None:
    database("db", np.zeros((1, 2, 2), np.uint8))
    Path("mean.npy").write_bytes(b"old")
    assert cli.main(["mean", "db", "mean.npy"]) == 2
    assert capsys.readouterr().err == "error: mean.npy exists\n  --force overwrites it\n"
    assert Path("mean.npy").read_bytes() == b"old"
    assert cli.main(["mean", "db", "mean.npy", "--force"]) == 0
    assert np.load("mean.npy").shape == (1, 2, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: error: there is no LMDB in this folder"),
        (["nowhere", "mean.txt"], "error: mean.txt: the name of a mean file must end in .binaryproto or .npy"),
    ],
)
def test_bad_input_is_told(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["mean", *arguments]) == 2
    assert capsys.readouterr().err.startswith(message)
