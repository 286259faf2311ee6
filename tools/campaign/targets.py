"""The targets of fuzz: each creates damaged inputs and runs sslnet on them."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from campaign import outcome
from campaign.mutate import mutate_bytes, mutate_message, mutate_text
from campaign.seeds import (
    BATCHES,
    DIGITS_DEPLOY,
    DIGITS_NET,
    IDX,
    LMDBS,
    ROOT,
    Seeds,
    cifar_files,
    idx_files,
    image_files,
    npy_files,
    packed_hdf5,
    packed_weights,
)  # fmt: skip

COMMANDS = 0.1
"""Fraction of the inputs that are given to whole commands, if reading them alone is much faster."""


class Target:
    """Inputs of one kind. `make` and `run` draw all random numbers from the generator, so that a number repeats an
    input."""

    SUFFIX: ClassVar[str] = ""
    SIZED: ClassVar[bool] = False
    """Whether an input may request any amount of memory, as a net definition can."""

    def __init__(self, seeds: Seeds) -> None:
        self.seeds = seeds

    @cached_property
    def originals(self) -> Sequence[bytes]:
        """Undamaged inputs."""
        raise NotImplementedError

    def make(self, rng: random.Random) -> bytes:
        return mutate_bytes(rng.choice(self.originals), rng, self.originals)

    def run(self, path: Path, rng: random.Random) -> None:
        """Runs sslnet on the input in the file, with the other files that it needs. raises outcome.Bad"""
        raise NotImplementedError

    def command(self, *arguments: object) -> None:
        outcome.command([str(argument) for argument in arguments], sized=self.SIZED)

    def call(self, function: Callable[[], object]) -> None:
        outcome.call(function, sized=self.SIZED)


def beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


# -- weights and states --------------------------------------------------------------------------------------------------


class Caffemodel(Target):
    SUFFIX = ".caffemodel"

    @cached_property
    def originals(self) -> Sequence[bytes]:
        tiny = "goldens/formats/tiny_binaryproto_iter_20.caffemodel"
        small = ("goldens/solvers/net_init.caffemodel", "goldens/scnn/init_small.caffemodel", tiny, tiny)
        return self.seeds.bytes("digits.caffemodel", "goldens/scnn/init_sparse_g2.caffemodel", *small)

    def run(self, path: Path, rng: random.Random) -> None:
        from sslnet.net.weights import copy_weights, read_weights

        kind = rng.random()
        if kind < 0.45:
            self.call(lambda: read_weights(path))
        elif kind < 1 - COMMANDS:
            self.call(lambda: copy_weights(self.net.params, path))
        else:
            net = ["--model", DIGITS_NET, "--weights", path]
            commands: list[list[object]] = [
                ["upgrade", path, beside(path, ".caffemodel"), "--force"],
                ["upgrade", path, beside(path, ".h5"), "--force"],
                ["test", *net, "--iterations", 1],
                ["compact", *net, "--output", beside(path, "_c")],
                ["prune", *net, "--sparsity", 0.5, "--output", beside(path, "_p")],
            ]
            self.command(*rng.choice(commands))

    @cached_property
    def net(self) -> Any:
        import sslnet

        return sslnet.Net(str(DIGITS_NET), phase=sslnet.TRAIN)


class Hdf5Weights(Caffemodel):
    SUFFIX = ".caffemodel.h5"

    @cached_property
    def originals(self) -> Sequence[bytes]:
        tiny = "goldens/formats/tiny_hdf5_iter_20.caffemodel.h5"
        packed = packed_weights(self.seeds / tiny, self.seeds.folder / f"packed-{self.SUFFIX}")
        return [*self.seeds.bytes("digits.caffemodel.h5", tiny, tiny), packed]


class State(Target):
    """States: read, restored into a small solver, or resumed from by the command."""

    SUFFIX = ".solverstate"
    TINY: ClassVar[str] = "goldens/formats/tiny_binaryproto_iter_20.solverstate"

    @cached_property
    def originals(self) -> Sequence[bytes]:
        return self.seeds.bytes(self.TINY, self.TINY, f"digits{self.SUFFIX}")

    def run(self, path: Path, rng: random.Random) -> None:
        from sslnet.solver.snapshot import find_weights, read_state

        kind = rng.random()
        weights = path.with_name(path.name.replace(".solverstate", ".caffemodel"))
        if kind < 0.5:
            self.call(lambda: find_weights(read_state(path), path))
            return
        if kind < 1 - COMMANDS / 2:
            shutil.copy(self.seeds / self.TINY.replace("solverstate", "caffemodel"), weights)
            self.call(lambda: self.solver.restore(path))
            return
        shutil.copy(self.seeds / f"digits{self.SUFFIX.replace('solverstate', 'caffemodel')}", weights)
        sets = [f"net={DIGITS_NET}", f"snapshot_prefix={beside(path, '_s')}", "max_iter=12", "test_interval=1000"]
        solver = ["train", "--solver", ROOT / "solvers" / "digits_ssl.prototxt", "--snapshot", path]
        self.command(*solver, *(word for one in [*sets, "test_initialization=false"] for word in ("--set", one)))

    @cached_property
    def solver(self) -> Any:
        from sslnet import prototxt
        from sslnet.solver.solver import Solver

        definition = prototxt.read_solver(self.seeds / "goldens" / "formats" / "solver_binaryproto.prototxt")
        return Solver(prototxt.apply_overrides(definition, ["snapshot=0", "snapshot_after_train=false"]))


class Hdf5State(State):
    SUFFIX = ".solverstate.h5"
    TINY = "goldens/formats/tiny_hdf5_iter_20.solverstate.h5"


# -- data ----------------------------------------------------------------------------------------------------------------


def forward(definition: str, path: Path, *, times: int = 2, train: bool = False) -> Callable[[], object]:
    """A function that creates a net with the data layer in the file, and runs it."""
    import sslnet

    silence = 'layer { name: "s" type: "Silence" bottom: "data" bottom: "label" }'
    path.write_text(f'layer {{ name: "d" top: "data" top: "label" {definition} }} {silence}')

    def go() -> None:
        net = sslnet.Net(str(path), phase=sslnet.TRAIN if train else sslnet.TEST)
        for _ in range(times):
            net.forward()

    return go


class Hdf5Data(Target):
    SUFFIX = ".h5"

    @cached_property
    def originals(self) -> Sequence[bytes]:
        packed = packed_hdf5(self.seeds.folder / "packed-data.h5")
        return [*self.seeds.bytes("goldens/formats/data.h5", "goldens/data/h0.h5", "goldens/data/h1.h5"), packed]

    def run(self, path: Path, rng: random.Random) -> None:
        names = beside(path, ".txt")
        names.write_text(path.name + "\n")
        self.call(
            forward(
                f'type: "HDF5Data" hdf5_data_param {{ source: "{names}" batch_size: 3 }}', beside(path, ".prototxt")
            )
        )


class Lmdb(Target):
    """Damaged files of a database."""

    @cached_property
    def originals(self) -> Sequence[bytes]:
        return self.seeds.bytes(*(f"goldens/data/{name}/data.mdb" for name in LMDBS), "data/db/data.mdb")

    def run(self, path: Path, rng: random.Random) -> None:
        from sslnet.sources.lmdb import LmdbSource

        folder = beside(path, "_lmdb")
        folder.mkdir()
        path.rename(folder / "data.mdb")
        kind = rng.random()
        if kind < COMMANDS:
            self.command("mean", folder, beside(path, ".binaryproto"))
        elif kind < 0.6:
            self.call(lambda: _read_all(LmdbSource(folder, color=rng.choice([None, True, False]))))
        else:
            transform = rng.choice(["", "crop_size: 5", "scale: 0.1", "force_color: true", "crop_size: 7 mirror: true"])
            data = f'data_param {{ source: "{folder}" backend: LMDB batch_size: 5 }} transform_param {{ {transform} }}'
            self.call(forward(f'type: "Data" {data}', beside(path, ".prototxt"), times=3, train=True))


def _read_all(source: Any) -> None:
    import numpy as np

    for start in range(0, min(len(source), 100), 10):
        source.read(np.arange(start, min(len(source), start + 10)), labels=source.labelled)


class Datum(Lmdb):
    """Intact databases with damaged records."""

    @cached_property
    def databases(self) -> list[list[tuple[bytes, bytes]]]:
        import lmdb

        found = []
        for name in LMDBS:
            folder = self.seeds.folder / "goldens" / "data" / name
            with lmdb.open(str(folder), lock=False, readonly=True) as environment, environment.begin() as transaction:
                found.append([(bytes(key), bytes(value)) for key, value in transaction.cursor()])
        return found

    def make(self, rng: random.Random) -> bytes:
        import lmdb

        damaged = [
            (key, mutate_bytes(value, rng, [value]) if rng.random() < 0.4 else value)
            for key, value in rng.choice(self.databases)
        ]
        folder = Path("making")
        with (
            lmdb.open(str(folder), map_size=1 << 22, sync=False, lock=False) as environment,
            environment.begin(write=True) as transaction,
        ):
            for key, value in damaged:
                transaction.put(key, value)
        data = (folder / "data.mdb").read_bytes()
        shutil.rmtree(folder)
        return data


class Image(Target):
    SUFFIX = ".png"

    @cached_property
    def originals(self) -> Sequence[bytes]:
        return [*image_files(), *self.seeds.bytes(*(f"goldens/data/img{number}.png" for number in range(6)))]

    def run(self, path: Path, rng: random.Random) -> None:
        from sslnet.sources.images import decode_image, file_form

        kind = rng.random()
        if kind < 1 - 1.5 * COMMANDS:
            raw, color, upright = path.read_bytes(), rng.choice([None, True, False]), rng.random() < 0.3
            self.call(lambda: decode_image(raw, color, upright=upright))
            self.call(lambda: file_form(raw))
        elif kind < 1 - COMMANDS / 2:
            listed = beside(path, ".txt")
            listed.write_text(f"{path.name} 1\n")
            how = rng.choice(["", "--encoded", "--gray", "--resize-height 9 --resize-width 7", "--encode-type jpg"])
            self.command("convert-imageset", f"{path.parent}/", listed, beside(path, "_db"), *how.split())
        else:
            crops = ["--oversample", "--image-dims", "12,12"] if rng.random() < 0.3 else []
            self.command("classify", DIGITS_DEPLOY, self.seeds / "digits.caffemodel", path, *crops)


class ImageList(Target):
    SUFFIX = ".txt"

    @cached_property
    def originals(self) -> Sequence[bytes]:
        listed = "".join(f"{number}.png {number % 10}\n" for number in range(12)).encode()
        return [
            listed,
            listed,
            b"0.png 1\r\n1.png 2\r\n",
            b"a b.png 3\n",
            b"0.png\t4\n\n1.png -1\n",
            "bild-\u00e4.png 1\n".encode("latin-1"),
        ]

    def run(self, path: Path, rng: random.Random) -> None:
        from sslnet.sources.images import read_list

        kind = rng.random()
        images = self.seeds.data / "images"
        if kind < 0.5:
            self.call(lambda: read_list(path))
        elif kind < 1 - COMMANDS:
            data = f'source: "{path}" root_folder: "{images}/" batch_size: 4 is_color: false'
            self.call(forward(f'type: "ImageData" image_data_param {{ {data} }}', beside(path, ".prototxt")))
        else:
            self.command("convert-imageset", f"{images}/", path, beside(path, "_db"), *rng.choice([[], ["--skip-bad"]]))


class Mean(Target):
    """Damaged means, as BlobProto and as NumPy arrays."""

    SUFFIX = ".binaryproto"

    @cached_property
    def originals(self) -> Sequence[bytes]:
        return [
            *self.seeds.bytes("goldens/data/raw_mean.binaryproto", "goldens/scnn/decay_conv.binaryproto"),
            *npy_files(),
        ]

    def run(self, path: Path, rng: random.Random) -> None:
        from sslnet.sources.mean import read_mean

        if path.read_bytes()[:3] == b"\x93NU":
            path = path.rename(beside(path, ".npy"))
        kind = rng.random()
        if kind < 0.7:
            self.call(lambda: read_mean(path))
        elif kind < 1 - COMMANDS / 2:
            database = self.seeds.folder / "goldens" / "data" / "raw_lmdb"
            crop = rng.choice(["", "crop_size: 5"])
            data = f'data_param {{ source: "{database}" backend: LMDB batch_size: 5 }} transform_param {{ mean_file: "{path}" {crop} }}'
            self.call(forward(f'type: "Data" {data}', beside(path, ".prototxt"), times=1, train=True))
        else:
            image = self.seeds.folder / "goldens" / "data" / "img0.png"
            self.command("classify", DIGITS_DEPLOY, self.seeds / "digits.caffemodel", image, "--mean", path)


class Idx(Target):
    """Damaged files of MNIST."""

    @cached_property
    def originals(self) -> Sequence[bytes]:
        return idx_files()

    def run(self, path: Path, rng: random.Random) -> None:
        from sslnet.sources.idx import read_idx

        if rng.random() < 1 - COMMANDS:
            self.call(lambda: read_idx(path))
            return
        folder = beside(path, "_files")
        folder.mkdir()
        for number, name in enumerate(IDX):
            (folder / f"{name}.gz").write_bytes(self.originals[number % 2])
        path.rename(folder / f"{rng.choice(IDX)}.gz")
        self.command("data", "mnist", "--from", folder, "--to", beside(path, "_out"), "--no-verify")


class Cifar(Target):
    """Damaged batches of CIFAR-10 and their archive."""

    @cached_property
    def files(self) -> dict[str, bytes]:
        return cifar_files()

    @cached_property
    def originals(self) -> Sequence[bytes]:
        return list(self.files.values())

    def run(self, path: Path, rng: random.Random) -> None:
        folder = beside(path, "_files")
        folder.mkdir()
        suffix = rng.choice(list(self.files))
        if not suffix:
            path.rename(folder / "cifar-10-binary.tar.gz")
        else:
            for name in BATCHES:
                (folder / f"{name}{suffix}").write_bytes(self.files[suffix])
            path.rename(folder / f"{rng.choice(BATCHES)}{suffix}")
        self.command("data", "cifar10", "--from", folder, "--to", beside(path, "_out"), "--no-verify")


# -- other formats -------------------------------------------------------------------------------------------------------


class Onnx(Target):
    SUFFIX = ".onnx"
    OPERATORS: ClassVar[tuple[str, ...]] = (
        "Conv", "Relu", "Gemm", "Add", "Reshape", "MaxPool", "Concat", "Constant", "ConstantOfShape", "If", "Loop", "Pad",
        "Resize", "Flatten", "Softmax", "Range", "Expand", "Tile", "Slice", "Gather", "Cast", "Shape", "Squeeze",
        "Transpose", "BatchNormalization", "LSTM", "GlobalAveragePool", "Mul", "Div", "Clip", "Identity",
    )  # fmt: skip

    @cached_property
    def originals(self) -> Sequence[bytes]:
        return self.seeds.bytes("tiny.onnx", "tiny.onnx", "tiny.onnx", "digits.onnx")

    def make(self, rng: random.Random) -> bytes:
        import onnx

        original = rng.choice(self.originals)
        if rng.random() < 0.35:
            return mutate_bytes(original, rng, self.originals)
        model = onnx.ModelProto.FromString(original)
        mutate_message(model, rng, self.OPERATORS, ("axis", "pads", "kernel_shape", "strides"))
        return bytes(model.SerializeToString())

    def run(self, path: Path, rng: random.Random) -> None:
        from sslnet.exchange.importing import from_onnx

        if rng.random() < 1 - COMMANDS:
            self.call(lambda: from_onnx(str(path), batch=rng.choice([1, 3])))
        else:
            self.command("import", path, "--output", beside(path, "_o"), "--force")


class Metrics(Target):
    """Damaged measurements of runs, and tables of errors, for `sslnet plot`."""

    SUFFIX = ".jsonl"
    VALUES: ClassVar[tuple[Any, ...]] = (
        None, 0, -1, float("inf"), 10**400, -1e308, "x", "\x1b[31m", [], {}, [1, 2], True, 2**70,
    )  # fmt: skip

    @cached_property
    def originals(self) -> Sequence[bytes]:
        table = b"name,error,flops\na,0.1,100\nb,0.2,50\n"
        points = b'[{"name":"a","error":0.1,"flops":10},{"name":"b","error":0.2,"flops":5}]'
        return [*self.seeds.bytes("metrics.jsonl", "metrics.jsonl"), table, points]

    def make(self, rng: random.Random) -> bytes:
        original = rng.choice(self.originals)
        if rng.random() < 0.4:
            return mutate_bytes(original, rng, self.originals)
        lines = original.decode().split("\n")
        for number, line in enumerate(lines):
            if line.startswith("{") and rng.random() < 0.5:
                lines[number] = json.dumps(self._changed(json.loads(line), rng))
        return "\n".join(lines).encode()

    def _changed(self, value: Any, rng: random.Random) -> Any:
        """Changes or removes one value at any depth."""
        if not isinstance(value, dict) or not value:
            return rng.choice(self.VALUES)
        name = rng.choice(list(value))
        if rng.random() < 0.3:
            return {key: inner for key, inner in value.items() if key != name}
        return value | {name: self._changed(value[name], rng)}

    def run(self, path: Path, rng: random.Random) -> None:
        from sslnet.report.error_pictures import known_costs, read_results
        from sslnet.report.metrics_file import read_metrics
        from sslnet.report.training_pictures import PicturedTraining, plot_training

        if rng.random() < 0.3:
            path = path.rename(beside(path, rng.choice([".csv", ".json"])))
        kind = rng.random()
        if kind < 0.3:
            self.call(lambda: known_costs([read_results(str(path), "x", None)]))
        elif kind < 0.92:
            self.call(lambda: read_metrics(str(path)))
        elif kind < 0.98:  # pictures take a long time
            picture = beside(path, ".svg")
            self.call(
                lambda: plot_training(
                    [PicturedTraining("x", str(path), read_metrics(str(path)))],
                    str(picture),
                    of="filters",
                    accuracy=None,
                )
            )
        else:
            self.command(
                "plot", rng.choice(["training", "error"]), path, "--output", beside(path, rng.choice([".png", ".svg"]))
            )


class Prototxt(Target):
    """Damaged bytes and text for the parser, the checks and the upgrade, without a net."""

    SUFFIX = ".prototxt"
    SIZED = True

    @cached_property
    def texts(self) -> Sequence[str]:
        return self.seeds.texts("tests/goldens/layers/*.prototxt", "tests/prototxt/upgrade/*.prototxt", "tests/prototxt/errors/*.prototxt",
            "models/digits/*.prototxt", "models/lenet/*.prototxt", "solvers/digits*.prototxt", "solvers/lenet*.prototxt")  # fmt: skip

    @cached_property
    def originals(self) -> Sequence[bytes]:
        return [text.encode("utf-8", "surrogateescape") for text in self.texts]

    def make(self, rng: random.Random) -> bytes:
        if rng.random() < 0.5:
            return mutate_bytes(rng.choice(self.originals), rng, self.originals)
        return mutate_text(rng.choice(self.texts), rng, self.texts, layer_types()).encode("utf-8", "surrogateescape")

    def run(self, path: Path, rng: random.Random) -> None:
        from sslnet import prototxt

        kind = rng.random()
        if kind < 0.5:
            self.call(lambda: prototxt.read_net(path))
        elif kind < 1 - COMMANDS:
            self.call(lambda: prototxt.read_solver(path))
        else:
            self.command("upgrade", path, beside(path, ".up"), "--force")


def layer_types() -> list[str]:
    from sslnet.layers import LAYERS

    return sorted(LAYERS)
