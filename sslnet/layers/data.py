"""Data: batches of transformed records and labels of a database, in the order of its keys, over and over.

    top[0]  (batch_size, C, H, W)   see sslnet.sources.transformer
    top[1]  (batch_size)            labels, if it is given

Encoded records (PNG, JPEG) become the planes blue, green, red. `backend: BUILTIN` reads a data set that ships with the
package. With `rand_skip` reading starts at a random record below that number; with `shuffle` each
epoch has a new random order. With several ranks, `source: "train_%d_lmdb"` names a database for each virtual rank.
"""

from __future__ import annotations

import os
from typing import ClassVar, final

from sslnet import sslnet_pb2 as pb
from sslnet.errors import DataError
from sslnet.layers.base import Blobs
from sslnet.layers.prefetched import PrefetchedLayer
from sslnet.sources.base import DataSource
from sslnet.sources.order import Order
from sslnet.sources.prefetch import Reader
from sslnet.sources.record_reader import RecordReader
from sslnet.sources.shards import ShardReader

SHARD = "%d"
"""Where the name of a source has the number of the part that reads it."""


@final
class Data(PrefetchedLayer):
    TYPE: ClassVar[str] = "Data"
    SOURCE_FIELD: ClassVar[tuple[str, str]] = ("data_param", "source")

    _part = 0
    """Number of the part of the batch whose database is opened."""

    def prefetch(self) -> int:
        return int(self.param.data_param.prefetch)

    def make_reader(self, top: Blobs) -> Reader:
        if SHARD not in self.param.data_param.source:
            return self._record_reader(top)
        place = self.context.place
        if place.whole == 1 and not place.numbered:
            raise self.error(
                f"{SHARD} is the number of a virtual rank: each reads a database of its own, in phase TRAIN of a solver",
                *self.SOURCE_FIELD,
                value=True,
                hint="tests need one database, which all ranks read",
            )
        readers = {}
        for part in range(place.first, place.first + place.parts):
            self._part = part
            readers[part] = self._record_reader(top)
        return ShardReader(readers, place.whole)

    def _record_reader(self, top: Blobs) -> RecordReader:
        batch_size = self.batch_size()
        source = self._open()
        labelled = len(top) > 1
        if labelled and not source.labelled:
            raise DataError("the records have no labels", path=source.path, hint=f'remove the top "{top[1].name}"')
        shuffle = self.param.data_param.shuffle
        order = Order(len(source), shuffle=shuffle, seed=self.context.seed, layer=self.name)
        return RecordReader(
            source, order, self.transformer(source.shape), batch_size, labelled, (self.context.seed, self.name)
        )

    def _open(self) -> DataSource:
        backend, color = self.param.data_param.backend, self._color()
        source: DataSource
        if backend == pb.DataParameter.BUILTIN:
            from sslnet.sources.builtin import builtin_source

            source = builtin_source(self.source_name())
        elif backend == pb.DataParameter.LMDB:
            from sslnet.sources.lmdb import LmdbSource

            source = LmdbSource(self.source_path(), color=color)
        else:
            from sslnet.sources.leveldb import LeveldbSource

            source = LeveldbSource(self.source_path(), color=color)
        if color is not None and not source.encoded and source.shape[0] != (3 if color else 1):
            field = "force_color" if color else "force_gray"
            raise self.error(
                f"{field} acts on encoded records only; these are raw, of {source.shape[0]} channels",
                "transform_param",
                field,
            )
        return source

    def source_name(self) -> str:
        return super().source_name().replace(SHARD, str(self._part))

    def source_path(self) -> str:
        try:
            return super().source_path()
        except DataError as error:
            hint = _how_to_make(self.source_name())
            if not hint:
                raise
            raise DataError(error.message, span=error.span, layer=error.layer, hint=hint) from error

    def _color(self) -> bool | None:
        """How encoded records are decoded: to 3 channels (True), to 1 (False), or unchanged (None)."""
        transform, data = self.param.transform_param, self.param.data_param
        if transform.force_color and transform.force_gray:
            raise self.error("force_color and force_gray exclude each other", "transform_param", "force_gray")
        if transform.force_color or data.force_encoded_color:
            return True
        return False if transform.force_gray else None


def _how_to_make(source: str) -> str:
    """The hint for a missing database: how to make it, if its name is known; otherwise empty."""
    folder, name = os.path.split(source.rstrip("/"))
    for data_set in ("mnist", "cifar10"):
        if name in (f"{data_set}_train_lmdb", f"{data_set}_test_lmdb"):
            return f"`sslnet data {data_set} --to {folder or '.'}` makes it"
        if data_set.rstrip("10") in source.lower():
            return f"`sslnet data {data_set}` makes one"
    return ""
