"""Protobuf's wire format by hand, against the library and the examples of its documentation."""

from __future__ import annotations

import pytest

from sslnet import sslnet_pb2 as pb
from sslnet.prototxt.wire_format import field_head, has_few_fields, varint


@pytest.mark.parametrize("number, data", [(0, b"\0"), (127, b"\x7f"), (128, b"\x80\x01"), (150, b"\x96\x01")])
def test_varint_has_seven_bits_a_byte(number: int, data: bytes) -> None:
    assert varint(number) == data


@pytest.mark.parametrize("name", ["x", "x" * 200])
def test_field_with_its_head_is_read_by_the_library(name: str) -> None:
    number = pb.NetParameter.DESCRIPTOR.fields_by_name["name"].number
    data = field_head(number, len(name)) + name.encode()
    assert pb.NetParameter.FromString(data).name == name


def test_fields_are_counted_not_those_inside() -> None:
    net = pb.NetParameter(name="n", force_backward=True)
    for k in range(3):
        net.layer.add(name=f"layer {k}", type="Split", top=["a", "b", "c"])
    data = net.SerializeToString()
    assert has_few_fields(data, 5) and not has_few_fields(data, 4)


@pytest.mark.parametrize("data", [b"", b"\x07", b"\x0a\xff"])
def test_what_is_no_message_is_left_to_the_parser(data: bytes) -> None:
    assert has_few_fields(data, 1)
