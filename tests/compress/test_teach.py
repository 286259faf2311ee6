"""A teacher beside a student: it says what it says alone, it does not learn, and the student comes nearer to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.cli import main
from sslnet.compress.distillation.teacher import PREFIX, Taught, teach
from sslnet.errors import SslnetError, UsageError
from sslnet.net.net import Net
from sslnet.prototxt import Definition
from sslnet.solver.solver import Solver

DATA = """
layer { name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {
        shape { dim: 16 dim: 3 dim: 8 dim: 8 } shape { dim: 16 } data_filler { type: "gaussian" }
        data_filler { type: "constant" value: 1 } } }
"""
SCORES = """
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
IP = 'inner_product_param { num_output: 4 weight_filler { type: "gaussian" std: 0.3 } }'
STUDENT = f"""{DATA}
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param {{ num_output: 3 kernel_size: 3 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "relu" type: "ReLU" bottom: "conv" top: "conv" }}
layer {{ name: "ip" type: "InnerProduct" bottom: "conv" top: "ip" {IP} }}
{SCORES}"""
TEACHER = f"""{DATA}
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv" param {{ name: "w" decay_mult: 3 }}
        convolution_param {{ num_output: 9 kernel_size: 3 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "norm" type: "BatchNorm" bottom: "conv" top: "normed" }}
layer {{ name: "drop" type: "Dropout" bottom: "normed" top: "dropped" }}
layer {{ name: "relu" type: "ReLU" bottom: "dropped" top: "dropped" }}
layer {{ name: "ip" type: "InnerProduct" bottom: "dropped" top: "ip" {IP} }}
layer {{ name: "beside" type: "InnerProduct" bottom: "dropped" top: "beside" {IP} }}
{SCORES}"""


def parse(text: str) -> Definition:
    return prototxt.parse(text, pb.NetParameter)


def trained(text: str, seed: int) -> Any:
    """Weights, those of BatchNorm with statistics."""
    net = Net(parse(text), phase=pb.TRAIN, seed=seed)
    for _ in range(3):
        net.forward()
    return net.to_proto()


@pytest.fixture(scope="module")
def weights() -> dict[str, Any]:
    return {"student": trained(STUDENT, 1), "teacher": trained(TEACHER, 2)}


def taught(weights: dict[str, Any], student: str = STUDENT, teacher: str = TEACHER, **options: Any) -> Taught:
    return teach(parse(student), weights["student"], parse(teacher), weights["teacher"], **options)


def as_proto(arrays: dict[str, list[np.ndarray]]) -> Any:
    message = pb.NetParameter()
    for name, blobs in arrays.items():
        layer = message.layer.add(name=name)
        for blob in blobs:
            layer.blobs.add(shape=pb.BlobShape(dim=blob.shape), data=blob.reshape(-1).tolist())
    return message


def solver(result: Taught, tmp_path: Path, rate: float = 0.01) -> Solver:
    text = f'base_lr: {rate} lr_policy: "fixed" momentum: 0.9 weight_decay: 0.01 random_seed: 3 snapshot_prefix: "{tmp_path}/x"'
    message = prototxt.parse(text, pb.SolverParameter)
    message.message.net_param.CopyFrom(result.definition)
    made = Solver(message)
    made.net.copy_from(as_proto(result.weights))
    return made


def test_teacher_says_beside_the_student_what_it_says_alone(weights: dict[str, Any]) -> None:
    result = taught(weights)
    assert result.scores == ("ip", "teacher/ip")
    net = Net(result.definition, as_proto(result.weights), pb.TRAIN)
    net.forward()
    by_hand = TEACHER.replace(DATA, 'input: "data" input_shape { dim: 16 dim: 3 dim: 8 dim: 8 }').split(SCORES)[0]
    alone = Net(parse(by_hand), weights["teacher"], pb.TEST).forward(data=net.blobs["data"].data)
    np.testing.assert_allclose(net.blobs["teacher/ip"].data, alone["ip"], rtol=1e-5, atol=1e-6)
    assert "teacher/beside" not in net.layer_names  # nobody asks for it


def test_loss_is_the_distance_of_the_scores(weights: dict[str, Any]) -> None:
    result = taught(weights, weight=0.25)
    net = Net(result.definition, as_proto(result.weights), pb.TRAIN)
    outputs = net.forward()
    z, t = net.blobs["ip"].data, net.blobs["teacher/ip"].data
    distance = float(((z - t) ** 2).sum() / (2 * len(z)))
    assert float(outputs["teacher/loss"]) == pytest.approx(distance, rel=1e-5)
    assert net.loss == pytest.approx(float(outputs["loss"]) + 0.25 * distance, rel=1e-5)


def test_weight_follows_the_size_of_the_scores(weights: dict[str, Any]) -> None:
    larger = pb.NetParameter()
    larger.CopyFrom(weights["teacher"])
    for layer in larger.layer:
        if layer.name == "ip":
            layer.blobs[0].data[:] = [10 * value for value in layer.blobs[0].data]
    one, ten = taught(weights).weight, taught({**weights, "teacher": larger}).weight
    assert 0 < one == pytest.approx(10 * ten, rel=0.4)


def test_the_student_learns_and_the_teacher_does_not(weights: dict[str, Any], tmp_path: Path) -> None:
    result = taught(weights)
    made = solver(result, tmp_path)
    before = {name: [blob.data.copy() for blob in blobs] for name, blobs in made.net.params.items()}
    distances = []
    for _ in range(150):
        made.step(1)
        distances.append(float(made.net.blobs["teacher/loss"].data))
    assert np.mean(distances[-20:]) < 0.75 * np.mean(distances[:5])
    for name, blobs in made.net.params.items():
        for blob, old in zip(blobs, before[name]):
            assert np.array_equal(blob.data, old) == name.startswith(PREFIX), name


def test_tested_is_the_student_alone(weights: dict[str, Any]) -> None:
    result = taught(weights)
    net = Net(result.definition, phase=pb.TEST)
    assert net.layer_names == Net(parse(STUDENT), phase=pb.TEST).layer_names
    net.copy_from(as_proto(result.weights))
    for layer in weights["student"].layer:
        for blob, array in zip(layer.blobs, net.params.get(layer.name, ())):
            np.testing.assert_array_equal(np.array(blob.data, np.float32), array.data.reshape(-1))


def test_a_deployed_net_teaches_too(weights: dict[str, Any]) -> None:
    deploy = TEACHER.replace(
        DATA, 'layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }'
    ).replace(SCORES, 'layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }')
    result = taught(weights, teacher=deploy)
    assert result.scores[1] == "teacher/ip"
    assert result.weight == pytest.approx(taught(weights).weight, rel=0.4)


@pytest.mark.parametrize(
    "change, options, message",
    [
        (("num_output: 4", "num_output: 5"), {}, 'the scores differ in shape: "ip" of the student is \\(16, 4\\)'),
        (('"data"', '"image"'), {}, 'the teacher reads "image", which the student.s data layers do not make'),
        (("", ""), {"scores": "ipp"}, 'has no blob "ipp"'),
        (("", ""), {"teacher_scores": "conv"}, "the scores differ in shape"),
        ((SCORES, ""), {}, "no loss, no Softmax and no Accuracy"),
    ],
)
def test_nets_that_do_not_fit_together_are_an_error(
    change: tuple[str, str], options: dict[str, str], message: str, weights: dict[str, Any]
) -> None:
    text = TEACHER.replace(*change)
    with pytest.raises(UsageError, match=message):
        teach(parse(STUDENT), weights["student"], parse(text), trained(text, 2), **options)


def test_statistics_of_the_student_stay_as_they_are(weights: dict[str, Any]) -> None:
    result = teach(parse(TEACHER), weights["teacher"], parse(TEACHER), weights["teacher"])
    for layer in weights["teacher"].layer:
        for k, blob in enumerate(layer.blobs):
            np.testing.assert_array_equal(np.array(blob.data, np.float32), result.weights[layer.name][k].reshape(-1))


def test_a_second_teacher_is_an_error(weights: dict[str, Any]) -> None:
    result = taught(weights)
    with pytest.raises(UsageError, match="has a teacher already"):
        teach(Definition(result.definition), weights["student"], parse(TEACHER), weights["teacher"])


def test_weights_of_another_net_are_an_error(weights: dict[str, Any]) -> None:
    with pytest.raises(SslnetError, match="shape"):
        teach(parse(STUDENT), weights["teacher"], parse(TEACHER), weights["teacher"])


@pytest.fixture
def files(weights: dict[str, Any], tmp_path: Path) -> dict[str, str]:
    for name, text in (("student", STUDENT), ("teacher", TEACHER)):
        (tmp_path / f"{name}.prototxt").write_text(text)
        (tmp_path / f"{name}.caffemodel").write_bytes(weights[name].SerializeToString())
    return {
        f"{name}.{kind}": str(tmp_path / f"{name}.{kind}") for name in weights for kind in ("prototxt", "caffemodel")
    }


def words(files: dict[str, str], *more: str) -> list[str]:
    return [
        *("teach", "--model", files["student.prototxt"], "--weights", files["student.caffemodel"]),
        *("--teacher", files["teacher.prototxt"], "--teacher-weights", files["teacher.caffemodel"], *more),
    ]


def test_command_writes_what_it_says_and_that_trains(
    files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(files)) == 0
    printed = capsys.readouterr().out
    prefix = str(tmp_path / "student_taught")
    assert f"  {prefix}.prototxt\n  {prefix}.caffemodel\n" in printed
    (tmp_path / "solver.prototxt").write_text('base_lr: 0.01 lr_policy: "fixed" max_iter: 3 display: 1')
    command = printed.strip().splitlines()[-1].replace("SOLVER", str(tmp_path / "solver.prototxt"))
    assert main(command.split()[1:]) == 0
    assert "teacher/loss" in capsys.readouterr().err
    assert (
        main(
            [
                "test",
                "--model",
                files["student.prototxt"],
                "--weights",
                f"{prefix}_iter_3.caffemodel",
                "--iterations",
                "1",
            ]
        )
        == 0
    )


def test_command_answers_in_json(files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(files, "--loss-weight", "0.5", "--output", str(tmp_path / "x" / "both"), "--json")) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["loss_weight"] == 0.5 and record["scores"] == ["ip", "teacher/ip"]
    assert Path(record["model"]).exists() and Path(record["weights"]).exists()


@pytest.mark.parametrize("weight", ["0", "-1", "nan"])
def test_weights_that_pull_nowhere_are_an_error(
    weight: str, files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(files, "--loss-weight", weight)) == 2
    assert "--loss-weight must be above 0" in capsys.readouterr().err
