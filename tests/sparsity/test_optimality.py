"""Certificates: the residual is zero at the minimiser alone, lambda_max is where the last group dies."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.solver.solver import Solver
from sslnet.sparsity.group_lasso import GroupLasso
from sslnet.sparsity.group_penalty import GroupPart, Tiling
from sslnet.sparsity.optimality import caveats, certify, is_certifiable, kkt
from sslnet.sparsity.penalty_sum import PenaltySum
from sslnet.sparsity.tiled_group_lasso import TiledGroupLasso

SAMPLES, INPUTS, OUTPUTS = 60, 12, 5
PARAMS = {
    "rows": "group_lasso { group: OUTPUT_NEURON }",
    "rows with biases": "group_lasso { group: OUTPUT_NEURON take_bias: true }",
    "rows and columns": "group_lasso { group: OUTPUT_NEURON } group_lasso { group: INPUT_NEURON decay_mult: 0.5 }",
    "sparse rows with biases": "group_lasso { group: OUTPUT_NEURON take_bias: true penalty: SPARSE_GROUP_LASSO l1_ratio: 0.2 }",
    "rows under MCP": "group_lasso { group: OUTPUT_NEURON penalty: MCP gamma: 3 }",
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
    run.step(1500)
    (after,) = certify(run, 1)
    assert before.residual > 0.1
    assert after.residual < 1e-3
    rows, columns = (("ip[0]", kind) for kind in ("OUTPUT_NEURON", "INPUT_NEURON"))
    assert [(found.name, found.kind) for found in after.groups] in ([rows], [rows, columns], [columns, rows])
    assert sum(found.zero for found in after.groups) > sum(found.zero for found in before.groups) == 0
    assert sum(found.residuals.size for found in after.groups) == OUTPUTS + INPUTS * ("columns" in case)


def test_residual_by_hand() -> None:
    """Rows: ||g + s * w / ||w|| || of those that are not zero, what ||g|| exceeds s by of those that are; by s."""
    random = np.random.default_rng(1)
    w, g, strength = random.standard_normal((6, 4)), random.standard_normal((6, 4)), 1.5
    w[:3] = 0
    g[0] *= 0.1
    expected = np.maximum(0, np.linalg.norm(g, axis=1) - strength)
    expected[3:] = np.linalg.norm(g[3:] + strength * w[3:] / np.linalg.norm(w[3:], axis=1, keepdims=True), axis=1)
    (found,) = kkt(TiledGroupLasso((6, 4), [Tiling(1, 4, strength)]).exact(), [w], [g])
    assert expected[0] == 0 < expected[1]
    np.testing.assert_allclose(found.reshape(-1), expected / strength, rtol=1e-3, atol=1e-9)


def test_group_that_rounding_left_does_not_spoil_the_residual() -> None:
    random = np.random.default_rng(1)
    w, g = random.standard_normal((6, 4)), random.standard_normal((6, 4)) * 0.1
    w[0] = 0
    penalty = TiledGroupLasso((6, 4), [Tiling(1, 4, 1.0), Tiling(6, 1, 0.5)]).exact()
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
    penalty = TiledGroupLasso((6, 9), [Tiling(1, 9, 1.3, bias=bias), Tiling(6, 1, 0.9)]).exact()
    assert penalty.dual_norm([g, h] if bias else [g]) == pytest.approx(expected, rel=3e-3)


def test_lambda_max_by_hand(data: tuple) -> None:
    a, y = data
    (found,) = certify(solver(PARAMS["rows"], 0.3), 1)
    gradient = y.T @ a / SAMPLES  # the bias is zero at the start
    assert found.lambda_max == pytest.approx(np.linalg.norm(gradient, axis=1).max() / 0.3, rel=1e-6)


def test_lambda_max_of_no_gradient_is_zero() -> None:
    tilings = [Tiling(1, 4, 1.0), Tiling(6, 1, 1.0)]
    assert TiledGroupLasso((6, 4), tilings).exact().dual_norm([np.zeros((6, 4))]) == 0


def test_batches_are_averaged(data: tuple) -> None:
    run, whole = solver(PARAMS["rows"], 0.3, batch=15), solver(PARAMS["rows"], 0.3)
    (parts,), (all_at_once,) = certify(run, 4), certify(whole, 1)
    np.testing.assert_allclose(parts.groups[0].residuals, all_at_once.groups[0].residuals, rtol=1e-6)
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
    assert certify(run, 1)[0].groups[0].residuals[2] == 0


# -- groups in several parameters ----------------------------------------------------------------------------------------

COUPLED = {
    "coupled": ("group: OUTPUT_NEURON couple: true", ""),
    "coupled with biases": ("group: OUTPUT_NEURON couple: true take_bias: true", ""),
    "sparse, coupled": ("group: OUTPUT_NEURON couple: true penalty: SPARSE_GROUP_LASSO l1_ratio: 0.2", ""),
    "coupled under MCP": ("group: OUTPUT_NEURON couple: true take_bias: true penalty: MCP gamma: 3", ""),
    "coupled and columns": ("group: OUTPUT_NEURON couple: true", "param { group_lasso { group: INPUT_NEURON decay_mult: 0.7 } }"),
    "coupled with biases and columns": (
        "group: OUTPUT_NEURON couple: true take_bias: true",
        "param { group_lasso { group: INPUT_NEURON } } param { lr_mult: 2 }",
    ),
}  # fmt: skip


def coupled_solver(case: str, decay: float, more: str = "") -> Solver:
    """Two layers whose outputs are added, which is a convex problem: the net ties their neurons."""
    spec, other = COUPLED[case]
    fill = f'inner_product_param {{ num_output: {OUTPUTS} weight_filler {{ type: "gaussian" std: 0.1 }} }}'
    net = (
        f'layer {{ name: "d" type: "HDF5Data" top: "a" top: "y" hdf5_data_param {{ source: "list.txt" batch_size: {SAMPLES} }} }}'
        'layer { name: "parts" type: "Slice" bottom: "a" top: "left" top: "right" slice_param { slice_point: 5 } }'
        f'layer {{ name: "one" type: "InnerProduct" bottom: "left" top: "p" param {{ group_lasso {{ {spec} }} }} {fill} }}'
        f'layer {{ name: "two" type: "InnerProduct" bottom: "right" top: "q" {other} {fill} }}'
        'layer { name: "sum" type: "Eltwise" bottom: "p" bottom: "q" top: "sum" }'
        'layer { name: "loss" type: "EuclideanLoss" bottom: "sum" bottom: "y" top: "loss" }'
    )
    text = f'base_lr: 0.1 momentum: 0.9 lr_policy: "fixed" random_seed: 1 group_lasso_decay: {decay} group_lasso_memory: 0 {more}'
    return Solver(prototxt.parse(f"{text} net_param {{ {net} }}", pb.SolverParameter), dtype=np.float64)


@pytest.mark.parametrize(
    "case, more", [*((case, "") for case in COUPLED), ("coupled and columns", "weight_decay: 0.2")]
)
def test_residual_of_coupled_groups_is_zero_at_the_minimiser_alone(case: str, more: str, data: tuple) -> None:
    run = coupled_solver(case, 0.4, more)
    (before,) = certify(run, 1)
    run.step(400)
    (after,) = certify(run, 1)
    assert before.residual > 0.1
    assert after.residual < 1e-3
    first, *own = after.groups
    assert (first.name, first.kind, first.residuals.size) == ("one", "coupled", OUTPUTS)
    assert [(groups.name, groups.kind) for groups in own] == [("two[0]", "INPUT_NEURON")] * ("columns" in case)
    assert 0 < first.zero < OUTPUTS
    alive = np.flatnonzero(run.net.params["one"][0].data.any(axis=1))[0]
    run.net.params["two"][0].data[alive] += 0.05  # a member that did not ask for the groups
    (off,) = certify(run, 1)
    assert off.groups[0].residuals[alive] > 0.05


@pytest.mark.parametrize("case", COUPLED)
def test_lambda_max_of_coupled_groups_is_where_the_last_one_dies(case: str, data: tuple) -> None:
    dead = coupled_solver(case, 30.0)
    dead.step(200)
    (found,) = certify(dead, 1)
    assert sum(groups.zero for groups in found.groups) == sum(groups.residuals.size for groups in found.groups)
    for factor, alive in ((1.01, False), (0.97, True)):
        run = coupled_solver(case, 30.0 * found.lambda_max * factor)
        run.step(300)
        weights = np.concatenate([run.net.params[name][0].data.ravel() for name in ("one", "two")])
        assert (np.abs(weights).max() > 1e-6) == alive


SHAPES = [(4, 6), (3, 8), (4, 1)]


def families(count: int) -> list[GroupLasso]:
    """Rows of a 4 x 6 matrix with pairs of columns of a 3 x 8 one and a bias; rows of the second; columns of the first.
    A pair of columns is in no group."""
    return [
        GroupLasso(
            "together",
            [
                GroupPart(0, 1, 6, np.arange(4)),
                GroupPart(1, 3, 2, np.array([0, 1, 2, -1])),
                GroupPart(2, 1, 1, np.arange(4)),
            ],
            np.array([1.0, 0.5, 2.0, 0.7]),
        ),
        GroupLasso("rows", [GroupPart(1, 1, 8, np.array([0, 1, 1]))], np.array([0.9, 1.1])),
        GroupLasso("columns", [GroupPart(0, 4, 1, np.arange(6))], np.full(6, 0.8)),
    ][:count]


def pieces(family: GroupLasso, k: int, arrays: list) -> list:
    """What group k of a family holds of arrays, NumPy's or cvxpy's."""
    found = []
    for part in family.parts:
        along = SHAPES[part.index][1] // part.width
        for tile in np.flatnonzero(part.groups == k):
            i, j = (tile // along) * part.height, (tile % along) * part.width
            found.append(arrays[part.index][i : i + part.height, j : j + part.width])
    return found


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_residual_of_coupled_groups_is_cvxpys(count: int, seed: int) -> None:
    """The shortest vector of the gradient plus the joint subdifferential."""
    cp = pytest.importorskip("cvxpy")
    random = np.random.default_rng(seed)
    w, g = ([scale * random.standard_normal(shape) for shape in SHAPES] for scale in (1.0, 0.6))
    groups = families(count)
    for family in groups[: 1 + seed]:  # some groups of each kind are zero
        for piece in pieces(family, 1, w):
            piece[...] = 0
    for piece in pieces(groups[0], 3, w):
        piece[...] = 0
    rest: list = [cp.Constant(array) for array in g]
    limits = []
    for family in groups:
        duals = [cp.Variable(shape) for shape in SHAPES]
        inside = [np.zeros(shape) for shape in SHAPES]
        for k, strength in enumerate(family.strengths):
            own, there = pieces(family, k, w), pieces(family, k, inside)
            for piece in there:
                piece[...] = 1
            norm = np.sqrt(sum((piece**2).sum() for piece in own))
            of_group = pieces(family, k, duals)
            if norm:
                limits += [dual == strength * piece / norm for dual, piece in zip(of_group, own)]
            else:
                limits.append(cp.norm(cp.hstack([cp.vec(dual, order="C") for dual in of_group])) <= strength)
        limits += [cp.multiply(1 - flags, dual) == 0 for flags, dual in zip(inside, duals)]
        rest = [a + b for a, b in zip(rest, duals)]
    covered = PenaltySum(SHAPES, groups).exact().covered(w)
    cost = sum(cp.sum_squares(cp.multiply(flags.astype(float), a)) for flags, a in zip(covered, rest))
    cp.Problem(cp.Minimize(cost), limits).solve(solver="CLARABEL")
    expected = [flags * a.value for flags, a in zip(covered, rest)]
    found = kkt(PenaltySum(SHAPES, groups).exact(), w, g)
    for family, norms in zip(groups, found):
        for k, strength in enumerate(family.strengths):
            size = np.sqrt(sum((piece**2).sum() for piece in pieces(family, k, expected)))
            assert norms[k] == pytest.approx(size / strength, abs=2e-3)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_lambda_max_of_coupled_groups_is_cvxpys(count: int, seed: int) -> None:
    cp = pytest.importorskip("cvxpy")
    random = np.random.default_rng(seed)
    g = [random.standard_normal(shape) * random.uniform(0.2, 2, (shape[0], 1)) for shape in SHAPES]
    groups = families(count)
    covered = PenaltySum(SHAPES, groups).exact().covered(g)
    c, limits = cp.Variable(), []
    rest: list = [cp.Constant(flags * array) for flags, array in zip(covered, g)]
    for family in groups:
        duals, inside = [cp.Variable(shape) for shape in SHAPES], [np.zeros(shape) for shape in SHAPES]
        for k, strength in enumerate(family.strengths):
            for piece in pieces(family, k, inside):
                piece[...] = 1
            of_group = cp.hstack([cp.vec(dual, order="C") for dual in pieces(family, k, duals)])
            limits.append(cp.norm(of_group) <= strength * c)
        limits += [cp.multiply(1 - flags, dual) == 0 for flags, dual in zip(inside, duals)]
        rest = [a + b for a, b in zip(rest, duals)]
    expected = cp.Problem(cp.Minimize(c), [*limits, *(a == 0 for a in rest)]).solve(solver="CLARABEL")
    found = PenaltySum(SHAPES, groups).exact().dual_norm(g)
    assert found == pytest.approx(expected, rel=2e-3)


# -- which runs have a certificate ---------------------------------------------------------------------------------------


def test_runs_without_a_group_lasso_that_is_trained_have_none(data: tuple) -> None:
    assert is_certifiable(solver(PARAMS["rows"], 0.3))
    assert is_certifiable(coupled_solver("coupled", 0.3))
    assert not is_certifiable(solver("", 0.0))
    assert not is_certifiable(solver("lr_mult: 0 group_lasso { group: OUTPUT_NEURON }", 0.3))


@pytest.mark.parametrize(
    "param, more, expected",
    [
        ("", "", []),
        ("", "weight_decay: 0.1", []),
        ("", "group_lasso_update: SUBGRADIENT", ["SUBGRADIENT"]),
        ("", 'type: "AdamW" weight_decay: 0.1', ["AdamW"]),
        ("", 'regularization_type: "L1" weight_decay: 0.1', ["L1"]),
    ],
)
def test_why_a_residual_may_remain_is_said(param: str, more: str, expected: list[str], data: tuple) -> None:
    found = caveats(solver(PARAMS["rows"], 0.3, more=more))
    assert [sentence.split()[0].removesuffix("'s") for sentence in found] == expected
