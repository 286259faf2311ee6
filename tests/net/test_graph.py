"""The graph of a net: which layers run, what is said of those that cannot, where fan-out is split."""

import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import DefinitionError, ErrorList
from sslnet.net.graph import PhaseState, build_graph

X = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }\n'


def graph(text, **state):
    return build_graph(prototxt.parse(text, pb.NetParameter, "net.prototxt"), PhaseState(**state))


def names(text, **state):
    return [layer.param.name for layer in graph(text, **state)]


def relu(name, rules):
    return f'layer {{ name: "{name}" type: "ReLU" bottom: "x" top: "{name}" {rules} }}\n'


@pytest.mark.parametrize(
    "rules, state, runs",
    [
        ("include { phase: TRAIN }", {"phase": pb.TRAIN}, True),
        ("include { phase: TRAIN }", {"phase": pb.TEST}, False),
        ("exclude { phase: TRAIN }", {"phase": pb.TRAIN}, False),
        ("include { phase: TRAIN } include { phase: TEST }", {"phase": pb.TEST}, True),
        ("include { min_level: 2 }", {"level": 1}, False),
        ("include { min_level: 2 max_level: 3 }", {"level": 3}, True),
        ("include { max_level: 2 }", {"level": 3}, False),
        ('include { stage: "a" stage: "b" }', {"stages": ("b", "a", "c")}, True),
        ('include { stage: "a" stage: "b" }', {"stages": ("a",)}, False),
        ('include { not_stage: "a" }', {"stages": ("a",)}, False),
        ('exclude { stage: "a" }', {"stages": ()}, True),
        ('include { phase: TEST stage: "a" }', {"phase": pb.TRAIN, "stages": ("a",)}, False),
    ],
)
def test_rules_decide_which_layers_run(rules, state, runs):
    assert ("y" in names(X + relu("y", rules), **state)) is runs


def test_include_and_exclude_together_are_an_error():
    with pytest.raises(DefinitionError, match="either include or exclude") as caught:
        graph(X + relu("y", "include { phase: TEST }\nexclude { phase: TRAIN }"))
    assert caught.value.line == 3


def test_fan_out_is_split_under_caffes_names():
    layers = graph(X + relu("a", "") + relu("b", "") + relu("c", ""))
    assert [layer.param.name for layer in layers] == ["x", "x_x_0_split", "a", "b", "c"]
    assert list(layers[1].param.top) == [f"x_x_0_split_{k}" for k in range(3)]
    assert [layer.param.bottom[0] for layer in layers[2:]] == [f"x_x_0_split_{k}" for k in range(3)]


def test_split_follows_the_last_layer_that_wrote_in_place():
    text = X + 'layer { name: "r" type: "ReLU" bottom: "x" top: "x" }\n' + relu("a", "") + relu("b", "")
    assert names(text) == ["x", "r", "x_r_0_split", "a", "b"]


def test_a_loss_counts_as_a_reader_and_moves_to_the_split():
    text = X + relu("a", "loss_weight: 2") + 'layer { name: "b" type: "ReLU" bottom: "a" top: "b" }'
    layers = graph(text)
    assert [layer.param.name for layer in layers] == ["x", "a", "a_a_0_split", "b"]
    assert list(layers[2].param.loss_weight) == [2, 0]
    assert list(layers[1].param.loss_weight) == [0]
    assert list(layers[3].param.bottom) == ["a_a_0_split_1"]


def test_the_weight_of_a_loss_moves_alone():
    slice_ = (
        'layer { name: "s" type: "Slice" bottom: "x" top: "u" top: "v" loss_weight: 0.5 loss_weight: 2 }\n'
        'layer { name: "r" type: "ReLU" bottom: "u" top: "w" }'
    )
    layers = graph(X + slice_)
    assert list(layers[1].param.loss_weight) == [0, 2]
    assert list(layers[2].param.loss_weight) == [0.5, 0]


def test_all_mistakes_are_told_at_once():
    text = (
        X
        + 'layer { name: "a" type: "Relu" bottom: "x" top: "a" }\nlayer { name: "b" type: "ReLU" bottom: "xx" top: "b" }\n'
    )
    with pytest.raises(ErrorList) as caught:
        graph(text)
    assert [error.message for error in caught.value.errors] == ['unknown layer type "Relu"', 'unknown bottom "xx"']
    assert [(error.line, error.column) for error in caught.value.errors] == [(2, 25), (3, 40)]
    assert 'did you mean "ReLU"?' in str(caught.value)


@pytest.mark.parametrize(
    "layer, message",
    [
        ('layer { name: "a" type: "Softmax" top: "a" }', "Softmax takes 1 bottom, not 0"),
        ('layer { name: "a" type: "SoftmaxWithLoss" bottom: "x" top: "a" }', "SoftmaxWithLoss takes 2"),
        ('layer { name: "a" type: "Convolution" bottom: "x" top: "a" top: "b" }', "1 bottoms, 2 tops"),
        (
            'layer { name: "a" type: "ReLU" bottom: "x" top: "a" }\nlayer { name: "b" type: "ReLU" bottom: "x" top: "a" }',
            "made twice",
        ),
        ('layer { name: "a" type: "InnerProduct" bottom: "x" top: "x" }', "cannot work in place"),
        (
            'layer { name: "a" type: "ReLU" bottom: "x" top: "a" propagate_down: true propagate_down: false }',
            "2 times for 1 bottoms",
        ),
        (
            'layer { name: "a" type: "ReLU" bottom: "x" top: "a" loss_weight: 1 loss_weight: 2 }',
            "loss_weight is given 2 times",
        ),
    ],
)
def test_wrong_layers_are_told(layer, message):
    with pytest.raises(DefinitionError, match=message) as caught:
        graph(X + layer)
    assert caught.value.path == "net.prototxt"
    assert caught.value.line >= 2


def test_a_net_without_layers_is_an_error():
    with pytest.raises(DefinitionError, match="no layer in phase TEST"):
        graph('layer { name: "x" type: "Input" top: "x" include { phase: TRAIN } }')


def test_input_fields_become_input_layers():
    layers = graph(
        'input: "a" input_dim: 1 input_dim: 2 input_dim: 3 input_dim: 4 '
        + 'layer { name: "r" type: "ReLU" bottom: "a" top: "b" }'
    )
    assert [layer.param.type for layer in layers] == ["Input", "ReLU"]
    assert list(layers[0].param.input_param.shape[0].dim) == [1, 2, 3, 4]
