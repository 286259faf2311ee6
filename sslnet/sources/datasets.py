"""The data sets that `sslnet data` makes: the addresses of their files, and the databases made from them.

A database contains what Caffe's own converter writes: the same keys and bytes, in the order of the files (CIFAR-10's
training images are stored in random order, MNIST's in the original order).
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, cast

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.errors import DataError, UsageError, suggestion
from sslnet.files import atomic_write
from sslnet.sources import cifar, shapes
from sslnet.sources.idx import read_idx
from sslnet.sources.lmdb import write_lmdb
from sslnet.sources.mean import write_mean
from sslnet.sources.unpack import open_unpacked

Make = Callable[[Path], str]
"""Makes one output at the path; returns a short description of it."""


@dataclass(frozen=True)
class Remote:
    """A file to download: its md5, its size in bytes, and the addresses that offer it."""

    name: str
    md5: str
    size: int
    urls: tuple[str, ...]


@dataclass(frozen=True)
class Dataset:
    """One data set.

    remotes  the original files
    outputs  names of the databases made from them
    plan     (folder with the original files, verify) -> {output: its maker}; raises DataError if files are missing
    """

    title: str
    licence: str
    remotes: tuple[Remote, ...]
    outputs: tuple[str, ...]
    plan: Callable[[Path, bool], dict[str, Make]]


def dataset(name: str) -> Dataset:
    """The data set of this name. raises UsageError if there is none"""
    if name not in DATASETS:
        hint = suggestion(name, DATASETS) or "there are " + ", ".join(DATASETS)
        raise UsageError(f'there is no data set "{name}"', hint=hint)
    return DATASETS[name]


# -- MNIST -------------------------------------------------------------------------------------------------------------

MNIST_CONTENTS = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
"""md5 of each decompressed file."""


def _mnist(folder: Path, verify: bool, own_name: str = "mnist") -> dict[str, Make]:
    def place(name: str) -> Path:
        names = [name + ".gz", name, name.replace("-idx", ".idx"), name.replace("-idx", ".idx") + ".gz"]
        if own_name != "mnist":  # as emnist-letters-train-images-idx3-ubyte.gz
            part = name.replace("t10k", "test")
            names += [f"{own_name}-{each}{end}" for each in (name, part) for end in (".gz", "")] + [part + ".gz", part]
        return _find(folder, names)

    def load(name: str) -> np.ndarray:
        file = place(name)
        array = read_idx(file)
        header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
        _verify(file, header + array.tobytes(), MNIST_CONTENTS[name], verify)
        return array

    def make(prefix: str) -> Make:
        images, labels = f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"
        place(images), place(labels)

        def write(target: Path) -> str:
            pixels, classes = load(images), load(labels)
            if pixels.ndim != 3 or classes.shape != pixels.shape[:1]:
                raise DataError(
                    f"images of shape {pixels.shape} and labels of shape {classes.shape} do not belong together",
                    path=str(folder),
                )
            return f"{write_lmdb(target, _records(pixels[:, None], classes, 8))} images"

        return write

    return {f"{own_name}_train_lmdb": make("train"), f"{own_name}_test_lmdb": make("t10k")}


def named_like_mnist(name: str) -> Dataset:
    """A data set of that name in MNIST's format: four IDX files, in a folder that the user has."""

    def plan(folder: Path, verify: bool) -> dict[str, Make]:
        return _mnist(folder, False, name)

    return Dataset(name, "", (), (f"{name}_train_lmdb", f"{name}_test_lmdb"), plan)


def _mnist_remote(name: str, md5: str, size: int) -> Remote:
    mirrors = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")
    return Remote(name, md5, size, tuple(mirror + name for mirror in mirrors))


# -- CIFAR-10 ----------------------------------------------------------------------------------------------------------

CIFAR10_CONTENTS = {
    "data_batch_1": "5dd7e06a14cb22eb9f671a540d1b7c25",
    "data_batch_2": "5ea93a67294ea407fff1d09f752e9692",
    "data_batch_3": "942cd6a4bcdd0dd3c604fbe906cb4421",
    "data_batch_4": "ae636b3ba5c66a11e91e8cb52e771fcb",
    "data_batch_5": "53f37980c15c3d472c316c40844f3f0d",
    "test_batch": "803d5f7f4d78ea53de84dbe85f74fb6d",
}
"""md5 of each decompressed batch."""
CIFAR10_ARCHIVE = "cifar-10-binary.tar.gz"
MOST_OF_ARCHIVE = 1 << 30
"""Maximum number of bytes that the archive may unpack to: the original has 184 million."""
CIFAR10_FOLDER = "cifar-10-batches-bin"
"""Name of the folder in the archive."""


def _cifar10(folder: Path, verify: bool) -> dict[str, Make]:
    train = [f"data_batch_{i}" for i in range(1, 6)]
    raw = _cifar10_reader(folder)

    @lru_cache(maxsize=len(CIFAR10_CONTENTS))
    def load(name: str) -> tuple[np.ndarray, np.ndarray]:
        contents, file = raw(name)
        _verify(file, contents, CIFAR10_CONTENTS[name], verify)
        return cifar.split_records(contents, str(file))

    def make(names: list[str]) -> Make:
        def write(target: Path) -> str:
            images, labels = zip(*map(load, names))
            return f"{write_lmdb(target, _records(np.concatenate(images), np.concatenate(labels), 5))} images"

        return write

    def mean(target: Path) -> str:
        images = [load(name)[0] for name in train]
        total = sum(part.sum(axis=0, dtype=np.int64) for part in images)
        count = sum(map(len, images))
        write_mean(target, (np.asarray(total, np.float32) / np.float32(count)))
        return f"mean of {count} training images"

    return {"cifar10_train_lmdb": make(train), "cifar10_test_lmdb": make(["test_batch"]), "mean.binaryproto": mean}


def _cifar10_reader(folder: Path) -> Callable[[str], tuple[bytes, Path]]:
    """A function that returns the bytes of a batch and the file that contains them: from single files, or from the
    archive."""
    inner = folder / CIFAR10_FOLDER
    suffixes = (".bin", ".bin.xz", ".bin.gz")
    for place in (folder, inner):
        if any((place / f"test_batch{suffix}").exists() for suffix in suffixes):
            files = {name: _find(place, [name + suffix for suffix in suffixes]) for name in CIFAR10_CONTENTS}
            return lambda name: (cifar.read_bytes(files[name]), files[name])
    archive = _find(folder, [CIFAR10_ARCHIVE, "test_batch.bin"])
    batches: dict[str, bytes] = {}

    def read(name: str) -> tuple[bytes, Path]:
        if not batches:
            batches.update(_unpack(archive))
        return batches[name], archive

    return read


def _unpack(archive: Path) -> dict[str, bytes]:
    """Unpacks the batches in the official archive; other members are not read."""
    found: dict[str, bytes] = {}
    try:
        with (
            open_unpacked(archive, MOST_OF_ARCHIVE) as stream,
            tarfile.open(fileobj=cast(IO[bytes], stream), mode="r|") as tar,  # which never goes backwards
        ):
            for member in tar:
                name = Path(member.name).name.removesuffix(".bin")
                if name in CIFAR10_CONTENTS and member.isfile() and member.size <= cifar.LIMIT:
                    file = tar.extractfile(member)
                    assert file is not None
                    found[name] = file.read()
            while stream.read(1 << 20):  # to its end, where the checksum is
                pass
    except (ValueError, OverflowError) as error:  # numbers in its headers that cannot be
        raise DataError(f"the compressed file is cut off or damaged: {error}", path=str(archive)) from error
    missing = sorted(set(CIFAR10_CONTENTS) - set(found))
    if missing:
        raise DataError(f"the archive lacks {missing[0]}.bin", path=str(archive))
    return found


# -- shapes ------------------------------------------------------------------------------------------------------------


def _shapes(folder: Path, verify: bool) -> dict[str, Make]:
    """Images with boxes that are drawn, not converted: needs no files."""

    def make(part: str) -> Make:
        return lambda target: f"{write_lmdb(target, shapes.records(part, shapes.PARTS[part]))} images"

    def write_labels(target: Path) -> str:
        atomic_write(target, shapes.label_map().encode())
        return f"{len(shapes.CLASSES)} classes and the background"

    return {"shapes_train_lmdb": make("train"), "shapes_test_lmdb": make("test"), "labelmap.prototxt": write_labels}


# -- all --------------------------------------------------------------------------------------------------------------


def _records(images: np.ndarray, labels: np.ndarray, digits: int) -> Iterator[tuple[bytes, bytes]]:
    """Keys and Datums as Caffe's converters write them; ``digits``: number of digits of a key."""
    channels, height, width = images.shape[1:]
    datum = pb.Datum(channels=channels, height=height, width=width)
    for i, (image, label) in enumerate(zip(images, labels.tolist())):
        datum.data = image.tobytes()
        datum.label = label
        yield f"{i:0{digits}d}".encode(), datum.SerializeToString()


def _find(folder: Path, names: list[str]) -> Path:
    for name in names:
        if (folder / name).exists():
            return folder / name
    if not folder.is_dir():
        raise DataError("there is no such folder", path=str(folder))
    raise DataError(
        f"there is no {' or '.join(names)} in this folder",
        path=str(folder),
        hint="--from names the folder with the original files",
    )


def _verify(file: Path, contents: bytes, md5: str, verify: bool) -> None:
    found = hashlib.md5(contents, usedforsecurity=False).hexdigest()
    if verify and found != md5:
        raise DataError(
            f"is not the original file: its contents have the md5 {found}, not {md5}",
            path=str(file),
            hint="--no-verify uses it all the same",
        )


DATASETS = {
    "mnist": Dataset(
        "MNIST: 60,000 + 10,000 handwritten digits, 28 x 28, grey",
        "Y. LeCun, C. Cortes, C. Burges; usually quoted as CC BY-SA 3.0",
        (
            _mnist_remote("train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873", 9_912_422),
            _mnist_remote("train-labels-idx1-ubyte.gz", "d53e105ee54ea40749a09fcbcd1e9432", 28_881),
            _mnist_remote("t10k-images-idx3-ubyte.gz", "9fb629c4189551a2d022fa330f9573f3", 1_648_877),
            _mnist_remote("t10k-labels-idx1-ubyte.gz", "ec29112dd5afa0611ce80d1b7f02629c", 4_542),
        ),
        ("mnist_train_lmdb", "mnist_test_lmdb"),
        _mnist,
    ),
    "cifar10": Dataset(
        "CIFAR-10: 50,000 + 10,000 photographs of ten kinds of things, 32 x 32, colour",
        "A. Krizhevsky, V. Nair, G. Hinton; no licence stated",
        (
            Remote(
                CIFAR10_ARCHIVE,
                "c32a1d4ab5d03f1284b67883e8d87530",
                170_052_171,
                (
                    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
                    "https://cave.cs.toronto.edu/kriz/cifar-10-binary.tar.gz",
                ),
            ),
        ),
        ("cifar10_train_lmdb", "cifar10_test_lmdb", "mean.binaryproto"),
        _cifar10,
    ),
    "shapes": Dataset(
        "shapes: 1,600 + 300 drawn images with boxes, 240 to 360 pixels, colour; nothing is downloaded",
        "made by sslnet",
        (),
        ("shapes_train_lmdb", "shapes_test_lmdb", "labelmap.prototxt"),
        _shapes,
    ),
}
