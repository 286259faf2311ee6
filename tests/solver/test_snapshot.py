"""Snapshots: both formats, Caffe's own states, a resumed run that is the uninterrupted run bit by bit, kills on the way."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import RunError, UsageError, WeightsError
from sslnet.net.weights import read_weights
from sslnet.prototxt import Diagnostic
from sslnet.solver import snapshot
from sslnet.solver.callbacks import Monitor
from sslnet.solver.snapshot import SolverState, find_weights, read_state, snapshot_prefix, write_state
from sslnet.solver.solver import Solver

GOLDENS = Path(__file__).parents[1] / "goldens"

NET = """\
layer { name: "digits" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  transform_param { scale: 0.0625 mirror: true } data_param { source: "digits/train" backend: BUILTIN batch_size: 100 } }
layer { name: "digits" type: "Data" top: "data" top: "label" include { phase: TEST }
  transform_param { scale: 0.0625 } data_param { source: "digits/test" backend: BUILTIN batch_size: 30 } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  param { breadth_decay_mult: 1 kernel_shape_decay_mult: 1 } param { lr_mult: 2 }
  convolution_param { num_output: 6 kernel_size: 3 weight_filler { type: "msra" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "drop" type: "Dropout" bottom: "conv" top: "conv" dropout_param { dropout_ratio: 0.3 } }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
  param { group_lasso { group: OUTPUT_NEURON take_bias: true } block_group_lasso { xdimen: 4 ydimen: 5 } }
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""

SOLVER = """\
net: "net.prototxt" test_iter: 2 test_interval: 4 base_lr: 0.02 lr_policy: "multistep" gamma: 0.5 stepvalue: 7 stepvalue: 13
weight_decay: 0.001 max_iter: 20 snapshot_prefix: "run/small" average_loss: 3 display: 5
breadth_decay: 0.02 kernel_shape_decay: 0.02 block_group_decay: 0.05 group_lasso_decay: 0.02
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.prototxt").write_text(NET)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def definition(extra: str = "") -> prototxt.Definition:
    return prototxt.parse(SOLVER + extra, pb.SolverParameter)


class Heard(Monitor):
    """What a solver told."""

    def __init__(self) -> None:
        self.displays: list[Any] = []
        self.tests: list[Any] = []
        self.notes: list[Diagnostic] = []

    def on_display(self, record: Any) -> None:
        self.displays.append((record.iteration, record.loss, record.rate, record.outputs, record.penalty))

    def on_test(self, record: Any) -> None:
        self.tests.append((record.iteration, record.outputs))

    def on_warning(self, note: Diagnostic) -> None:
        self.notes.append(note)


def weights(solver: Solver) -> list[np.ndarray]:
    return [param.blob.data.copy() for param in solver.net.learnable]


# -- a resumed run -----------------------------------------------------------------------------------------------------

MOMENTUM = 'type: "{}" momentum: 0.9'
RULES = {
    "SGD": MOMENTUM.format("SGD"),
    "Nesterov": MOMENTUM.format("Nesterov"),
    "AdaGrad": 'type: "AdaGrad"',
    "RMSProp": 'type: "RMSProp" rms_decay: 0.9',
    "AdaDelta": MOMENTUM.format("AdaDelta"),
    "Adam": MOMENTUM.format("Adam"),
    "AdamW": MOMENTUM.format("AdamW"),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("form, settle", [("BINARYPROTO", 0), ("HDF5", 4)])
def test_resumed_run_is_the_uninterrupted_run_bit_by_bit(folder: Path, rule: str, form: str, settle: int) -> None:
    """Dropout, mirroring, overlapping groups with their duals, data that ends within the run, a seed from the system."""
    text = f"{RULES[rule]} snapshot: 10 snapshot_format: {form} group_lasso_settle: {settle}"
    whole, second = Heard(), Heard()
    uninterrupted = Solver(definition(text), monitor=whole)
    uninterrupted.solve()
    overlapping = [penalized for penalized in uninterrupted.penalties if penalized.penalty.sweeps]
    assert len(overlapping) == 2, "the case must need duals"

    state = "run/small_iter_10.solverstate" + (".h5" if form == "HDF5" else "")
    resumed = Solver(definition(text), snapshot=state, monitor=second)
    assert (resumed.iter, resumed.seed, resumed.current_step) == (10, uninterrupted.seed, 1)
    resumed.solve()
    for one, other in zip(weights(uninterrupted), weights(resumed)):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(uninterrupted.updates, resumed.updates):
        np.testing.assert_array_equal(one.history, other.history)
    assert [record for record in whole.displays if record[0] >= 10] == second.displays
    assert [record for record in whole.tests if record[0] >= 10] == second.tests
    assert not second.notes


def test_solvers_in_sixteen_threads_do_not_disturb_each_other(folder: Path) -> None:
    alone = Solver(definition("random_seed: 1"))
    alone.step(6)
    solvers = [Solver(definition("random_seed: 1")) for _ in range(16)]
    errors: list[BaseException] = []

    def work(solver: Solver) -> None:
        try:
            for _ in range(6):
                solver.step(1)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(solver,)) for solver in solvers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    for solver in solvers:
        for param, other in zip(solver.net.learnable, alone.net.learnable):
            np.testing.assert_array_equal(param.blob.data, other.blob.data)


def test_state_without_the_means_that_settling_needs_is_an_error(folder: Path) -> None:
    Solver(definition("snapshot: 10 group_lasso_memory: 0")).step(10)
    with pytest.raises(
        WeightsError, match=r"no running mean of the gradients of conv\[0\], which group_lasso_settle needs"
    ):
        Solver(definition("group_lasso_settle: 5"), snapshot="run/small_iter_10.solverstate")


def test_restore_into_a_solver_with_another_seed_takes_the_runs_seed(folder: Path) -> None:
    first = Solver(definition("snapshot: 10 random_seed: 5"))
    first.solve()
    other = Solver(definition("snapshot: 10 random_seed: 6"))
    nets = [other.net, *other.test_nets]
    other.solve(resume="run/small_iter_10.solverstate")
    assert other.seed == 5
    assert [other.net, *other.test_nets] == nets, "who holds a net of the solver still has the one that it trains"
    for one, two in zip(weights(first), weights(other)):
        np.testing.assert_array_equal(one, two)


def test_frozen_weights_are_those_of_the_start(folder: Path) -> None:
    """A weight that happens to be zero when the snapshot is taken is trained on."""
    (folder / "net.prototxt").write_text(
        NET.replace('name: "ip"', 'name: "ip" connectivity_mode: DISCONNECTED_ELTWISE')
    )
    text = definition("snapshot: 10 random_seed: 5 momentum: 0.9")
    uninterrupted = Solver(text)
    uninterrupted.net.params["ip"][0].data[3, :40] = 0
    uninterrupted.step(5)
    uninterrupted.net.params["ip"][0].data[4, :40] = 0
    paths = uninterrupted.snapshot()
    uninterrupted.step(5)
    resumed = Solver(text, snapshot=paths[1])
    resumed.step(5)
    for solver in (uninterrupted, resumed):
        assert not solver.net.params["ip"][0].data[3, :40].any()
    np.testing.assert_array_equal(weights(uninterrupted)[2], weights(resumed)[2])
    assert resumed.net.params["ip"][0].data[4, :40].any()


def test_stop_in_a_test_leaves_the_test_to_the_resumed_run(folder: Path) -> None:
    whole, first, second = Heard(), Heard(), Heard()
    Solver(definition("random_seed: 5"), monitor=whole).solve()

    stopped = Solver(definition("random_seed: 5"), monitor=first)
    test_net, forward = stopped.test_nets[0], stopped.test_nets[0].forward

    def forward_and_stop(*args: Any, **inputs: Any) -> Any:
        if stopped.iter == 8:
            stopped.request("stop")
        return forward(*args, **inputs)

    test_net.forward = forward_and_stop  # type: ignore[method-assign]
    stopped.solve()
    assert stopped.iter == 8
    assert stopped.last_snapshot == "run/small_iter_8.solverstate"
    Solver(definition("random_seed: 5"), snapshot=stopped.last_snapshot, monitor=second).solve()
    assert first.tests + second.tests == whole.tests


# -- Caffe's states ----------------------------------------------------------------------------------------------------


def copy_goldens(folder: str, target: Path) -> None:
    for path in (GOLDENS / folder).iterdir():
        shutil.copy(path, target)


@pytest.mark.parametrize("case", ["sgd_momentum", "adam"])
def test_run_resumed_from_caffes_binary_state_goes_on_as_caffe(folder: Path, case: str) -> None:
    copy_goldens("solvers", folder)
    heard = Heard()
    solver = Solver(f"{case}_solver.prototxt", snapshot=f"snap_{case}_iter_10.solverstate", monitor=heard)
    assert "data starts at its first record" in heard.notes[0].message
    for _ in range(2):  # where Caffe's run was: ten batches of 8 into 64 records
        solver.net.forward()
    solver.step(10)
    with np.load(f"{case}.npz") as golden:
        assert golden["iter"] == solver.iter == 20
        for name, blobs in solver.net.params.items():
            for index, blob in enumerate(blobs):
                np.testing.assert_allclose(blob.data, golden[f"final/{name}/{index}"], atol=1e-5)


def test_run_resumed_from_caffes_hdf5_state_goes_on_as_caffe(folder: Path) -> None:
    """Losses as in Caffe's log of its own resumed run, which starts the data anew too; weights as in its last snapshot."""
    copy_goldens("formats", folder)
    expected = read_weights("tiny_hdf5_iter_20.caffemodel.h5")
    heard = Heard()
    solver = Solver("solver_hdf5.prototxt", snapshot="tiny_hdf5_iter_10.solverstate.h5", monitor=heard)
    solver.step(10)
    shown = [(iteration, loss, rate) for iteration, loss, rate, _, _ in heard.displays]
    assert [iteration for iteration, _, _ in shown] == [10, 12, 14, 16, 18]
    np.testing.assert_allclose(
        [loss for _, loss, _ in shown], [0.422348, 0.417284, 0.429673, 0.411574, 0.325], atol=1e-6
    )
    np.testing.assert_allclose([rate for _, _, rate in shown], [0.025, 0.0125, 0.0125, 0.0125, 0.00625], rtol=1e-6)
    tested = {iteration: {name: value for name, value, _ in outputs} for iteration, outputs in heard.tests}
    assert tested[15]["accuracy"] == pytest.approx(0.953125)
    assert tested[15]["loss"] == pytest.approx(0.296146, abs=1e-6)
    for name, arrays in expected.items():
        for blob, array in zip(solver.net.params[name], arrays):
            np.testing.assert_allclose(blob.data, array, atol=1e-5 * max(1, np.abs(array).max()))


@pytest.mark.parametrize("suffix", ["", ".h5"])
def test_state_has_caffes_fields(folder: Path, suffix: str) -> None:
    """SolverState: iter 1, learned_net 2, history 3, current_step 4; in HDF5 what Caffe asks for by name."""
    solver = Solver(definition("momentum: 0.9" + (" snapshot_format: HDF5" if suffix else "")))
    solver.step(8)
    _, path = solver.snapshot()
    if not suffix:
        message = pb.SolverState.FromString(Path(path).read_bytes())
        assert (message.iter, message.learned_net, message.current_step) == (8, "run/small_iter_8.caffemodel", 1)
        assert [tuple(blob.shape.dim) for blob in message.history] == [p.blob.shape for p in solver.net.learnable]
    else:
        with h5py.File(path) as file:
            assert (file["iter"][0], file["current_step"][0]) == (8, 1)
            assert file["learned_net"][()].rstrip(b"\0") == b"run/small_iter_8.caffemodel.h5"
            assert len(file["history"]) == len(solver.net.learnable)
            np.testing.assert_array_equal(file["history/2"][()], solver.updates[2].history[0])


# -- files -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hdf5", [False, True])
def test_state_comes_back(tmp_path: Path, hdf5: bool) -> None:
    state = SolverState(7, "a/w.caffemodel", [np.arange(6, dtype=np.float32).reshape(2, 3)], 2, seed=2**63 - 1)
    state.layer_states = {"train/block/data": b"\0\xff", "test0/data": b"{}"}
    state.arrays = {"dual/block/conv[0]/0": np.ones((2, 2), np.float32), "losses": np.array([1 / 3])}
    write_state(tmp_path / "s", state, hdf5=hdf5)
    back = read_state(tmp_path / "s")
    assert (back.iteration, back.learned_net, back.current_step, back.seed) == (7, "a/w.caffemodel", 2, 2**63 - 1)
    assert back.layer_states == state.layer_states
    np.testing.assert_array_equal(back.history[0], state.history[0])
    assert list(back.arrays) == list(state.arrays)
    for name, array in state.arrays.items():
        np.testing.assert_array_equal(back.arrays[name], array)


def _repeat(file: h5py.File) -> None:
    file["history/1"] = file["history/0"]


def _link(file: h5py.File) -> None:
    file["history/1"] = h5py.ExternalLink("other.h5", "/data")


def _claim(file: h5py.File) -> None:
    file["history"].create_dataset("1", shape=(10**9,), dtype=np.float32)


def _empty(file: h5py.File) -> None:
    del file["iter"]
    file["iter"] = np.zeros(0, np.int32)


@pytest.mark.parametrize(
    "damage, message",
    [
        (_repeat, "in one another"),
        (_link, "1 is a link to another place"),
        (_claim, "the data sets unpack to more than"),
        (_empty, "iter holds 0 values, not one"),
        (lambda file: file.pop("learned_net"), "it lacks iter, learned_net or current_step"),
    ],
)
def test_hdf5_state_is_read_within_bounds(tmp_path: Path, damage: Callable[[h5py.File], None], message: str) -> None:
    path = tmp_path / "s.h5"
    write_state(path, SolverState(7, "w.caffemodel", [np.ones((2, 3), np.float32)]), hdf5=True)
    with h5py.File(path, "r+") as file:
        damage(file)
    with pytest.raises(WeightsError, match=message) as caught:
        read_state(path)
    assert caught.value.path == str(path)


def test_weights_are_found_beside_a_state_that_was_moved(tmp_path: Path) -> None:
    (tmp_path / "w.caffemodel").touch()
    assert (
        find_weights(SolverState(learned_net="elsewhere/w.caffemodel"), tmp_path / "s.solverstate")
        == tmp_path / "w.caffemodel"
    )


def test_weights_are_found_under_the_states_own_name(tmp_path: Path) -> None:
    (tmp_path / "s.caffemodel.h5").touch()
    found = find_weights(SolverState(learned_net="elsewhere/w.caffemodel"), tmp_path / "s.solverstate.h5")
    assert found == tmp_path / "s.caffemodel.h5"


def test_weights_that_are_gone_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"the weights that belong to it, \"elsewhere/w.caffemodel\", are not there"):
        find_weights(SolverState(learned_net="elsewhere/w.caffemodel"), tmp_path / "s.solverstate")


@pytest.mark.parametrize("suffix", ["", ".h5"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_cut_off_state_is_an_error_and_nothing_changes(folder: Path, suffix: str, share: float) -> None:
    solver = Solver(definition("snapshot_format: HDF5" if suffix else ""))
    solver.step(3)
    path = Path(solver.snapshot()[1])
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    solver.step(1)
    before = weights(solver)
    with pytest.raises(WeightsError) as caught:
        solver.restore(path)
    assert caught.value.path == str(path)
    assert solver.iter == 4
    for one, other in zip(before, weights(solver)):
        np.testing.assert_array_equal(one, other)


def test_state_of_another_rule_is_an_error_and_nothing_changes(folder: Path) -> None:
    first = Solver(definition('type: "Adam" momentum: 0.9'))
    first.step(2)
    _, path = first.snapshot()
    second = Solver(definition())
    before = weights(second)
    with pytest.raises(WeightsError, match="the state has 8 history arrays, the solver needs 4 for its net"):
        second.restore(path)
    assert second.iter == 0
    for one, other in zip(before, weights(second)):
        np.testing.assert_array_equal(one, other)


def test_failure_between_the_files_leaves_the_last_pair(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights come first: a state is never there without them, and the last one stays what it was."""
    solver = Solver(definition())
    solver.step(1)
    _, good = solver.snapshot()
    solver.step(1)

    def fail(*args: object, **settings: object) -> None:
        raise RunError("the disk is full")

    monkeypatch.setattr("sslnet.solver.snapshots.write_state", fail)
    with pytest.raises(RunError):
        solver.snapshot()
    assert sorted(os.listdir("run")) == [
        "small_iter_1.caffemodel",
        "small_iter_1.solverstate",
        "small_iter_2.caffemodel",
    ]
    monkeypatch.undo()
    assert solver.last_snapshot == good
    Solver(prototxt.read_solver(solver_file(folder)), snapshot=folder / good)


KILLED = """\
import sys
from sslnet import prototxt, sslnet_pb2 as pb
from sslnet.solver.solver import Solver
solver = Solver("solver.prototxt")
solver.snapshot()
print("ready", flush=True)
while True:
    solver.step(1)
    solver.snapshot()
"""


def test_killed_run_leaves_good_pairs(folder: Path) -> None:
    """SIGKILL while nothing but snapshots is written: every state there resumes, the last one too."""
    solver_file(folder)
    root = str(Path(snapshot.__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "SSLNET_NUM_THREADS": "1"}
    for delay in (0.05, 0.23):
        with subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, env=environment) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            time.sleep(delay)
            process.kill()
    states = sorted(Path("run").glob("small_*.solverstate"))
    assert states
    solver = Solver("solver.prototxt")
    for path in states:
        solver.restore(path)
        assert path.name == f"small_iter_{solver.iter}.solverstate"


def solver_file(folder: Path) -> Path:
    path = folder / "solver.prototxt"
    path.write_text(SOLVER)
    return path


@pytest.mark.parametrize(
    "name",
    ["solvers/snap_adam_iter_10.caffemodel", "formats/tiny_hdf5_iter_10.caffemodel.h5",
     "solvers/snap_adam_iter_10.solverstate", "formats/tiny_hdf5_iter_10.solverstate.h5"],
)  # fmt: skip
def test_damaged_file_makes_one_clear_error_or_none(tmp_path: Path, name: str) -> None:
    good, read = (GOLDENS / name).read_bytes(), read_state if "solverstate" in name else read_weights
    random, failures = np.random.default_rng(0), 0
    for _ in range(200):
        damaged = bytearray(good)
        for place in random.integers(0, random.choice([100, 900, len(good)]), size=random.integers(1, 20)):
            damaged[place % len(damaged)] = random.integers(256)
        (tmp_path / "damaged").write_bytes(damaged)
        try:
            read(tmp_path / "damaged")
        except WeightsError as error:
            failures += 1
            assert error.path == str(tmp_path / "damaged")
    assert failures > 20


@pytest.mark.parametrize(
    "text, path, expected",
    [
        ('snapshot_prefix: "run/lenet"', "solver.prototxt", "run/lenet"),
        ("", "solvers/lenet.prototxt", "solvers/lenet"),
        ('snapshot_prefix: "there"', "solvers/lenet.prototxt", "there/lenet"),
    ],
)
def test_prefix_is_the_solvers_own_name_unless_given(folder: Path, text: str, path: str, expected: str) -> None:
    Path("there").mkdir()
    assert snapshot_prefix(prototxt.parse(text, pb.SolverParameter, path=path)) == expected


def test_paths_name_the_iteration() -> None:
    assert snapshot.snapshot_paths("a/b", 20, False) == ("a/b_iter_20.caffemodel", "a/b_iter_20.solverstate")
    assert snapshot.snapshot_paths("a/b", 20, True) == ("a/b_iter_20.caffemodel.h5", "a/b_iter_20.solverstate.h5")


def test_second_run_with_the_same_prefix_is_refused(folder: Path) -> None:
    """Else the snapshots of the two would stand side by side, and nobody could tell which state belongs to which weights."""

    class Second(Monitor):
        def on_start(self, solver: Solver) -> None:
            with pytest.raises(UsageError, match="is in use by another run"):
                Solver(definition()).solve()

    Solver(definition(), monitor=Second()).solve()
    assert not list(folder.rglob("*.lock"))
    Solver(definition()).solve()
