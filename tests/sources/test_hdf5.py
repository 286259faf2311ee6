"""HDF5 lists: rows of any shape and type, and damaged files."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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
    with pytest.raises(DataError, match="far more than the file can hold"):
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
