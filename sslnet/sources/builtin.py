"""Data sets included in the package, named in a prototxt as `source: "digits/train" backend: BUILTIN`."""

from __future__ import annotations

from importlib.resources import as_file, files

from sslnet.errors import DataError, suggestion
from sslnet.sources.base import ArraySource
from sslnet.sources.idx import idx_source

SETS = {
    "digits/train": ("digits", "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "digits/test": ("digits", "test-images-idx3-ubyte.gz", "test-labels-idx1-ubyte.gz"),
}
"""Name -> folder in sslnet/sources/data, file of images, file of labels. The digits are 1 x 8 x 8 with values 0 ..
16."""


def builtin_source(name: str) -> ArraySource:
    """The built-in data set of this name. raises DataError if there is none"""
    if name not in SETS:
        hint = suggestion(name, SETS) or "there are " + ", ".join(f'"{known}"' for known in SETS)
        raise DataError(f'no data set "{name}" ships with sslnet', hint=hint)
    folder, images, labels = SETS[name]
    root = files("sslnet").joinpath("sources", "data", folder)
    with as_file(root.joinpath(images)) as image_file, as_file(root.joinpath(labels)) as label_file:
        return idx_source(name, image_file, label_file)
