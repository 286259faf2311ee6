"""Updates: which rule, which decay, what stays frozen, and the prox in each rule's metric."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import DefinitionError
from sslnet.net.net import Net
from sslnet.net.parameters import Param
from sslnet.net.weights import blob_proto
from sslnet.prototxt.old_forms import SOLVER_TYPES
from sslnet.solver.parameter_update import Update
from sslnet.solver.penalized_update import PenalizedUpdate, penalize, steps_of
from sslnet.solver.update_settings import frozen
from sslnet.solver.updates import UPDATES, make_updates, update_type

ADAPTIVE = ["AdaGrad", "RMSProp", "AdaDelta", "Adam", "AdamW"]

Step = Callable[..., None]


def solver(text: str) -> prototxt.Definition:
    return prototxt.parse(text, pb.SolverParameter, path="solver.prototxt")


def net(param: str = "", layer: str = "", group: int = 1, bias: str = "param { lr_mult: 2 }") -> Net:
    """One convolution, weights (4, 6 / group, 1, 2), and its bias."""
    return Net(
        prototxt.parse(
            'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 dim: 6 dim: 1 dim: 8 } } }\n'
            f'layer {{ name: "conv" type: "Convolution" bottom: "x" top: "y" {layer} param {{ {param} }} {bias}\n'
            f"  convolution_param {{ num_output: 4 kernel_h: 1 kernel_w: 2 group: {group} "
            'weight_filler { type: "gaussian" std: 1 } } }',
            pb.NetParameter,
            path="net.prototxt",
        ),
        seed=1,
    )


def updates(definition: str, param: str = "", **settings: str) -> list[Update]:
    found = make_updates(net(param, **settings).learnable, solver(definition))
    for update in found:
        update.param.blob.diff[...] = np.random.default_rng(3).standard_normal(update.param.blob.shape)
    return found


def penalised(definition: str, param: str = "", **settings: str) -> tuple[list[Update], list[PenalizedUpdate], Step]:
    """The updates of the weights and the biases, their penalties, and an iteration of all."""
    found = updates(definition, param, **settings)
    penalties = penalize(found, None, solver(definition))

    def step(iteration: int, rate: float, scale: float = 1.0) -> None:
        for each in steps_of(found, penalties):
            each(iteration, rate, scale)

    return found, penalties, step


# -- which rule --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", UPDATES)
def test_type_names_the_rule(name: str) -> None:
    assert update_type(solver(f'type: "{name}"')) == name
    assert type(updates(f'type: "{name}"')[0]).__name__ == name


@pytest.mark.parametrize("name", SOLVER_TYPES.values())
def test_old_enum_names_the_rule(name: str) -> None:
    assert update_type(solver(f"solver_type: {name.upper()}")) == name


def test_rule_is_sgd_unless_given() -> None:
    assert update_type(solver("")) == "SGD"


@pytest.mark.parametrize(
    "text, message, hint",
    [
        ('type: "Adamm"', 'unknown solver type "Adamm"', 'did you mean "Adam"?'),
        ('type: "AdaGrad" momentum: 0.9', "AdaGrad has no momentum, and momentum is 0.9", "remove it"),
        ('type: "RMSProp" momentum: 0.9', "RMSProp has no momentum, and momentum is 0.9", "remove it"),
        ("momentum: 1", "momentum must be at least 0 and below 1, not 1", ""),
        ('type: "RMSProp" rms_decay: -0.5', "rms_decay must be at least 0 and below 1, not -0.5", ""),
        ('regularization_type: "L3"', 'unknown regularization_type "L3"', "L1 or L2"),
    ],
)
def test_rule_that_cannot_be_is_an_error_at_its_place(text: str, message: str, hint: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        updates(text)
    assert (caught.value.message, caught.value.hint, caught.value.path) == (message, hint, "solver.prototxt")
    assert caught.value.line == 1


# -- rates and decays --------------------------------------------------------------------------------------------------


def test_rate_and_decay_are_multiplied_for_each_parameter() -> None:
    weight, bias = updates("weight_decay: 0.5", "lr_mult: 3 decay_mult: 4")
    for update, lr_mult, decay in ((weight, 3, 2.0), (bias, 2, 0.5)):
        w, g = update.param.blob.data.copy(), update.param.blob.diff.copy()
        update(0, 0.01, 0.25)
        np.testing.assert_allclose(
            update.param.blob.data, w - 0.01 * lr_mult * (0.25 * g + decay * w), rtol=1e-5, atol=1e-7
        )


def test_parameter_chooses_its_own_kind_of_decay() -> None:
    weight, bias = updates("weight_decay: 0.5", 'regularization_type: "L1"')
    w, g = weight.param.blob.data.copy(), weight.param.blob.diff.copy()
    weight(0, 0.01, 1.0)
    np.testing.assert_allclose(weight.param.blob.data, w - 0.01 * (g + 0.5 * np.sign(w)), rtol=1e-5, atol=1e-7)
    assert not bias.l1


def test_parameter_with_lr_mult_zero_is_left_alone() -> None:
    weight = updates("weight_decay: 0.5 momentum: 0.9", "lr_mult: 0")[0]
    before = weight.param.blob.data.copy()
    weight(0, 1.0, 1.0)
    np.testing.assert_array_equal(weight.param.blob.data, before)
    assert weight.history[0].shape == before.shape


def test_decay_proto_weighs_the_decay_of_each_weight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    multipliers = np.arange(48, dtype=np.float32).reshape(4, 6, 1, 2)
    Path("m.binaryproto").write_bytes(blob_proto(multipliers).SerializeToString())
    weight = updates("weight_decay: 0.5", 'decay_proto: "m.binaryproto"')[0]
    w, g = weight.param.blob.data.copy(), weight.param.blob.diff.copy()
    weight(0, 0.01, 0.5)
    np.testing.assert_allclose(
        weight.param.blob.data, w - 0.01 * (0.5 * g + 0.5 * multipliers * w), rtol=1e-5, atol=1e-6
    )


def test_decay_proto_of_another_size_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.binaryproto").write_bytes(blob_proto(np.ones(5, np.float32)).SerializeToString())
    with pytest.raises(DefinitionError, match=r"5 decay multipliers for conv\[0\], which has 48 weights") as caught:
        updates("weight_decay: 0.5", 'decay_proto: "m.binaryproto"')
    assert caught.value.line == 2


def test_decay_proto_that_is_missing_is_an_error() -> None:
    with pytest.raises(DefinitionError, match="there is no file"):
        updates("weight_decay: 0.5", 'decay_proto: "nowhere.binaryproto"')


# -- AdamW -------------------------------------------------------------------------------------------------------------

ADAMW = 'type: "AdamW" momentum: 0.9 momentum2: 0.99 delta: 0.01 '


def test_adamw_by_hand() -> None:
    """w = 2, g = 4 / 2, decay 0.5 * 3, rate 0.1 * 2: first 2 - 0.2 * 1.5 * 2 = 1.4; the corrected means are g and g^2 at the
    first step, so 1.4 - 0.2 * 2 / (2 + 0.01).

    The corrections divide by 1 - momentum2, a difference that rounding to float32 changes by up to 6e-8 / 0.01."""
    weight = updates(ADAMW + "weight_decay: 0.5", "lr_mult: 2 decay_mult: 3")[0]
    weight.param.blob.data[...] = 2
    weight.param.blob.diff[...] = 4
    weight(0, 0.1, 0.5)
    np.testing.assert_allclose(weight.param.blob.data, 1.4 - 0.4 / 2.01, rtol=1e-5)
    np.testing.assert_allclose(weight.history[0], 0.2, rtol=1e-5)
    np.testing.assert_allclose(weight.history[1], 0.04, rtol=1e-5)


def test_adamw_without_gradient_only_decays() -> None:
    weight = updates(ADAMW + "weight_decay: 0.5")[0]
    w = weight.param.blob.data.copy()
    weight.param.blob.diff[...] = 0
    weight(0, 0.1, 1.0)
    np.testing.assert_allclose(weight.param.blob.data, 0.95 * w, rtol=1e-6)
    assert not any(history.any() for history in weight.history)


def test_adamw_decays_by_l1_and_by_multipliers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    multipliers = np.arange(48, dtype=np.float32).reshape(4, 6, 1, 2)
    Path("m.binaryproto").write_bytes(blob_proto(multipliers).SerializeToString())
    weight = updates(ADAMW + "weight_decay: 0.01", 'decay_proto: "m.binaryproto" regularization_type: "L1"')[0]
    w = weight.param.blob.data.copy()
    weight.param.blob.diff[...] = 0
    weight(0, 0.1, 1.0)
    np.testing.assert_allclose(weight.param.blob.data, w - 0.001 * multipliers * np.sign(w), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("decay_mult", [0, 1, 3])
def test_adamw_is_torchs(decay_mult: int) -> None:
    torch = pytest.importorskip("torch")
    weight = updates(ADAMW + "weight_decay: 0.1", f"decay_mult: {decay_mult}")[0]
    theirs = torch.nn.Parameter(torch.tensor(weight.param.blob.data, dtype=torch.float64))
    rule = torch.optim.AdamW([theirs], lr=0.05, betas=(0.9, 0.99), eps=0.01, weight_decay=0.1 * decay_mult)
    random = np.random.default_rng(0)
    for iteration in range(20):
        gradient = random.standard_normal(weight.param.blob.shape)
        weight.param.blob.diff[...] = gradient
        theirs.grad = torch.tensor(gradient)
        weight(iteration, 0.05, 1.0)
        rule.step()
    np.testing.assert_allclose(weight.param.blob.data, theirs.detach().numpy(), rtol=1e-4, atol=1e-5)


# -- group lasso -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SGD", "Nesterov", *ADAPTIVE])
@pytest.mark.parametrize("mults", ["breadth_decay_mult: 1", "breadth_decay_mult: 1 kernel_shape_decay_mult: 1"])
def test_strong_penalty_kills_every_group_with_every_rule(name: str, mults: str) -> None:
    (weight, _), _, step = penalised(f'type: "{name}" breadth_decay: 1e6 kernel_shape_decay: 1e6', mults)
    step(0, 0.1)
    assert not weight.param.blob.data.any()


@pytest.mark.parametrize("name", ["SGD", "Nesterov", *ADAPTIVE])
def test_penalty_of_zero_strength_changes_nothing(name: str) -> None:
    results = []
    for param in ("", "breadth_decay_mult: 1 kernel_shape_decay_mult: 1"):
        (weight, _), _, step = penalised(f'type: "{name}" weight_decay: 0.1', param)
        for iteration in range(3):
            weight.param.blob.diff[...] = 1
            step(iteration, 0.1)
        results.append(weight.param.blob.data.copy())
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("name", ["SGD", "Nesterov", *ADAPTIVE])
def test_weak_penalty_of_overlapping_groups_is_close_to_none(name: str) -> None:
    """The way through the duals and the way without agree as the strength goes to zero."""
    results = []
    for decay in ("", "breadth_decay: 1e-9 kernel_shape_decay: 1e-9"):
        both = "breadth_decay_mult: 1 kernel_shape_decay_mult: 1"
        (weight, _), penalties, step = penalised(f'type: "{name}" {decay}', both)
        assert bool(penalties) == bool(decay)
        for iteration in range(3):
            weight.param.blob.diff[...] = 1
            step(iteration, 0.01)
        results.append(weight.param.blob.data.copy())
    np.testing.assert_allclose(*results, atol=1e-5)


def test_prox_acts_with_the_local_rate() -> None:
    """Without gradient a row loses lr * lr_mult * breadth_decay * breadth_decay_mult of its norm."""
    (weight, _), _, step = penalised("breadth_decay: 0.5", "lr_mult: 2 breadth_decay_mult: 3")
    norms = np.linalg.norm(weight.param.blob.data.reshape(4, -1), axis=1)
    weight.param.blob.diff[...] = 0
    step(0, 0.1)
    after = np.linalg.norm(weight.param.blob.data.reshape(4, -1), axis=1)
    np.testing.assert_allclose(after, norms - 0.1 * 2 * 0.5 * 3, rtol=1e-5)


@pytest.mark.parametrize("mults", ["breadth_decay_mult: 1", "breadth_decay_mult: 1 kernel_shape_decay_mult: 1"])
def test_momentum_holds_the_whole_displacement(mults: str) -> None:
    (weight, _), _, step = penalised("breadth_decay: 0.5 kernel_shape_decay: 0.3 momentum: 0.9", mults)
    before = weight.param.blob.data.copy()
    step(0, 0.1)
    np.testing.assert_allclose(weight.history[0], before - weight.param.blob.data, atol=1e-6)


def test_subgradient_goes_through_the_rule() -> None:
    (weight, _), _, step = penalised("breadth_decay: 0.5 group_lasso_update: SUBGRADIENT", "breadth_decay_mult: 1")
    w, g = weight.param.blob.data.copy(), weight.param.blob.diff.copy()
    norms = np.linalg.norm(w.reshape(4, -1), axis=1).reshape(4, 1, 1, 1)
    step(0, 0.1, 0.5)
    np.testing.assert_allclose(weight.param.blob.data, w - 0.1 * (0.5 * g + 0.5 * w / norms), rtol=1e-4, atol=1e-6)


# -- groups that take along their bias ----------------------------------------------------------------------------------

WITH_BIAS = ["group_lasso { take_bias: true }", "group_lasso { take_bias: true } group_lasso { group: SHAPE }"]


@pytest.mark.parametrize("name", ["SGD", "Nesterov", *ADAPTIVE])
@pytest.mark.parametrize("param", WITH_BIAS)
def test_strong_penalty_kills_filters_with_their_biases(name: str, param: str) -> None:
    pair, _, step = penalised(f'type: "{name}" group_lasso_decay: 1e6', param)
    pair[1].param.blob.data[...] = 3
    step(0, 0.1)
    assert not pair[0].param.blob.data.any()
    assert not pair[1].param.blob.data.any()


@pytest.mark.parametrize("name", ["SGD", "Nesterov", *ADAPTIVE])
@pytest.mark.parametrize("param", WITH_BIAS)
def test_weak_penalty_that_takes_biases_is_close_to_none(name: str, param: str) -> None:
    results = []
    for decay in ("", "group_lasso_decay: 1e-9"):
        momentum = "momentum: 0.9" if UPDATES[name].TAKES_MOMENTUM else ""
        pair, penalties, step = penalised(f'type: "{name}" weight_decay: 0.1 {momentum} {decay}', param)
        assert [found.members for found in penalties] == [pair] * bool(decay)
        pair[1].param.blob.data[...] = 3
        for iteration in range(3):
            for update in pair:
                update.param.blob.diff[...] = 1 + iteration
            step(iteration, 0.01)
        results.append(np.concatenate([update.param.blob.data.ravel() for update in pair]))
    np.testing.assert_allclose(*results, atol=1e-5)


@pytest.mark.parametrize("param", WITH_BIAS)
def test_momentum_holds_the_displacement_of_the_biases(param: str) -> None:
    pair, _, step = penalised("group_lasso_decay: 0.5 momentum: 0.9", param)
    before = pair[1].param.blob.data.copy()
    step(0, 0.1)
    np.testing.assert_allclose(pair[1].history[0], before - pair[1].param.blob.data, atol=1e-6)


def test_biases_that_are_taken_along_follow_the_mean_of_their_gradients() -> None:
    for memory in (0.9, 0):
        (_, bias), _, _ = penalised(f"group_lasso_decay: 0.5 group_lasso_memory: {memory}", WITH_BIAS[0])
        assert (bias.mean is not None) == bool(memory)


def test_penalty_counts_the_biases() -> None:
    pair, (penalty,), _ = penalised("group_lasso_decay: 0.5", WITH_BIAS[0])
    pair[1].param.blob.data[...] = 2
    norms = np.sqrt((pair[0].param.blob.data.reshape(4, -1) ** 2).sum(axis=1) + 4)
    assert penalty.value() == pytest.approx(0.5 * norms.sum(), rel=1e-6)


@pytest.mark.parametrize(
    "bias, message",
    [
        ("lr_mult: 0", "is not trained, its lr_mult is 0"),
        ("group_lasso { group: ELEMENT }", "has a group lasso of its own"),
    ],
)
def test_bias_that_cannot_be_taken_along_is_an_error_at_its_place(bias: str, message: str) -> None:
    built = net(WITH_BIAS[0], bias=f"param {{ {bias} }}")
    with pytest.raises(DefinitionError, match=f"the groups of conv.0. cannot include the bias: it {message}") as caught:
        definition = solver("group_lasso_decay: 1")
        penalize(make_updates(built.learnable, definition), None, definition)
    assert (caught.value.path, caught.value.line) == ("net.prototxt", 2)


@pytest.mark.parametrize("name", UPDATES)
@pytest.mark.parametrize(
    "group", ["FILTER", "SHAPE", "CHANNEL", "FILTER_2D", "LAYER", "ELEMENT", "BLOCK ydimen: 2 xdimen: 3"]
)
def test_update_of_one_kind_of_groups_is_the_step_and_then_the_prox(name: str, group: str) -> None:
    """Fused or not: with a penalty the weights are the prox of where the rule alone would have put them."""
    momentum = "momentum: 0.5" if UPDATES[name].TAKES_MOMENTUM else ""
    text = f'type: "{name}" {momentum} weight_decay: 0.1 group_lasso_memory: 0 '
    alone = updates(text)[0]
    (weight, _), (penalty,), step = penalised(text + "group_lasso_decay: 0.05", f"group_lasso {{ group: {group} }}")
    alone(0, 0.1, 1.0)
    step(0, 0.1)
    x = alone.param.blob.data.copy()
    if name == "Nesterov":  # the prox comes before the look ahead
        x += 0.5 * alone.history[0]
    penalty.penalty.prox([x], [weight.param.blob.diff if name in ADAPTIVE else 0.1])
    if name == "Nesterov":
        x -= 0.5 * weight.history[0]
    np.testing.assert_allclose(weight.param.blob.data, x, rtol=1e-4, atol=1e-5)


# -- connectivity ------------------------------------------------------------------------------------------------------


def sparse(layer: str, group: int = 1) -> Param:
    """Weights with a zero row, columns that are zero in one conv group or in both, and a single zero."""
    param = net(layer=layer, group=group).learnable[0]
    param.blob.data[...] = 1
    param.blob.data[1] = 0
    param.blob.data[:, 0, 0, 0] = 0
    param.blob.data[:2, 1, 0, 1] = 0
    param.blob.data[3, 2, 0, 1] = 0
    return param


def test_connected_freezes_nothing() -> None:
    assert frozen(sparse("connectivity_mode: CONNECTED")) is None


def test_elementwise_freezes_each_zero() -> None:
    param = sparse("connectivity_mode: DISCONNECTED_ELTWISE")
    keep = frozen(param)
    assert keep is not None
    np.testing.assert_array_equal(keep.reshape(param.blob.shape) == 0, param.blob.data == 0)


@pytest.mark.parametrize("group", [1, 2])
def test_groupwise_freezes_rows_and_columns_of_each_conv_group(group: int) -> None:
    param = sparse("connectivity_mode: DISCONNECTED_GRPWISE", group)
    expected = np.ones(param.blob.shape, bool)
    expected[1] = expected[:, 0, 0, 0] = False
    if group == 2:
        expected[:2, 1, 0, 1] = False
    keep = frozen(param)
    assert keep is not None
    np.testing.assert_array_equal(keep.reshape(param.blob.shape).astype(bool), expected)


def test_bias_is_never_frozen() -> None:
    bias = net(layer="connectivity_mode: DISCONNECTED_ELTWISE").learnable[1]
    assert not bias.blob.data.any()
    assert frozen(bias) is None


@pytest.mark.parametrize("name", UPDATES)
def test_frozen_weights_stay_zero_with_every_rule(name: str) -> None:
    momentum = "momentum: 0.9" if UPDATES[name].TAKES_MOMENTUM else ""
    weight = updates(f'type: "{name}" {momentum} weight_decay: 0.1', layer="connectivity_mode: DISCONNECTED_ELTWISE")[0]
    weight.param.blob.data[:, 2] = 0
    weight.keep = frozen(weight.param)
    before = weight.param.blob.data.copy()
    for iteration in range(3):
        weight.param.blob.diff[...] = 1
        weight(iteration, 0.1, 1.0)
    assert not weight.param.blob.data[:, 2].any()
    assert (weight.param.blob.data[:, [0, 1, 3, 4, 5]] != before[:, [0, 1, 3, 4, 5]]).all()


# -- weights at zero follow the mean of their gradients ------------------------------------------------------------------


def dead_filters_awake(memory: float, gradient: float, noise: float, steps: int = 300) -> int:
    """How often a filter was not zero after a step, all of them zero at first, each batch's gradient constant plus noise."""
    text = f"breadth_decay: 1 momentum: 0.9 group_lasso_memory: {memory}"
    (update, _), _, step = penalised(text, "breadth_decay_mult: 1")
    blob, random, awake = update.param.blob, np.random.default_rng(4), 0
    blob.data[...] = 0
    for iteration in range(steps):
        blob.diff[...] = gradient + noise * random.standard_normal(blob.shape)
        step(iteration, 0.01)
        awake += int((blob.data.reshape(4, -1) != 0).any(axis=1).sum())
    return awake


def test_noise_of_batches_does_not_wake_groups_that_the_objective_keeps_at_zero() -> None:
    # 12 weights a filter: the norm of the noise is about 1.7 in each batch, the strength 1
    assert dead_filters_awake(memory=0, gradient=0, noise=0.5) > 100
    assert dead_filters_awake(memory=0.99, gradient=0, noise=0.5) == 0


def test_a_gradient_longer_than_the_strength_wakes_its_group() -> None:
    # the norm of the constant gradient is 0.5 * sqrt(12) = 1.7
    assert dead_filters_awake(memory=0.99, gradient=0.5, noise=0.5) > 4 * 150
    assert dead_filters_awake(memory=0.99, gradient=0.2, noise=0.0) == 0


def test_mean_of_the_gradients_by_hand() -> None:
    (update, bias), _, step = penalised("breadth_decay: 1 group_lasso_memory: 0.75", "breadth_decay_mult: 1")
    assert bias.mean is None
    blob = update.param.blob
    blob.data[0] = 0
    first = blob.diff.copy()
    step(0, 1e-9)
    np.testing.assert_allclose(update.mean, 0.25 * first, rtol=1e-6)
    blob.data[0] = 0
    blob.diff[...] = 1
    step(1, 1e-9)
    np.testing.assert_allclose(update.mean, 0.1875 * first + 0.25, rtol=1e-6)
