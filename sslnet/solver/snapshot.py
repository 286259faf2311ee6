"""Reads and writes the two files of a snapshot, which Caffe can read as well.

    <prefix>_iter_N.caffemodel     the weights                                  .caffemodel.h5 in HDF5
    <prefix>_iter_N.solverstate    iteration, history of the update rule, ...   .solverstate.h5

With ema_decay there is a third one, <prefix>_iter_N_average.caffemodel, and with snapshot_best <prefix>_best.caffemodel.

A bit-identical resume needs more than Caffe's fields: the seed, the states of layers, arrays such as the dual variables
of overlapping penalties. They are saved in fields from number 1000 on, or in HDF5 groups that Caffe ignores.

Both files are written under temporary names, flushed and renamed, the weights first. A run resumes from the state file,
so a complete pair exists even if the process is killed while writing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from sslnet import sslnet_pb2 as pb
from sslnet.errors import WeightsError
from sslnet.files import atomic_hdf5, atomic_write
from sslnet.hdf5 import Guard, is_hdf5, open_guarded
from sslnet.net.blob_arrays import blob_array, blob_proto
from sslnet.net.weights import read_message, to_bytes
from sslnet.prototxt import Definition
from sslnet.prototxt.values import shorten

LONGEST_NAME = 2**16
"""Maximum length of a name in HDF5, in bytes: the limit of an attribute in an object header."""
ARRAY = "array:"
"""Prefix of the names of arrays among the layer states of a binary file."""


@dataclass
class SolverState:
    """Contents of a .solverstate file.

    learned_net   path of the weights as saved: relative to the run's working directory or to the state's folder
    history       the update rule's arrays, in Caffe's order
    layer_states  {"train/<layer>" or "test<k>/<layer>": serialised state of the layer}
    arrays        further arrays of the solver, by name
    seed          None in files written by Caffe
    """

    iteration: int = 0
    learned_net: str = ""
    history: list[np.ndarray] = field(default_factory=list)
    current_step: int = 0
    layer_states: dict[str, bytes] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    seed: int | None = None


def snapshot_paths(prefix: str, iteration: int, hdf5: bool) -> tuple[str, str]:
    """Paths of the weights file and the state file of an iteration."""
    suffix = ".h5" if hdf5 else ""
    return f"{prefix}_iter_{iteration}.caffemodel{suffix}", f"{prefix}_iter_{iteration}.solverstate{suffix}"


def averaged_path(weights: str) -> str:
    """Path of the averaged weights beside the weights of a snapshot."""
    stem, suffix, rest = weights.rpartition(".caffemodel")
    return f"{stem}_average{suffix}{rest}"


def best_path(prefix: str, hdf5: bool) -> str:
    """Path of the best weights of a run."""
    return f"{prefix}_best.caffemodel" + (".h5" if hdf5 else "")


def snapshot_prefix(solver: Definition) -> str:
    """The solver's snapshot_prefix; without one its path without suffix; for a folder, the solver's name in it."""
    path = Path(solver.path) if solver.path else Path("solver")
    prefix = solver.message.snapshot_prefix
    if not prefix:
        return str(path.with_suffix(""))
    return os.path.join(prefix, path.stem) if os.path.isdir(prefix) else prefix


def write_state(path: str | os.PathLike[str], state: SolverState, *, hdf5: bool = False, follow: bool = True) -> None:
    """Writes a .solverstate atomically. raises RunError when it cannot be written

    follow  if the path is a symbolic link, replace its target, not the link
    """
    if hdf5:
        with atomic_hdf5(path, follow=follow) as file:
            _write_hdf5(file, state)
    else:
        atomic_write(path, to_bytes(_to_message(state), path), follow=follow)


def read_state(path: str | os.PathLike[str]) -> SolverState:
    """Reads a .solverstate, binary or HDF5, written by Caffe or by sslnet. raises WeightsError"""
    path = os.fspath(path)
    if is_hdf5(path):
        return _read_hdf5(path)
    return _from_message(read_message(path, pb.SolverState()), path)


def find_weights(state: SolverState, path: str | os.PathLike[str]) -> Path:
    """Finds the weights file of a state read from ``path``: in the same folder under the saved name or the state's own
    name, else at the saved path. raises WeightsError if there is none"""
    path = Path(path)
    own = path.with_name(path.name.replace(".solverstate", ".caffemodel"))
    named = Path(state.learned_net) if state.learned_net else own
    places = [path.with_name(named.name), own, named]
    for place in places:
        if place != path and place.is_file():
            return place
    raise WeightsError(
        f'the weights that belong to it, "{named}", are not there',
        path=os.fspath(path),
        hint=f"looked for {', '.join(dict.fromkeys(map(str, places)))}",
    )


# -- binary ------------------------------------------------------------------------------------------------------------


def _to_message(state: SolverState) -> Any:
    message = pb.SolverState(iter=state.iteration, learned_net=state.learned_net, current_step=state.current_step)
    message.history.extend(blob_proto(array) for array in state.history)
    message.layer_state.extend(pb.SolverState.LayerState(name=n, data=d) for n, d in state.layer_states.items())
    for name, array in state.arrays.items():
        message.layer_state.add(name=ARRAY + name, data=blob_proto(array).SerializeToString())
    if state.seed is not None:
        message.seed = state.seed
    return message


def _from_message(message: Any, path: str) -> SolverState:
    if not message.HasField("iter"):
        raise WeightsError("this is not a solver's state: it holds no iteration", path=path)
    state = SolverState(message.iter, _name(message.learned_net, path), current_step=message.current_step)
    state.seed = message.seed if message.HasField("seed") else None
    state.history = [blob_array(blob, path=path, index=index) for index, blob in enumerate(message.history)]
    for item in message.layer_state:
        name = _name(item.name, path)
        if not name.startswith(ARRAY):
            state.layer_states[name] = item.data
            continue
        try:
            blob = pb.BlobProto.FromString(item.data)
        except DecodeError as error:
            raise WeightsError(f'the array "{shorten(name, 100)}" is damaged', path=path) from error
        state.arrays[name.removeprefix(ARRAY)] = blob_array(blob, path=path)
    return state


def _name(name: str | bytes, path: str) -> str:
    """A name in a file as str. raises WeightsError if it is not UTF-8, in which case protobuf returns bytes"""
    try:
        return name if isinstance(name, str) else name.decode()
    except UnicodeDecodeError as error:
        shown = shorten(name.decode("latin-1") if isinstance(name, bytes) else name, 100)
        raise WeightsError(f'the name "{shown}" is not UTF-8 text: the file is damaged', path=path) from error


# -- HDF5 --------------------------------------------------------------------------------------------------------------


def _write_hdf5(file: Any, state: SolverState) -> None:
    file.create_dataset("iter", data=np.array([state.iteration], np.int32))
    file.create_dataset("learned_net", data=np.bytes_(state.learned_net.encode() + b"\0"))
    file.create_dataset("current_step", data=np.array([state.current_step], np.int32))
    _write_group(file, "history", [(str(index), array) for index, array in enumerate(state.history)])
    _write_group(file, "layer_state", [(n, np.frombuffer(d, np.uint8)) for n, d in state.layer_states.items()])
    _write_group(file, "array", list(state.arrays.items()))
    if state.seed is not None:
        file.create_dataset("seed", data=np.array([state.seed], np.uint64))


def _write_group(file: Any, name: str, arrays: Sequence[tuple[str, np.ndarray]]) -> None:
    """Writes the arrays as datasets 0, 1, 2, ...; their names, which may contain slashes, are attributes."""
    group = file.create_group(name)
    for index, (key, array) in enumerate(arrays):
        # Fixed-length strings: HDF5 crashes when it reads a damaged attribute of variable length.
        group.create_dataset(str(index), data=array).attrs["name"] = np.bytes_(key.encode())


def _read_hdf5(path: str) -> SolverState:
    with open_guarded(path, "a solver's state") as guard:
        iteration, learned_net, step = guard.value("iter"), guard.value("learned_net", "S"), guard.value("current_step")
        if iteration is None or learned_net is None or step is None:
            raise WeightsError("this is not a solver's state: it lacks iter, learned_net or current_step", path=path)
        state = SolverState(int(iteration), _name(bytes(learned_net).split(b"\0")[0], path), current_step=int(step))
        seed = guard.value("seed")
        state.seed = None if seed is None else int(seed)
        state.history = [array for _, array in _read_group(guard, "history", named=False)]
        state.arrays = dict(_read_group(guard, "array"))
        state.layer_states = {name: array.tobytes() for name, array in _read_group(guard, "layer_state")}
        return state


def _read_group(guard: Guard, name: str, *, named: bool = True) -> list[tuple[str, np.ndarray]]:
    group = guard.group(name)
    if group is None:
        return []
    datasets = [guard.item(group, str(index)) for index in range(len(group))]
    names = _names(guard, name, datasets) if named else [""] * len(datasets)
    return list(zip(names, map(guard.numbers, datasets)))


def _names(guard: Guard, group: str, datasets: Sequence[Any]) -> list[str]:
    """Reads the attribute "name" of each dataset of a group, after checking its type: HDF5 crashes or hangs when it
    reads a damaged attribute of variable length."""
    import h5py

    found: list[bytes] = []
    for dataset in datasets:
        if not isinstance(dataset, h5py.Dataset) or "name" not in dataset.attrs:
            guard.fail(f"{group} holds an array without a name")
        attribute = dataset.attrs.get_id("name")
        kind = attribute.get_type()
        if attribute.shape != () or not isinstance(kind, h5py.h5t.TypeStringID) or kind.get_size() > LONGEST_NAME:
            guard.fail(f"a name in {group} is no text")
        if kind.is_variable_str():
            found = _old_names(guard, group)
            break
        found.append(bytes(dataset.attrs["name"]))
    if len(found) != len(datasets):
        guard.fail(f"{group} holds an array without a name")
    return [_name(name, guard.path) for name in found]


OLD_NAMES = """
import h5py, json, sys
with h5py.File(sys.argv[1], "r") as file:
    group = file[sys.argv[2]]
    names = [group[str(index)].attrs["name"] for index in range(len(group))]
names = [name if isinstance(name, bytes) else name.encode("utf-8", "surrogateescape") for name in names]
print(json.dumps([name.decode("latin-1") for name in names]))
"""


def _old_names(guard: Guard, group: str) -> list[bytes]:
    """Reads names of variable length, as older states have them, in a separate process, because HDF5 may crash."""
    command = [sys.executable, "-P", "-c", OLD_NAMES, os.path.abspath(guard.path), group]
    try:
        done = subprocess.run(command, capture_output=True, timeout=30, check=True)
        return [str(name).encode("latin-1") for name in json.loads(done.stdout)]
    except (OSError, ValueError, subprocess.SubprocessError):
        guard.fail(f"the names in {group} cannot be read")
