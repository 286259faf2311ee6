"""IDX files: what is written is read; what is damaged is told, and takes no memory."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sslnet.errors import DataError
from sslnet.sources.idx import idx_source, read_idx


def idx(array: np.ndarray) -> bytes:
    return (
        bytes([0, 0, 8, array.ndim])
        + b"".join(n.to_bytes(4, "big") for n in array.shape)
        + array.astype(np.uint8).tobytes()
    )


ARRAY = np.arange(24).reshape(2, 3, 4)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_idx_files_are_read_packed_or_not(pack, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(pack(idx(ARRAY)))
    np.testing.assert_array_equal(read_idx(tmp_path / "a"), ARRAY)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", "is not an IDX file"),
        (b"\x00\x00\x0d\x01" + bytes(8), "values of type 0x0d"),
        (b"\x00\x00\x08\x03" + bytes(5), "cut off within its header"),
        (b"\x00\x00\x08\x00", "cut off within its header"),
        (idx(ARRAY)[:-1], "holds 23 values, but its header announces 2 x 3 x 4 = 24"),
        (idx(ARRAY) + b"x", "holds 25 values"),
        (gzip.compress(idx(ARRAY))[:-9], "the compressed file is cut off or damaged"),
        (gzip.compress(idx(ARRAY) + b"x" * 1000), "holds 25 values"),
        (gzip.compress(b"\x00\x00\x08\x03" + b"\xff" * 12), "holds 0 values"),
        (b"\x00\x00\x08\xff" + (b"\0\0\0\1" * 255) + b"x", "announces 255 axes; at most 32 are read"),
        (b"\x00\x00\x08\x05" + bytes(4) + b"\xff" * 16, "announces no array: 0 x 4294967295 x 4294967295"),
    ],
    # Not the contents: those of a gzip file hold the time, and all processes of the tests must agree on the names.
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_damaged_idx_files_are_told(contents: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(contents)
    with pytest.raises(DataError, match=message):
        read_idx(tmp_path / "a")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data(), packed=st.booleans())
def test_mutated_idx_files_give_an_array_or_one_error(data, packed: bool, tmp_path: Path) -> None:
    raw = bytearray(gzip.compress(idx(ARRAY), mtime=0) if packed else idx(ARRAY))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    del raw[data.draw(st.integers(0, len(raw))) :]
    (tmp_path / "a").write_bytes(raw)
    try:
        assert read_idx(tmp_path / "a").size <= len(raw) * 1100
    except DataError as error:
        assert error.path == str(tmp_path / "a")


def test_images_and_labels_must_belong_together(tmp_path: Path) -> None:
    (tmp_path / "images").write_bytes(idx(ARRAY))
    (tmp_path / "labels").write_bytes(idx(np.arange(3)))
    with pytest.raises(DataError, match="there are 2 images, but 3 labels"):
        idx_source("x", tmp_path / "images", tmp_path / "labels")
    with pytest.raises(DataError, match="has 1 axes, images have 3"):
        idx_source("x", tmp_path / "labels", tmp_path / "labels")
    (tmp_path / "labels").write_bytes(idx(np.array([7, 9])))
    source = idx_source("x", tmp_path / "images", tmp_path / "labels")
    records = source.read(np.array([1, 0]))
    np.testing.assert_array_equal(records.images, ARRAY[[1, 0], None])
    assert records.labels.tolist() == [9, 7]
    assert (len(source), source.shape, source.labelled) == (2, (1, 3, 4), True)
