import subprocess
import sys
from pathlib import Path

import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import DefinitionError

NET = """\
name: "net"  # layer { name: "no layer" }
layer {
  name: "data" type: "Input" top: "data"
  input_param: < shape { dim: [1, 3, 28, 28] } >
}
layer { name: "conv1"; bottom: "data", bottom: 'more' ' of it'
  param { lr_mult: 1 }
  param {
    lr_mult: 2
  }
\tconvolution_param { num_output: 20
    weight_filler { type: "gaussian" std: 1e-2f } }
}
"""


def shown(span):
    """The place as line:column, and the characters in it."""
    return f"{span.line}:{span.column}", span.text[span.column - 1 : span.column - 1 + span.length]


@pytest.fixture(scope="module")
def net():
    return prototxt.parse(NET, pb.NetParameter, path="net.prototxt")


@pytest.mark.parametrize(
    ("path", "name", "value"),
    [
        (("name",), ("1:1", "name"), ("1:7", '"net"')),
        (("layer",), ("2:1", "layer"), ("2:7", "{")),
        (("layer", 0, "type"), ("3:16", "type"), ("3:22", '"Input"')),
        (("layer", 0, "input_param", "shape"), ("4:18", "shape"), ("4:24", "{ dim: [1, 3, 28, 28] }")),
        (("layer", 0, "input_param", "shape", 0, "dim", 3), ("4:26", "dim"), ("4:42", "28")),
        (("layer", 1, "bottom"), ("6:24", "bottom"), ("6:32", '"data"')),
        (("layer", 1, "bottom", 1), ("6:40", "bottom"), ("6:48", "'more' ' of it'")),
        (("layer", 1, "param", 1, "lr_mult"), ("9:5", "lr_mult"), ("9:14", "2")),
        (("layer", 1, "convolution_param", "num_output"), ("11:22", "num_output"), ("11:34", "20")),
        (("layer", 1, "convolution_param", "weight_filler", "std"), ("12:38", "std"), ("12:43", "1e-2f")),
    ],
)
def test_span_is_the_place_of_a_field(net, path, name, value):
    assert shown(net.span(*path)) == name
    assert shown(net.span(*path, value=True)) == value


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        (("layer", 1, "convolution_param", "kernel_size"), ("11:2", "convolution_param")),
        (("layer", 1, "convolution_param", "bias_filler", "std"), ("11:2", "convolution_param")),
        (("layer", 1, "param", 2, "lr_mult"), ("6:1", "layer")),
        (("layer", 1, "top"), ("6:1", "layer")),
    ],
)
@pytest.mark.parametrize("value", [False, True])
def test_span_of_a_field_that_is_not_written_is_the_block_around_it(net, path, nearest, value):
    assert shown(net.span(*path, value=value)) == nearest


@pytest.mark.parametrize("path", [(), ("state",), ("layer", 2), ("layer", -1), ("layer", 2, "name")])
def test_span_is_none_when_nothing_written_would_hold_the_field(net, path):
    assert net.span(*path) is None


def test_span_names_the_file_and_shows_the_line(net):
    span = net.span("layer", 1, "param", 1)
    assert (span.path, span.text) == ("net.prototxt", "  param {")


def test_span_of_a_message_that_was_made_is_none():
    assert prototxt.Definition(pb.NetParameter(name="made")).span("name") is None


def test_definition_holds_what_text_format_reads(net):
    assert net.message.layer[1].bottom == ["data", "more of it"]
    assert net.message.layer[1].convolution_param.weight_filler.std == pytest.approx(0.01)
    assert net.message.layer[0].input_param.shape[0].dim == [1, 3, 28, 28]


def test_part_is_the_inline_net_with_its_places():
    solver = prototxt.parse('base_lr: 1\nnet_param {\n  layer { name: "a" }\n}\n', pb.SolverParameter)
    part = solver.part("net_param")
    assert part.message.layer[0].name == "a"
    assert shown(part.span("layer", 0, "name")) == ("3:11", "name")
    assert shown(part.span("name")) == ("2:1", "net_param")


def test_part_that_is_not_written_has_no_places():
    assert prototxt.parse("base_lr: 1", pb.SolverParameter).part("net_param").span("name") is None


def test_read_takes_the_marks_that_editors_leave(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_bytes(b'\xef\xbb\xbf# caf\xe9, in latin-1\r\nname: "net"\r\n')
    definition = prototxt.read_net(path)
    assert definition.message.name == "net"
    assert definition.span("name").line == 2
    assert definition.path == str(path)


def test_read_solver_knows_the_fields_of_structured_sparsity():
    solver = prototxt.parse(
        "breadth_decay: 0.1 kernel_shape_decay: 0.2 block_group_decay: 0.3 group_lasso_update: SUBGRADIENT",
        pb.SolverParameter,
    ).message
    assert [round(x, 6) for x in (solver.breadth_decay, solver.kernel_shape_decay, solver.block_group_decay)] == [
        0.1,
        0.2,
        0.3,
    ]
    assert solver.group_lasso_update == pb.SolverParameter.SUBGRADIENT


@pytest.mark.parametrize("name", ["no_such.prototxt", ".", "no\0name"])
def test_read_of_no_file_names_the_file(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DefinitionError) as caught:
        prototxt.read_net(name)
    assert caught.value.path == name
    assert caught.value.message.startswith("cannot be read: ")


def test_read_refuses_a_file_beyond_any_net(tmp_path):
    path = tmp_path / "net.prototxt"
    with path.open("wb") as file:
        file.truncate(2**34)  # sparse: takes no room on disk
    with pytest.raises(DefinitionError, match="is larger than 16 MiB"):
        prototxt.read_net(path)


def test_prototxt_does_without_the_engine():
    code = "import sys, sslnet.prototxt; print([m for m in ('numpy', 'numba', 'h5py') if m in sys.modules])"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert out.stdout == "[]\n"
