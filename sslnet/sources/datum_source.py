"""DatumSource: the records of a database as Datums, whichever database it is."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from sslnet.sources.base import DataSource, Records
from sslnet.sources.datum import DatumDecoder, Values


class DatumRecords(Protocol):
    """The records of a database, in the order of their keys."""

    path: str

    def __len__(self) -> int: ...

    def values(self, indices: np.ndarray) -> Values: ...


class DatumSource(DataSource):
    """The records of one database, as Datums.

    color   color mode of encoded records, as in ``decode_image``
    raises  DataError if the first record is damaged
    """

    def __init__(self, records: DatumRecords, color: bool | None) -> None:
        self._records = records
        self.path = records.path
        self._decoder = DatumDecoder(self.path, color)
        image, label = self._decoder.first(records.values(np.zeros(1, np.int64))[0])
        self.shape = (image.shape[0], image.shape[1], image.shape[2])
        self.labelled = label is not None
        self.encoded = self._decoder.encoded

    def __len__(self) -> int:
        return len(self._records)

    def read(self, indices: np.ndarray, *, labels: bool = True) -> Records:
        return self._decoder.decode(self._records.values(indices), indices, labels)
