"""Whatever a .solverstate holds: it is read, or one WeightsError says why not."""

from __future__ import annotations

import os
import random
from pathlib import Path

import h5py
import numpy as np
import pytest

from sslnet import sslnet_pb2 as pb
from sslnet.errors import WeightsError
from sslnet.solver.snapshot import SolverState, read_state, write_state

EXAMPLES = int(os.environ.get("SSLNET_TEST_EXAMPLES", "400"))
"""Damaged files of each format."""
SEED = random.randrange(2**32) if os.environ.get("SSLNET_TEST_RANDOM") else 0

STATE = SolverState(
    7,
    "run/é_iter_7.caffemodel",
    [np.arange(12, dtype=np.float32).reshape(3, 4), np.ones(4, np.float32)],
    2,
    {"train/digits": b'{"position": 3, "draws": 4}', "test0/digits": b"{}"},
    {"dual/conv/0": np.ones((2, 3), np.float32), "losses": np.ones(3)},
    5,
)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    found = {}
    for kind in ("binary", "hdf5"):
        path = tmp_path_factory.mktemp("good") / "a.solverstate"
        write_state(path, STATE, hdf5=kind == "hdf5")
        found[kind] = path.read_bytes()
    return found


def damaged(data: bytes, draw: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice([1, 1, 2, 4, 8])):
        kind, at = draw.random(), draw.randrange(max(1, len(changed)))
        if kind < 0.5:
            changed[at : at + 1] = bytes([draw.choice([0, 1, 0x80, 0xFF, draw.randrange(256)])])
        elif kind < 0.6:
            del changed[at:]
        elif kind < 0.7:
            changed[at:at] = draw.randbytes(draw.randrange(9))
        elif kind < 0.8:
            changed[at : at + 8] = b"\xff" * 8
        else:
            changed[at : at + 4] = changed[: draw.randrange(12)]
    return bytes(changed)


@pytest.mark.parametrize("kind", ["binary", "hdf5"])
def test_damaged_state_is_read_or_one_error(kind: str, good: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "a.solverstate"
    for example in range(EXAMPLES):
        path.write_bytes(damaged(good[kind], random.Random(f"{SEED} {example}")))
        try:
            state = read_state(path)
        except WeightsError as error:
            assert str(error).startswith(f"{path}: error: ")
            assert str(error).replace("\n", "").isprintable() and len(str(error)) < 1500
        except Exception as error:
            raise AssertionError(f"seed {SEED}, example {example}: {error!r}") from error
        else:
            for name in (state.learned_net, *state.layer_states, *state.arrays):
                name.encode()  # text, as it can be written again


def put(message: bytes, name: bytes) -> bytes:
    assert message.count(b"NAME") == 1
    return message.replace(b"NAME", name)


@pytest.mark.parametrize(
    "state",
    [
        pb.SolverState(iter=1, learned_net="NAME"),
        pb.SolverState(iter=1, layer_state=[pb.SolverState.LayerState(name="NAME", data=b"{}")]),
        pb.SolverState(iter=1, layer_state=[pb.SolverState.LayerState(name="array:NAME", data=b"")]),
    ],
    ids=["weights", "layer", "array"],
)
def test_name_in_a_binary_state_that_is_not_utf8_is_one_error(state, tmp_path: Path) -> None:
    path = tmp_path / "a.solverstate"
    path.write_bytes(put(state.SerializeToString(), b"a\xff\x1b["))
    with pytest.raises(WeightsError, match=r"the name .*a\S+\\x1b\[\" is not UTF-8 text"):
        read_state(path)


def weights_name(file: h5py.File) -> None:
    del file["learned_net"]
    file["learned_net"] = np.bytes_(b"a\xff\0")


def attribute(file: h5py.File) -> None:
    file["array/0"].attrs["name"] = np.bytes_(b"a\xff")


def attribute_of_any_length(file: h5py.File) -> None:
    file["array/0"].attrs.create("name", b"a\xff", dtype=h5py.string_dtype())


def attribute_of_numbers(file: h5py.File) -> None:
    file["array/0"].attrs["name"] = np.zeros(3)


def attribute_of_lists(file: h5py.File) -> None:
    """What one changed byte makes of a string; HDF5 reads a damaged one from anywhere in memory."""
    del file["array/0"].attrs["name"]
    kind, scalar = h5py.h5t.vlen_create(h5py.h5t.NATIVE_INT32), h5py.h5s.create(h5py.h5s.SCALAR)
    h5py.h5a.create(file["array/0"].id, b"name", kind, scalar)


@pytest.mark.parametrize(
    "change",
    [weights_name, attribute, attribute_of_any_length, attribute_of_numbers, attribute_of_lists],
    ids=lambda change: change.__name__,
)
def test_name_in_an_hdf5_state_that_is_no_text_is_one_error(change, good: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "a.solverstate.h5"
    path.write_bytes(good["hdf5"])
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(WeightsError, match=r"is not UTF-8 text|is no text"):
        read_state(path)


def old_state(path: Path, good: bytes) -> None:
    """With names of any length, as states had them at first."""
    path.write_bytes(good)
    with h5py.File(path, "r+") as file:
        for group in ("array", "layer_state"):
            for dataset in file[group].values():
                dataset.attrs["name"] = dataset.attrs["name"].decode()


def test_names_of_any_length_are_read(good: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "a.solverstate.h5"
    old_state(path, good["hdf5"])
    state = read_state(path)
    assert (list(state.arrays), state.layer_states) == (list(STATE.arrays), STATE.layer_states)


@pytest.mark.timeout(120)
def test_damaged_heap_of_names_is_one_error(good: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "a.solverstate.h5"
    old_state(path, good["hdf5"])
    data = path.read_bytes()
    at = data.index(b"GCOL") + 16  # of each object its index, its references, its size
    path.write_bytes(data[: at + 8] + b"\xff" * 8 + data[at + 16 :])
    with pytest.raises(WeightsError, match="the names in array cannot be read"):
        read_state(path)
