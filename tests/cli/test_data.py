"""`sslnet data`: databases from files, archives and the net; nothing half-made, nothing unverified."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import os
import tarfile
from dataclasses import replace
from pathlib import Path

import lmdb
import numpy as np
import pytest

from sslnet import sslnet_pb2 as pb
from sslnet.cli import main
from sslnet.sources import datasets
from sslnet.sources.mean import read_mean

REFERENCE = Path(os.environ.get("SSLNET_TEST_DATA", "")) / "data"


def idx(array: np.ndarray) -> bytes:
    return (
        bytes([0, 0, 8, array.ndim])
        + b"".join(n.to_bytes(4, "big") for n in array.shape)
        + array.astype(np.uint8).tobytes()
    )


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    """A tiny MNIST: five and three images of 2 x 3."""
    folder = tmp_path / "mnist"
    folder.mkdir()
    for prefix, count in (("train", 5), ("t10k", 3)):
        images = np.arange(count * 6).reshape(count, 2, 3)
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(np.arange(count) + 4))
    return folder


def cifar_batches() -> dict[str, bytes]:
    """A tiny CIFAR-10: two images a batch."""
    random = np.random.default_rng(0)
    return {
        name: b"".join(bytes([i]) + random.integers(0, 256, 3072).astype(np.uint8).tobytes() for i in range(2))
        for name in datasets.CIFAR10_CONTENTS
    }


def records(folder: Path) -> list[tuple[bytes, bytes]]:
    environment = lmdb.open(str(folder), readonly=True, lock=False)
    with environment.begin() as transaction:
        found = list(transaction.cursor())
    environment.close()
    return found


def expected_record(image: bytes, shape: tuple[int, int, int], label: int) -> bytes:
    """The bytes of Caffe's converter: fields in the order of their numbers, each of them written."""

    def varint(number: int) -> bytes:
        return bytes([number]) if number < 128 else bytes([number & 127 | 128, number >> 7])

    sizes = b"".join(bytes([field << 3]) + varint(size) for field, size in zip((1, 2, 3), shape))
    return sizes + b"\x22" + varint(len(image)) + image + b"\x28" + varint(label)


def test_mnist_becomes_the_records_of_caffes_converter(
    mnist: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "examples" / "mnist"
    assert main(["data", "mnist", "--from", str(mnist), "--to", str(target), "--no-verify"]) == 0
    for name, count in (("mnist_train_lmdb", 5), ("mnist_test_lmdb", 3)):
        expected = [
            (f"{i:08d}".encode(), expected_record(bytes(range(6 * i, 6 * i + 6)), (1, 2, 3), i + 4))
            for i in range(count)
        ]
        assert records(target / name) == expected
    assert capsys.readouterr().out == (
        f"{target}/mnist_train_lmdb: 5 images\n{target}/mnist_test_lmdb: 3 images\n".replace("/", os.sep)
    )
    assert sorted(path.name for path in target.iterdir()) == ["mnist_test_lmdb", "mnist_train_lmdb"]


def test_second_call_leaves_what_is_there(mnist: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["data", "mnist", "--from", str(mnist), "--to", str(tmp_path), "--no-verify"]
    assert main(command) == 0
    before = (tmp_path / "mnist_train_lmdb" / "data.mdb").stat()
    capsys.readouterr()
    assert main(command) == 0
    assert capsys.readouterr().out.count("already there") == 2
    assert (tmp_path / "mnist_train_lmdb" / "data.mdb").stat() == before


def test_files_that_are_not_the_original_ones_are_refused(
    mnist: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "to"
    assert main(["data", "mnist", "--from", str(mnist), "--to", str(target)]) == 2
    text = capsys.readouterr().err
    assert "train-images-idx3-ubyte.gz: error: is not the original file: its contents have the md5" in text
    assert "--no-verify uses it all the same" in text
    assert list(target.iterdir()) == []


def test_missing_files_are_told(mnist: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (mnist / "t10k-labels-idx1-ubyte").unlink()
    target = tmp_path / "to"
    assert main(["data", "mnist", "--from", str(mnist), "--to", str(target), "--no-verify"]) == 2
    assert "there is no t10k-labels-idx1-ubyte.gz or t10k-labels-idx1-ubyte" in capsys.readouterr().err
    assert not target.exists()
    assert main(["data", "mnist", "--from", str(tmp_path / "nowhere"), "--to", str(target)]) == 2
    assert "there is no such folder" in capsys.readouterr().err


def archive(batches: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name, contents in {**batches, "readme": b"x"}.items():
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}" + ("" if name == "readme" else ".bin"))
            info.size = len(contents)
            tar.addfile(info, io.BytesIO(contents))
    return file.getvalue()


@pytest.mark.parametrize("kind", [".bin", ".bin.xz", ".bin.gz", "archive", "unpacked"])
def test_cifar10_becomes_the_records_of_caffes_converter(kind: str, tmp_path: Path) -> None:
    folder, target = tmp_path / "from", tmp_path / "to"
    place = folder / "cifar-10-batches-bin" if kind == "unpacked" else folder
    place.mkdir(parents=True)
    batches = cifar_batches()
    if kind == "archive":
        (folder / "cifar-10-binary.tar.gz").write_bytes(archive(batches))
    else:
        suffix = ".bin" if kind == "unpacked" else kind
        pack = {".bin": bytes, ".bin.xz": lzma.compress, ".bin.gz": gzip.compress}[suffix]
        for name, contents in batches.items():
            (place / (name + suffix)).write_bytes(pack(contents))
    assert main(["data", "cifar10", "--from", str(folder), "--to", str(target), "--no-verify"]) == 0
    train = b"".join(batches[f"data_batch_{i}"] for i in range(1, 6))
    for name, contents in (("cifar10_train_lmdb", train), ("cifar10_test_lmdb", batches["test_batch"])):
        parts = [contents[at : at + 3073] for at in range(0, len(contents), 3073)]
        expected = [
            (f"{i:05d}".encode(), expected_record(part[1:], (3, 32, 32), part[0])) for i, part in enumerate(parts)
        ]
        assert records(target / name) == expected
    pixels = np.frombuffer(train, np.uint8).reshape(-1, 3073)[:, 1:].astype(np.float64)
    np.testing.assert_allclose(read_mean(target / "mean.binaryproto").ravel(), pixels.mean(axis=0), rtol=1e-6)


def test_damaged_cifar_files_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    batches = cifar_batches()

    def message(contents: bytes, name: str) -> str:
        (tmp_path / name).write_bytes(contents)
        assert main(["data", "cifar10", "--from", str(tmp_path), "--to", str(tmp_path / "to"), "--no-verify"]) == 2
        (tmp_path / name).unlink()
        return capsys.readouterr().err

    assert "the compressed file is cut off or damaged" in message(archive(batches)[:-2000], "cifar-10-binary.tar.gz")
    assert "the compressed file is cut off or damaged" in message(b"no archive", "cifar-10-binary.tar.gz")
    whole = archive(batches)
    middle = len(whole) // 2
    assert "the compressed file is cut off or damaged" in message(
        whole[:middle] + bytes(b ^ 255 for b in whole[middle : middle + 64]) + whole[middle + 64 :],
        "cifar-10-binary.tar.gz",
    )
    short = {name: contents for name, contents in batches.items() if name != "data_batch_4"}
    assert "the archive lacks data_batch_4.bin" in message(archive(short), "cifar-10-binary.tar.gz")
    for name, contents in batches.items():
        (tmp_path / f"{name}.bin").write_bytes(contents)
    assert "has 3000 bytes, which is not a number of 3073-byte records" in message(bytes(3000), "data_batch_1.bin")
    assert not any((tmp_path / "to").iterdir())


def test_download_makes_the_databases(
    mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From file URLs, which urllib serves as well."""
    files = sorted(mnist.iterdir())
    remotes = tuple(
        datasets.Remote(path.name, hashlib.md5(path.read_bytes()).hexdigest(), path.stat().st_size, (path.as_uri(),))
        for path in files
    )
    monkeypatch.setitem(datasets.DATASETS, "mnist", replace(datasets.DATASETS["mnist"], remotes=remotes))
    target = tmp_path / "to"
    assert main(["data", "mnist", "--to", str(target), "--no-verify"]) == 0
    assert capsys.readouterr().out.count("downloaded") == 4
    assert len(records(target / "mnist_train_lmdb")) == 5


def test_offline_says_what_was_tried_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    remote = datasets.Remote("f.gz", "0" * 32, 1, ("http://127.0.0.1:9/a/f.gz", "http://127.0.0.1:9/b/f.gz"))
    monkeypatch.setitem(datasets.DATASETS, "mnist", replace(datasets.DATASETS["mnist"], remotes=(remote,)))
    assert main(["data", "mnist", "--to", str(tmp_path)]) == 1
    text = capsys.readouterr().err
    assert text.startswith("error: cannot download f.gz: http://127.0.0.1:9/a/f.gz: ")
    assert "; http://127.0.0.1:9/b/f.gz: " in text
    assert text.endswith("\n  put the original files into a folder and give it with --from DIR\n")


def test_list_names_every_data_set_and_what_is_made(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "list"]) == 0
    text = capsys.readouterr().out
    for name, known in datasets.DATASETS.items():
        assert name in text
        assert all(output in text for output in known.outputs)


def test_unknown_data_set_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "minst"]) == 2
    assert capsys.readouterr().err == 'error: there is no data set "minst"\n  did you mean "mnist"?\n'


@pytest.mark.data
def test_real_mnist_is_verified_and_whole(tmp_path: Path) -> None:
    assert main(["data", "mnist", "--from", str(REFERENCE / "mnist"), "--to", str(tmp_path)]) == 0
    found = records(tmp_path / "mnist_train_lmdb")
    assert (len(found), len(records(tmp_path / "mnist_test_lmdb"))) == (60000, 10000)
    assert [pb.Datum.FromString(value).label for _, value in found[:5]] == [5, 0, 4, 1, 9]


@pytest.mark.data
def test_real_cifar10_is_verified_and_has_the_known_mean(tmp_path: Path) -> None:
    assert main(["data", "cifar10", "--from", str(REFERENCE / "cifar10"), "--to", str(tmp_path)]) == 0
    mean = np.load(REFERENCE / "cifar10" / "mean_image.npy").reshape(3, 32, 32)
    np.testing.assert_allclose(read_mean(tmp_path / "mean.binaryproto"), mean, rtol=1e-6)
    assert len(records(tmp_path / "cifar10_train_lmdb")) == 50000


def test_data_set_in_the_format_of_mnist_has_its_own_name(mnist: Path, tmp_path: Path) -> None:
    target = tmp_path / "made"
    command = ["data", "mnist", "--from", str(mnist), "--to", str(target)]
    assert main(command) == 2  # these are not MNIST's files
    (mnist / "t10k-images-idx3-ubyte.gz").rename(mnist / "odd-test-images-idx3-ubyte.gz")
    assert main([*command, "--name", "odd"]) == 0
    found = [pb.Datum.FromString(value) for _, value in records(target / "odd_test_lmdb")]
    assert [datum.label for datum in found] == [4, 5, 6]
    assert found[1].data == bytes(range(6, 12))
    assert len(records(target / "odd_train_lmdb")) == 5


@pytest.mark.parametrize("options", [["--name", "../odd"], ["--name", ""]])
def test_name_of_a_data_set_is_a_name(mnist: Path, options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "mnist", "--from", str(mnist), *options]) == 2
    assert "--name must be" in capsys.readouterr().err


def test_name_of_a_data_set_needs_its_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "mnist", "--name", "odd"]) == 2
    assert main(["data", "cifar10", "--name", "odd", "--from", "."]) == 2
    assert capsys.readouterr().err.count("--name is for MNIST's format") == 2
