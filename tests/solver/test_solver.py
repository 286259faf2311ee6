"""The solver: Caffe's runs and those of the authors of SSL reproduced, convex problems solved, and what it tells."""

from __future__ import annotations

import math
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import DefinitionError, ErrorList, RunError, UsageError
from sslnet.net.net import Net
from sslnet.prototxt import Diagnostic
from sslnet.solver.callbacks import Display, Monitor
from sslnet.solver.solver import Solver
from sslnet.sparsity.tiled_group_lasso import TiledGroupLasso

GOLDENS = Path(__file__).parents[1] / "goldens"
SOLVERS = sorted(path.stem for path in (GOLDENS / "solvers").glob("*.npz"))
AUTHORS = sorted(path.stem for path in (GOLDENS / "scnn").glob("*.npz"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def goldens(name: str, target: Path) -> None:
    for path in (GOLDENS / name).iterdir():
        shutil.copy(path, target)


class Heard(Monitor):
    """What a solver told, in order."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []

    def of(self, kind: str) -> list[Any]:
        return [value for name, value in self.events if name == kind]

    def on_warning(self, note: Diagnostic) -> None:
        self.events.append(("warning", note))

    def on_start(self, solver: Solver) -> None:
        self.events.append(("start", solver.iter))

    def on_iteration(self, iteration: int, loss: float) -> None:
        self.events.append(("iteration", (iteration, loss)))

    def on_display(self, record: Display) -> None:
        self.events.append(("display", record))

    def on_test(self, record: Any) -> None:
        self.events.append(("test", record))

    def on_snapshot(self, iteration: int, weights: str, state: str) -> None:
        self.events.append(("snapshot", iteration))

    def on_debug(self, line: str) -> None:
        self.events.append(("debug", line))

    def on_finish(self, solver: Solver, stopped: bool) -> None:
        self.events.append(("finish", stopped))


# -- Caffe, and the authors' implementation ------------------------------------------------------------------------------


@pytest.mark.parametrize("case", SOLVERS)
def test_twenty_iterations_are_those_of_caffe(case: str, folder: Path) -> None:
    goldens("solvers", folder)
    solver = Solver(f"{case}_solver.prototxt", weights=["net_init.caffemodel"])
    with np.load(f"{case}.npz") as golden:
        for iteration in range(1, 21):
            solver.step(1)
            assert solver.net.loss == pytest.approx(golden["losses"][iteration - 1, -1], rel=1e-4)
            key = {1: "iter1", 10: "iter10", 20: "final"}.get(iteration)
            if key is not None:
                assert_params(solver.net, golden, key)
        second = len(solver.updates)
        for index, update in enumerate(solver.updates):
            for depth, history in enumerate(update.history):
                expected = golden[f"history/{index + depth * second}"]
                np.testing.assert_allclose(history, expected, atol=1e-4 * np.abs(expected).max())
        assert solver.current_step == golden["current_step"]


@pytest.mark.parametrize("case", AUTHORS)
def test_subgradient_runs_are_those_of_the_authors(case: str, folder: Path) -> None:
    """Fifty iterations, weights exactly zero where theirs are; and the regularisation that they log."""
    goldens("scnn", folder)
    definition = prototxt.read_solver(f"solver_{case}.prototxt")
    definition.message.group_lasso_update = pb.SolverParameter.SUBGRADIENT
    start = {"conn": "init_sparse", "vanish": "init_small"}.get(case.split("_")[0], "init_dense")
    heard = Heard()
    solver = Solver(definition, weights=[f"{start}.caffemodel"], monitor=heard)
    with np.load(f"{case}.npz") as golden:
        for iteration in range(1, 51):
            solver.step(1)
            assert solver.net.loss == pytest.approx(golden["losses"][iteration - 1], rel=1e-4)
            key = {1: "iter1", 2: "iter2", 10: "iter10", 25: "iter25", 50: "final"}.get(iteration)
            if key is not None:
                assert_params(solver.net, golden, key)
        weight_decay = solver.param.weight_decay
        if not weight_decay:
            logged = golden["reg_terms_logged"]
            np.testing.assert_allclose([record.penalty for record in heard.of("display")], logged, rtol=1e-5)


def assert_params(net: Net, golden: Any, key: str) -> None:
    for name, blobs in net.params.items():
        for index, blob in enumerate(blobs):
            expected, start = golden[f"{key}/{name}/{index}"], golden[f"init/{name}/{index}"]
            largest = max(np.abs(expected).max(), np.abs(start).max())
            np.testing.assert_allclose(blob.data, expected, atol=1e-4 * largest)
            np.testing.assert_array_equal(blob.data == 0, expected == 0)


# -- convex problems ---------------------------------------------------------------------------------------------------

SAMPLES, INPUTS, OUTPUTS = 64, 20, 6

RULES = {
    "SGD": 'type: "SGD" base_lr: 0.1 momentum: 0.9',
    "Nesterov": 'type: "Nesterov" base_lr: 0.1 momentum: 0.9',
    "AdaGrad": 'type: "AdaGrad" base_lr: 0.3',
    # delta bounds the steps by 0.1, as with SGD; without such a bound the rule circles (see the test of that).
    "RMSProp": 'type: "RMSProp" base_lr: 0.01 rms_decay: 0.98 delta: 0.1',
    "AdaDelta": 'type: "AdaDelta" base_lr: 1 momentum: 0.95 delta: 1e-6',
    "Adam": 'type: "Adam" base_lr: 0.01 momentum: 0.9',
    "AdamW": 'type: "AdamW" base_lr: 0.01 momentum: 0.9',
}
PENALTIES = {
    "rows": ("breadth_decay_mult: 1", "breadth_decay: 0.3"),
    "columns": ("kernel_shape_decay_mult: 1", "kernel_shape_decay: 0.1"),
    "rows and columns": (
        "breadth_decay_mult: 1 kernel_shape_decay_mult: 1",
        "breadth_decay: 0.3 kernel_shape_decay: 0.1",
    ),
    "tiles and single weights": (
        "block_group_lasso { xdimen: 5 ydimen: 2 } block_group_lasso { xdimen: 4 ydimen: 3 block_decay_mult: 0.5 } "
        "block_group_lasso { xdimen: 1 ydimen: 1 block_decay_mult: 0.1 }",
        "block_group_decay: 0.15",
    ),
    "l1": ("group_lasso { group: ELEMENT }", "group_lasso_decay: 0.05"),
    "neurons and l1": (
        "group_lasso { group: OUTPUT_NEURON } group_lasso { group: INPUT_NEURON } "
        "group_lasso { group: ELEMENT decay_mult: 0.5 }",
        "group_lasso_decay: 0.05 group_lasso_scale_by_size: true",
    ),
}


def least_squares(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets, also in data.h5; rows and columns of the true weights are zero."""
    random = np.random.default_rng(0)
    a = random.standard_normal((SAMPLES, INPUTS)).astype(np.float32)
    w = (
        random.standard_normal((OUTPUTS, INPUTS))
        * (random.random((1, INPUTS)) < 0.4)
        * (random.random((OUTPUTS, 1)) < 0.6)
    )
    y = (a @ w.T + 0.1 * random.standard_normal((SAMPLES, OUTPUTS))).astype(np.float32)
    with h5py.File(folder / "data.h5", "w") as file:
        file["a"], file["y"] = a, y
    (folder / "list.txt").write_text("data.h5\n")
    return a.astype(np.float64), y.astype(np.float64)


def least_squares_net(param: str, batch: int = SAMPLES) -> str:
    return (
        f'layer {{ name: "d" type: "HDF5Data" top: "a" top: "y" hdf5_data_param {{ source: "list.txt" batch_size: {batch} }} }}\n'
        f'layer {{ name: "ip" type: "InnerProduct" bottom: "a" top: "p" param {{ {param} }} inner_product_param {{\n'
        f'  num_output: {OUTPUTS} bias_term: false weight_filler {{ type: "gaussian" std: 0.1 }} }} }}\n'
        'layer { name: "loss" type: "EuclideanLoss" bottom: "p" bottom: "y" top: "loss" }\n'
    )


def with_net(solver: str, net: str) -> prototxt.Definition:
    return prototxt.parse(f"{solver}\nnet_param {{ {net} }}", pb.SolverParameter)


ITERATIONS = {"AdaDelta": 3000, "Adam": 3000, "AdamW": 3000}
"""Until a run is at its minimiser: half as many with the other rules."""


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("penalty", PENALTIES)
def test_run_rests_at_the_minimiser(penalty: str, rule: str, folder: Path) -> None:
    """KKT: -gradient = sum of duals, with ||dual|| <= strength and <dual, w> = strength * ||w|| for each group."""
    a, y = least_squares(folder)
    param, decays = PENALTIES[penalty]
    solver = Solver(
        with_net(f'{RULES[rule]} {decays} lr_policy: "fixed" random_seed: 1', least_squares_net(param)),
        dtype=np.float64,
    )
    solver.step(ITERATIONS.get(rule, 1500))
    w = solver.net.params["ip"][0].data
    gradient = (a @ w.T - y).T @ a / SAMPLES
    found = solver.penalties[0].penalty
    assert isinstance(found, TiledGroupLasso)
    duals = found.state() or [-gradient]
    if found.crossed is not None and rule in ("SGD", "Nesterov"):  # keeps the dual of the columns only
        across = [tiling.height for tiling in found.tilings].index(1)
        duals[across] = -gradient - duals[1 - across]
    assert np.abs(gradient + sum(duals)).max() < 1e-5
    for tiling, dual in zip(found.tilings, duals, strict=True):
        for i in range(0, OUTPUTS, tiling.height):
            for j in range(0, INPUTS, tiling.width):
                group = (slice(i, i + tiling.height), slice(j, j + tiling.width))
                assert np.linalg.norm(dual[group]) <= tiling.strength + 1e-5
                gap = tiling.strength * np.linalg.norm(w[group]) - (dual[group] * w[group]).sum()
                assert abs(gap) < 1e-5
    assert 0 < (w == 0).sum() < w.size


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("others", ["", "group_lasso { group: INPUT_NEURON decay_mult: 0.3 }"])
def test_run_rests_at_the_minimiser_with_biases_in_the_groups(others: str, rule: str, folder: Path) -> None:
    """KKT as above, a neuron's bias in its group; the bias learns at another rate than the weights."""
    a, y = least_squares(folder)
    mult = 0.5 if rule == "AdaDelta" else 2  # at twice its rate AdaDelta drifts, with a penalty or without
    specs = f"group_lasso {{ group: OUTPUT_NEURON take_bias: true }} {others} }} param {{ lr_mult: {mult}"
    net = least_squares_net(specs).replace("bias_term: false", "")
    settings = 'group_lasso_decay: 0.3 lr_policy: "fixed" random_seed: 1'
    solver = Solver(with_net(f"{RULES[rule]} {settings}", net), dtype=np.float64)
    solver.step(ITERATIONS.get(rule, 1500))
    w, b = (blob.data for blob in solver.net.params["ip"])
    error = a @ w.T + b - y
    gradient, bias_gradient = error.T @ a / SAMPLES, error.mean(axis=0)
    found = solver.penalties[0].penalty
    assert isinstance(found, TiledGroupLasso)
    *duals, bias_dual = found.state() or [-gradient, -bias_gradient]
    assert np.abs(gradient + sum(duals)).max() < 1e-5
    assert np.abs(bias_gradient + bias_dual).max() < 1e-5
    rows = duals[[tiling.bias for tiling in found.tilings].index(True)]
    joint, dual = np.column_stack([w, b]), np.column_stack([rows, bias_dual])
    lengths = np.linalg.norm(joint, axis=1)
    assert np.linalg.norm(dual, axis=1).max() <= 0.3 + 1e-5
    assert np.abs(0.3 * lengths - (dual * joint).sum(axis=1)).max() < 1e-5
    if others:
        columns = duals[[tiling.bias for tiling in found.tilings].index(False)]
        assert np.linalg.norm(columns, axis=0).max() <= 0.09 + 1e-5
        assert np.abs(0.09 * np.linalg.norm(w, axis=0) - (columns * w).sum(axis=0)).max() < 1e-5
    dead = ~w.any(axis=1)
    assert 0 < dead.sum() < OUTPUTS
    np.testing.assert_array_equal(b == 0, dead)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_run_in_single_precision_finds_the_zeros_of_cvxpy(penalty: str, folder: Path) -> None:
    cp = pytest.importorskip("cvxpy")
    a, y = least_squares(folder)
    param, decays = PENALTIES[penalty]
    solver = Solver(with_net(f'{RULES["SGD"]} {decays} lr_policy: "fixed" random_seed: 1', least_squares_net(param)))
    solver.step(1500)
    found = solver.penalties[0].penalty
    assert isinstance(found, TiledGroupLasso)
    z = cp.Variable((OUTPUTS, INPUTS))
    norms = [
        t.strength * cp.norm(cp.vec(z[i : i + t.height, j : j + t.width], order="C"))
        for t in found.tilings
        for i in range(0, OUTPUTS, t.height)
        for j in range(0, INPUTS, t.width)
    ]
    problem = cp.Problem(cp.Minimize(cp.sum_squares(a @ z.T - y) / (2 * SAMPLES) + sum(norms)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says when it did not reach its own, tighter goal
        problem.solve(solver="CLARABEL", tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12)
    w = solver.net.params["ip"][0].data
    np.testing.assert_allclose(w, z.value, atol=3e-5)
    np.testing.assert_array_equal(w == 0, np.abs(z.value) < 1e-6)


@pytest.mark.parametrize("param, decays", [("", ""), *(PENALTIES[name] for name in ("rows", "columns"))])
def test_rmsprop_circles_the_minimiser_within_its_rate(param: str, decays: str, folder: Path) -> None:
    """Its steps grow as gradients vanish: with a penalty or without it ends in a circle, at a lower rate in a smaller one."""
    least_squares(folder)
    net = least_squares_net(param)
    exact = Solver(with_net(f'{RULES["SGD"]} {decays} lr_policy: "fixed" random_seed: 1', net), dtype=np.float64)
    exact.step(2000)
    goal = exact.net.params["ip"][0].data
    circling = f'type: "RMSProp" base_lr: 0.01 rms_decay: 0.98 {decays} lr_policy: "fixed" random_seed: 1'
    solver = Solver(with_net(circling, net), dtype=np.float64)
    w = solver.net.params["ip"][0].data
    for rate in (0.01, 0.001, 0.0001):
        solver.param.base_lr = rate
        solver.step(1000)
        distance = 0.0
        for _ in range(10):
            solver.step(1)
            distance = max(distance, np.abs(w - goal).max())
        assert distance < 2 * rate
        assert distance > 0.1 * rate or rate < 0.01, "the case must circle"
        np.testing.assert_array_equal(w == 0, goal == 0)


def test_iter_size_is_a_bigger_batch(folder: Path) -> None:
    least_squares(folder)
    text = 'base_lr: 0.1 momentum: 0.9 weight_decay: 0.1 clip_gradients: 0.7 lr_policy: "fixed" random_seed: 1'
    whole = Solver(with_net(text, least_squares_net("", 16)))
    # clip_gradients acts on the sum over iter_size, as in Caffe: the same cut is four times the value here.
    parts = Solver(with_net(text.replace("0.7", "2.8") + " iter_size: 4", least_squares_net("", 4)))
    for _ in range(5):
        whole.step(1)
        parts.step(1)
        assert whole.smoothed_loss == pytest.approx(parts.smoothed_loss, rel=1e-5)
    expected, found = (solver.net.params["ip"][0].data for solver in (whole, parts))
    # A small weight is a sum of large terms: all are rounded to the digits of the largest.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_same_seed_is_the_same_run(folder: Path) -> None:
    least_squares(folder)
    runs = [Solver(with_net('base_lr: 0.1 lr_policy: "fixed"', least_squares_net(""))) for _ in range(2)]
    assert runs[0].seed != runs[1].seed, "each run draws its own"
    again = Solver(with_net(f'base_lr: 0.1 lr_policy: "fixed" random_seed: {runs[0].seed}', least_squares_net("")))
    for solver in (runs[0], again):
        solver.step(2)
    np.testing.assert_array_equal(runs[0].net.params["ip"][0].data, again.net.params["ip"][0].data)


# -- what it tells, and when ---------------------------------------------------------------------------------------------

TWO_PHASES = """
layer { name: "d" type: "HDF5Data" top: "a" top: "y" hdf5_data_param { source: "list.txt" batch_size: 16 } }
layer { name: "ip" type: "InnerProduct" bottom: "a" top: "p" param { breadth_decay_mult: 1 } inner_product_param {
  num_output: 6 weight_filler { type: "gaussian" std: 0.1 } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "p" bottom: "y" top: "loss" loss_weight: 2 }
layer { name: "half" type: "EuclideanLoss" bottom: "p" bottom: "y" top: "half" loss_weight: 0 include { phase: TEST } }
"""
BASE = 'base_lr: 0.01 lr_policy: "step" gamma: 0.1 stepsize: 4 random_seed: 1 snapshot_prefix: "run/a" '


def run(folder: Path, text: str, act: Callable[[Solver], None] | None = None, **settings: Any) -> tuple[Solver, Heard]:
    least_squares(folder)
    heard = Heard()
    given = {field.split(":")[0] for field in re.findall(r"\w+:", text)}
    base = " ".join(field for field in re.findall(r"\w+: \S+", BASE) if field.split(":")[0] not in given)
    solver = Solver(with_net(f"{base} {text}", TWO_PHASES), monitor=heard, **settings)
    (act or Solver.solve)(solver)
    return solver, heard


def test_run_tells_what_caffe_logs_in_its_order(folder: Path) -> None:
    _, heard = run(folder, "max_iter: 6 display: 3 test_iter: 2 test_interval: 4 snapshot: 4")
    told = []
    for kind, value in heard.events:
        if kind in ("display", "test"):
            told.append((kind, value.iteration))
        elif kind not in ("iteration", "warning"):
            told.append((kind, value))
    assert told == [
        ("start", 0),
        ("test", 0),
        ("display", 0),
        ("display", 3),
        ("snapshot", 4),
        ("test", 4),
        ("snapshot", 6),
        ("display", 6),
        ("finish", False),
    ]
    assert [iteration for iteration, _ in heard.of("iteration")] == [1, 2, 3, 4, 5, 6]


def test_last_test_is_made_when_it_is_due(folder: Path) -> None:
    _, heard = run(folder, "max_iter: 4 test_iter: 1 test_interval: 2 test_initialization: false")
    assert [record.iteration for record in heard.of("test")] == [2, 4]


def test_display_holds_rate_outputs_and_pace(folder: Path) -> None:
    _, heard = run(folder, "max_iter: 5 display: 2")
    first, second, third = heard.of("display")
    assert [record.rate for record in (first, second, third)] == pytest.approx([0.01, 0.01, 0.001])
    ((name, value, weight),) = first.outputs
    assert (name, weight) == ("loss", 2.0)
    assert first.loss == pytest.approx(2 * value)
    assert (first.iterations, second.iterations) == (0, 2)
    assert second.seconds > 0
    assert third.penalty == 0


def test_loss_is_averaged_over_the_last_iterations(folder: Path) -> None:
    single = [loss for _, loss in run(folder, "max_iter: 6")[1].of("iteration")]
    averaged = [loss for _, loss in run(folder, "max_iter: 6 average_loss: 3")[1].of("iteration")]
    assert averaged == pytest.approx([np.mean(single[max(0, i - 2) : i + 1]) for i in range(6)])


def test_test_averages_the_outputs_of_its_batches(folder: Path) -> None:
    solver, heard = run(folder, "max_iter: 0 test_iter: 2 test_interval: 1 test_compute_loss: true")
    (record,) = heard.of("test")
    net = Net(solver.definition.part("net_param"), seed=3)
    for mine, theirs in zip(net.params["ip"], solver.net.params["ip"]):
        mine.data[...] = theirs.data
    batches = [float(net.forward()["loss"]) for _ in range(2)]
    assert record.outputs == [
        ("loss", pytest.approx(np.mean(batches)), 2.0),
        ("half", pytest.approx(np.mean(batches)), 0.0),
    ]
    assert record.loss == pytest.approx(2 * np.mean(batches))


def test_display_carries_the_penalty_and_what_is_measured(folder: Path) -> None:
    solver, heard = run(
        folder, "max_iter: 1 display: 1 base_lr: 0 breadth_decay: 0.5", measure=lambda solver: sorted(solver.net.params)
    )
    rows = np.linalg.norm(solver.net.params["ip"][0].data, axis=1)
    assert heard.of("display")[0].penalty == pytest.approx(0.5 * rows.sum(), rel=1e-5)
    assert heard.of("display")[0].sparsity == ["ip"]


def test_debug_info_is_told_at_displays(folder: Path) -> None:
    _, heard = run(folder, "max_iter: 2 display: 2 debug_info: true")
    lines = heard.of("debug")
    assert any(re.match(r"\s+\[Forward\] Layer ip, top blob p data: [\d.e-]+", line) for line in lines)
    assert any(re.match(r"\s+\[Backward\] Layer ip, param blob 0 diff: [\d.e-]+", line) for line in lines)


def test_plain_run_tells_nothing_without_a_monitor(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    least_squares(folder)
    Solver(with_net(BASE + "max_iter: 2 display: 1", TWO_PHASES)).solve()
    assert capfd.readouterr() == ("", "")


def test_no_snapshot_is_written_unless_asked_for(folder: Path) -> None:
    run(folder, "max_iter: 2 snapshot_after_train: false")
    assert not Path("run").exists()


# -- requests ----------------------------------------------------------------------------------------------------------


class Asking(Heard):
    """Asks for something when an iteration is done, as a signal handler would."""

    def __init__(self, at: int, action: str) -> None:
        super().__init__()
        self.at, self.action = at, action
        self.solver: Solver | None = None

    def on_start(self, solver: Solver) -> None:
        self.solver = solver

    def on_iteration(self, iteration: int, loss: float) -> None:
        if iteration == self.at and self.solver is not None:
            self.solver.request(self.action)


def ask(folder: Path, at: int, action: str, text: str) -> tuple[Solver, Asking]:
    least_squares(folder)
    heard = Asking(at, action)
    solver = Solver(with_net(BASE + text, TWO_PHASES), monitor=heard)
    solver.solve()
    return solver, heard


def test_request_to_stop_ends_with_a_snapshot(folder: Path) -> None:
    solver, heard = ask(folder, 3, "stop", "max_iter: 9 snapshot_after_train: false")
    assert (solver.iter, heard.of("snapshot"), heard.of("finish")) == (3, [3], [True])


def test_request_for_a_snapshot_goes_on(folder: Path) -> None:
    solver, heard = ask(folder, 3, "snapshot", "max_iter: 9 snapshot_after_train: false")
    assert (solver.iter, heard.of("snapshot"), heard.of("finish")) == (9, [3], [False])


def test_stopped_run_goes_on_when_solved_again(folder: Path) -> None:
    solver, heard = ask(folder, 3, "stop", "max_iter: 9")
    solver.solve()
    assert (solver.iter, heard.of("finish")) == (9, [True, False])


def test_unknown_request_is_an_error(folder: Path) -> None:
    with pytest.raises(UsageError, match='not for "pause"'):
        run(folder, "max_iter: 1", lambda solver: solver.request("pause"))


# -- what cannot be ------------------------------------------------------------------------------------------------------


def test_loss_that_is_not_finite_ends_the_run_and_nothing_is_written(folder: Path) -> None:
    least_squares(folder)
    solver, heard = run(folder, "max_iter: 20 base_lr: 1e30 snapshot: 1", lambda solver: None)
    with pytest.raises(RunError) as caught:
        solver.solve()
    assert caught.value.exit_code == 1
    assert re.match(r"iteration \d+: (the loss is (nan|inf)|parameter ip\[0\] is not finite)", caught.value.message)
    assert "a lower base_lr (the rate is 1e+30) or clip_gradients may help" in caught.value.hint
    saved = heard.of("snapshot")
    for iteration in saved:
        solver.restore(f"run/a_iter_{iteration}.solverstate")
        assert all(np.isfinite(param.blob.data).all() for param in solver.net.learnable)
    assert not saved or f"the last snapshot is run/a_iter_{saved[-1]}.solverstate" in caught.value.hint


def test_first_blob_that_is_not_finite_is_named(folder: Path) -> None:
    solver, _ = run(folder, "max_iter: 1", lambda solver: None)
    solver.net.params["ip"][1].data[0] = math.nan
    with pytest.raises(RunError, match=r"parameter ip\[1\] is not finite already") as caught:
        solver.step(1)
    assert caught.value.layer == "ip"
    assert "there is no snapshot" in caught.value.hint


@pytest.mark.parametrize(
    "text, message",
    [
        ("iter_size: 0", "iter_size must be 1 or more, not 0"),
        ("max_iter: -1", "max_iter must be 0 or more, not -1"),
        ("average_loss: 0", "average_loss must be 1 or more, not 0"),
        ("test_iter: -1 test_interval: 1", "test_iter must be 0 or more, not -1"),
        ('net: "net.prototxt"', "the net to train is given 2 times (net, net_param)"),
        ("breadth_decay: -1", "breadth_decay must be a finite number, 0 or above, not -1"),
        ("test_iter: 1", "test_iter is given, but no test_interval: say how often to test"),
        ('type: "Sgd"', 'unknown solver type "Sgd"'),
    ],
)
def test_solver_that_cannot_be_is_an_error_at_its_place(text: str, message: str, folder: Path) -> None:
    least_squares(folder)
    with pytest.raises(DefinitionError) as caught:
        Solver(prototxt.parse(f"{BASE} {text}\nnet_param {{ {TWO_PHASES} }}", pb.SolverParameter, path="s.prototxt"))
    assert caught.value.message == message
    assert (caught.value.path, caught.value.line) == ("s.prototxt", 2 if "net_param" in message else 1)


def test_solver_without_a_net_is_an_error() -> None:
    with pytest.raises(DefinitionError, match="there is no net to train"):
        Solver(prototxt.parse(BASE, pb.SolverParameter))


def test_field_from_the_command_line_that_cannot_be_names_the_option(folder: Path) -> None:
    definition = prototxt.apply_overrides(prototxt.parse(BASE, pb.SolverParameter, path="s.prototxt"), ["max_iter=-1"])
    with pytest.raises(DefinitionError) as caught:
        Solver(definition)
    assert str(caught.value) == "s.prototxt: error: max_iter must be 0 or more, not -1\n  set by --set max_iter=-1"


def test_whole_run_needs_an_end(folder: Path) -> None:
    with pytest.raises(DefinitionError, match="has no max_iter: it would train for 0 iterations"):
        run(folder, "")
    solver, _ = run(folder, "", lambda solver: solver.step(2))
    assert solver.iter == 2
    assert run(folder, "max_iter: 0")[0].iter == 0


def test_whole_run_needs_a_loss(folder: Path) -> None:
    least_squares(folder)
    without = TWO_PHASES.replace("loss_weight: 2", "loss_weight: 0")
    solver = Solver(with_net(f"{BASE} max_iter: 3", without))
    with pytest.raises(DefinitionError, match="the net has no loss in phase TRAIN: it would learn nothing"):
        solver.solve()
    assert not (folder / "run").exists()


def test_net_that_is_missing_is_an_error_at_its_place(folder: Path) -> None:
    with pytest.raises(DefinitionError, match='there is no file "gone') as caught:
        Solver(prototxt.parse(f'{BASE}\nnet: "gone.prototxt"', pb.SolverParameter, path="s.prototxt"))
    assert (caught.value.line, caught.value.column) == (2, 6)


def test_errors_of_the_lint_come_together(folder: Path) -> None:
    least_squares(folder)
    with pytest.raises(ErrorList) as caught:
        Solver(with_net(BASE + "breadth_decay: -1 kernel_shape_decay: -2", TWO_PHASES))
    assert len(caught.value.errors) >= 2


def test_warnings_of_the_lint_are_passed_on(folder: Path) -> None:
    _, heard = run(folder, "max_iter: 1")
    (note,) = heard.of("warning")
    assert note.level == "warning"
    assert "breadth_decay" in note.message


# -- nets --------------------------------------------------------------------------------------------------------------


def test_test_nets_come_in_caffes_order(folder: Path) -> None:
    """test_net_param, test_net, then net as often as there are test_iter left."""
    least_squares(folder)
    Path("net.prototxt").write_text('name: "general"' + TWO_PHASES)
    Path("test.prototxt").write_text('name: "file"' + TWO_PHASES)
    text = (
        f'{BASE} net: "net.prototxt" test_net: "test.prototxt" test_net_param {{ name: "inside" {TWO_PHASES} }} '
        "test_iter: 1 test_iter: 1 test_iter: 1 test_iter: 1 test_interval: 1"
    )
    solver = Solver(prototxt.parse(text, pb.SolverParameter))
    assert [net.name for net in solver.test_nets] == ["inside", "file", "general", "general"]
    assert all(net.phase == pb.TEST for net in solver.test_nets)
    solver.net.params["ip"][0].data[...] = 5
    assert all((net.params["ip"][0].data == 5).all() for net in solver.test_nets)


def test_states_choose_the_layers(folder: Path) -> None:
    least_squares(folder)
    staged = TWO_PHASES.replace("include { phase: TEST }", 'include { stage: "extra" min_level: 2 }')
    text = (
        f"{BASE} train_state {{ level: 1 }} test_state {{ level: 2 }} test_state {{ level: 2 stage: 'extra' }} "
        "test_iter: 1 test_iter: 1 test_interval: 1"
    )
    solver = Solver(with_net(text, staged))
    assert ["half" in net.layer_names for net in (solver.net, *solver.test_nets)] == [False, False, True]


def test_weights_named_in_the_solver_are_loaded(folder: Path) -> None:
    first, _ = run(folder, "max_iter: 2")
    second, _ = run(folder, 'max_iter: 2 random_seed: 7 weights: "run/a_iter_2.caffemodel"', lambda solver: None)
    np.testing.assert_array_equal(first.net.params["ip"][0].data, second.net.params["ip"][0].data)
    assert second.copied[0].copied == ["ip"]


def test_net_made_in_python_can_be_trained(folder: Path) -> None:
    least_squares(folder)
    net = Net(prototxt.parse(least_squares_net(""), pb.NetParameter), phase=pb.TRAIN, seed=1)
    solver = Solver(prototxt.parse('base_lr: 0.1 lr_policy: "fixed" max_iter: 50', pb.SolverParameter), net=net)
    solver.step(1)
    before = solver.smoothed_loss
    solver.step(49)
    assert solver.net is net
    assert solver.smoothed_loss < before / 2
