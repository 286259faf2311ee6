"""Compressed files: any damage is one error, and none takes memory beyond the bound."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sslnet.errors import DataError
from sslnet.sources.datasets import _unpack
from sslnet.sources.unpack import open_unpacked

TEXT = bytes(range(256)) * 8


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress])
def test_files_are_unpacked_by_their_contents(pack, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(pack(TEXT))
    with open_unpacked(tmp_path / "a", 1 << 20) as file:
        assert (file.read(3), file.read(0), file.read(), file.read(), file.read(9)) == (
            TEXT[:3],
            b"",
            TEXT[3:],
            b"",
            b"",
        )


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
@pytest.mark.parametrize("size", [-1, 1 << 40])
def test_no_more_is_unpacked_than_the_bound(pack, size: int, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(pack(bytes(10_000_000)))
    with (
        pytest.raises(DataError, match="holds more than 1000 bytes"),
        open_unpacked(tmp_path / "a", 1000) as file,
    ):
        file.read(size)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
@given(data=st.data(), pack=st.sampled_from([gzip.compress, lzma.compress]), archive=st.booleans())
def test_damaged_files_give_bytes_or_one_error(data, pack, archive: bool, tmp_path: Path) -> None:
    raw = bytearray(pack(TEXT))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(2, len(raw) - 1))] = data.draw(st.integers(0, 255))
    del raw[data.draw(st.integers(2, len(raw))) :]
    (tmp_path / "a").write_bytes(raw)
    try:
        if archive:
            _unpack(tmp_path / "a")
        with open_unpacked(tmp_path / "a", 1 << 20) as file:
            file.read()
    except DataError as error:
        assert error.path == str(tmp_path / "a")
