"""Inputs by hand in the place of data layers."""

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.net.input_layers import with_inputs
from sslnet.prototxt import Diagnostic


def test_with_inputs_keeps_what_was_said_of_the_definition():
    text = """layer { name: "d" type: "DummyData" top: "x" dummy_data_param { shape { dim: 2 } } }
    layer { name: "r" type: "ReLU" bottom: "x" top: "y" }"""
    definition = prototxt.parse(text, pb.NetParameter, "net.prototxt")
    definition.notes.append(Diagnostic("note", "old"))
    definition.changes.append("1 layer of 2014")
    definition.overrides["name",] = "--set name=x"
    changed = with_inputs(definition, {"x": (3, 4)})
    assert changed.message.layer[0].type == "Input"
    assert (changed.notes, changed.changes) == (definition.notes, definition.changes)
    assert changed.overrides == definition.overrides
    assert changed.span("layer", 1, "type").line == 2
