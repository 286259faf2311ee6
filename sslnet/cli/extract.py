"""``sslnet extract``: stores the values of blobs in HDF5 or in LMDBs, as Caffe's extract_features does."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sslnet.cli.options import add_rule_options
from sslnet.errors import UsageError, printable, suggestion

if TYPE_CHECKING:
    import numpy as np

    from sslnet.net.net import Net

HELP = "Runs a net over its data and stores the values of blobs (features) in HDF5 or LMDB."
EXAMPLE = (
    "sslnet extract --model models/digits/train_test.prototxt "
    "--weights snapshots/digits_ssl/digits_ssl_iter_3000.caffemodel --blobs ip1,label --output features.h5"
)
HDF5 = (".h5", ".hdf5")

Write = Callable[[str, "np.ndarray"], None]
"""A function that stores some rows of a blob, given its name."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="FILE", help="the net, with its data layers")
    parser.add_argument("--weights", required=True, metavar="FILE", help="its weights (.caffemodel or .caffemodel.h5)")
    parser.add_argument("--blobs", required=True, metavar="A,B", help="the blobs to store, by name")
    parser.add_argument("--output", required=True, metavar="PATH",
        help="FILE.h5: one data set per blob; a name ending in lmdb: an LMDB of one blob; else a folder of LMDBs")  # fmt: skip
    parser.add_argument(
        "--iterations", type=int, metavar="N", help="batches to run; default: all data once, if their number is known"
    )
    parser.add_argument("--phase", choices=("TRAIN", "TEST"), default="TEST", help="phase of the net; default TEST")
    add_rule_options(parser)
    parser.add_argument("--force", action="store_true", help="overwrite FILE.h5 if it exists")
    parser.add_argument("--threads", type=int, metavar="N", help="number of threads; default: one per physical core")


def run(args: argparse.Namespace) -> int:
    from sslnet import sslnet_pb2 as pb
    from sslnet.cli.log import RunLog
    from sslnet.cli.notes import tell_data, tell_notes
    from sslnet.cli.options import load_weights, stages, use_threads
    from sslnet.cli.progress import progress
    from sslnet.net.net import Net

    use_threads(args.threads)
    names = list(dict.fromkeys(name.strip() for name in args.blobs.split(",") if name.strip()))
    _check_output(args, names)
    net = Net(args.model, phase=pb.Phase.Value(args.phase), level=args.level, stages=stages(args.stage), lean=True)
    tell_notes(net.definition)
    tell_data(net)
    _check_blobs(net, names)
    iterations, records = extent(net, args.iterations)
    load_weights(net, args.weights, RunLog())
    with writer(args.output, net, names) as write, progress("batches", iterations) as report:
        rows = extract(net, names, iterations, records, write, report)
    for name in names:
        shape = " x ".join(map(str, _row_shape(net, name))) or "1 number"
        print(f"{args.output}: {printable(name)}, {rows[name]} rows of {shape}")
    return 0


def extent(net: Net, iterations: int | None) -> tuple[int, int | None]:
    """The numbers of batches and of records: by default all records once, with a shortened last batch.

    raises UsageError when nobody says how many
    """
    if iterations is not None and iterations < 1:
        raise UsageError(f"--iterations must be at least 1, not {iterations}")
    if net.inputs:
        raise UsageError(
            f"the net has no data: no data layer fills {', '.join(net.inputs)}",
            hint="give the net with the data layers, train_test.prototxt",
        )
    if iterations is not None:
        return iterations, None
    known: list[tuple[int, int]] = []
    for layer, tops in zip(net.layers, net.tops):
        records = layer.epoch_records() if hasattr(layer, "epoch_records") else None
        if records is not None:
            known.append((records, tops[0].shape[0]))
    if not known:
        raise UsageError("the number of records is not known: give --iterations")
    records, batch = max(known)
    return -(-records // batch), records


def extract(
    net: Net, names: list[str], iterations: int, records: int | None, write: Write, report: Callable[[int], object]
) -> dict[str, int]:
    """Runs the batches and writes their rows; returns the number of rows of each blob.

    records   rows to write at most of blobs with a row for each record
    """
    batch = max(
        (top.shape[0] for layer, tops in zip(net.layers, net.tops) if layer.IS_SOURCE for top in tops), default=0
    )
    rows = dict.fromkeys(names, 0)
    for iteration in range(iterations):
        net.forward(names)
        for name in names:
            data = net.blobs[name].data
            values = data if data.ndim else data.reshape(1)
            if records is not None and len(values) == batch:
                values = values[: records - rows[name]]
            write(name, values)
            rows[name] += len(values)
        report(iteration + 1)
    return rows


@contextlib.contextmanager
def writer(output: str, net: Net, names: list[str]) -> Iterator[Write]:
    """A context with a function that writes rows; the file or databases appear when the block ends without an exception."""
    if output.endswith(HDF5):
        with _hdf5_writer(output, net, names) as write:
            yield write
    else:
        for name in names:
            if len(_row_shape(net, name)) > 3:
                hint = "HDF5 holds any shape: --output FILE.h5"
                raise UsageError(
                    f'a Datum holds rows of 3 axes at most, "{name}" has {_row_shape(net, name)}', hint=hint
                )
        paths = {name: Path(output) for name in names}
        if not _is_database(output):
            paths = {name: Path(output, name.replace("/", "_") + "_lmdb") for name in names}
        with _lmdb_writers(paths) as write:
            yield write


@contextlib.contextmanager
def _hdf5_writer(path: str, net: Net, names: list[str]) -> Iterator[Write]:
    import h5py

    from sslnet.files import HDF5_ROOM, atomic_path, reserve_hdf5

    with atomic_path(path) as temporary:
        reserve_hdf5(temporary, HDF5_ROOM)  # where there is not even room for its head, HDF5 must not make the file
        with h5py.File(temporary, "w", locking=False) as file:
            sets = {name: _data_set(file, name, _row_shape(net, name)) for name in names}
            room = HDF5_ROOM * len(sets)

            def write(name: str, values: np.ndarray) -> None:
                nonlocal room
                room += values.nbytes
                reserve_hdf5(temporary, room)
                target = sets[name]
                start = len(target)
                target.resize(start + len(values), axis=0)
                target[start:] = values

            yield write
            file.flush()
            size = file.id.get_filesize()
        os.truncate(temporary, size)


def _data_set(file: Any, name: str, shape: tuple[int, ...]) -> Any:
    """Creates an empty data set that can grow."""
    try:
        return file.create_dataset(name, (0, *shape), "float32", maxshape=(None, *shape), chunks=True)
    except (TypeError, ValueError) as error:  # a and a/b: HDF5 takes the first part of the second for a folder
        raise UsageError(f'an HDF5 file cannot hold "{name}" beside the blobs before it: {error}') from error


@contextlib.contextmanager
def _lmdb_writers(paths: dict[str, Path]) -> Iterator[Write]:
    """Creates an LMDB for each blob: keys %010d, Datums with float_data, as Caffe's tool does."""
    from sslnet import sslnet_pb2 as pb
    from sslnet.sources.lmdb import lmdb_writer

    with contextlib.ExitStack() as stack:
        databases = {name: stack.enter_context(lmdb_writer(path)) for name, path in paths.items()}
        counts = dict.fromkeys(paths, 0)

        def write(name: str, values: np.ndarray) -> None:
            for row in values:
                shape = (*row.shape, 1, 1, 1)
                datum: Any = pb.Datum(channels=shape[0], height=shape[1], width=shape[2])
                datum.float_data.extend(row.ravel().tolist())
                databases[name](f"{counts[name]:010d}".encode(), datum.SerializeToString())
                counts[name] += 1

        yield write


def _check_output(args: argparse.Namespace, names: list[str]) -> None:
    if not names:
        raise UsageError("--blobs names no blob")
    if args.output.endswith(HDF5):
        if os.path.exists(args.output) and not args.force:
            raise UsageError(f"{args.output} exists", hint="--force overwrites it")
    elif _is_database(args.output) and len(names) > 1:
        hint = "give a folder, which gets one LMDB per blob, or a .h5 file"
        raise UsageError(f"an LMDB holds one blob, not {len(names)}", hint=hint)


def _is_database(output: str) -> bool:
    return output.rstrip("/").endswith("lmdb")


def _check_blobs(net: Net, names: list[str]) -> None:
    for name in names:
        if name not in net.blobs:
            hint = suggestion(name, net.blobs) or f"it has {', '.join(net.blobs)}"
            raise UsageError(f'the net has no blob "{name}"', hint=hint)


def _row_shape(net: Net, name: str) -> tuple[int, ...]:
    return net.blobs[name].shape[1:]
