"""Coupled groups: the net says who belongs together, the solver lets them die together, compaction takes them out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.compress.compaction.compact import compact
from sslnet.errors import DefinitionError
from sslnet.net.net import Net
from sslnet.solver.coupled_groups import coupled_groups
from sslnet.solver.penalized_update import PenalizedUpdate
from sslnet.solver.solver import Solver
from sslnet.solver.updates import make_updates
from sslnet.sparsity.channel_dependencies import find_channel_classes

MODELS = Path(__file__).parents[2] / "models"

DATA = """
layer { name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {
        shape { dim: 8 dim: 3 dim: 6 dim: 6 } shape { dim: 8 } data_filler { type: "gaussian" }
        data_filler { type: "constant" value: 1 } } }
"""
FILLERS = 'weight_filler { type: "xavier" }'
RESIDUAL = f"""{DATA}
layer {{ name: "first" type: "Convolution" bottom: "data" top: "first" param {{ group_lasso {{ SPEC }} }}
        convolution_param {{ num_output: 6 kernel_size: 3 pad: 1 {FILLERS} }} }}
layer {{ name: "in" type: "Convolution" bottom: "first" top: "in"
        convolution_param {{ num_output: 5 kernel_size: 1 {FILLERS} }} }}
layer {{ name: "relu" type: "ReLU" bottom: "in" top: "in" }}
layer {{ name: "out" type: "Convolution" bottom: "in" top: "out"
        convolution_param {{ num_output: 6 kernel_size: 1 bias_term: false {FILLERS} }} }}
layer {{ name: "norm" type: "BatchNorm" bottom: "out" top: "out" }}
layer {{ name: "scale" type: "Scale" bottom: "out" top: "out" scale_param {{ bias_term: true }} }}
layer {{ name: "sum" type: "Eltwise" bottom: "first" bottom: "out" top: "sum" }}
layer {{ name: "depthwise" type: "Convolution" bottom: "sum" top: "depthwise"
        convolution_param {{ num_output: 6 group: 6 kernel_size: 3 {FILLERS} }} }}
layer {{ name: "ip" type: "InnerProduct" bottom: "depthwise" top: "ip" inner_product_param {{ num_output: 4 {FILLERS} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }}
"""


def solver(spec: str, settings: str = "", net: str = RESIDUAL, prefix: str = "x") -> Solver:
    fields = {
        "base_lr": "0.05",
        "lr_policy": '"fixed"',
        "momentum": "0.9",
        "random_seed": "1",
        "group_lasso_decay": "0.1",
    }
    fields |= {"snapshot_prefix": f'"{prefix}"'} | dict(part.split(": ") for part in settings.split(", ") if part)
    message = prototxt.parse(" ".join(f"{name}: {value}" for name, value in fields.items()), pb.SolverParameter)
    message.message.net_param.CopyFrom(prototxt.parse(net.replace("SPEC", spec), pb.NetParameter).message)
    return Solver(message)


def coupled(made: Solver) -> list[PenalizedUpdate]:
    return [penalized for penalized in made.penalties if penalized.coupled]


def members(spec: str, settings: str = "", net: str = RESIDUAL) -> dict[str, list[list[int]]]:
    """By parameter, the groups of its tiles in each kind of groups."""
    made = solver(spec, settings, net)
    result: dict[str, list[list[int]]] = {}
    for found in coupled(made):
        for term in found.penalty.terms:
            for part in term.parts:
                groups = None if part.groups is None else part.groups.tolist()
                result.setdefault(found.members[part.index].param.name, []).append(groups)
    return result


SIX = list(range(6))


def test_filters_that_the_net_adds_are_one_group() -> None:
    assert members("couple: true") == {"first[0]": [SIX], "out[0]": [SIX], "depthwise[0]": [SIX]}


def test_biases_and_followers_come_along_when_asked_for() -> None:
    found = members("couple: true take_bias: true take_followers: true")
    assert set(found) == {"first[0]", "first[1]", "out[0]", "scale[0]", "scale[1]", "depthwise[0]", "depthwise[1]"}


def test_neuron_takes_what_reads_it() -> None:
    found = members("group: NEURON")
    assert found["in[0]"] == [SIX]  # its columns
    assert found["ip[0]"] == [SIX]  # 16 columns each
    assert set(found) >= {"first[0]", "first[1]", "out[0]", "scale[0]", "scale[1]", "depthwise[0]"}


SCALED = RESIDUAL.replace("param { group_lasso { SPEC } }", "").replace(
    'name: "scale" type: "Scale"', 'name: "scale" type: "Scale" param { group_lasso { SPEC } }'
)
"""The residual net with the groups asked for on its Scale; no Scale stands behind first and depthwise."""


def test_on_a_scale_the_group_has_the_scales_and_filters_that_none_follows() -> None:
    assert members("couple: true", net=SCALED) == {"first[0]": [SIX], "scale[0]": [SIX], "depthwise[0]": [SIX]}
    with_biases = members("couple: true take_bias: true", net=SCALED)
    assert set(with_biases) == {"first[0]", "first[1]", "scale[0]", "scale[1]", "depthwise[0]", "depthwise[1]"}
    assert set(members("group: NEURON", net=SCALED)) >= {"out[0]", "scale[0]", "in[0]"}


def test_scales_and_filters_asked_for_together_are_one_family() -> None:
    net = SCALED.replace(
        'name: "out" type: "Convolution"', 'name: "out" type: "Convolution" param { group_lasso { XX } }'
    )
    both = members("couple: true", net=net.replace("XX", "couple: true"))
    assert set(both) == {"first[0]", "out[0]", "scale[0]", "depthwise[0]"}


def test_filters_that_are_read_beside_the_scale_take_part() -> None:
    net = f"""{DATA}
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param {{ num_output: 6 kernel_size: 3 }} }}
layer {{ name: "scale" type: "Scale" bottom: "conv" top: "scale" param {{ group_lasso {{ couple: true }} }} }}
READER
layer {{ name: "ip" type: "InnerProduct" bottom: "READ" top: "ip" inner_product_param {{ num_output: 4 }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }}
"""
    beside = 'layer { name: "sum" type: "Eltwise" bottom: "conv" bottom: "scale" top: "sum" }'
    assert set(members("", net=net.replace("READER", beside).replace("READ", "sum"))) == {"conv[0]", "scale[0]"}
    assert set(members("", net=net.replace("READER", "").replace("READ", "scale"))) == {"scale[0]"}


NORMED = f"""{DATA}
layer {{ name: "first" type: "Convolution" bottom: "data" top: "first"
        convolution_param {{ num_output: 6 kernel_size: 3 pad: 1 bias_term: false {FILLERS} }} }}
layer {{ name: "norm1" type: "BatchNorm" bottom: "first" top: "first" }}
layer {{ name: "scale1" type: "Scale" bottom: "first" top: "first" param {{ group_lasso {{ SPEC }} }}
        scale_param {{ bias_term: true }} }}
layer {{ name: "second" type: "Convolution" bottom: "first" top: "second"
        convolution_param {{ num_output: 6 kernel_size: 1 bias_term: false {FILLERS} }} }}
layer {{ name: "norm2" type: "BatchNorm" bottom: "second" top: "second" }}
layer {{ name: "scale2" type: "Scale" bottom: "second" top: "second" scale_param {{ bias_term: true }} }}
layer {{ name: "sum" type: "Eltwise" bottom: "first" bottom: "second" top: "sum" }}
layer {{ name: "ip" type: "InnerProduct" bottom: "sum" top: "ip" inner_product_param {{ num_output: 4 {FILLERS} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }}
"""
"""A residual block, all of it normalised."""


def test_channels_die_by_their_scales_and_are_taken_out() -> None:
    one = solver("couple: true take_bias: true", "group_lasso_decay: 0.15", NORMED)
    one.step(150)
    gone = one.net.params["scale1"][0].data == 0
    assert 0 < gone.sum() < 6
    for name, index in (("scale1", 1), ("scale2", 0), ("scale2", 1)):
        np.testing.assert_array_equal(one.net.params[name][index].data == 0, gone)
    assert one.net.params["first"][0].data.any(axis=(1, 2, 3)).all()  # the penalty does not touch the filters
    compaction = compact(one.net.definition, one.net.to_proto())
    sizes = {layer.name: layer.after.filters for layer in compaction.layers}
    assert sizes["first"] == sizes["second"] == 6 - gone.sum()
    assert compaction.difference.relative < 1e-5


def test_strength_grows_with_the_size_when_asked_for() -> None:
    plain, scaled = (
        coupled(solver("couple: true", s))[0].penalty.terms[0].strengths
        for s in ("", "group_lasso_scale_by_size: true")
    )
    np.testing.assert_allclose(plain, 0.1)
    np.testing.assert_allclose(scaled, 0.1 * np.sqrt(27 + 5 + 9))


def test_own_groups_of_a_member_join_its_penalty() -> None:
    net = RESIDUAL.replace(
        'name: "out" type: "Convolution"', 'name: "out" type: "Convolution" param { group_lasso { group: CHANNEL } }'
    )
    made = solver("couple: true", net=net)
    (found,) = made.penalties
    assert [(term.name, term.coupled) for term in found.penalty.terms] == [("first", True), ("out[0] 6 x 1", False)]


@pytest.mark.parametrize("rule", ["SGD", "Nesterov", "Adam", "RMSProp", "AdaGrad", "AdaDelta", "AdamW"])
def test_groups_of_one_parameter_are_the_plain_ones(rule: str) -> None:
    """A layer that nothing is tied to: coupled or not, the weights are the same."""
    net = RESIDUAL.replace(
        'name: "in" type: "Convolution"', 'name: "in" type: "Convolution" param { group_lasso { GROUP } }'
    ).replace("SPEC", "decay_mult: 0")
    more = {"RMSProp": ", momentum: 0", "AdaGrad": ", momentum: 0", "AdaDelta": ", base_lr: 0.5, delta: 1e-3"}.get(
        rule, ""
    )
    weights = []
    for group in ("group: FILTER", "group: FILTER couple: true"):
        one = solver("", f'type: "{rule}"{more}', net.replace("GROUP", group))
        one.step(6)
        weights.append(one.net.params["in"][0].data.copy())
    np.testing.assert_allclose(*weights, atol=2e-6)


@pytest.mark.parametrize("rule", ["SGD", "Adam"])
def test_channels_die_together_and_are_taken_out(rule: str) -> None:
    decay, rate = (0.2, 0.005) if rule == "Adam" else (0.1, 0.05)
    one = solver("group: NEURON", f'type: "{rule}", group_lasso_decay: {decay}, base_lr: {rate}')
    one.step(180)
    net = one.net
    dead = ~net.params["first"][0].data.any(axis=(1, 2, 3))
    assert 0 < dead.sum() < 6
    for name, index in (("first", 1), ("out", 0), ("scale", 0), ("scale", 1), ("depthwise", 0), ("depthwise", 1)):
        blob = net.params[name][index].data
        np.testing.assert_array_equal(~blob.reshape(6, -1).any(axis=1), dead)
    np.testing.assert_array_equal(~net.params["in"][0].data.any(axis=(0, 2, 3)), dead)
    compaction = compact(one.net.definition, net.to_proto())
    sizes = {layer.name: layer.after.filters for layer in compaction.layers}
    assert sizes["first"] == sizes["out"] == sizes["depthwise"] == 6 - dead.sum()
    assert compaction.difference.relative < 1e-5


def test_objective_falls_and_the_penalty_is_in_it() -> None:
    one = solver("couple: true")
    a, b, c = (one.net.params[name][0].data.reshape(6, -1) for name in ("first", "out", "depthwise"))
    norms = np.sqrt((a**2).sum(axis=1) + (b**2).sum(axis=1) + (c**2).sum(axis=1))
    assert one.penalty() == pytest.approx(0.1 * norms.sum(), rel=1e-6)
    before = one.penalty()
    one.step(20)
    assert one.penalty() < before


@pytest.mark.parametrize("rule", ["SGD", "Adam"])
def test_resumed_run_is_the_same_run(rule: str, tmp_path: Path) -> None:
    spec = "group: NEURON } group_lasso { group: CHANNEL"  # overlapping: there are duals to remember
    whole = solver(spec, f'type: "{rule}"')
    whole.step(8)
    first = solver(spec, f'type: "{rule}"', prefix=str(tmp_path / "run"))
    first.step(5)
    _, state = first.snapshot()
    second = solver(spec, f'type: "{rule}"', prefix=str(tmp_path / "run"))
    second.restore(state)
    second.step(3)
    for name, blobs in whole.net.params.items():
        for blob, other in zip(blobs, second.net.params[name]):
            np.testing.assert_array_equal(blob.data, other.data)


@pytest.mark.parametrize(
    "spec, settings, message",
    [
        ("group: CHANNEL couple: true", "", "only FILTER and OUTPUT_NEURON can be coupled, not CHANNEL"),
        ("take_followers: true", "", "take_followers needs coupled groups"),
        ("group: OUTPUT_NEURON couple: true", "", r"first\[0\] of type Convolution has no groups OUTPUT_NEURON"),
        ("couple: true", "group_lasso_update: SUBGRADIENT", "coupled groups need proximal updates"),
    ],
)
def test_groups_that_cannot_be_coupled_are_an_error(spec: str, settings: str, message: str) -> None:
    with pytest.raises(DefinitionError, match=message) as caught:
        solver(spec, settings)
    assert caught.value.layer == "first"


# -- classes of channels -----------------------------------------------------------------------------------------------


def tied(net: Net, names: list[str]) -> list[Any]:
    classes = find_channel_classes(net)
    return [classes.tops[net.layer_names.index(name)][0] for name in names]


def test_shortcuts_tie_the_blocks_of_a_residual_net() -> None:
    a, b, c = tied(Net(MODELS / "resnet20" / "deploy.prototxt"), ["conv1", "res2c_branch2b", "res4c_branch2b"])
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(a, c[: len(a)])  # the wider stages keep the channels and add new ones
    assert len(set(c)) == 64


def test_concat_keeps_the_channels_of_its_bottoms_apart() -> None:
    parts = ["inception_3a/1x1", "inception_3a/3x3", "inception_3a/5x5", "inception_3a/pool_proj"]
    *bottoms, top = tied(Net(MODELS / "googlenet" / "deploy.prototxt"), [*parts, "inception_3a/output"])
    np.testing.assert_array_equal(np.concatenate(bottoms), top)
    assert len(set(top)) == len(top)


def test_shared_weights_tie_their_layers() -> None:
    text = "".join(
        f'layer {{ name: "i{k}" type: "Input" top: "x{k}" input_param {{ shape {{ dim: 1 dim: 3 }} }} }}'
        f'layer {{ name: "p{k}" type: "InnerProduct" bottom: "x{k}" top: "y{k}" param {{ name: "w" }} inner_product_param {{ num_output: 2 }} }}'
        for k in range(2)
    )
    a, b, x, y = tied(Net(prototxt.parse(text, pb.NetParameter)), ["p0", "p1", "i0", "i1"])
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(x, y)


def test_net_without_coupled_groups_costs_nothing() -> None:
    net = Net(prototxt.parse(RESIDUAL.replace("SPEC", ""), pb.NetParameter), phase=pb.TRAIN)
    definition = prototxt.parse("group_lasso_decay: 1", pb.SolverParameter)
    assert coupled_groups(net, make_updates(net.learnable, definition), definition) == []
