"""Mean files: those of Caffe, ours read back, and damaged ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sslnet import sslnet_pb2 as pb
from sslnet.errors import WeightsError
from sslnet.sources.mean import read_mean, write_mean

GOLDENS = Path(__file__).parent.parent / "goldens" / "data"


def test_mean_of_caffe_is_read_and_written_byte_for_byte(tmp_path: Path) -> None:
    mean = read_mean(GOLDENS / "raw_mean.binaryproto")
    with np.load(GOLDENS / "raw_mean.npz") as golden:
        np.testing.assert_array_equal(mean, golden["mean"])
    write_mean(tmp_path / "mean", mean)
    assert (tmp_path / "mean").read_bytes() == (GOLDENS / "raw_mean.binaryproto").read_bytes()


def test_mean_is_read_in_every_form(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    for field in ("data", "double_data"):
        blob = pb.BlobProto(shape=pb.BlobShape(dim=values.shape), **{field: values.ravel().tolist()})
        (tmp_path / "mean").write_bytes(blob.SerializeToString())
        np.testing.assert_array_equal(read_mean(tmp_path / "mean"), values)


def mutate(data, raw: bytearray) -> bytes:
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    del raw[data.draw(st.integers(0, len(raw))) :]
    return bytes(raw)


@pytest.mark.parametrize("name", ["mean.binaryproto", "mean.npy"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_mutated_mean_files_give_a_mean_or_one_error(name: str, tmp_path: Path, data) -> None:
    path = tmp_path / name
    mean = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    if name.endswith(".npy"):
        np.save(path, mean)
    else:
        write_mean(path, mean)
    path.write_bytes(mutate(data, bytearray(path.read_bytes())))
    try:
        found = read_mean(path)
        assert found.ndim == 3
        assert found.size <= 1000
    except WeightsError as error:
        assert error.path == str(path)


def test_missing_mean_file_is_told(tmp_path: Path) -> None:
    for name in ("no.npy", "no.binaryproto"):
        with pytest.raises(WeightsError, match="No such file"):
            read_mean(tmp_path / name)
