"""compact on what was learned: filters that died with their biases leave nothing behind."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.compress.compaction.compact import Compaction, compact
from sslnet.net.net import Net
from sslnet.solver.solver import Solver

NET = """
layer { name: "data" type: "Data" top: "data" top: "label"
  transform_param { scale: 0.0625 } data_param { source: "digits/train" backend: BUILTIN batch_size: 64 } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" param { GROUPS } param { lr_mult: 2 }
  convolution_param { num_output: 12 kernel_size: 3 weight_filler { type: "xavier" } bias_filler { value: 0.1 } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "ip1" type: "InnerProduct" bottom: "conv" top: "ip1" param { GROUPS } param { lr_mult: 2 }
  inner_product_param { num_output: 24 weight_filler { type: "xavier" } bias_filler { value: 0.1 } } }
layer { name: "relu1" type: "ReLU" bottom: "ip1" top: "ip1" }
layer { name: "ip" type: "InnerProduct" bottom: "ip1" top: "ip"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
INPUT = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 4 dim: 1 dim: 8 dim: 8 } } }'


@pytest.fixture
def learn() -> Callable[[str, str], tuple[Net, prototxt.Definition]]:
    def train(groups: str, neurons: str) -> tuple[Net, prototxt.Definition]:
        text = NET.replace("GROUPS", groups, 1).replace("GROUPS", neurons, 1)
        settings = 'base_lr: 0.02 momentum: 0.9 lr_policy: "fixed" random_seed: 1 group_lasso_decay: 0.05'
        solver = Solver(prototxt.parse(f"{settings} net_param {{ {text} }}", pb.SolverParameter))
        solver.step(300)
        body = text[text.index('layer { name: "conv"') : text.index('layer { name: "loss"')]
        return solver.net, prototxt.parse(INPUT + body, pb.NetParameter)

    return train


def dead(net: Net, layer: str) -> int:
    weights = net.params[layer][0].data
    return int((~weights.reshape(len(weights), -1).any(axis=1)).sum())


def compacted(net: Net, definition: prototxt.Definition) -> Compaction:
    return compact(definition, net.to_proto())


def test_filters_that_die_with_their_biases_leave_no_constants(learn: Callable, outputs_agree: Callable) -> None:
    along = "group_lasso { group: %s take_bias: true }"
    net, definition = learn(along % "FILTER", along % "OUTPUT_NEURON")
    result = compacted(net, definition)
    assert 0 < dead(net, "conv") < 12
    assert 0 < dead(net, "ip1") < 24
    assert result.constants == []
    sizes = {layer.name: layer.blobs[0].shape.dim[0] for layer in result.weights.layer if layer.blobs}
    assert sizes == {"conv": 12 - dead(net, "conv"), "ip1": 24 - dead(net, "ip1"), "ip": 10}
    outputs_agree(definition.message, net.to_proto(), result.message, result.weights)


def test_filters_that_die_alone_leave_constants(learn: Callable) -> None:
    """The case would prove nothing if there were none anyway."""
    net, definition = learn("group_lasso { group: FILTER }", "group_lasso { group: OUTPUT_NEURON }")
    assert dead(net, "conv") > 0
    assert compacted(net, definition).constants
