"""Learning rate policies against numbers worked out by hand, and what is said of those that cannot be."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import DefinitionError
from sslnet.solver import lr_policies


def solver(text: str) -> prototxt.Definition:
    return prototxt.parse(text, pb.SolverParameter, path="solver.prototxt")


@pytest.mark.parametrize(
    "fields, iteration, expected",
    [
        ('lr_policy: "fixed"', 1000, 0.5),
        ('lr_policy: "step" gamma: 0.5 stepsize: 10', 9, 0.5),
        ('lr_policy: "step" gamma: 0.5 stepsize: 10', 10, 0.25),
        ('lr_policy: "step" gamma: 0.5 stepsize: 10', 25, 0.125),
        ('lr_policy: "exp" gamma: 0.5', 3, 0.0625),
        ('lr_policy: "inv" gamma: 0.1 power: 2', 10, 0.125),
        ('lr_policy: "poly" power: 2 max_iter: 10', 5, 0.125),
        ('lr_policy: "poly" power: 0.5 max_iter: 10', 10, 0.0),
        ('lr_policy: "poly" power: 0.5 max_iter: 10', 11, 0.0),
        ('lr_policy: "poly" power: -2 max_iter: 10', 5, 2.0),
        ('lr_policy: "poly" power: -2 max_iter: 10', 10, 0.0),
        ('lr_policy: "poly" power: -2 max_iter: 10', 1000, 0.0),
        ('lr_policy: "inv" gamma: -0.0078125 power: -1 max_iter: 128', 96, 0.125),
        ('lr_policy: "inv" gamma: -0.0078125 power: -1 max_iter: 128', 128, 0.0),
        ('lr_policy: "inv" gamma: -0.0078125 power: -1 max_iter: 128', 160, -0.125),
        ('lr_policy: "inv" gamma: -0.0078125 power: -0.5 max_iter: 128', 96, 0.25),
        ('lr_policy: "inv" gamma: -0.0078125 power: -0.5 max_iter: 128', 200, 0.0),
        ('lr_policy: "inv" gamma: -0.0078125 power: 0.5 max_iter: 64', 96, 1.0),
        ('lr_policy: "inv" gamma: -0.0078125 power: 0.5 max_iter: 64', 200, math.inf),
        ('lr_policy: "exp" gamma: -0.5', 3, -0.0625),
        ('lr_policy: "exp" gamma: 2', 100000, math.inf),
        ('lr_policy: "exp" gamma: -2', 100001, -math.inf),
        ('lr_policy: "exp" gamma: 0', 0, 0.5),
        ('lr_policy: "step" gamma: 3e38 stepsize: 1', 9, math.inf),
        ('lr_policy: "cosine" max_iter: 12', 0, 0.5),
        ('lr_policy: "cosine" max_iter: 12', 4, 0.375),
        ('lr_policy: "cosine" max_iter: 12', 6, 0.25),
        ('lr_policy: "cosine" max_iter: 12', 12, 0.0),
        ('lr_policy: "cosine" max_iter: 12', 100, 0.0),
        # PyTorch 2.13: OneCycleLR(max_lr=0.5, total_steps=101, cycle_momentum=False)
        ('lr_policy: "onecycle" max_iter: 101', 0, 0.02),
        ('lr_policy: "onecycle" max_iter: 101', 1, 0.02137825520013661),
        ('lr_policy: "onecycle" max_iter: 101', 15, 0.2690044998710504),
        ('lr_policy: "onecycle" max_iter: 101', 30, 0.49987907105671485),
        ('lr_policy: "onecycle" max_iter: 101', 60, 0.30129032444441316),
        ('lr_policy: "onecycle" max_iter: 101', 100, 2e-6),
        ('lr_policy: "onecycle" max_iter: 101', 1000, 2e-6),
        ('lr_policy: "onecycle" max_iter: 1', 0, 0.5),
        ('lr_policy: "onecycle" max_iter: 9 pct_start: 0', 0, 0.5),
        ('lr_policy: "sigmoid" gamma: -3e38 stepsize: 50', 2147483647, 0.0),
        ('lr_policy: "sigmoid" gamma: 3e38 stepsize: 50', 2147483647, 0.5),
        ('lr_policy: "sigmoid" gamma: -0.1 stepsize: 50', 50, 0.25),
        ('lr_policy: "sigmoid" gamma: 100 stepsize: 50', 0, 0.0),
    ],
)
def test_rate_follows_its_formula(fields: str, iteration: int, expected: float) -> None:
    definition = solver(f"base_lr: 0.5 {fields}")
    lr_policies.check(definition)
    rate, _ = lr_policies.learning_rate(definition.message, iteration, 0)
    assert rate == pytest.approx(expected, rel=1e-6, abs=1e-30)


def test_multistep_drops_at_each_stepvalue() -> None:
    param = solver('base_lr: 1 lr_policy: "multistep" gamma: 0.5 stepvalue: 2 stepvalue: 3').message
    rates, step = [], 0
    for iteration in range(6):
        rate, step = lr_policies.learning_rate(param, iteration, step)
        rates.append(rate)
    assert rates == [1, 1, 0.5, 0.25, 0.25, 0.25]
    assert step == 2


def test_step_counts_its_drops() -> None:
    param = solver('base_lr: 1 lr_policy: "step" gamma: 0.5 stepsize: 4').message
    assert lr_policies.learning_rate(param, 11, 0)[1] == 2


@pytest.mark.parametrize(
    "text, message, place",
    [
        ('base_lr: 1 lr_policy: "stpe"', 'unknown lr_policy "stpe"', (1, 23)),
        ("base_lr: 1", "the solver has no lr_policy", (None, None)),
        ('lr_policy: "fixed"', 'lr_policy "fixed" needs base_lr', (1, 1)),
        ('base_lr: 1\nlr_policy: "step" gamma: 0.1', 'lr_policy "step" needs stepsize', (2, 1)),
        ('base_lr: 1 gamma: 0.1 lr_policy: "multistep"', 'lr_policy "multistep" needs stepvalue', (1, 23)),
        ('base_lr: 1 gamma: 0.1 stepsize: 0 lr_policy: "step"', "stepsize must be positive, not 0", (1, 33)),
        (
            'base_lr: 1 gamma: 0.1 stepvalue: 9 stepvalue: 4 lr_policy: "multistep"',
            "stepvalue 4 comes after 9",
            (1, 47),
        ),
        (
            'base_lr: 1 gamma: -0.5 power: 0.75 max_iter: 2 lr_policy: "inv"',
            "1 + gamma * iteration must stay above 0 up to max_iter 2, and ends at 0",
            (1, 19),
        ),
        (
            'base_lr: 1 gamma: -0.5 power: -0.75 max_iter: 4 lr_policy: "inv"',
            "1 + gamma * iteration must stay above 0 up to max_iter 4, and ends at -1",
            (1, 19),
        ),
    ],
)
def test_policy_that_cannot_be_is_an_error_at_its_place(text: str, message: str, place: tuple[int | None, ...]) -> None:
    with pytest.raises(DefinitionError) as caught:
        lr_policies.check(solver(text))
    assert caught.value.message == message
    assert (caught.value.line, caught.value.column) == place


def test_misspelt_policy_gets_a_suggestion() -> None:
    with pytest.raises(DefinitionError, match='did you mean "step"'):
        lr_policies.check(solver('base_lr: 1 lr_policy: "stpe"'))


ITERATIONS = [0, 1, 2, 9, 10, 11, 99, 1000, 123_457, 2**31 - 1]
NUMBERS = ["0", "1", "-1", "2", "-2", "0.5", "-0.5", "1e-38", "3.4e38", "-3.4e38", "0.99", "1e-45"]


@pytest.mark.parametrize("policy", lr_policies.POLICIES)
def test_every_iteration_of_a_checked_policy_has_a_rate(policy: str) -> None:
    """A real number or an infinity, never a NaN, a complex number or an exception."""
    for base_lr in ("0.01", "0", "3e38"):
        for gamma in NUMBERS:
            for power in NUMBERS:
                for steps in ("stepsize: 1 stepvalue: 0 stepvalue: 1 max_iter: 10", "stepsize: 7 stepvalue: 3"):
                    fields = f'base_lr: {base_lr} gamma: {gamma} power: {power} {steps} lr_policy: "{policy}"'
                    definition = solver(fields)
                    try:
                        lr_policies.check(definition)
                    except DefinitionError:
                        assert policy in ("inv", "poly", "cosine", "onecycle", "multifixed", "plateau", "stepearly"), (
                            fields
                        )
                        continue
                    for iteration in ITERATIONS:
                        for before in (-3, 0, 2**31 - 1):
                            rate, step = lr_policies.learning_rate(definition.message, iteration, before)
                            assert isinstance(rate, float) and not math.isnan(rate), (fields, iteration)
                            assert isinstance(step, int)


def test_rates_of_usual_settings_are_the_formula_rounded_once_an_operation() -> None:
    """Exact arithmetic for whole powers; one rounding of a double an operation."""
    param = solver('base_lr: 0.01 gamma: 0.5 power: 3 stepsize: 7 max_iter: 64 lr_policy: "poly"').message
    base = Fraction(param.base_lr)
    for iteration in range(64):
        expected = float(base * (1 - Fraction(iteration, 64)) ** 3)
        assert lr_policies.poly(param, iteration, 0)[0] == pytest.approx(expected, rel=1e-15)
        assert lr_policies.exp(param, iteration, 0)[0] == float(base * Fraction(1, 2**iteration))
        assert lr_policies.step(param, iteration, 0)[0] == float(base * Fraction(1, 2 ** (iteration // 7)))
        expected = float(base / (1 + Fraction(iteration, 2)) ** 3)
        assert lr_policies.inv(param, iteration, 0)[0] == pytest.approx(expected, rel=1e-15)
