"""``sslnet upgrade``: converts definitions and weights of an older Caffe to today's form."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from sslnet.errors import DataError, DefinitionError, UsageError, WeightsError
from sslnet.files import open_regular

if TYPE_CHECKING:
    from sslnet.prototxt import Definition

HELP = "Converts a net, a solver or weights of an older Caffe to today's form; weights as binary or HDF5."
EXAMPLE = "sslnet upgrade lenet_2014.prototxt lenet.prototxt"
WEIGHTS = (".caffemodel", ".h5", ".hdf5")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="IN", help="a .prototxt, a .caffemodel or a .caffemodel.h5")
    parser.add_argument(
        "target",
        type=Path,
        metavar="OUT",
        help="file to write; weights become HDF5 if the name ends in .h5, else binary",
    )
    parser.add_argument("--force", action="store_true", help="overwrite OUT if it exists")


def run(args: argparse.Namespace) -> int:
    if args.target.exists() and not args.force:
        raise UsageError(f"{args.target} exists", hint="--force overwrites it")
    to_weights = args.target.suffix in WEIGHTS
    if _holds_weights(args.source):
        if args.target.suffix == ".prototxt":
            raise UsageError(f"{args.source} holds weights: they cannot become a prototxt")
        changes = _upgrade_weights(args.source, args.target)
    else:
        if to_weights:
            raise UsageError(f"{args.source} is a definition: it cannot become weights")
        changes = _upgrade_definition(args.source, args.target)
    print(f"{args.source}: {', '.join(changes) or 'in the form of today already'}")
    print(f"{args.target}: written")
    return 0


def _holds_weights(path: Path) -> bool:
    """Whether a file holds weights: by its name, or by a NUL character. An unreadable file counts as text."""
    if path.suffix in WEIGHTS:
        return True
    try:
        with open_regular(path) as file:
            return b"\0" in file.read(8192)
    except (DataError, OSError):
        return False


def _upgrade_definition(source: Path, target: Path) -> list[str]:
    """Converts a definition and returns the list of changes; warnings go to stdout as well."""
    from sslnet import prototxt

    definition = _read(source)
    for note in definition.notes:
        if note.level != "note":
            print(note)
    prototxt.save(definition.message, target)
    return definition.changes


def _read(path: Path) -> Definition:
    """Reads a net or a solver, whichever the file holds; an error is that of the better fit."""
    from sslnet import prototxt
    from sslnet import sslnet_pb2 as pb

    errors = []
    for kind in (pb.NetParameter, pb.SolverParameter):
        try:
            return prototxt.read(path, kind)
        except DefinitionError as error:
            errors.append(error)
    raise max(errors, key=lambda error: (error.line or 0, error.column or 0))


def _upgrade_weights(source: Path, target: Path) -> list[str]:
    from sslnet import sslnet_pb2 as pb
    from sslnet.files import atomic_write
    from sslnet.hdf5 import is_hdf5
    from sslnet.net.weights import read_message, read_weights, save_arrays
    from sslnet.prototxt import Definition, upgrade_net

    to_hdf5 = target.suffix in (".h5", ".hdf5")
    if is_hdf5(str(source)):
        save_arrays(read_weights(source), target, hdf5=to_hdf5)
        return [] if to_hdf5 else ["HDF5, now binary; layers have names and weights alone"]
    try:
        new = upgrade_net(Definition(read_message(source, pb.NetParameter())))
        arrays = read_weights(new.message)
        if to_hdf5:
            save_arrays(arrays, target, hdf5=True)
    except (DefinitionError, WeightsError) as error:
        raise WeightsError(error.message, path=str(source), layer=error.layer, hint=error.hint) from error
    if to_hdf5:
        return [*new.changes, "binary, now HDF5"]
    atomic_write(target, new.message.SerializeToString())
    return new.changes
