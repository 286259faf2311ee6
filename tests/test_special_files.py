"""Devices and FIFOs where a file is expected: refused at once by whatever reads files; a device would be read for ever, a
FIFO waited for."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.cli.metrics import lines_before
from sslnet.cli.options import read_labels
from sslnet.compress.pipeline.fingerprint import file_mark
from sslnet.errors import SslnetError
from sslnet.exchange.model_file import load as load_onnx
from sslnet.net.net import Net
from sslnet.net.weights import read_message, read_weights
from sslnet.pycaffe.io import load_image
from sslnet.report.error_pictures import _csv_rows, _json_rows
from sslnet.report.metrics_file import read_metrics
from sslnet.solver.snapshot import read_state
from sslnet.sources import cifar, windows
from sslnet.sources.database import open_database
from sslnet.sources.datasets import _unpack
from sslnet.sources.hdf5 import Hdf5Reader
from sslnet.sources.idx import read_idx
from sslnet.sources.images import ImageListSource, ListedImage
from sslnet.sources.imageset import Conversion
from sslnet.sources.mean import read_mean

LONG = 5.0
"""Seconds after which a reader counts as waiting; all others need some milliseconds."""


def listed(read: Callable[[Path], object], line: str) -> Callable[[Path], object]:
    """Reads a list that names the file."""

    def read_list(place: Path) -> object:
        place.with_suffix(".list").write_text(line.format(place))
        return read(place.with_suffix(".list"))

    return read_list


def infogain(place: Path) -> object:
    return Net(prototxt.parse(f"""
        layer {{ name: "x" type: "Input" top: "x" top: "y" input_param {{ shape {{ dim: 2 dim: 2 }} shape {{ dim: 2 }} }} }}
        layer {{ name: "loss" type: "InfogainLoss" bottom: "x" bottom: "y" infogain_loss_param {{ source: "{place}" }} }}
    """, pb.NetParameter))  # fmt: skip


READERS: dict[str, Callable[[Path], object]] = {
    "prototxt": prototxt.read_net,
    "caffemodel": read_weights,
    "message": lambda place: read_message(place, pb.BlobProto()),
    "solverstate": read_state,
    "ONNX": lambda place: load_onnx(place, 1),
    "mark": file_mark,
    "mean": read_mean,
    "mean .npy": read_mean,
    "image": load_image,
    "labels": read_labels,
    "list of images": ImageListSource,
    "listed image": listed(ImageListSource, "{} 1\n"),
    "image to convert": lambda place: Conversion()(ListedImage(str(place), 0, 1)),
    "list of HDF5 files": lambda place: Hdf5Reader(place, ["data"], 1),
    "listed HDF5 file": listed(lambda place: Hdf5Reader(place, ["data"], 1), "{}\n"),
    "windows": windows.read_windows,
    "image of windows": lambda place: windows.read_image(str(place), "list"),
    "LMDB": open_database,
    "IDX": read_idx,
    "CIFAR": cifar.read_bytes,
    "archive": _unpack,
    "infogain": infogain,
    "metrics": lambda place: read_metrics(str(place)),
    "CSV": lambda place: _csv_rows(str(place)),
    "JSON": lambda place: _json_rows(str(place)),
}


@pytest.fixture(autouse=True)
def limited() -> Iterator[None]:
    def too_long(*_: object) -> None:
        raise TimeoutError("it waits")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, LONG)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def special(folder: Path, kind: str, suffix: str = "") -> Path:
    place = folder / f"special{suffix}"
    if kind == "FIFO":
        os.mkfifo(place)
    else:
        place.symlink_to("/dev/zero")
    return place


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
@pytest.mark.parametrize("kind", ["FIFO", "device"])
@pytest.mark.parametrize("name", READERS)
def test_what_is_no_file_is_refused_at_once(name: str, kind: str, tmp_path: Path) -> None:
    place = special(tmp_path, kind, ".npy" if name == "mean .npy" else "")
    with pytest.raises(SslnetError, match=f"cannot be read: it is a {kind}, not a file"):
        READERS[name](place)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
@pytest.mark.parametrize("kind", ["FIFO", "device"])
def test_metrics_that_are_no_file_are_not_of_this_run(kind: str, tmp_path: Path) -> None:
    assert lines_before(special(tmp_path, kind), 1, "a") is None


# -- files that announce more than they hold -------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1 << 20, 1 << 20), (1 << 62, 4), (-1, 3), (1 << 40,)])
@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_mean_files_that_claim_what_they_lack_are_refused(shape, version, tmp_path: Path) -> None:
    with (tmp_path / "a.npy").open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        getattr(np.lib.format, f"write_array_header_{version[0]}_0")(file, header)
        file.write(bytes(48))
    with pytest.raises(SslnetError, match=r"is not an \.npy file of numbers"):
        read_mean(tmp_path / "a.npy")
    blob = pb.BlobProto(data=[1.0] * 12)
    blob.shape.dim.extend(shape)
    (tmp_path / "a.binaryproto").write_bytes(blob.SerializeToString())
    with pytest.raises(SslnetError, match="holds 12 values, but its shape"):
        read_mean(tmp_path / "a.binaryproto")


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "u1", "?"])
def test_mean_files_of_any_numbers_are_read(order, dtype: str, tmp_path: Path) -> None:
    values = np.asarray(np.arange(24).reshape(2, 3, 4), dtype, order=order)
    np.save(tmp_path / "a.npy", values)
    np.testing.assert_array_equal(read_mean(tmp_path / "a.npy"), values.astype(np.float32))


def test_words_that_are_no_text_are_one_error(tmp_path: Path) -> None:
    for name in ("list of images", "list of HDF5 files", "windows", "metrics", "JSON"):
        for contents in (b"\0\0\0 1\n", b"\xff\xfe/a.png 1\n", b"a\0b.png 1\n"):
            (tmp_path / "a").write_bytes(contents)
            with pytest.raises(SslnetError):
                READERS[name](tmp_path / "a")
