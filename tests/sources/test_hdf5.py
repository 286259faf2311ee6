"""HDF5 lists: rows of any shape and type, and damaged files."""

from __future__ import annotations

import os
import re
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sslnet import hdf5
from sslnet.errors import DataError
from sslnet.sources.hdf5 import Hdf5Reader


def read(folder: Path, names: list[str], batch_size: int = 3) -> list[np.ndarray]:
    reader = Hdf5Reader(folder / "list.txt", names, batch_size)
    arrays = [np.full(shape, np.nan, np.float32) for shape in reader.shapes]
    reader.fill(0, 0, arrays)
    return arrays


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1", "u1", "i4", "i8", ">f4"])
def test_numbers_of_every_type_become_floats(dtype: str, tmp_path: Path) -> None:
    values = np.arange(12).reshape(3, 2, 2).astype(dtype)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = values
        file["y"] = np.arange(3)
    (tmp_path / "list.txt").write_text("a.h5\n")
    x, y = read(tmp_path, ["x", "y"])
    np.testing.assert_array_equal(x, values.astype(np.float32))
    np.testing.assert_array_equal(y, [0, 1, 2])


@pytest.mark.parametrize("value", [np.float32(1), np.zeros((0, 3)), b"text", np.array([b"a", b"b"])])
def test_what_has_no_rows_of_numbers_is_told(value: object, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = value
    (tmp_path / "list.txt").write_text("a.h5\n")
    with pytest.raises(DataError):
        read(tmp_path, ["x"])


def test_packed_files_are_read_and_impossible_ones_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=np.zeros((3, 100_000), np.float32), compression="gzip")
        file.create_dataset("huge", shape=(1 << 30, 1 << 10), dtype="f4", chunks=(1, 1 << 10))
    (tmp_path / "list.txt").write_text("a.h5\n")
    assert read(tmp_path, ["x"])[0].shape == (3, 100_000)
    with pytest.raises(
        DataError, match=r"the data sets unpack to more than \d+ bytes, the limit for a file of this size"
    ):
        read(tmp_path, ["huge"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True, deadline=None)
@given(data=st.data())
def test_mutated_files_give_rows_or_one_error(data, tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(6.0).reshape(3, 2)
    (tmp_path / "list.txt").write_text("a.h5\n")
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del raw[data.draw(st.integers(0, len(raw))) :]
    path.write_bytes(raw)
    try:
        (rows,) = read(tmp_path, ["x"])
        assert rows.dtype == np.float32
    except DataError as error:
        assert error.path == str(path)


# -- files from elsewhere --------------------------------------------------------------------------------------------------


def _external_link(file: h5py.File) -> None:
    file["x"] = h5py.ExternalLink("other.h5", "x")


def _soft_link(file: h5py.File) -> None:
    file["y"] = np.ones((3, 2))
    file["x"] = h5py.SoftLink("/y")


def _external_storage(file: h5py.File) -> None:
    file.create_dataset("x", shape=(3, 2), dtype="f4", external=[("other.bin", 0, 24)])


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((3, 2), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", (3, 2))
    file.create_virtual_dataset("x", layout)


def _group_elsewhere(file: h5py.File) -> None:
    file["group"] = h5py.ExternalLink("other.h5", "/")


def _twice_deflated(file: h5py.File) -> None:
    data = zlib.compress(zlib.compress(bytes(1 << 27), 9), 9)
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((3, 2))
    properties.set_deflate(9)
    properties.set_deflate(9)
    space = h5py.h5s.create_simple((3, 2))
    made = h5py.h5d.create(file.id, b"x", h5py.h5t.NATIVE_FLOAT, space, properties)
    made.write_direct_chunk((0, 0), data)


def _references(file: h5py.File) -> None:
    file["y"] = np.ones((3, 2))
    file.create_dataset("x", data=[file["y"].ref] * 3, dtype=h5py.ref_dtype)


def _regions(file: h5py.File) -> None:
    file["y"] = np.ones((3, 2))
    file.create_dataset("x", data=[file["y"].regionref[0]] * 3, dtype=h5py.regionref_dtype)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_external_link, "x is a link to another place"),
        (_soft_link, "x is a link to another place"),
        (_external_storage, "the numbers of dataset /x are in other files"),
        (_virtual, "the numbers of dataset /x are in other files"),
        (_group_elsewhere, "group is a link to another place"),
        (_twice_deflated, "dataset /x is packed in a way that is not read"),
        (_references, "dataset /x holds object, not numbers"),
        (_regions, "dataset /x holds object, not numbers"),
    ],
)
def test_data_come_from_the_file_that_is_named_alone(make, message: str, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.ones((3, 2), np.float32)
    (tmp_path / "other.bin").write_bytes(np.ones(6, np.float32).tobytes())
    with h5py.File(tmp_path / "a.h5", "w") as file:
        make(file)
    (tmp_path / "list.txt").write_text("a.h5\n")
    with pytest.raises(DataError, match=re.escape(message)):
        read(tmp_path, ["group/x" if make is _group_elsewhere else "x"])


def test_data_sets_in_groups_and_under_two_names_are_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["g/x"] = np.arange(6).reshape(3, 2)
        file["y"] = file["g/x"]
    (tmp_path / "list.txt").write_text("a.h5\n")
    for values in read(tmp_path, ["g/x", "y"]):
        np.testing.assert_array_equal(values, np.arange(6).reshape(3, 2))


@pytest.mark.parametrize("options", [{}, {"shuffle": True, "fletcher32": True}])
def test_labels_that_pack_well_are_read_in_the_memory_of_their_own_type(options, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=np.ones((32, 1 << 20), np.uint8), compression="gzip", **options)
    assert (tmp_path / "a.h5").stat().st_size < 100_000
    (tmp_path / "list.txt").write_text("a.h5\n")
    reader = Hdf5Reader(tmp_path / "list.txt", ["x"], 1)
    out = np.zeros((1, 1 << 20), np.float32)
    reader.fill(31, 0, [out])
    assert (out == 1).all() and sum(array.nbytes for array in reader._load(0)) == 32 << 20


def test_memory_is_bounded_by_the_size_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name in "xy":
            file.create_dataset(name, data=np.zeros((4, 1 << 20), np.uint8), compression="gzip")
    (tmp_path / "list.txt").write_text("a.h5\n")
    assert len(read(tmp_path, ["x", "y"])) == 2
    monkeypatch.setattr(hdf5, "ROOM", 5 << 20)
    assert len(read(tmp_path, ["x"])) == 1
    with pytest.raises(DataError, match="unpack to more than 5242880 bytes, the limit") as caught:
        read(tmp_path, ["x", "y"])
    assert "h5repack -f NONE" in caught.value.hint and "several files" in caught.value.hint


@pytest.mark.parametrize("checked", [False, True])
def test_chunks_that_unpack_to_more_than_they_say_are_refused(
    checked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hdf5, "ROOM", 1 << 20)
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["filler"] = np.random.default_rng(0).random((64, 1024))
        made = file.create_dataset("x", (3, 1000), "f4", chunks=(3, 1000), compression="gzip", fletcher32=checked)
        made[...] = 1
    (tmp_path / "list.txt").write_text("a.h5\n")
    assert (read(tmp_path, ["x"])[0] == 1).all()
    with h5py.File(path, "r+") as file:
        file["x"].id.write_direct_chunk((0, 0), zlib.compress(bytes(1 << 26), 9) + bytes(4 * checked))
    with pytest.raises(DataError, match="a chunk of dataset /x unpacks to more than its 12000 bytes"):
        read(tmp_path, ["x"])


@pytest.mark.parametrize("chunks", [None, (10, 10), (1 << 14, 1 << 14)])
def test_data_sets_that_were_never_or_hardly_written_hold_their_fill_value(chunks, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", (50, 100), "f4", chunks=chunks, maxshape=chunks and (None, None), fillvalue=7)
        file.create_dataset("y", (5000, 10), "u1", chunks=(1, 10), compression="gzip")[0] = 3
        assert file["x"].id.get_storage_size() == 0
    (tmp_path / "list.txt").write_text("a.h5\n")
    assert (read(tmp_path, ["x"])[0] == 7).all()
    assert read(tmp_path, ["y"])[0].sum() == 30


def test_data_sets_declare_no_more_than_they_store(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.ones(1000, np.float32)
    raw = path.read_bytes()
    path.write_bytes(raw.replace((4000).to_bytes(8, "little"), (40).to_bytes(8, "little")))
    (tmp_path / "list.txt").write_text("a.h5\n")
    with pytest.raises(
        DataError, match=r"declares 4000 bytes but stores 40|cannot be read"
    ):  # some HDF5 say so themselves
        read(tmp_path, ["x"])


class OldDataset:
    """What DatasetID of h5py 3.9 has."""

    def __init__(self, dataset: h5py.h5d.DatasetID) -> None:
        self.get_storage_size, self.get_num_chunks = dataset.get_storage_size, dataset.get_num_chunks
        self.get_chunk_info = dataset.get_chunk_info


@pytest.mark.parametrize("old", [False, True])
def test_large_chunks_are_found_with_every_version_of_h5py(old: bool, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        values = np.zeros((4, 1000), np.uint8)
        values[2] = np.random.default_rng(0).integers(0, 256, 1000)
        file.create_dataset("x", data=values, chunks=(1, 1000), compression="gzip")
    with h5py.File(tmp_path / "a.h5") as file:
        dataset = OldDataset(file["x"].id) if old else file["x"].id
        assert [info.chunk_offset for info in hdf5._chunks_beyond(dataset, 500)] == [(2, 0)]
        assert len(hdf5._chunks_beyond(dataset, 5)) == 4
        assert hdf5._chunks_beyond(dataset, 1 << 20) == []


def test_filters_whose_damage_kills_the_process_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=np.arange(30).reshape(3, 10), scaleoffset=0, shuffle=True)
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((3, 2))
        properties.set_filter(5, 0)
        h5py.h5d.create(file.id, b"y", h5py.h5t.NATIVE_INT32, h5py.h5s.create_simple((3, 2)), properties)
    (tmp_path / "list.txt").write_text("a.h5\n")
    for name, packer in (("x", "scaleoffset"), ("y", "nbit")):
        with pytest.raises(
            DataError, match=f"dataset /{name} is packed with {packer}, which the HDF5 library"
        ) as caught:
            read(tmp_path, [name])
        assert "h5repack -f GZIP=4" in caught.value.hint


# -- files that change while they are read -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 1), (3, 2), (3, 3), (4, 2), None])
@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_file_that_is_replaced_in_a_run_is_one_error(
    shape: tuple[int, int] | None, loaded: bool, shuffle: bool, tmp_path: Path
) -> None:
    path = tmp_path / "a.h5"
    for name in ("a.h5", "b.h5"):
        with h5py.File(tmp_path / name, "w") as file:
            file["x"] = np.ones((3, 2))
    (tmp_path / "list.txt").write_text("a.h5\n" + "b.h5\n" * (not loaded))
    reader = Hdf5Reader(tmp_path / "list.txt", ["x"], 3 if loaded else 6, shuffle=shuffle)
    out = np.empty(reader.shapes[0], np.float32)
    reader.fill(0, 0, [out])
    path.unlink()
    if shape is not None:
        with h5py.File(path, "w") as file:
            file["x"] = np.zeros(shape)
        os.utime(path, ns=(1, 1))
    with pytest.raises(DataError) as caught:
        reader.fill(0, 1, [out])
    assert caught.value.path == str(path)
    assert shape is None or caught.value.message == "has changed while it was read"
