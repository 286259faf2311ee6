"""Certificates: the residual is zero at the minimiser alone, lambda_max is where the last group dies."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.certificate import certify, exact, kkt, lambda_max
from sslnet.penalties import Penalty, Tiling
from sslnet.solver import Solver

SAMPLES, INPUTS, OUTPUTS = 60, 12, 5
PARAMS = {
    "rows": "group_lasso { group: OUTPUT_NEURON }",
    "rows with biases": "group_lasso { group: OUTPUT_NEURON take_bias: true }",
    "rows and columns": "group_lasso { group: OUTPUT_NEURON } group_lasso { group: INPUT_NEURON decay_mult: 0.5 }",
    "rows with biases and columns": "group_lasso { group: OUTPUT_NEURON take_bias: true } group_lasso { group: INPUT_NEURON }",
}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[np.ndarray, np.ndarray]:
    """Targets that only some inputs make, in four batches."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    a = random.standard_normal((SAMPLES, INPUTS)).astype(np.float32)
    w = (
        random.standard_normal((OUTPUTS, INPUTS))
        * (random.random((1, INPUTS)) < 0.5)
        * np.array([[1], [1], [0], [1], [0]])
    )
    y = (a @ w.T + 0.1 + 0.1 * random.standard_normal((SAMPLES, OUTPUTS))).astype(np.float32)
    with h5py.File("data.h5", "w") as file:
        file["a"], file["y"] = a, y
    Path("list.txt").write_text("data.h5\n")
    return a.astype(np.float64), y.astype(np.float64)


def solver(param: str, decay: float, batch: int = SAMPLES, more: str = "") -> Solver:
    net = (
        f'layer {{ name: "d" type: "HDF5Data" top: "a" top: "y" hdf5_data_param {{ source: "list.txt" batch_size: {batch} }} }}'
        f'layer {{ name: "ip" type: "InnerProduct" bottom: "a" top: "p" param {{ {param} }} param {{ lr_mult: 2 }}'
        f' inner_product_param {{ num_output: {OUTPUTS} weight_filler {{ type: "gaussian" std: 0.1 }} }} }}'
        'layer { name: "loss" type: "EuclideanLoss" bottom: "p" bottom: "y" top: "loss" }'
    )
    text = f'base_lr: 0.1 momentum: 0.9 lr_policy: "fixed" random_seed: 1 group_lasso_decay: {decay} {more}'
    return Solver(prototxt.parse(f"{text} net_param {{ {net} }}", pb.SolverParameter), dtype=np.float64)


@pytest.mark.parametrize("case", PARAMS)
@pytest.mark.parametrize("more", ["", "weight_decay: 0.2"])
def test_residual_is_zero_at_the_minimiser_alone(case: str, more: str, data: tuple) -> None:
    run = solver(PARAMS[case], 0.3, more=more)
    (before,) = certify(run, 1)
    run.step(3000)
    (after,) = certify(run, 1)
    assert before.residual > 0.1
    assert after.residual < 1e-3
    assert after.name == "ip[0]"
    assert after.zero > before.zero == 0
    assert after.groups == OUTPUTS + INPUTS * ("columns" in case)


def test_residual_by_hand() -> None:
    """Rows: ||g + s * w / ||w|| || of those that are not zero, what ||g|| exceeds s by of those that are; by s."""
    random = np.random.default_rng(1)
    w, g, strength = random.standard_normal((6, 4)), random.standard_normal((6, 4)), 1.5
    w[:3] = 0
    g[0] *= 0.1
    expected = np.maximum(0, np.linalg.norm(g, axis=1) - strength)
    expected[3:] = np.linalg.norm(g[3:] + strength * w[3:] / np.linalg.norm(w[3:], axis=1, keepdims=True), axis=1)
    (found,) = kkt(exact(Penalty((6, 4), [Tiling(1, 4, strength)])), [w], [g])
    assert expected[0] == 0 < expected[1]
    np.testing.assert_allclose(found.reshape(-1), expected / strength, rtol=1e-3, atol=1e-9)


def test_group_that_rounding_left_does_not_spoil_the_residual() -> None:
    random = np.random.default_rng(1)
    w, g = random.standard_normal((6, 4)), random.standard_normal((6, 4)) * 0.1
    w[0] = 0
    penalty = exact(Penalty((6, 4), [Tiling(1, 4, 1.0), Tiling(6, 1, 0.5)]))
    expected = kkt(penalty, [w.copy()], [g])
    w[0, 1] = 1e-15
    for one, other in zip(kkt(penalty, [w], [g]), expected):
        np.testing.assert_allclose(one, other, atol=1e-3)


@pytest.mark.parametrize("case", PARAMS)
def test_lambda_max_is_where_the_last_group_dies(case: str, data: tuple) -> None:
    dead = solver(PARAMS[case], 30.0)
    dead.step(500)  # now biases that are not taken along are where they are without weights
    (found,) = certify(dead, 1)
    for factor, alive in ((1.01, False), (0.97, True)):
        run = solver(PARAMS[case], 30.0 * found.lambda_max * factor)
        run.step(2000)
        assert (np.abs(run.net.params["ip"][0].data).max() > 1e-6) == alive


@pytest.mark.parametrize("bias", [False, True])
def test_lambda_max_of_overlapping_groups_is_cvxpys(bias: bool) -> None:
    """The least c for which minus the gradient is a sum of duals, each no longer than c times its strength."""
    cp = pytest.importorskip("cvxpy")
    random = np.random.default_rng(3)
    g, h = random.standard_normal((6, 9)) * random.uniform(0.3, 2, (6, 1)), random.standard_normal(6)
    c, rows, columns, biases = cp.Variable(), cp.Variable(g.shape), cp.Variable(g.shape), cp.Variable(6)
    limits = [rows + columns == g, biases == (h if bias else 0 * h)]
    limits += [cp.norm(cp.hstack([rows[i], biases[i]])) <= 1.3 * c for i in range(6)]
    limits += [cp.norm(columns[:, j]) <= 0.9 * c for j in range(9)]
    expected = cp.Problem(cp.Minimize(c), limits).solve(solver="CLARABEL")
    penalty = exact(Penalty((6, 9), [Tiling(1, 9, 1.3, bias=bias), Tiling(6, 1, 0.9)]))
    assert lambda_max(penalty, [g, h] if bias else [g]) == pytest.approx(expected, rel=3e-3)


def test_lambda_max_by_hand(data: tuple) -> None:
    a, y = data
    (found,) = certify(solver(PARAMS["rows"], 0.3), 1)
    gradient = y.T @ a / SAMPLES  # the bias is zero at the start
    assert found.lambda_max == pytest.approx(np.linalg.norm(gradient, axis=1).max() / 0.3, rel=1e-6)


def test_lambda_max_of_no_gradient_is_zero() -> None:
    tilings = [Tiling(1, 4, 1.0), Tiling(6, 1, 1.0)]
    assert lambda_max(exact(Penalty((6, 4), tilings)), [np.zeros((6, 4))]) == 0


def test_batches_are_averaged(data: tuple) -> None:
    run, whole = solver(PARAMS["rows"], 0.3, batch=15), solver(PARAMS["rows"], 0.3)
    (parts,), (all_at_once,) = certify(run, 4), certify(whole, 1)
    np.testing.assert_allclose(parts.residuals[0], all_at_once.residuals[0], rtol=1e-6)
    assert parts.lambda_max == pytest.approx(all_at_once.lambda_max)
    assert certify(run, 1)[0].lambda_max != pytest.approx(all_at_once.lambda_max)


def test_run_goes_on_as_if_nothing_had_been_asked(data: tuple) -> None:
    results = []
    for asked in (False, True):
        run = solver(PARAMS["rows with biases and columns"], 0.3, batch=15)
        run.step(10)
        if asked:
            certify(run, 3)
        run.step(10)
        results.append(np.concatenate([param.blob.data.ravel() for param in run.net.learnable]))
    np.testing.assert_array_equal(*results)


def test_frozen_weights_have_no_residual(data: tuple) -> None:
    run = solver(PARAMS["rows"], 0.3)
    run.step(1)
    run.net.params["ip"][0].data[2] = 0
    run.updates[0].keep = (run.net.params["ip"][0].data != 0).reshape(-1).view(np.uint8)
    assert certify(run, 1)[0].residuals[0][2] == 0
