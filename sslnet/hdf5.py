"""HDF5 files of weights and states, whoever made them: read within bounds, and never led anywhere else.

Each object is read once, over hard links alone, and all arrays together take no more memory than the file can hold. What
breaks these rules, and anything that h5py stumbles over, is one WeightsError.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np

from sslnet.errors import WeightsError
from sslnet.prototxt.values import shorten

MOST_OBJECTS = 100_000
"""Groups and datasets in a file."""
LARGEST_COMPRESSION = 1100
"""HDF5's compression gives at most 1 : 1032; datasets that say more are broken, and are not given memory."""
SIGNATURE = b"\x89HDF\r\n\x1a\n"


def is_hdf5(path: str) -> bool:
    """Whether the file starts as HDF5 files do."""
    try:
        with open(path, "rb") as file:
            return file.read(len(SIGNATURE)) == SIGNATURE
    except (OSError, ValueError):
        return False  # the reader of messages says what is wrong with it


class Guard:
    """One open file. raises WeightsError throughout"""

    def __init__(self, path: str, file: Any) -> None:
        self.path = path
        self.file = file
        self._size = os.path.getsize(path)
        self._left = self._size * LARGEST_COMPRESSION
        self._seen: set[Any] = set()

    def item(self, group: Any, key: str, layer: str = "") -> Any:
        """The group or dataset of that name, None where there is none."""
        import h5py

        link = group.get(key, getlink=True)
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            self.fail(f"{key} leads elsewhere", layer)
        item = group[key]
        if item.id in self._seen or len(self._seen) > MOST_OBJECTS:
            self.fail("groups and datasets that are in one another", layer)
        self._seen.add(item.id)
        return item

    def group(self, name: str) -> Any:
        """The group of that name at the top of the file, None where there is none."""
        import h5py

        item = self.item(self.file, name)
        if item is not None and not isinstance(item, h5py.Group):
            self.fail(f"{name} is not a group", "")
        return item

    def numbers(self, dataset: Any, layer: str = "") -> np.ndarray:
        """The array of a dataset of numbers."""
        self._check(dataset, "fu", layer)
        return np.asarray(dataset[()])

    def value(self, name: str, kinds: str = "fui") -> Any:
        """The one value of a dataset at the top of the file, an array of one counts as such; None where there is none.

        kinds  of its dtype, as NumPy's letters: f float, u, i whole numbers, S bytes
        """
        dataset = self.item(self.file, name)
        if dataset is None:
            return None
        self._check(dataset, kinds, "")
        array = np.asarray(dataset[()])
        if array.size != 1:
            self.fail(f"{name} holds {array.size} values, not one", "")
        return array.reshape(-1)[0]

    def _check(self, dataset: Any, kinds: str, layer: str) -> None:
        import h5py

        if not isinstance(dataset, h5py.Dataset):
            self.fail("a group where numbers should be", layer)
        name = shorten(str(dataset.name), 100)
        if dataset.dtype.kind not in kinds or dataset.shape is None:
            what = "nothing" if dataset.shape is None else f"{dataset.dtype}, not numbers"
            self.fail(f"dataset {name} holds {what}", layer)
        claimed = math.prod(dataset.shape) * dataset.dtype.itemsize
        stored = 0 if dataset.is_virtual or dataset.external else dataset.id.get_storage_size()
        packed = dataset.chunks is not None
        chunk = math.prod(dataset.chunks) * dataset.dtype.itemsize if packed else 0
        if max(claimed, chunk) > min(stored, self._size) * (LARGEST_COMPRESSION if packed else 1):
            self.fail(f"dataset {name} says that it has {claimed} bytes, and {stored} are stored", layer)
        self._left -= claimed
        if self._left < 0:
            self.fail("more numbers than the file can hold", layer)

    def fail(self, message: str, layer: str = "") -> NoReturn:
        raise WeightsError(shorten(message, 200), path=self.path, layer=shorten(layer, 100) or None)


@contextlib.contextmanager
def open_guarded(path: str, what: str) -> Iterator[Guard]:
    """The file, open while it is read. what: it is read as, for the error's sake. raises WeightsError"""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            yield Guard(path, file)
    except WeightsError:
        raise
    except Exception as error:  # h5py raises almost anything for damaged files
        reason = shorten(str(error), 200)
        raise WeightsError(f"cannot be read as {what}: {reason}", path=path, hint="the file may be cut off") from error
