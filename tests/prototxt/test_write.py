import os
from pathlib import Path

import pytest
from google.protobuf import text_format

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb

FORMATS = Path(__file__).parents[1] / "goldens" / "formats"

TIDY = """\
name: "net"
layer {
  name: "conv1"
  type: "Convolution"
  bottom: "data"
  top: "conv1"
  loss_weight: 0.1
  param { lr_mult: 1 decay_mult: 0 block_group_lasso { xdimen: 25 block_decay_mult: 1.5 } }
  param { }
  include { phase: TRAIN stage: "a" stage: "b" }
  convolution_param {
    num_output: 20
    kernel_size: 5
    kernel_size: 3
    weight_filler { type: "gaussian" std: 0.01 }
    bias_filler { type: "constant" value: 0.2 }
  }
}
layer {
  name: "größe"
}
"""


def test_write_is_tidy():
    untidy = " ".join(TIDY.split())
    assert prototxt.write(text_format.Parse(untidy, pb.NetParameter())) == TIDY


def test_write_of_what_was_written_is_the_same():
    assert prototxt.write(prototxt.parse(TIDY, pb.NetParameter).message) == TIDY


def test_write_puts_the_net_of_a_solver_first():
    solver = pb.SolverParameter(max_iter=10, net="a.prototxt", breadth_decay=0.5, base_lr=0.1, type="SGD")
    assert prototxt.write(solver).split("\n")[0] == 'net: "a.prototxt"'


def test_write_keeps_lines_short():
    message = pb.NetParameter()
    for digits in range(1, 60):
        message.layer.add().input_param.shape.add(dim=[10] * digits)
    lines = prototxt.write(message).split("\n")
    assert max(map(len, lines)) < 100
    assert any(len(line) > 90 for line in lines)


@pytest.mark.parametrize("number", [0.1, 1 / 3, 1e-45, 3.4028235e38, 1e20, 16777216.0, -0.0, float("inf")])
def test_write_keeps_every_bit_of_a_number(number):
    message = pb.SolverParameter(base_lr=number)
    back = prototxt.parse(prototxt.write(message), pb.SolverParameter).message
    assert back.SerializeToString() == message.SerializeToString()


def test_write_keeps_every_character_of_a_text():
    message = pb.NetParameter(name="quote \" apostrophe ' backslash \\ newline \n tab \t NUL \0 é 中 🙂")
    assert prototxt.parse(prototxt.write(message), pb.NetParameter).message == message


def test_write_and_parse_give_back_the_weights_of_a_file_of_caffe():
    message = pb.NetParameter.FromString((FORMATS / "tiny_binaryproto_iter_20.caffemodel").read_bytes())
    assert prototxt.parse(prototxt.write(message), pb.NetParameter).message == message


@pytest.mark.parametrize("name", ["net.prototxt", "solver_binaryproto.prototxt"])
def test_save_and_read_give_back_a_definition_of_caffe(name, tmp_path):
    kind = pb.SolverParameter if name.startswith("solver") else pb.NetParameter
    definition = prototxt.read(FORMATS / name, kind)
    prototxt.save(definition.message, tmp_path / name)
    assert prototxt.read(tmp_path / name, kind).message == definition.message


REFERENCE = Path(os.environ.get("SSLNET_TEST_DATA", "")) / "goldens"


@pytest.mark.data
@pytest.mark.parametrize("path", sorted(REFERENCE.glob("*/*.prototxt")), ids=lambda path: path.stem)
def test_definitions_of_caffe_keep_their_meaning_through_write(path):
    kind = pb.SolverParameter if "solver" in path.name else pb.NetParameter
    message = prototxt.read(path, kind).message
    assert prototxt.parse(prototxt.write(message), kind).message == message
