"""Reads HDF5 files of weights, states and data from any source, within bounds, without following links to other files.

Objects are found over hard links alone; other files are never read (external links, external storage, virtual datasets).
All arrays together take no more memory than the file can hold, and no more than ROOM or PACKED_WELL times its size: one
small file cannot take the memory of a machine. What breaks these rules, and anything that h5py stumbles over, is one error.
"""

from __future__ import annotations

import contextlib
import math
import os
import zlib
from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np

from sslnet.errors import DataError, SslnetError, WeightsError
from sslnet.files import open_regular
from sslnet.prototxt.values import shorten

MOST_OBJECTS = 100_000
"""Groups and datasets in a file."""
LARGEST_COMPRESSION = 1100
"""HDF5's compression gives at most 1 : 1032; datasets that say more are broken, and are not given memory."""
ROOM = 1 << 30
"""Bytes that the arrays of any file may take, and each part that is unpacked on the way to them."""
PACKED_WELL = 100
"""Of larger arrays: how many times the file's size."""
FILTERS = {1: "deflate", 2: "shuffle", 3: "fletcher32", 4: "szip", 32000: "lzf"}
"""By HDF5's numbers: what chunks may be packed with, each once. Two packers, one on the other, give 1 : 1032^2; and others
make room for as much as the file says."""
UNSAFE = {5: "nbit", 6: "scaleoffset"}
"""HDF5 filters that do not check stored data: a chunk too short for its values is read beyond its end, which crashes the
process (seen with HDF5 2.0.0)."""
DEFLATE = 1
CHECKSUM = 4
"""Bytes of fletcher32, behind a chunk."""
PIECE = 1 << 20
PACK = "h5repack -f GZIP=4 repacks it"
UNPACK = "h5repack -f NONE unpacks it, and a larger file may hold more; store large data in several files"
SIGNATURE = b"\x89HDF\r\n\x1a\n"


def is_hdf5(path: str) -> bool:
    """Whether the file starts as HDF5 files do."""
    try:
        with open_regular(path) as file:
            return file.read(len(SIGNATURE)) == SIGNATURE
    except (DataError, OSError):
        return False  # the reader of messages says what is wrong with it


class Guard:
    """One open file. raises `error` throughout"""

    def __init__(self, path: str, file: Any, error: type[SslnetError]) -> None:
        self.path = path
        self.file = file
        self._error = error
        self._size = os.path.getsize(path)
        self._room = max(ROOM, self._size * PACKED_WELL)
        self._most = self._left = min(self._size * LARGEST_COMPRESSION, self._room)
        self._seen: set[Any] = set()

    def find(self, name: str) -> Any:
        """The group or dataset of that name, which may lead through groups (a/b); None where there is none."""
        import h5py

        item = self.file
        for part in name.split("/"):
            item = self._follow(item, part) if isinstance(item, h5py.Group) and part not in ("", ".") else None
        return item

    def _follow(self, group: Any, key: str, layer: str = "") -> Any:
        import h5py

        link = group.get(key, getlink=True)
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            self.fail(f"{key} is a link to another place", layer)
        return group[key]

    def item(self, group: Any, key: str, layer: str = "") -> Any:
        """The group or dataset of that name, None where there is none; each is given once."""
        item = self._follow(group, key, layer)
        if item is None:
            return None
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
        self.check(dataset, "fu", layer)
        return np.asarray(dataset[()])

    def value(self, name: str, kinds: str = "fui") -> Any:
        """The one value of a dataset at the top of the file, an array of one counts as such; None where there is none.

        kinds  of its dtype, as NumPy's letters: f float, u, i whole numbers, S bytes
        """
        dataset = self.item(self.file, name)
        if dataset is None:
            return None
        self.check(dataset, kinds)
        array = np.asarray(dataset[()])
        if array.size != 1:
            self.fail(f"{name} holds {array.size} values, not one", "")
        return array.reshape(-1)[0]

    def check(self, dataset: Any, kinds: str, layer: str = "") -> None:
        """raises unless it holds numbers of these kinds (NumPy's letters), in this file, that may be read as a whole."""
        import h5py

        if not isinstance(dataset, h5py.Dataset):
            self.fail("a group where numbers should be", layer)
        name = shorten(str(dataset.name), 100)
        if dataset.dtype.kind not in kinds or dataset.shape is None:
            what = "nothing" if dataset.shape is None else f"{dataset.dtype}, not numbers"
            self.fail(f"dataset {name} holds {what}", layer)
        if dataset.is_virtual or dataset.external:
            self.fail(f"the numbers of dataset {name} are in other files", layer)
        claimed = math.prod(dataset.shape) * dataset.dtype.itemsize
        stored = dataset.id.get_storage_size()
        packed = dataset.chunks is not None
        chunk = math.prod(dataset.chunks) * dataset.dtype.itemsize if packed and stored else 0
        if stored and not packed and claimed > min(stored, self._size):
            self.fail(f"dataset {name} declares {claimed} bytes but stores {stored}", layer)
        if packed:
            self._check_packing(dataset, name, chunk, layer)
        self._left -= claimed
        if self._left < 0 or chunk > self._most:
            limit = f"{self._most} bytes, the limit for a file of this size"
            self.fail(f"the data sets unpack to more than {limit}", layer, UNPACK)

    def _check_packing(self, dataset: Any, name: str, chunk: int, layer: str) -> None:
        """raises when chunks are packed with what may unpack to any size. chunk: bytes that each is to unpack to"""
        properties = dataset.id.get_create_plist()
        filters = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
        for number in set(filters) & set(UNSAFE):
            what = f"{UNSAFE[number]}, which the HDF5 library cannot unpack safely where a file is damaged"
            self.fail(f"dataset {name} is packed with {what}", layer, PACK)
        packers = [number for number in filters if FILTERS.get(number) not in ("shuffle", "fletcher32")]
        if len(packers) > 1 or len(set(filters)) < len(filters) or not set(filters) <= set(FILTERS):
            self.fail(f"dataset {name} is packed in a way that is not read: filters {filters}", layer, PACK)
        if DEFLATE not in filters or self._size * LARGEST_COMPRESSION <= self._room:
            return
        # HDF5 unpacks a chunk to its end, however long that is: where it can be longer than the room, look first.
        for info in _chunks_beyond(dataset.id, self._room // LARGEST_COMPRESSION):
            mask, data = dataset.id.read_direct_chunk(info.chunk_offset)
            if not mask >> filters.index(DEFLATE) & 1 and not _unpacks_within(data, chunk + CHECKSUM):
                self.fail(f"a chunk of dataset {name} unpacks to more than its {chunk} bytes", layer)

    def fail(self, message: str, layer: str = "", hint: str = "") -> NoReturn:
        raise self._error(shorten(message, 200), path=self.path, layer=shorten(layer, 100) or None, hint=hint)


def _chunks_beyond(dataset: Any, size: int) -> list[Any]:
    """Where the stored chunks of a dataset (h5py's DatasetID) are that have more bytes than that."""
    found: list[Any] = []
    if dataset.get_storage_size() <= size:
        return found
    if hasattr(dataset, "chunk_iter"):
        dataset.chunk_iter(lambda info: found.append(info) if info.size > size else None)
        return found
    # The wheels of h5py 3.9 have no chunk_iter; this counts to each chunk anew.
    chunks = (dataset.get_chunk_info(index) for index in range(dataset.get_num_chunks()))
    return [info for info in chunks if info.size > size]


def _unpacks_within(data: bytes, size: int) -> bool:
    """Whether a deflated chunk unpacks to at most that many bytes."""
    unpacker = zlib.decompressobj()
    part = unpacker.decompress(data, PIECE)
    while part and (size := size - len(part)) >= 0:
        part = unpacker.decompress(unpacker.unconsumed_tail, PIECE)
    return size >= 0


@contextlib.contextmanager
def open_guarded(path: str, what: str, error: type[SslnetError] = WeightsError) -> Iterator[Guard]:
    """The file, open while it is read. what: it is read as, for the error's sake. raises `error`"""
    import h5py

    open_regular(path, error=error).close()  # h5py would wait for a FIFO
    try:
        with h5py.File(path, "r") as file:
            yield Guard(path, file, error)
    except SslnetError:
        raise
    except Exception as problem:  # h5py raises almost anything for damaged files
        reason = shorten(str(problem), 200)
        raise error(f"cannot be read as {what}: {reason}", path=path, hint="the file may be cut off") from problem
