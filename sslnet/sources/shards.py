"""ShardReader: each part of the whole batch reads a database of its own, ``train_0_lmdb``, ``train_1_lmdb``, ...

So no machine needs all data. All databases have the same number of records, or their epochs would drift apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sslnet.errors import DataError
from sslnet.sources.prefetch import Reader
from sslnet.sources.record_reader import RecordReader


class ShardReader(Reader):
    """Makes the parts of batches, each from its own database.

    readers   {number of the part: the reader of its database}, of the parts that this process computes
    parts     number of parts of the whole batch, and so of databases
    """

    def __init__(self, readers: dict[int, RecordReader], parts: int) -> None:
        self._readers, self._parts = readers, parts
        one = next(iter(readers.values()))
        self.batch_size, self.shapes = one.batch_size, one.shapes
        for part, reader in readers.items():
            if reader.records != one.records:
                message = f"database {part} has {reader.records} records, database {next(iter(readers))} {one.records}"
                raise DataError(message, hint="the databases of all parts need the same number of records")
        self.records = None if one.records is None else one.records * parts

    def bounds(self) -> tuple[np.ndarray, np.ndarray] | None:
        return next(iter(self._readers.values())).bounds()

    def fill(self, position: int, batch: int, arrays: Sequence[np.ndarray]) -> None:
        """Writes a batch of the first database of this process.  [overwrites arrays]"""
        next(iter(self._readers.values())).fill(position // self._parts, batch, arrays)

    def fill_part(self, position: int, batch: int, arrays: Sequence[np.ndarray], part: int, parts: int) -> None:
        self._readers[part].fill(position // parts, batch * parts + part, arrays)
