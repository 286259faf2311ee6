"""``sslnet convert-imageset``: creates a database of image files and labels, as Caffe's tool of that name does."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sslnet.errors import RunError, UsageError, printable

if TYPE_CHECKING:
    from sslnet.errors import DataError

HELP = "Creates an LMDB from a list of image files with their labels."
EXAMPLE = "sslnet convert-imageset photos/ train.txt train_lmdb --resize-height 256 --resize-width 256 --shuffle"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("root", metavar="ROOT", help="folder that the file names in the list are relative to")
    parser.add_argument("list", metavar="LISTFILE", help="text file; each line has a file name, a space and a label")
    parser.add_argument(
        "database", type=Path, metavar="DB", help="the LMDB to create: a folder that does not exist yet"
    )
    parser.add_argument(
        "--resize-height", type=int, default=0, metavar="N", help="height to resize to; default: no resizing"
    )
    parser.add_argument("--resize-width", type=int, default=0, metavar="N", help="width to resize to")
    parser.add_argument(
        "--gray", action="store_true", help="store one grey channel; default: three, in the order blue, green, red"
    )
    parser.add_argument("--shuffle", action="store_true", help="store the images in a random order")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the random order; default 0")
    parser.add_argument(
        "--encoded", action="store_true", help="store encoded image files, which are decoded at each read"
    )
    parser.add_argument(
        "--encode-type", metavar="TYPE", help="format of encoded images (png, jpg, ...); default: each file's own"
    )
    parser.add_argument(
        "--check-size", action="store_true", help="report an error if an image differs in size from the first"
    )
    parser.add_argument("--skip-bad", action="store_true", help="skip images that cannot be read, and report each")
    parser.add_argument(
        "--threads", type=int, metavar="N", help="number of decoding threads; default: one per physical core"
    )


def run(args: argparse.Namespace) -> int:
    from sslnet.cli.options import use_threads
    from sslnet.cli.progress import progress
    from sslnet.kernels.runtime.threads import num_threads
    from sslnet.sources.images import read_list
    from sslnet.sources.imageset import Conversion, convert, shuffled
    from sslnet.sources.lmdb import lmdb_writer

    use_threads(args.threads)
    conversion = Conversion(args.root, *_size(args), not args.gray, _encoding(args))
    images = read_list(args.list)
    if args.shuffle:
        images = shuffled(images, args.seed)
    stored = 0
    with lmdb_writer(args.database) as write, progress("images", len(images)) as report:
        records = convert(
            images, conversion, args.list, threads=num_threads(), same_size=args.check_size,
            on_bad=_tell if args.skip_bad else None,
        )  # fmt: skip
        for done, record in enumerate(records, 1):
            if record is not None:
                write(*record)
                stored += 1
            report(done)
        if not stored:
            raise RunError(f"none of the {len(images)} images could be read")
    print(f"{args.database}: {stored} images" + (f", {len(images) - stored} skipped" if stored < len(images) else ""))
    return 0


def _size(args: argparse.Namespace) -> tuple[int, int]:
    from sslnet.sources.images import MAX_PIXELS

    height, width = args.resize_height, args.resize_width
    for option, value in (("--resize-height", height), ("--resize-width", width)):
        if value < 0:
            raise UsageError(f"{option} must be at least 1, or 0 for as it is, not {value}")
    if bool(height) != bool(width):
        raise UsageError("--resize-height and --resize-width belong together: give both or neither")
    if height * width > MAX_PIXELS:
        raise UsageError(f"images of {height} x {width} are too large: at most {MAX_PIXELS} pixels")
    return height, width


def _encoding(args: argparse.Namespace) -> str | None:
    """The format of encoded records, "" for each file's own; None for raw ones."""
    from sslnet.sources.imageset import ENCODINGS

    if args.encode_type is None:
        return "" if args.encoded else None
    name = args.encode_type.lstrip(".").lower()
    if name not in ENCODINGS:
        raise UsageError(f'--encode-type cannot be "{args.encode_type}"', hint=f"it can be {', '.join(ENCODINGS)}")
    return ENCODINGS[name]


def _tell(error: DataError) -> None:
    assert error.span is not None
    print(printable(f"{error.span.path}:{error.span.line}: skipped: {error.message}"), file=sys.stderr)
