"""Undamaged files: those of the repository, and files that sslnet makes from its built-in digits."""

from __future__ import annotations

import gzip
import io
import lzma
import re
import shutil
import struct
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
GOLDENS = ROOT / "tests" / "goldens"
DIGITS_NET = ROOT / "models" / "digits" / "train_test.prototxt"
DIGITS_DEPLOY = ROOT / "models" / "digits" / "deploy.prototxt"
DIGITS_SOLVER = ROOT / "solvers" / "digits_ssl.prototxt"
ITERATIONS = 10
"""Number of iterations for which the digits net is trained."""
LMDBS = ("raw_lmdb", "encoded_png_lmdb", "encoded_jpeg_lmdb", "float_lmdb")
BATCHES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
"""Names of the files of CIFAR-10."""
IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
"""Names of the files of MNIST."""

SMALL_NET = """
name: "small"
{data}
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv" param {{ lr_mult: 1 breadth_decay_mult: 1 }}
  convolution_param {{ num_output: 8 kernel_size: 3 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "bn" type: "BatchNorm" bottom: "conv" top: "bn" }}
layer {{ name: "scale" type: "Scale" bottom: "bn" top: "bn" scale_param {{ bias_term: true }} }}
layer {{ name: "relu" type: "ReLU" bottom: "bn" top: "bn" }}
layer {{ name: "drop" type: "Dropout" bottom: "bn" top: "bn" }}
layer {{ name: "ip" type: "InnerProduct" bottom: "bn" top: "ip"
  inner_product_param {{ num_output: 10 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" include {{ phase: TEST }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }}
"""
"""A net for images of 8 x 8 with ten classes whose layers have states of their own; {data} is its data layer."""
DATA_LAYERS = {
    "lmdb": 'type: "Data" data_param {{ source: "{folder}/db" backend: LMDB batch_size: 20 }} '
    "transform_param {{ scale: 0.004 mirror: true }}",
    "image": 'type: "ImageData" image_data_param {{ source: "{folder}/images/list.txt" batch_size: 20 is_color: false '
    "shuffle: true }} transform_param {{ scale: 0.004 }}",
    "hdf5": 'type: "HDF5Data" hdf5_data_param {{ source: "{folder}/h5.txt" batch_size: 20 }}',
}
"""Kind of data -> the layer that reads them from a folder of write_data."""
SMALL_SOLVER = """
net: "{net}"
base_lr: 0.01  lr_policy: "fixed"  momentum: 0.9  breadth_decay: 0.001
test_iter: 1  test_interval: 20  display: 10  max_iter: 60  snapshot: 4  random_seed: 1
"""
RECORDS = 200
"""Number of records of each kind of generated data."""


class Seeds:
    """The folder of undamaged files; made by runs in this process, which loads the kernels as well."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self._train()
        self._copy()
        write_data(self.data, np.random.default_rng(0))
        self.notes = [note for note in (self._export(),) if note]
        """Missing files, and the reasons."""

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def bytes(self, *names: str) -> list[bytes]:
        return [self.folder.joinpath(name).read_bytes() for name in names]

    def small_solver(self, kind: str, data: Path, folder: Path) -> Path:
        """Writes a solver and its net to the folder, for the data of this kind in another folder."""
        folder.mkdir(parents=True, exist_ok=True)
        layer = f'layer {{ name: "d" top: "data" top: "label" {DATA_LAYERS[kind].format(folder=data)} }}'
        net, solver = folder / f"{kind}.prototxt", folder / f"{kind}_solver.prototxt"
        net.write_text(SMALL_NET.format(data=layer))
        solver.write_text(SMALL_SOLVER.format(net=net))
        return solver

    def texts(self, *patterns: str) -> list[str]:
        """Prototxts of the repository's tests and models, in a fixed order; paths in them are made absolute."""
        paths = [path for pattern in patterns for path in sorted(ROOT.glob(pattern))]
        return [self._absolute(path) for path in paths]

    def _absolute(self, path: Path) -> str:
        def full(match: re.Match[str]) -> str:
            place = path.parent / match[1]
            copy = self.folder / "goldens" / (place.relative_to(GOLDENS) if place.is_relative_to(GOLDENS) else "none")
            return f'"{copy}"' if match[1] and copy.exists() else match[0]

        return re.sub(r'"([^"\n]+)"', full, path.read_text("utf-8", "surrogateescape"))

    def _train(self) -> None:
        """Trains digits: its states in both formats, and the measurements of both runs."""
        from sslnet.cli import main

        for form, suffix in (("BINARYPROTO", ""), ("HDF5", ".h5")):
            prefix = self.folder / "run" / "digits"
            run = ["train", "--solver", str(DIGITS_SOLVER), "--set", f"snapshot_prefix={prefix}"]
            sets = [
                f"max_iter={ITERATIONS}",
                "test_interval=5",
                "display=2",
                f"snapshot_format={form}",
                f"net={DIGITS_NET}",
            ]
            quietly(main, [*run, *(word for one in sets for word in ("--set", one))])
            for kind in ("caffemodel", "solverstate"):
                shutil.copy(f"{prefix}_iter_{ITERATIONS}.{kind}{suffix}", self / f"digits.{kind}{suffix}")
        shutil.copy(self.folder / "run" / "metrics.jsonl", self / "metrics.jsonl")
        shutil.rmtree(self.folder / "run")

    def _copy(self) -> None:
        """Copies files, because a damaged definition may overwrite those that it names."""
        shutil.copytree(GOLDENS, self.folder / "goldens", ignore=shutil.ignore_patterns("*.npz"))

    def _export(self) -> str:
        """Writes ONNX models if the packages for them are installed; otherwise returns a note."""
        from sslnet.cli import main

        try:
            import onnx  # noqa: F401
            import onnxruntime  # noqa: F401
        except ImportError as error:
            return f"{error.name} is not installed"
        tiny = self.folder / "goldens" / "formats" / "tiny_binaryproto_iter_20.caffemodel"
        net = self.folder / "tiny_deploy.prototxt"
        text = (GOLDENS / "formats" / "net.prototxt").read_text()
        body = text[text.index('layer { name: "conv"') : text.index('layer { name: "accuracy"')]
        shape = "input_param { shape { dim: 2 dim: 2 dim: 6 dim: 6 } }"
        softmax = 'layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }'
        net.write_text(f'name: "tiny"\nlayer {{ name: "data" type: "Input" top: "data" {shape} }}\n{body}{softmax}\n')
        for name, model, weights in (("digits", DIGITS_DEPLOY, self / "digits.caffemodel"), ("tiny", net, tiny)):
            arguments = ["--model", model, "--weights", weights, "--output", self / f"{name}.onnx"]
            quietly(main, ["export", *map(str, arguments)])
        return ""


def quietly(main: object, arguments: list[str]) -> None:
    """Runs a command without output. raises SystemExit with its output if it fails"""
    import contextlib

    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        code = main(arguments)  # type: ignore[operator]
    if code:
        raise SystemExit(f"sslnet {' '.join(arguments)} failed:\n{out.getvalue()}")


# -- made data -----------------------------------------------------------------------------------------------------------


def write_data(folder: Path, rng: np.random.Generator) -> None:
    """Writes RECORDS images of 8 x 8 with labels 0 to 9: as an LMDB, as PNG files with a list, and in two HDF5
    files."""
    import h5py
    from PIL import Image

    from sslnet.sources.lmdb import write_lmdb

    (folder / "images").mkdir(parents=True)
    images = rng.integers(0, 255, (RECORDS, 1, 8, 8), dtype=np.uint8)
    write_lmdb(folder / "db", records(images))
    for number, image in enumerate(images):
        Image.fromarray(image[0]).save(folder / "images" / f"{number}.png")
    lines = (f"{number}.png {number % 10}\n" for number in range(RECORDS))
    (folder / "images" / "list.txt").write_text("".join(lines))
    half = RECORDS // 2
    for number in range(2):
        with h5py.File(folder / f"h{number}.h5", "w") as file:
            file["data"] = images[number * half : (number + 1) * half].astype(np.float32) / 255
            file["label"] = (np.arange(half) % 10).astype(np.float32)
    (folder / "h5.txt").write_text("h0.h5\nh1.h5\n")


def records(images: np.ndarray) -> Iterator[tuple[bytes, bytes]]:
    """Keys and Datums of images, with the labels in turn."""
    from sslnet.pycaffe.io import array_to_datum

    for number, image in enumerate(images):
        yield f"{number:08d}".encode(), array_to_datum(image, number % 10).SerializeToString()


def image_files() -> list[bytes]:
    """Image files of every format and mode that is supported, and some that are not."""
    from PIL import Image

    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 20, 3), dtype=np.uint8))
    wanted = [(picture, form) for form in ("PNG", "JPEG", "BMP", "PPM", "TIFF", "WEBP", "GIF")]
    wanted += [(picture.convert(mode), "PNG") for mode in ("L", "1", "P", "RGBA")]
    wanted += [(picture.convert("L").convert(mode), "PNG") for mode in ("LA", "I;16")]
    wanted += [(picture.convert("CMYK"), "TIFF")]
    files = []
    for image, form in wanted:
        out = io.BytesIO()
        image.save(out, form)
        files.append(out.getvalue())
    return files


def packed_hdf5(path: Path) -> bytes:
    """Writes HDF5 data in compressed chunks."""
    import h5py

    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        data = rng.random((20, 2, 3, 3), dtype=np.float32)
        file.create_dataset("data", data=data, chunks=(5, 2, 3, 3), compression="gzip", shuffle=True)
        file.create_dataset("label", data=np.arange(20) % 3)
    return path.read_bytes()


def packed_weights(source: Path, path: Path) -> bytes:
    """Writes HDF5 weights in compressed chunks."""
    import h5py

    with h5py.File(path, "w") as file, h5py.File(source) as old:
        for layer, blobs in old["data"].items():
            for name, blob in blobs.items():
                file.create_dataset(f"data/{layer}/{name}", data=blob[()], compression="gzip", chunks=True)
    return path.read_bytes()


def npy_files() -> list[bytes]:
    """Arrays of NumPy, of which some are valid means."""
    arrays = [
        np.zeros((3, 32, 32), np.float32), np.ones(3), np.arange(64).reshape(1, 8, 8), np.zeros((1, 1, 8, 8), np.float16),
        np.array([{"a": 1}], object), np.zeros((2, 2), dtype=[("a", np.int32)]),
    ]  # fmt: skip
    files = []
    for array in arrays:
        out = io.BytesIO()
        np.save(out, np.asarray(array), allow_pickle=True)
        files.append(out.getvalue())
    return files


def idx_files() -> list[bytes]:
    """Images and labels in the format of MNIST, 20 of them, raw and compressed."""
    rng = np.random.default_rng(0)
    images = struct.pack(">IIII", 0x803, 20, 28, 28) + rng.bytes(20 * 784)
    labels = struct.pack(">II", 0x801, 20) + bytes(number % 10 for number in range(20))
    return [gzip.compress(images, mtime=0), gzip.compress(labels, mtime=0), images, labels]


def cifar_files() -> dict[str, bytes]:
    """A batch of four images of CIFAR-10 by the suffix of its file; "": the archive of all batches."""
    raw = bytes([3]) + np.random.default_rng(0).bytes(3072)
    raw += bytes([7]) + raw[1:]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name in BATCHES:
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))
    return {".bin": raw, ".bin.xz": lzma.compress(raw), ".bin.gz": gzip.compress(raw, mtime=0), "": out.getvalue()}
