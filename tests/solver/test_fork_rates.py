"""Learning rates of Caffe's forks, against values computed by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import DefinitionError
from sslnet.solver.file_check import check_file
from sslnet.solver.lr_policies import PlateauWatch, check, learning_rate
from sslnet.solver.solver import Solver


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


def test_stepearly_drops_after_tests_without_a_new_highest_score() -> None:
    param = solver('base_lr: 1 lr_policy: "stepearly" gamma: 0.5 stepearly: 2').message
    watch, step, steps = PlateauWatch(param), 0, []
    for score in (0.3, 0.5, 0.4, 0.5, 0.6, 0.1, 0.2, 0.3, 0.4):
        watch.tested(1, [("other net", 9.0, 0.0)])
        watch.tested(0, [("accuracy", score, 0.0), ("loss", 9.0, 1.0)])
        step = watch.drops(0, 1.0, step)
        steps.append(step)
    assert steps == [0, 0, 0, 1, 1, 1, 2, 2, 3]
    assert learning_rate(param, 9, 3)[0] == pytest.approx(0.125)
    watch.tested(0, [("accuracy", 0.0, 0.0)])
    again = PlateauWatch(param)
    again.set_state(watch.state())
    assert again.state() == watch.state() == [-0.6, 1.0, 0.0]


NET = """layer { name: "d" type: "DummyData" top: "x" top: "t" dummy_data_param { shape { dim: 2 dim: 3 }
  data_filler { type: "gaussian" } } }
layer { name: "i" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 3
  weight_filler { type: "xavier" } } }
layer { name: "l" type: "EuclideanLoss" bottom: "y" bottom: "t" top: "loss" }"""


def test_run_with_stepearly_is_resumed_at_its_rate(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(NET)
    text = (
        f'net: "{tmp_path}/net.prototxt" test_iter: 3 test_interval: 1 base_lr: 0.1 lr_policy: "stepearly" gamma: 0.5'
        f' stepearly: 2 max_iter: 12 random_seed: 3 snapshot: 6 snapshot_prefix: "{tmp_path}/s"'
    )
    whole = Solver(solver(text))
    whole.solve()
    assert whole.current_step > 1
    resumed = Solver(solver(text), snapshot=f"{tmp_path}/s_iter_6.solverstate")
    resumed.solve()
    assert resumed.current_step == whole.current_step
    np.testing.assert_array_equal(resumed.net.params["i"][0].data, whole.net.params["i"][0].data)


def test_run_that_follows_tests_needs_them(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(NET)
    text = f'net: "{tmp_path}/net.prototxt" base_lr: 0.1 lr_policy: "stepearly" gamma: 0.5 stepearly: 2 max_iter: 3'
    with pytest.raises(DefinitionError, match="follows the scores of tests"):
        Solver(solver(text)).solve()


def test_net_with_test_iter_0_is_not_tested(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(NET)
    text = (
        f'net: "{tmp_path}/net.prototxt" test_iter: 0 test_interval: 1 base_lr: 0.1 lr_policy: "fixed" max_iter: 3'
        f' snapshot_prefix: "{tmp_path}/s"'
    )
    run = Solver(solver(text))
    assert len(run.test_nets) == 1 and run.test() == []
    run.solve()
    assert run.iter == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('base_lr: 1 lr_policy: "fixed" warmup_iter: -1', "warmup_iter must be 0 or above"),
        ('lr_policy: "multifixed" stagelr: 1 stageiter: 1 stageiter: 2', "there are 1 stagelr and 2 stageiter"),
        ('lr_policy: "multifixed" stageiter: 1', "needs stagelr"),
        ('lr_policy: "multifixed" stagelr: -1 stageiter: 1', "stagelr must be 0 or above"),
        ('base_lr: 1 lr_policy: "stepearly" gamma: 0.1 stepearly: 0', "stepearly must be 1 or above"),
        ('lr_policy: "fixed"', 'lr_policy "fixed" needs base_lr'),
        ('base_lr: 1 lr_policy: "plateau" gamma: 0.1 plateau_winsize: 0', "plateau_winsize must be 1 or above"),
    ],
)
def test_fields_out_of_range_are_errors(text: str, message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        check(solver(text))


def test_template_without_a_rate_is_checked_but_does_not_train(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(NET)
    path = tmp_path / "solver.prototxt"
    path.write_text(f'net: "{tmp_path}/net.prototxt" lr_policy: "multistep" gamma: 0.1 stepvalue: 5 max_iter: 9\n')
    found = check_file(path, {})
    assert found.accepted and any("a template: there is no base_lr" in note for note in found.notes)
    with pytest.raises(DefinitionError, match="needs base_lr") as caught:
        Solver(prototxt.read_solver(path))
    assert "--set base_lr" in caught.value.hint
    path.write_text(path.read_text().replace("gamma: 0.1", ""))
    assert [problem.message for problem in check_file(path, {}).problems] == ['lr_policy "multistep" needs gamma']
