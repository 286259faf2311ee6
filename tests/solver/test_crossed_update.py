"""The fused update of rows and columns: step and prox of the sum of their norms, against float64 and block by block."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from sslnet import sslnet_pb2 as pb
from sslnet.blob import Blob
from sslnet.kernels.runtime.threads import num_threads, set_num_threads
from sslnet.prototxt import Definition
from sslnet.solver.update_rules import SGD, Nesterov
from sslnet.sparsity.group_penalty import Tiling
from sslnet.sparsity.penalty import EXACT, TOLERANCE
from sslnet.sparsity.tiled_group_lasso import TiledGroupLasso

RATE, MOMENTUM, DECAY, MEMORY = 0.2, 0.9, 1e-2, 0.9


def trained(rule, shape, width, steps, tolerance=TOLERANCE, start=None):
    """(update, penalty) after these steps with gradients of a quadratic, a third of whose rows and columns end at zero."""
    rows, columns = shape
    random = np.random.default_rng(rows + columns)
    goal = random.standard_normal(shape).astype(np.float32)
    goal[::3] *= 0.05
    goal[:, : columns // width // 3 * width] *= 0.05
    blob = Blob(shape=shape)
    blob.data[...] = goal + 0.01 * random.standard_normal(shape)
    solver = Definition(
        pb.SolverParameter(momentum=MOMENTUM, weight_decay=DECAY, group_lasso_memory=MEMORY, type=rule.__name__)
    )
    spec = SimpleNamespace(decay_mult=1.0, lr_mult=1.0, blob=blob, spec=pb.ParamSpec(), name="w")
    update = rule.__new__(rule)
    update.param, update.solver, update.keep, update.multipliers, update.l1 = spec, solver.message, None, None, False
    update.decay, update.mean = DECAY, np.zeros(shape, np.float32)
    update.history = [np.zeros(shape, np.float32)]
    tilings = [Tiling(1, columns, 0.15 * columns**0.5), Tiling(rows, width, 0.15 * (rows * width) ** 0.5)]
    penalty = TiledGroupLasso(shape, tilings, np.float32, tolerance)
    assert penalty.crossed == tuple(tilings)
    exact = rule.NESTEROV, blob.data.astype(np.float64), np.zeros(shape), np.zeros(shape), penalty.exact()
    found = [exact[1]]
    for iteration in range(steps):
        noise = 0.1 * random.standard_normal(shape)
        blob.diff[...] = blob.data - goal + noise
        if start is not None:
            start(exact, blob.data - goal + noise, blob.data)
        assert update.step_and_prox(iteration, RATE, 1.0, penalty)
        if start is not None:
            found.append((exact[1].copy(), exact[2].copy(), blob.data.copy(), update.history[0].copy(), penalty.sweeps))
    return update, penalty, found[1:]


def follow(exact, gradient, at):
    """One step of the formulas in float64, with the prox of another implementation."""
    nesterov, w, h, mean, penalty = exact
    w[...] = at
    mean[...] = MEMORY * mean + (1 - MEMORY) * gradient
    g = np.where(w == 0, mean, gradient) + DECAY * w
    ahead = w + MOMENTUM * h if nesterov else w
    v = w - RATE * g if nesterov else w - (MOMENTUM * h + RATE * g)
    penalty.prox([v], [RATE])
    h[...] = ahead - v
    w[...] = v - MOMENTUM * h if nesterov else v


@pytest.mark.parametrize("rule", [SGD, Nesterov])
@pytest.mark.parametrize("shape, width", [((12, 30), 1), ((7, 36), 9), ((70, 45), 3), ((40, 600), 1)])
def test_step_and_prox_are_those_of_the_formula(rule, shape, width):
    update, penalty, found = trained(rule, shape, width, 12, 1e-4, follow)
    for w, h, data, history, sweeps in found:
        np.testing.assert_allclose(data, w, atol=1e-4)
        np.testing.assert_allclose(history, h, atol=2e-4)
        assert sweeps >= 2
    assert found[-1][-1] < 10  # it begins with the last dual; sweeps are many only when groups become zero
    last = found[-1][2]
    assert (last == 0).all(1).any()
    tiles = (last.reshape(shape[0], -1, width) == 0).all((0, 2))
    assert tiles.any()


def test_tolerance_bounds_the_distance_to_the_exact_prox():
    """With the tolerance of training, the weights are as close to the prox as those of the general method."""
    update, penalty, _ = trained(SGD, (30, 80), 1, 20)
    other, careful, _ = trained(SGD, (30, 80), 1, 20, EXACT)
    assert penalty.sweeps <= careful.sweeps
    np.testing.assert_allclose(update.param.blob.data, other.param.blob.data, atol=2e-3)


def test_many_sweeps_go_on_from_a_stored_dual():
    """More sweeps than are followed from the first one."""
    update, penalty, _ = trained(SGD, (20, 20), 1, 1, EXACT)
    assert penalty.sweeps > 10
    exact = penalty.exact()
    dual = penalty.crossed_dual().reshape(20, 20)
    norms = np.linalg.norm(dual, axis=0)
    assert (norms <= penalty.crossed[1].strength * (1 + 1e-5)).all()
    assert len(exact.terms) == 2


def test_threads_change_no_bit():
    before, results = num_threads(), []
    try:
        for threads in (1, 2, 3):
            set_num_threads(threads)
            update, penalty, _ = trained(SGD, (400, 700), 1, 4)
            results.append((update.param.blob.data, update.history[0], penalty.crossed_dual()))
    finally:
        set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)
