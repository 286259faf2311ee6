"""A database for each virtual rank: part k of every batch comes from database k, in the order of its records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import DataError, DefinitionError
from sslnet.net.net import Net
from sslnet.ranks.place import BatchPlace
from sslnet.sources.lmdb import write_lmdb


def database(path: Path, labels: list[int]) -> None:
    """Records of one pixel, whose value is the label."""
    datums = [pb.Datum(channels=1, height=1, width=1, data=bytes([label]), label=label) for label in labels]
    write_lmdb(path, [(f"{k:04d}".encode(), datum.SerializeToString()) for k, datum in enumerate(datums)])


def net(folder: Path, place: BatchPlace | None) -> Net:
    text = f"""layer {{ name: "data" type: "Data" top: "data" top: "label"
      data_param {{ source: "{folder}/train_%d_lmdb" batch_size: 2 backend: LMDB }} }}"""
    return Net(prototxt.parse(text, pb.NetParameter), phase=pb.TRAIN, place=place)


def test_each_part_reads_its_own_database(tmp_path: Path) -> None:
    for part in range(4):
        database(tmp_path / f"train_{part}_lmdb", [10 * part + k for k in range(5)])
    place = BatchPlace(first=2, parts=2, whole=4, numbered=True)  # the second of two ranks
    made = net(tmp_path, place)
    found = []
    for step in range(6):
        place.now = step % 2
        found.append(made.forward()["label"].astype(int).tolist())
    assert found == [[20, 21], [30, 31], [22, 23], [32, 33], [24, 20], [34, 30]]
    other = net(tmp_path, BatchPlace(first=0, parts=4, whole=4, numbered=True))  # a run that continues on one rank
    other.set_layer_states(made.layer_states())
    assert [other.forward()["label"].astype(int).tolist() for _ in range(4)] == [[1, 2], [11, 12], [21, 22], [31, 32]]
    np.testing.assert_array_equal(other.forward()["data"].reshape(-1), [3, 4])


def test_databases_of_other_sizes_and_other_uses_are_refused(tmp_path: Path) -> None:
    for part, count in enumerate((5, 4)):
        database(tmp_path / f"train_{part}_lmdb", list(range(count)))
    with pytest.raises(DataError, match="database 1 has 4 records, database 0 5"):
        net(tmp_path, BatchPlace(parts=2, whole=2, numbered=True))
    with pytest.raises(DefinitionError, match="number of a virtual rank"):
        net(tmp_path, None)
