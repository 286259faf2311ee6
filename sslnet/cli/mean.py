"""``sslnet mean``: computes the mean image of a database, as Caffe's compute_image_mean does, and its channel means."""

from __future__ import annotations

import argparse
from pathlib import Path

from sslnet.errors import UsageError

HELP = "Computes the mean image of a database, and the mean of each channel."
EXAMPLE = "sslnet mean digits/train mean.binaryproto"
SUFFIXES = (".binaryproto", ".npy")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("database", metavar="DB", help="an LMDB or LevelDB of Datums; encoded images are decoded")
    parser.add_argument(
        "target",
        nargs="?",
        type=Path,
        metavar="OUT",
        help="file to write (.binaryproto or .npy); default: only print the means",
    )
    parser.add_argument("--force", action="store_true", help="overwrite OUT if it exists")


def run(args: argparse.Namespace) -> int:
    from sslnet.cli.progress import progress
    from sslnet.sources.base import size_text
    from sslnet.sources.database import open_database
    from sslnet.sources.mean import mean_image, write_mean

    target: Path | None = args.target
    if target is not None and target.suffix not in SUFFIXES:
        raise UsageError(f"{target}: the name of a mean file must end in {' or '.join(SUFFIXES)}")
    if target is not None and target.exists() and not args.force:
        raise UsageError(f"{target} exists", hint="--force overwrites it")
    source = open_database(args.database)
    with progress("records", len(source)) as report:
        mean = mean_image(source, report)
    print(f"{source.path}: {len(source)} records of {size_text(mean.shape)}")
    for channel, plane in enumerate(mean):
        print(f"mean_value channel [{channel}]: {plane.mean(dtype='float64'):g}")
    if target is not None:
        write_mean(target, mean)
        print(f"{target}: written")
    return 0
