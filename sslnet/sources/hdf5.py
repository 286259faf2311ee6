"""Reads HDF5 files listed in a text file: rows of data sets with equal names, over all files, in batches.

One file is in memory at a time (the one whose rows are read). ``sslnet.hdf5`` checks the contents and the size in memory,
as it does for weights.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import islice
from typing import Any

import h5py
import numpy as np

from sslnet.errors import DataError
from sslnet.files import read_text
from sslnet.hdf5 import Guard, open_guarded
from sslnet.prototxt.values import shorten
from sslnet.sources.base import size_text
from sslnet.sources.order import Order, generator
from sslnet.sources.prefetch import Reader
from sslnet.sources.stable_file import Identity

MOST_NAMES = 16 << 20
"""Maximum number of bytes of a list."""


class Hdf5Reader(Reader):
    """Makes batches of rows.

    source      text file of file names, separated by white space; names are relative to the working directory or, if there is
                no such file, to the folder of the list
    names       names of the data sets, each of which is one array of the batch
    shuffle     whether the files are in a new random order in each epoch, and the rows of each file as well
    seed, layer name of the random streams
    raises      DataError if a file is missing, is damaged, lacks a data set, changes while it is read, or its rows differ in
                shape from those of the first file
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        names: Sequence[str],
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        layer: str = "",
    ) -> None:
        self.batch_size = batch_size
        self.path = os.fspath(source)
        self._names = list(names)
        self._files = _read_list(self.path)
        self._identities = [Identity(file) for file in self._files]
        headers = [_header(file, self._names) for file in self._files]
        self._rows = [rows for rows, _ in headers]
        self._row_shapes = headers[0][1]
        for file, (_, shapes) in zip(self._files, headers):
            for name, shape, first in zip(self._names, shapes, headers[0][1]):
                if shape != first:
                    raise DataError(
                        f'the rows of "{name}" are {_rows(shape)}, those of {self._files[0]} are {_rows(first)}',
                        path=file,
                    )
        self.shapes = [(batch_size, *shape) for shape in headers[0][1]]
        self._count = self.records = sum(self._rows)
        self._stream = (seed, layer)
        self._shuffle = shuffle
        self._order = Order(len(self._files), shuffle=shuffle, seed=seed, layer=layer, use="shuffle files")
        self._loaded = -1
        self._arrays: list[np.ndarray] = []
        self._row_order: tuple[tuple[int, int], np.ndarray] = ((-1, -1), np.empty(0, np.int64))

    def fill(self, position: int, batch: int, arrays: Sequence[np.ndarray]) -> None:
        done = 0
        while done < self.batch_size:
            epoch, row = divmod(position + done, self._count)
            file, row = self._file_of(epoch, row)
            count = min(self.batch_size - done, self._rows[file] - row)
            rows = self._rows_of(epoch, file)[row : row + count]
            for array, values in zip(arrays, self._load(file)):
                array[done : done + count] = values[rows]
            done += count

    def _file_of(self, epoch: int, row: int) -> tuple[int, int]:
        """The file with a row of an epoch, and the row in it."""
        for file in self._order.permutation(epoch):
            if row < self._rows[file]:
                return int(file), row
            row -= self._rows[file]
        raise AssertionError(row)

    def _rows_of(self, epoch: int, file: int) -> np.ndarray:
        if not self._shuffle:
            return np.arange(self._rows[file])
        key = (epoch, file)
        if self._row_order[0] != key:
            random = generator(*self._stream, f"shuffle rows of file {file}", epoch)
            self._row_order = (key, random.permutation(self._rows[file]))
        return self._row_order[1]

    def _load(self, file: int) -> list[np.ndarray]:
        if file != self._loaded:
            self._arrays, self._loaded = [], -1
            arrays = _load(self._files[file], self._names)
            if [array.shape for array in arrays] != [(self._rows[file], *shape) for shape in self._row_shapes]:
                raise self._identities[file].changed()
            self._arrays, self._loaded = arrays, file
        self._identities[file].check()
        return self._arrays


def _read_list(path: str) -> list[str]:
    names = read_text(path, limit=MOST_NAMES).split()
    if not names:
        raise DataError("the list names no files", path=path)
    files = []
    for name in names:
        place = name if os.path.exists(name) else os.path.join(os.path.dirname(path), name)
        if "\0" in name or not os.path.exists(place):
            raise DataError(
                f'there is no file "{name}"', path=path, hint="each word of the list is the name of an HDF5 file"
            )
        files.append(place)
    return files


def _header(path: str, names: list[str]) -> tuple[int, list[tuple[int, ...]]]:
    """Number of rows, and the shape of a row of each data set."""
    with open_guarded(path, "HDF5", DataError) as guard:
        shapes = [data_set.shape for data_set in _data_sets(guard, names)]
    for name, shape in zip(names, shapes):
        if shape[0] != shapes[0][0]:
            raise DataError(f'"{name}" has {shape[0]} rows, "{names[0]}" has {shapes[0][0]}', path=path)
    if not shapes[0][0]:
        raise DataError("has no rows", path=path)
    return shapes[0][0], [shape[1:] for shape in shapes]


def _load(path: str, names: list[str]) -> list[np.ndarray]:
    """Reads the arrays as stored, or as float32 if that is smaller: a batch is float32."""
    with open_guarded(path, "HDF5", DataError) as guard:
        return [_compact(np.asarray(data_set[...])) for data_set in _data_sets(guard, names)]


def _compact(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype.itemsize > 4 else array


def _data_sets(guard: Guard, names: list[str]) -> list[Any]:
    found = []
    for name in names:
        item = guard.find(name)
        if not isinstance(item, h5py.Dataset):
            there = ", ".join(f'"{shorten(key, 100)}"' for key in islice(guard.file, 20)) or "none"
            hint = f"the file has {there}; tops are named as data sets"
            raise DataError(f'there is no data set "{name}"', path=guard.path, hint=hint)
        if item.shape == ():
            raise DataError(f'"{name}" is a single number, without rows', path=guard.path)
        guard.check(item, "fiu")
        found.append(item)
    return found


def _rows(shape: tuple[int, ...]) -> str:
    return size_text(shape) or "single numbers"
