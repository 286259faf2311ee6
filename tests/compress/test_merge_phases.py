"""Two nets of a solver as one: what is alike stands once, what is not has its phase, and the procedure takes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.compress.control.targets import Targets
from sslnet.compress.pipeline.merge_phases import merge_nets, names_apart
from sslnet.compress.pipeline.pipeline import Pipeline
from sslnet.compress.pipeline.task import Task
from sslnet.errors import UsageError
from sslnet.net.net import Net
from sslnet.solver.solver_definition import find_nets

COMMON = """
layer {{ name: "conv1" type: "Convolution" bottom: "data" top: "conv1" {param}
        convolution_param {{ num_output: 8 kernel_size: 3 {filler} }} }}
layer {{ name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }}
{dropout}
layer {{ name: "ip" type: "InnerProduct" bottom: "conv1" top: "ip" inner_product_param {{ num_output: 10 {filler} }} }}
"""
DATA = """layer {{ name: "d" type: "Data" top: "data" top: "label" data_param {{ source: "digits/{which}" backend: BUILTIN
        batch_size: {batch} }} transform_param {{ scale: 0.0625 }} {rule} }}"""
DROPOUT = 'layer { name: "drop" type: "Dropout" bottom: "conv1" top: "conv1" }'
LOSS = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }'
ACCURACY = 'layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" }'
FILLER = 'weight_filler { type: "xavier" }'


@pytest.fixture
def solver(tmp_path: Path) -> str:
    rule = "include { phase: TRAIN }"
    train = DATA.format(which="train", batch=16, rule=rule)
    train += COMMON.format(param="param { lr_mult: 2 }", filler=FILLER, dropout=DROPOUT) + LOSS
    test = DATA.format(which="test", batch=359, rule="") + COMMON.format(param="", filler="", dropout="") + ACCURACY
    (tmp_path / "train.prototxt").write_text(train)
    (tmp_path / "test.prototxt").write_text(test)
    path = tmp_path / "solver.prototxt"
    path.write_text(
        'train_net: "train.prototxt" test_net: "test.prototxt" test_iter: 1 test_interval: 10\n'
        'base_lr: 0.02 lr_policy: "fixed" momentum: 0.9 max_iter: 40 random_seed: 1\n'
    )
    return str(path)


def test_layers_that_compute_the_same_stand_once(solver: str) -> None:
    definition = prototxt.read_solver(solver)
    assert names_apart(definition)
    merged = merge_nets(definition)
    assert not names_apart(merged)
    net = find_nets(merged)[0]
    rules = [(layer.name, [pb.Phase.Name(rule.phase) for rule in layer.include]) for layer in net.message.layer]
    assert rules == [
        ("d", ["TRAIN"]),
        ("d", ["TEST"]),
        ("conv1", []),
        ("relu1", []),
        ("drop", ["TRAIN"]),
        ("ip", []),
        ("loss", ["TRAIN"]),
        ("accuracy", ["TEST"]),
    ]
    assert net.message.layer[2].param[0].lr_mult == 2
    for phase, side in ((pb.TRAIN, "train"), (pb.TEST, "test")):
        alone = Net(str(Path(solver).with_name(f"{side}.prototxt")), phase=phase, seed=0)
        assert Net(net, phase=phase, seed=0).layer_names == alone.layer_names


def test_procedure_takes_a_solver_of_two_nets(solver: str, tmp_path: Path) -> None:
    task = Task(Targets("flops", 0.9), str(tmp_path / "a"), solver=solver, finetune=5, baseline_iterations=5)
    results = Pipeline(task).run()
    assert results["test"]["error"] < 1
    small = prototxt.read_net(str(tmp_path / "a" / "3_compact.prototxt")).message
    assert [layer.name for layer in small.layer if layer.type == "Accuracy"] == ["accuracy"]


def test_solver_without_a_test_net_has_no_test_data(solver: str, tmp_path: Path) -> None:
    path = Path(solver)
    path.write_text(path.read_text().replace('test_net: "test.prototxt" test_iter: 1 test_interval: 10', ""))
    with pytest.raises(UsageError, match="has no test data"):
        Pipeline(Task(Targets("flops", 0.9), str(tmp_path / "a"), solver=solver))
