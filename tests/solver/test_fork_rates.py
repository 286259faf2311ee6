"""Learning rates of Caffe's forks, against values computed by hand."""

from __future__ import annotations

import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import DefinitionError
from sslnet.solver.lr_policies import PlateauWatch, check, learning_rate


def solver(text: str) -> prototxt.Definition:
    return prototxt.parse(text, pb.SolverParameter, "solver.prototxt")


def rates(text: str, iterations: list[int]) -> list[float]:
    definition = solver(text)
    check(definition)
    return [learning_rate(definition.message, i, 0)[0] for i in iterations]


def test_warm_up_is_a_line_then_the_policy() -> None:
    text = 'base_lr: 1 lr_policy: "step" gamma: 0.5 stepsize: 10 warmup_iter: 4 warmup_start_lr: 0.2'
    assert rates(text, [0, 1, 2, 3, 4, 10]) == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 0.5])


def test_ramp_up_is_a_parabola_and_the_rate_never_below_its_least() -> None:
    text = 'base_lr: 1 lr_policy: "poly" power: 1 max_iter: 10 rampup_interval: 4 rampup_lr: 0.2 min_lr: 0.3'
    assert rates(text, [0, 2, 3, 4, 9, 10]) == pytest.approx([0.3, 0.4, 0.65, 0.6, 0.3, 0.3])


def test_multifixed_takes_the_rate_of_the_stage() -> None:
    text = 'lr_policy: "multifixed" ' + "".join(
        f"stagelr: {r} stageiter: {i} " for r, i in ((0.1, 2), (0.5, 5), (0.25, 8))
    )
    assert rates(text, [0, 2, 3, 5, 6, 8, 9, 100]) == pytest.approx([0.1, 0.1, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25])


def test_plateau_drops_where_the_loss_has_no_new_minimum() -> None:
    param = solver('base_lr: 1 lr_policy: "plateau" gamma: 0.1 plateau_winsize: 2 plateau_winsize: 3').message
    watch, step, steps = PlateauWatch(param), 0, []
    for iteration, loss in enumerate([5, 4, 4, 4, 4, 3, 3, 3, 3, 3]):
        step = watch.drops(iteration, loss, step)
        steps.append(step)
    assert steps == [0, 0, 0, 1, 1, 1, 1, 1, 2, 2]
    assert learning_rate(param, 9, step)[0] == pytest.approx(0.01)
    again = PlateauWatch(param)
    again.set_state(watch.state())
    assert again.state() == watch.state() == [3.0, 8.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('base_lr: 1 lr_policy: "fixed" warmup_iter: -1', "warmup_iter must be 0 or above"),
        ('lr_policy: "multifixed" stagelr: 1 stageiter: 1 stageiter: 2', "there are 1 stagelr and 2 stageiter"),
        ('lr_policy: "multifixed" stageiter: 1', "needs stagelr"),
        ('lr_policy: "multifixed" stagelr: -1 stageiter: 1', "stagelr must be 0 or above"),
        ('base_lr: 1 lr_policy: "plateau" gamma: 0.1 plateau_winsize: 0', "plateau_winsize must be 1 or above"),
    ],
)
def test_fields_out_of_range_are_errors(text: str, message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        check(solver(text))
