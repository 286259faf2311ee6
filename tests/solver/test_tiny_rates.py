"""Rates at the end of float32's range, as a decaying schedule reaches them: weights stay as they are, none becomes NaN.

The oracle is arithmetic: a step of 1e-30 moves no weight by more than 1e-25, whatever rule and penalty make of it. Half
the filters and some columns are zero, as pruning leaves them, and these stay zero.
"""

from __future__ import annotations

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.net.net import Net
from sslnet.solver.penalized_update import penalize, steps_of
from sslnet.solver.solver import Solver
from sslnet.solver.updates import UPDATES, make_updates
from sslnet.solver.zero_group_test import settle
from sslnet.sparsity.group_lasso import GroupLasso
from sslnet.sparsity.group_penalty import GroupPart, Tiling
from sslnet.sparsity.penalty_sum import PenaltySum
from sslnet.sparsity.tiled_group_lasso import TiledGroupLasso

LEAST = float(np.finfo(np.float32).tiny)
RATES = [0.0, 1e-46, 1.4e-45, 1e-44, 1e-42, 1e-40, 1e-39, 1.17e-38, 1.18e-38, 1e-37, 1e-36, 1e-34, 1e-30]
PENALTIES = {
    "none": "",
    "rows": "breadth_decay_mult: 1",
    "single weights": "block_group_lasso { xdimen: 1 ydimen: 1 }",
    "tiles": "block_group_lasso { xdimen: 2 ydimen: 4 }",
    "tall tiles": "kernel_shape_decay_mult: 1",
    "rows and columns": "breadth_decay_mult: 1 kernel_shape_decay_mult: 1",
    "overlapping tiles": "block_group_lasso { xdimen: 2 ydimen: 4 } block_group_lasso { xdimen: 3 ydimen: 1 }",
    "nested tiles": "block_group_lasso { xdimen: 2 ydimen: 4 } block_group_lasso { xdimen: 4 ydimen: 8 }",
    "with biases": "group_lasso { group: FILTER take_bias: true }",
    "with biases, overlapping": "kernel_shape_decay_mult: 1 group_lasso { group: FILTER take_bias: true }",
    "sparse": "group_lasso { take_bias: true penalty: SPARSE_GROUP_LASSO l1_ratio: 0.2 }",
    "MCP": "group_lasso { take_bias: true penalty: MCP gamma: 3 }",
    "coupled": "group_lasso { group: FILTER couple: true }",
    "coupled, MCP": "group_lasso { couple: true take_bias: true penalty: MCP gamma: 3 }",
    "coupled, overlapping": "kernel_shape_decay_mult: 1 group_lasso { couple: true take_bias: true }",
}


def make_net(param: str, bias: str = "lr_mult: 2") -> Net:
    """Weights (8, 6, 1, 2), as a matrix 8 x 12, and their bias; half the filters and two columns are zero."""
    net = Net(
        prototxt.parse(
            'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 dim: 6 dim: 1 dim: 8 } } }\n'
            f'layer {{ name: "conv" type: "Convolution" bottom: "x" top: "y" param {{ {param} }} param {{ {bias} }}\n'
            "  convolution_param { num_output: 8 kernel_h: 1 kernel_w: 2 }}\n"
            'layer { name: "loss" type: "Reduction" bottom: "y" top: "loss" loss_weight: 1 }',
            pb.NetParameter,
            path="net.prototxt",
        ),
        phase=pb.TRAIN,
        seed=1,
    )
    random = np.random.default_rng(2)
    for blob in net.params["conv"]:
        blob.data[...] = random.standard_normal(blob.shape)
        blob.data[::2] = 0
    net.params["conv"][0].data[:, 2] = 0
    return net


def solver_text(rule: str, *more: str) -> str:
    decays = "breadth_decay: 0.01 kernel_shape_decay: 0.02 block_group_decay: 1e-4 group_lasso_decay: 0.01"
    momentum = "" if rule in ("AdaGrad", "RMSProp") else "momentum: 0.9"
    return f'type: "{rule}" weight_decay: 0.001 {decays} {momentum} {" ".join(more)}'


@pytest.mark.parametrize("memory", [0, 0.9])
@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("rule", UPDATES)
def test_weights_stay_under_a_tiny_rate(rule: str, penalty: str, memory: float) -> None:
    definition = prototxt.parse(solver_text(rule, f"group_lasso_memory: {memory}"), pb.SolverParameter)
    for bias in ("lr_mult: 2", "lr_mult: 1e-6"):
        net = make_net(PENALTIES[penalty], bias)
        updates = make_updates(net.learnable, definition)
        penalties = penalize(updates, net, definition)
        assert [found.coupled for found in penalties] == [penalty.startswith("coupled")] * (penalty != "none")
        before = [param.blob.data.copy() for param in net.learnable]
        for iteration, rate in enumerate(reversed(RATES)):
            for seed, param in enumerate(
                net.learnable
            ):  # some gradients are zero, some large, as adaptive rules divide
                random = np.random.default_rng((iteration, seed))
                gradient = random.standard_normal(param.blob.shape) * 10.0 ** random.integers(-9, 9, param.blob.shape)
                param.blob.diff[...] = np.where(random.random(param.blob.shape) < 0.2, 0, gradient)
                if penalty == "none":
                    param.blob.diff[before[seed] == 0] = 0
            for update in steps_of(updates, penalties):
                update(iteration, rate, 1.0)
            settle(penalties, iteration, rate, 1.0)
            for weights, param in zip(before, net.learnable):
                np.testing.assert_allclose(param.blob.data, weights, rtol=1e-5, atol=1e-11, err_msg=f"rate {rate}")


@pytest.mark.parametrize("threshold", [0.0, 1e-45, 1e-40, LEAST / 2, LEAST, 2 * LEAST, 1e-36, 1e-30, 1e-20])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "tilings", [[(1, 64)], [(8, 1)], [(1, 1)], [(4, 4)], [(1, 64), (8, 1)], [(1, 4), (4, 8), (2, 2)]], ids=str
)
def test_prox_of_a_tiny_threshold_follows_the_formula(
    tilings: list[tuple[int, int]], dtype: type, threshold: float
) -> None:
    strength = 1e-3
    x = np.random.default_rng(0).standard_normal((8, 64)) * np.repeat([1, 0, 1e3, 1e-3], 2)[:, None]
    x[:, 8:16] = 0
    penalty = TiledGroupLasso((8, 64), [Tiling(*tile, strength) for tile in tilings], dtype)
    expected = x.copy()
    for height, width in tilings:  # so small a threshold shrinks groups independently, up to its square
        tiles = expected.reshape(8 // height, height, 64 // width, width)
        norms = np.sqrt((tiles**2).sum(axis=(1, 3), keepdims=True))
        tiles *= np.where(norms > threshold, 1 - threshold / np.where(norms > 0, norms, 1), 0)
    for metric in ("plain", "diagonal"):
        z, moved = x.astype(dtype), np.zeros((8, 64), dtype)
        if metric == "plain":
            penalty.prox([z], [threshold / strength], [moved])
            assert np.isfinite(moved).all()
        else:
            penalty.prox([z], [np.full((8, 64), threshold / strength, dtype)])
        np.testing.assert_allclose(z, expected, rtol=4 * np.finfo(dtype).eps, atol=4 * threshold)
        assert all(np.isfinite(dual).all() for dual in penalty.state())


def test_prox_moves_only_what_has_a_step() -> None:
    """In a group of which some elements have a step of zero these stay, and hold the others away from zero."""
    x, strength = np.array([[3.0, 4.0, 0.5, 0.0]]), 2.0
    steps = np.array([[0.0, 0.0, 0.25, 0.1]])
    for dtype in (np.float32, np.float64):
        for width in (4, 64):  # side by side, and one by one
            z, each = np.zeros((1, width), dtype), np.zeros((1, width), dtype)
            z[:, :4], each[:, :4] = x, steps
            TiledGroupLasso((1, width), [Tiling(1, width, strength)], dtype).prox([z], [each])
            np.testing.assert_array_equal(z[0, :2], x[0, :2])
            # z = x / (1 + strength * step / ||z||), and ||z|| is 5 but for the third element's square
            norm = np.linalg.norm(z.astype(np.float64))
            np.testing.assert_allclose(z[0, 2], 0.5 / (1 + strength * 0.25 / norm), rtol=1e-5)
            assert not z[0, 3:].any()


@pytest.mark.parametrize("steps", ["one", "each", "elements"])
@pytest.mark.parametrize("kinds", [1, 2])
def test_coupled_prox_of_tiny_steps_leaves_the_weights(kinds: int, steps: str) -> None:
    shapes = [(4, 6), (3, 8)]
    together = GroupLasso("a", [GroupPart(0, 1, 6, np.arange(4)), GroupPart(1, 3, 2, np.arange(4))], np.full(4, 0.5))
    rows = GroupLasso("b", [GroupPart(1, 1, 8, np.arange(3))], np.full(3, 0.3))
    random = np.random.default_rng(1)
    x = [random.standard_normal(shape).astype(np.float32) for shape in shapes]
    x[0][1], x[1][:, 2:4], x[1][2] = 0, 0, 0
    penalty = PenaltySum(shapes, [together, rows][:kinds])
    for rate in RATES:
        z = [array.copy() for array in x]
        mults = {"one": (1.0, 1.0), "each": (1.0, 1e-3), "elements": (1.0, 1.0)}[steps]
        given = [rate * mult for mult in mults]
        arrays = [np.full(shape, step, np.float32) for shape, step in zip(shapes, given)]
        for array in arrays:
            array[0] = 0
        penalty.prox(z, arrays if steps == "elements" else given)
        for found, expected in zip(z, x):
            np.testing.assert_allclose(found, expected, atol=1e-25, err_msg=f"rate {rate}")


@pytest.mark.parametrize("rule", UPDATES)
def test_run_whose_rate_decays_to_zero_ends_with_its_weights(rule: str) -> None:
    net = make_net(PENALTIES["overlapping tiles"])
    text = solver_text(rule, 'base_lr: 0.01 lr_policy: "exp" gamma: 1e-3 max_iter: 60 snapshot_after_train: false')
    solver = Solver(prototxt.parse(text + " net_param { }", pb.SolverParameter), net=net)
    solver.step(15)  # the rate is 1e-44 now: what is left of the momentum moves on, by less and less
    early = [param.blob.data.copy() for param in net.learnable]
    solver.step(45)
    for before, param in zip(early, net.learnable):
        np.testing.assert_array_equal(param.blob.data, before)
        assert np.abs(before).max() < 10
