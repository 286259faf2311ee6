"""All sections one after the other, and which of the goals are met."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.record import Record
from benchmarks.sections import SECTIONS

HELP = "All sections, and which goals are met; --write makes a page of it."


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), metavar="SECTION",
                        help="measure these, take the others from the JSON file: " + ", ".join(SECTIONS))  # fmt: skip
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="write the page, and what it shows beside it as JSON"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the results there; default: beside the page")


def finish(record: Record, page: Path | None) -> None:
    pass
