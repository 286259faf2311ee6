"""Convex problems have one minimiser: whichever rule trains, a run ends at the one that skglm found, with its zeros.

The problems, strengths from 0.9 down to 0.01 of the one that kills all, and the solutions in float64 are those of
tests/goldens/convex/make.py (skglm, checked by celer). The nets train in float32, on all samples at once.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.solver.solver import Solver
from sslnet.sparsity.optimality import certify

GOLDEN = np.load(Path(__file__).parents[1] / "goldens" / "convex" / "solutions.npz")
INPUTS, OUTPUTS = 24, 4

GROUPS = {
    "columns": "group: INPUT_NEURON",
    "rows": "group: OUTPUT_NEURON",
    "channels": "group: CHANNEL",
    "blocks": "group: BLOCK xdimen: 4",
    "elements": "group: ELEMENT",
}
LOSSES = {"least_squares": "EuclideanLoss", "logistic": "SigmoidCrossEntropyLoss"}
RULES = {
    "SGD": 'type: "SGD" momentum: 0.9',
    "Nesterov": 'type: "Nesterov" momentum: 0.9',
    "Adam": 'type: "Adam" momentum: 0.9 momentum2: 0.999',
}
RATES = {
    ("SGD", "least_squares"): (0.05,),
    ("SGD", "logistic"): (0.4,),
    ("Nesterov", "least_squares"): (0.05,),
    ("Nesterov", "logistic"): (0.4,),
    ("Adam", "least_squares"): (0.1, 0.02),
    ("Adam", "logistic"): (0.1, 0.02),
}
ITERATIONS = {"SGD": 800, "Nesterov": 800, "Adam": 1200}
CLOSE = 1e-5
"""Largest difference from the solution in float64, by the largest weight. A run in float32 rests where rounding hides the
gradient, 1e-7 to 1e-6 from it: how near depends on the order of its sums, so on the width of the vectors."""
ORDER = (2, 4, 0, 3, 1)
"""Of the strengths in a run: 0.2, 0.01, 0.9, 0.05, 0.5, so that groups die and wake again."""


def net(loss: str, kind: str, samples: int) -> str:
    def inner_product(name: str, bottom: str, group: str, bias: bool) -> str:
        return (
            f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" '
            f"param {{ group_lasso {{ {group} }} }} inner_product_param {{ num_output: {OUTPUTS} "
            f'bias_term: {str(bias).lower()} weight_filler {{ type: "gaussian" std: 0.3 }} }} }}'
        )

    def inputs(name: str, *shape: int) -> str:
        dims = " ".join(f"dim: {size}" for size in (samples, *shape))
        return f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ {dims} }} }} }}'

    if kind == "sizes":
        score = inputs("x", 6, 2) + inputs("x2", 2, 6)
        score += inner_product("ip", "x", "group: CHANNEL", True) + inner_product("ip2", "x2", "group: CHANNEL", False)
        score += 'layer { name: "p" type: "Eltwise" bottom: "ip" bottom: "ip2" top: "p" }'
    else:
        score = inputs("x", 6, 2, 2) + inner_product("ip", "x", GROUPS[kind], True).replace('top: "ip"', 'top: "p"')
    loss_layer = f'layer {{ name: "loss" type: "{LOSSES[loss]}" bottom: "p" bottom: "y" top: "loss" }}'
    return score + inputs("y", OUTPUTS) + loss_layer


def with_net(settings: str, layers: str) -> Solver:
    text = f'{settings} base_lr: 1 lr_policy: "fixed" random_seed: 1 net_param {{ {layers} }}'
    return Solver(prototxt.parse(text, pb.SolverParameter))


def solver(rule: str, loss: str, kind: str, strength: float) -> Solver:
    x, y = GOLDEN[f"{loss}/x"], GOLDEN[f"{loss}/y"]
    settings = f"{RULES[rule]} group_lasso_decay: {strength!r}"
    if kind == "sizes":
        settings += " group_lasso_scale_by_size: true"
    run = with_net(settings, net(loss, kind, len(x)))
    blobs, first = run.net.blobs, 12 if kind == "sizes" else INPUTS
    blobs["x"].data.reshape(len(x), -1)[...] = x[:, :first]
    if kind == "sizes":
        blobs["x2"].data.reshape(len(x), -1)[...] = x[:, first:]
    blobs["y"].data[...] = y
    return run


def weights(run: Solver) -> np.ndarray:
    params = run.net.params
    return np.concatenate(
        [params[name][0].data.reshape(OUTPUTS, -1) for name in ("ip", "ip2") if name in params], axis=1
    )


def anneal(run: Solver, rates: tuple[float, ...], iterations: int) -> None:
    """So many iterations, shared out over the rates."""
    for rate in rates:
        run.param.base_lr = rate
        run.step(iterations // len(rates))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", [*GROUPS, "sizes"])
@pytest.mark.parametrize("loss", LOSSES)
def test_every_rule_finds_the_solution_of_skglm(loss: str, kind: str, rule: str) -> None:
    strengths, *solutions = (GOLDEN[f"{loss}/{kind}/{name}"] for name in ("strengths", "w", "b"))
    run = solver(rule, loss, kind, float(strengths[0]))
    for k in ORDER:
        run.scale_penalties(float(strengths[k] / strengths[0]))
        anneal(run, RATES[rule, loss], ITERATIONS[rule])
        (w, b), found = (solution[k] for solution in solutions), weights(run)
        largest = max(np.abs(w).max(), np.abs(b).max())
        np.testing.assert_array_equal(found == 0, w == 0)
        np.testing.assert_allclose(found, w, rtol=0, atol=CLOSE * largest)
        np.testing.assert_allclose(run.net.params["ip"][1].data, b, rtol=0, atol=CLOSE * largest)


OF_TWO_CLASSES = {"blocks": "group: CHANNEL", "elements": "group: INPUT_NEURON", "rows": "group: LAYER"}


@pytest.mark.parametrize("kind", OF_TWO_CLASSES)
def test_softmax_of_two_classes_is_logistic(kind: str) -> None:
    """At the minimiser the weights of the two are u / 2 and -u / 2: a group of both has 1 / sqrt(2) of the norm of u's."""
    x, y = GOLDEN["logistic/x"], GOLDEN["logistic/y"][:, 0]
    strengths, *solutions = (GOLDEN[f"logistic/{kind}/{name}"] for name in ("strengths", "w", "b"))
    layers = net("logistic", kind, len(x)).replace(GROUPS[kind], OF_TWO_CLASSES[kind])
    layers = layers.replace(f"num_output: {OUTPUTS}", "num_output: 2").replace(LOSSES["logistic"], "SoftmaxWithLoss")
    layers = layers.replace(
        f'top: "y" input_param {{ shape {{ dim: {len(x)} dim: {OUTPUTS}',
        f'top: "y" input_param {{ shape {{ dim: {len(x)}',
    )
    first = float(np.sqrt(2) * strengths[0])
    run = with_net(f"{RULES['SGD']} group_lasso_decay: {first!r}", layers)
    run.net.blobs["x"].data.reshape(len(x), -1)[...] = x
    run.net.blobs["y"].data[...] = y
    for k in ORDER:
        run.scale_penalties(float(strengths[k] / strengths[0]))
        anneal(run, (0.8,), 800)
        w, b = (solution[k, 0] for solution in solutions)
        found, bias = (blob.data for blob in run.net.params["ip"])
        largest = max(np.abs(w).max(), abs(b))
        np.testing.assert_array_equal(found == 0, [w == 0] * 2)
        np.testing.assert_allclose(found, [-w / 2, w / 2], rtol=0, atol=CLOSE * largest)
        np.testing.assert_allclose(bias[1] - bias[0], b, rtol=0, atol=CLOSE * largest)


# -- certificates --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*GROUPS, "sizes"])
@pytest.mark.parametrize("loss", LOSSES)
def test_lambda_max_of_the_certificate_is_the_alpha_max_of_celer(loss: str, kind: str) -> None:
    alpha_max = float(GOLDEN[f"{loss}/{kind}/alpha_max"])
    run = solver("Nesterov", loss, kind, 1.01 * alpha_max)
    anneal(run, RATES["Nesterov", loss], 800)  # now the weights are zero, and the biases where they are without them
    assert not weights(run).any()
    assert max(one.lambda_max for one in certify(run, 1)) == pytest.approx(1 / 1.01, rel=1e-5)


@pytest.mark.parametrize("kind", [*GROUPS, "sizes"])
@pytest.mark.parametrize("loss", LOSSES)
def test_certificate_knows_the_solution_of_skglm(loss: str, kind: str) -> None:
    for k in range(len(GOLDEN[f"{loss}/{kind}/strengths"])):
        run = solver("SGD", loss, kind, float(GOLDEN[f"{loss}/{kind}/strengths"][k]))
        w, b = (GOLDEN[f"{loss}/{kind}/{name}"][k] for name in ("w", "b"))
        blobs = run.net.params
        first = blobs["ip"][0].data.size // OUTPUTS
        for scale, holds in ((1.0, True), (1.01, False)):
            for name, part in (("ip", w[:, :first]), ("ip2", w[:, first:])):
                if name in blobs:
                    blobs[name][0].data.reshape(OUTPUTS, -1)[...] = scale * part
            blobs["ip"][1].data[...] = b
            residual = max(one.residual for one in certify(run, 1))
            assert residual < 2e-5 if holds else residual > 5e-4
