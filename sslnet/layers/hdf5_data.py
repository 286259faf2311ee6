"""HDF5Data: batches of rows of the HDF5 files that a text file lists; each top reads the data set of its name.

    top[i]  (batch_size, ...)   rows of the data set that has the name of the top

A batch may span files; after the last file reading continues with the first. `shuffle` draws a new order of the files
each epoch, and of the rows within each file. transform_param is an error.
"""

from __future__ import annotations

from typing import ClassVar, final

from sslnet.layers.base import Blobs
from sslnet.layers.prefetched import PrefetchedLayer
from sslnet.sources.prefetch import Reader


@final
class HDF5Data(PrefetchedLayer):
    TYPE: ClassVar[str] = "HDF5Data"
    TOPS: ClassVar[tuple[int, int | None]] = (1, None)
    SOURCE_FIELD: ClassVar[tuple[str, str]] = ("hdf5_data_param", "source")

    def make_reader(self, top: Blobs) -> Reader:
        from sslnet.sources.hdf5 import Hdf5Reader

        if self.param.HasField("transform_param"):
            raise self.error(
                "an HDF5Data layer does not transform its data", "transform_param", hint="remove transform_param"
            )
        names = [str(name) for name in self.param.top]
        shuffle = bool(self.param.hdf5_data_param.shuffle)
        return Hdf5Reader(
            self.source_path(), names, self.batch_size(), shuffle=shuffle, seed=self.context.seed, layer=self.name
        )
