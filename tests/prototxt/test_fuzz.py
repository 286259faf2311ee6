"""Whatever the text: it parses to what text_format reads, or one DefinitionError says why not."""

import pytest
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import DefinitionError

NET = """\
name: "net"  # a net
layer {
  name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  transform_param { scale: 0.00390625 mean_value: [1, 2.5, 3e0] mirror: true }
  data_param { source: "a_lmdb" batch_size: 64; backend: LMDB }
}
layer < name: 'conv1' type: "Convolution" bottom: "data" "1", top: "conv1"
  param { lr_mult: 1 breadth_decay_mult: 1 block_group_lasso { xdimen: 25 } } param { lr_mult: 2 }
  convolution_param { num_output: 20 kernel_size: 0x5 weight_filler { type: "xavier" } }
>
layers { type: CONVOLUTION blobs_lr: 1 layer { name: "old\\n" new_num: -1 } }
"""
PIECES = [
    "{", "}", "<", ">", "[", "]", ":", ",", ";", '"', "'", "#", "\\", "\n", "\r", "\t", " ", "\0", "\ufffd", "\u00a0",
    "é", "-", "+", ".", "_", "0", "1e400", "-1", "99999999999999999999", "0x", "08", "1_0", "nan", "inf", "1.5f",
    "true", "t", "TRAIN", "name", "layer", "layers {", "layer {", "param {", 'name: "a"', "dim: 1", "data: [1,2]",
    "[a.b]", "blobs { data: 1 }", '"\\xff"', '"\\u00e9"', "input_shape { dim: [ ] }", "state { level: 1 }",
]  # fmt: skip


@st.composite
def mutated(draw):
    """The net with a few pieces cut out, put in, or doubled."""
    text = NET
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(text)))
        until = min(len(text), at + draw(st.integers(0, 30)))
        piece = draw(st.sampled_from(PIECES) | st.text(max_size=3))
        change = draw(st.sampled_from(("cut", "put", "double", "end")))
        if change == "cut":
            text = text[:at] + text[until:]
        elif change == "put":
            text = text[:at] + piece + text[at:]
        elif change == "double":
            text = text[:until] + text[at:]
        else:
            text = text[:at]
    return text


def accepted(text):
    """What text_format makes of a text: the message, or None."""
    try:
        return text_format.Parse(text, pb.NetParameter())
    except (text_format.ParseError, DeprecationWarning):  # a warning: an escape that Python alone knows
        return None


@settings(max_examples=400, deadline=None)
@given(mutated())
def test_parse_gives_what_text_format_reads_or_a_definition_error(text):
    try:
        definition = prototxt.parse(text, pb.NetParameter, path="net.prototxt", as_written=True)
    except DefinitionError as error:
        assert error.span is not None
        assert str(error).startswith("net.prototxt:")
        assert str(error).replace("\n", "").replace("\t", "").isprintable()
        reference = accepted(text)
        assert reference is None or "must be at most 3.4e38" in error.message or "not UTF-8" in error.message
        return
    reference = accepted(text.replace("\r\n", "\n").replace("\r", " "))
    assert definition.message.SerializeToString() == reference.SerializeToString()
    written = prototxt.parse(prototxt.write(definition.message), pb.NetParameter, as_written=True).message
    assert written.SerializeToString() == definition.message.SerializeToString()


@settings(max_examples=100, deadline=None)
@given(mutated())
def test_parse_knows_the_place_of_every_field_that_is_set(text):
    try:
        definition = prototxt.parse(text, pb.NetParameter, as_written=True)
    except DefinitionError:
        return
    for path in places(definition.message):
        span = definition.span(*path)
        assert span.text[span.column - 1 : span.column - 1 + span.length] == [x for x in path if isinstance(x, str)][-1]


def places(message, prefix=()):
    for field, value in message.ListFields():
        items = value if hasattr(value, "append") or hasattr(value, "add") else [value]
        for index, item in enumerate(items):
            path = (*prefix, field.name, index) if items is value else (*prefix, field.name)
            yield path
            if field.message_type:
                yield from places(item, path)


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=200))
def test_read_of_any_bytes_parses_or_is_a_definition_error(data, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "net.prototxt"
    path.write_bytes(data)
    try:
        prototxt.read_net(path)
    except DefinitionError as error:
        assert str(error).startswith(str(path))


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text",
    [
        "layer { " * 100_000,
        "a { " * 100_000,
        "}" * 100_000,
        "#" * 1_000_000,
        " " * 1_000_000,
        "\n" * 1_000_000,
        'name: "' + "\\" * 1_000_000,
        'name: "' + "\\n" * 500_000 + '"',
        "name: " + '"a" ' * 100_000,
        "layer { bottom: [" + '"a",' * 100_000,
        "input_dim: " + "9" * 1_000_000,
        "x" * 1_000_000,
        "input_dim: 1 " * 50_000,
    ],
    ids=lambda text: text[:12],
)
def test_parse_of_a_large_text_ends_soon(text):
    try:
        prototxt.parse(text, pb.NetParameter)
    except DefinitionError as error:
        assert len(str(error)) < 1000
