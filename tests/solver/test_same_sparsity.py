"""With ``group_lasso_settle`` a convex problem keeps the same share of groups, whichever rule trains it and on batches of which size.

Softmax regression on the digits, the 64 pixels as groups. The truth is the minimiser by FISTA (Beck and Teboulle 2009, with
O'Donoghue and Candès 2015's restart) in float64. All runs see the data 40 times, their rates fall to zero in a straight line.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.solver.solver import Solver
from sslnet.sources.builtin import builtin_source

EPOCHS, SAMPLES, PIXELS, CLASSES = 40, 1438, 64, 10
MEAN, SCALE = 5.0, 0.0625
RULES = {
    "SGD": 'type: "SGD" momentum: 0.9 base_lr: 0.5',
    "Nesterov": 'type: "Nesterov" momentum: 0.9 base_lr: 0.5',
    "Adam": 'type: "Adam" momentum: 0.9 base_lr: 0.1',
}
STRENGTHS = (0.05, 0.02, 0.01)
POINTS = 2.0
"""Of 100: a pixel is 1.6."""
NET = f"""
layer {{ name: "digits" type: "Data" top: "x" top: "y" data_param {{ source: "digits/train" backend: BUILTIN batch_size: %d }}
        transform_param {{ scale: {SCALE} mean_value: {MEAN} }} }}
layer {{ name: "ip" type: "InnerProduct" bottom: "x" top: "p" param {{ group_lasso {{ group: INPUT_NEURON }} }}
        inner_product_param {{ num_output: {CLASSES} weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "p" bottom: "y" top: "loss" }}
"""


def solver(rule: str, batch: int, strength: float, settle: int) -> Solver:
    text = (
        f'{RULES[rule]} lr_policy: "poly" power: 1 max_iter: {EPOCHS * SAMPLES // batch} random_seed: 1 '
        f"group_lasso_decay: {strength} group_lasso_settle: {settle} net_param {{ {NET % batch} }}"
    )
    return Solver(prototxt.parse(text, pb.SolverParameter))


def kept(run: Solver) -> int:
    run.step(run.param.max_iter)
    return int(run.net.params["ip"][0].data.any(axis=0).sum())


@cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """(samples, pixels) as the net sees them, (samples, classes) ones and zeros."""
    source = builtin_source("digits/train")
    records = source.read(np.arange(len(source)))
    x = np.asarray(records.images, np.float64).reshape(-1, PIXELS)
    return (x - MEAN) * SCALE, np.eye(CLASSES)[records.labels]


def gradients(w: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the mean loss: by w (pixels, classes), b (classes)."""
    x, y = digits()
    score = x @ w + b
    share = np.exp(score - score.max(axis=1, keepdims=True))
    share /= share.sum(axis=1, keepdims=True)
    return x.T @ (share - y) / len(x), (share - y).mean(axis=0)


@cache
def minimiser(strength: float) -> np.ndarray:
    """The weights (pixels, classes) of the least loss + strength * sum of the pixels' norms, in float64."""
    x, _ = digits()
    with_ones = np.column_stack([x, np.ones(len(x))])
    step = 2 / np.linalg.eigvalsh(with_ones.T @ with_ones / len(x))[-1]  # softmax's curvature is at most 1/2
    w, b, t = np.zeros((PIXELS, CLASSES)), np.zeros(CLASSES), 1.0
    v, c = w, b
    for _ in range(20000):
        gw, gb = gradients(v, c)
        new, new_b = v - step * gw, c - step * gb
        norms = np.linalg.norm(new, axis=1, keepdims=True)
        new *= np.maximum(0, 1 - step * strength / np.maximum(norms, 1e-30))
        if max(np.abs(new - v).max(), np.abs(new_b - c).max()) <= 1e-8 * step:
            return new
        t = 1.0 if np.vdot(v - new, new - w) + np.vdot(c - new_b, new_b - b) > 0 else t
        next_t = (1 + np.sqrt(1 + 4 * t * t)) / 2
        v, c = new + (t - 1) / next_t * (new - w), new_b + (t - 1) / next_t * (new_b - b)
        w, b, t = new, new_b, next_t
    raise AssertionError("FISTA did not end")


@pytest.mark.parametrize("strength", STRENGTHS)
def test_every_rule_and_batch_keeps_the_pixels_of_the_minimiser(strength: float) -> None:
    truth = int(minimiser(strength).any(axis=1).sum())
    found = {(rule, batch): kept(solver(rule, batch, strength, 25)) for rule in RULES for batch in (32, 128)}
    allowed = POINTS / 100 * PIXELS
    assert max(found.values()) - min(found.values()) <= allowed, found
    assert all(abs(pixels - truth) <= allowed for pixels in found.values()), (truth, found)


def test_without_settling_noise_keeps_pixels_that_the_minimiser_has_not() -> None:
    assert kept(solver("SGD", 32, 0.05, 0)) > minimiser(0.05).any(axis=1).sum() + 5
