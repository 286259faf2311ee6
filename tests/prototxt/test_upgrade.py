"""Each pair upgrade/CASE.prototxt, CASE.upgraded.prototxt is an old definition and what it means; CASE.txt is what is
said about it. Beside them, definitions that Caffe itself upgraded, where SSLNET_TEST_DATA says where they are."""

import os
from pathlib import Path

import pytest
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import DefinitionError
from sslnet.prototxt.old_forms import BLOB_AXES, LAYERS_OF_2013, LAYERS_OF_2014, SOLVER_TYPES

FOLDER = Path(__file__).parent / "upgrade"
CASES = sorted(path.stem for path in FOLDER.glob("*.prototxt") if ".upgraded" not in path.name)
OF_CAFFE = Path(os.environ.get("SSLNET_TEST_DATA", "")) / "goldens" / "upgrade"
CASES_OF_CAFFE = sorted(path.name.removesuffix(".in.prototxt") for path in OF_CAFFE.glob("*.in.prototxt"))


def kind(case):
    return pb.SolverParameter if case.startswith("solver") else pb.NetParameter


def shown(span):
    return f"{span.line}:{span.column}", span.text[span.column - 1 : span.column - 1 + span.length]


@pytest.mark.parametrize("case", CASES)
def test_upgrade_gives_todays_form(case):
    expected = text_format.Parse((FOLDER / f"{case}.upgraded.prototxt").read_text(), kind(case)())
    assert prototxt.read(FOLDER / f"{case}.prototxt", kind(case)).message == expected


@pytest.mark.parametrize("case", CASES)
def test_upgrade_says_what_was_old(case, monkeypatch):
    monkeypatch.chdir(FOLDER)
    notes = prototxt.read(f"{case}.prototxt", kind(case)).notes
    assert "".join(f"{note}\n" for note in notes) == (FOLDER / f"{case}.txt").read_text()


@pytest.mark.parametrize("case", CASES)
def test_upgrade_of_todays_form_is_the_same_object(case):
    new = prototxt.read(FOLDER / f"{case}.upgraded.prototxt", kind(case))
    assert prototxt.upgrade(new) is new
    assert new.notes == []


@pytest.mark.parametrize("case", CASES)
def test_upgrade_leaves_what_it_was_given_alone(case):
    text = (FOLDER / f"{case}.prototxt").read_text()
    old, again = (prototxt.parse(text, kind(case), as_written=True) for _ in range(2))
    prototxt.upgrade(old)
    assert old.message == again.message
    assert tree(old.root) == tree(again.root)


def tree(node):
    children = {name: [tree(child) for child in nodes] for name, nodes in (node.children or {}).items()}
    return node.start, node.end, node.value_start, node.value_end, children


@pytest.mark.data
@pytest.mark.parametrize("case", CASES_OF_CAFFE)
def test_upgrade_gives_what_caffe_gives(case):
    expected = text_format.Parse((OF_CAFFE / f"{case}.out.prototxt").read_text(), kind(case)())
    found = prototxt.read(OF_CAFFE / f"{case}.in.prototxt", kind(case))
    for layer in found.message.layer if found.renamed else ():
        layer.name = found.renamed.get(layer.name, layer.name)  # Caffe lets two layers of a net have one name
    assert found.message == expected


@pytest.mark.parametrize(
    ("case", "path", "name", "value"),
    [
        ("layers_of_2014", ("layer", 1), ("5:1", "layers"), None),
        ("layers_of_2014", ("layer", 1, "type"), ("7:3", "type"), ("7:9", "CONVOLUTION")),
        ("layers_of_2014", ("layer", 1, "param", 1, "lr_mult"), ("11:3", "blobs_lr"), ("11:13", "2")),
        ("layers_of_2014", ("layer", 1, "param", 0, "decay_mult"), ("12:3", "weight_decay"), ("12:17", "0.5")),
        ("layers_of_2014", ("layer", 1, "param", 1, "decay_mult"), ("11:3", "blobs_lr"), None),
        ("layers_of_2014", ("layer", 1, "convolution_param", "num_output"), ("15:23", "num_output"), ("15:35", "4")),
        ("layers_of_2014", ("layer", 1, "include", 0, "phase"), ("13:13", "phase"), ("13:20", "TRAIN")),
        ("layers_of_2014", ("layer", 2, "param", 1, "name"), ("17:89", "param"), ("17:96", '"b"')),
        ("layers_of_2013", ("layer", 0), ("1:1", "input"), None),
        ("layers_of_2013", ("layer", 0, "top", 0), ("1:1", "input"), ("1:8", '"data"')),
        ("layers_of_2013", ("layer", 0, "input_param", "shape", 0, "dim", 3), ("5:1", "input_dim"), ("5:12", "9")),
        ("layers_of_2013", ("layer", 1), ("7:1", "layers"), None),
        ("layers_of_2013", ("layer", 1, "name"), ("9:5", "name"), ("9:11", '"conv1"')),
        ("layers_of_2013", ("layer", 1, "type"), ("9:19", "type"), ("9:25", '"conv"')),
        ("layers_of_2013", ("layer", 1, "bottom", 0), ("6:56", "bottom"), ("6:64", '"data"')),
        ("layers_of_2013", ("layer", 1, "convolution_param", "pad", 0), ("6:47", "pad"), ("6:52", "2")),
        ("layers_of_2013", ("layer", 1, "convolution_param", "num_output"), ("9:32", "num_output"), ("9:44", "4")),
        ("layers_of_2013", ("layer", 1, "convolution_param", "axis"), ("7:1", "layers"), None),
        ("layers_of_2013", ("layer", 1, "convolution_param", "bias_filler", "value"), ("10:52", "value"), None),
        ("layers_of_2013", ("layer", 2, "type"), ("16:32", "type"), ("16:38", '"relu"')),
        ("data_of_2014", ("layer", 0, "transform_param", "scale"), ("3:29", "scale"), ("3:36", "0.5")),
        ("data_of_2014", ("layer", 0, "transform_param", "mean_value", 0), ("4:30", "mean_value"), ("4:42", "7")),
        ("data_of_2014", ("layer", 0, "data_param", "scale"), ("3:3", "data_param"), None),
        ("input_shapes", ("layer", 0, "input_param", "shape", 1), ("5:1", "input_shape"), ("5:13", "{ dim: 3 }")),
        ("input_shapes", ("layer", 1, "name"), ("6:9", "name"), ("6:15", '"input"')),
        ("solver_type", ("type",), ("2:1", "solver_type"), ("2:14", "ADAGRAD")),
        ("solver_type", ("net_param", "layer", 0, "type"), ("3:32", "type"), ("3:38", "SILENCE")),
        ("solver_type", ("test_net_param", 1, "layer", 0, "name"), ("5:26", "name"), None),
    ],
)
def test_upgraded_field_stands_where_it_is_written(case, path, name, value):
    definition = prototxt.read(FOLDER / f"{case}.prototxt", kind(case))
    assert shown(definition.span(*path)) == name
    if value is not None:
        assert shown(definition.span(*path, value=True)) == value


def test_upgrade_knows_every_old_type():
    assert set(LAYERS_OF_2014) == set(pb.V1LayerParameter.LayerType.keys())
    assert set(LAYERS_OF_2013.values()) <= set(LAYERS_OF_2014.values())
    assert set(SOLVER_TYPES) == set(pb.SolverParameter.SolverType.values())
    assert set(BLOB_AXES) <= set(LAYERS_OF_2014.values())


def test_upgrade_knows_every_block_of_a_layer_of_2014():
    """Whatever is not named otherwise has its old name, and the same type, today."""
    new = pb.LayerParameter.DESCRIPTOR.fields_by_name
    for field in pb.V1LayerParameter.DESCRIPTOR.fields:
        if field.name not in ("type", "layer", "param", "blob_share_mode", "blobs_lr", "weight_decay"):
            assert new[field.name].message_type == field.message_type


def blob(*sizes):
    result = pb.BlobProto(data=[1.0] * 6)
    for name, size in zip(("num", "channels", "height", "width"), sizes):
        setattr(result, name, size)
    return result


def test_upgrade_of_weights_gives_blobs_the_shapes_of_today():
    net = pb.NetParameter(input=["data"])
    conv = net.layers.add(name="conv", type=pb.V1LayerParameter.CONVOLUTION)
    conv.blobs.extend([blob(1, 1, 2, 3), blob(1, 1, 1, 6)])
    net.layers.add(name="ip", type=pb.V1LayerParameter.INNER_PRODUCT).blobs.extend([blob(1, 1, 2, 3), blob(1, 1, 1, 6)])
    v0 = net.layers.add(layer=pb.V0LayerParameter(name="old", type="innerproduct"))
    v0.layer.blobs.extend([blob(1, 1, 3, 2), blob(1, 1, 2, 3)])
    definition = prototxt.upgrade_net(prototxt.Definition(net))
    shapes = {layer.name: [list(b.shape.dim) for b in layer.blobs] for layer in definition.message.layer}
    assert shapes == {"conv": [[1, 1, 2, 3], [6]], "ip": [[2, 3], [6]], "old": [[3, 2], [1, 1, 2, 3]]}
    assert not any(b.HasField("num") for layer in definition.message.layer for b in layer.blobs)
    assert all(list(b.data) == [1.0] * 6 for layer in definition.message.layer for b in layer.blobs)
    assert not definition.message.input
    assert definition.span("layer", 0, "name") is None


def test_override_of_a_net_of_2014_acts_on_todays_form():
    definition = prototxt.read(FOLDER / "layers_of_2014.prototxt", pb.NetParameter)
    changed = prototxt.apply_overrides(definition, ["layer.1.convolution_param.num_output=9"])
    assert changed.message.layer[1].convolution_param.num_output == 9
    assert changed.notes == definition.notes


def test_override_may_say_solver_type():
    definition = prototxt.parse("base_lr: 1", pb.SolverParameter)
    assert prototxt.apply_overrides(definition, ["solver_type=ADAM"]).message.type == "Adam"


PIECES = st.sampled_from(
    [
        'layers { name: "a" type: CONVOLUTION',
        'layers { layer { name: "b" type: "conv"',
        'layers { layer { type: "padding" pad: 1 } bottom: "x" top: "x"',
        'layer { name: "c"',
        "}",
        "} }",
        "blobs_lr: 1",
        "weight_decay: [1, 2, 3]",
        'param: "w"',
        "blob_share_mode: STRICT",
        "kernelsize: 3",
        "pad: 1",
        'source: "s"',
        'bottom: "x"',
        'top: "x"',
        'input: "x"',
        "input_dim: [1, 2, 3, 4]",
        "input_shape { dim: 1 }",
        "convolution_param { num_output: 3 }",
        "data_param { scale: 1 }",
        'type: "BatchNorm" param { } param { } param { }',
        "type: DATA",
        "blobs { num: 1 height: 2 data: 1 }",
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=14))
def test_upgrade_of_any_net_gives_todays_form_or_one_error(pieces):
    try:
        definition = prototxt.parse("\n".join(pieces), pb.NetParameter, path="net.prototxt")
    except DefinitionError as error:
        assert str(error).startswith("net.prototxt:")
        return
    message = definition.message
    assert not message.layers
    assert not message.input
    assert prototxt.upgrade(definition) is definition
    for index, layer in enumerate(message.layer):
        for name in (field.name for field, _ in layer.ListFields()):
            assert definition.span("layer", index, name) is not None
            assert definition.span("layer", index, name, value=True) is not None


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text",
    [
        "layers { " + "blobs_lr: 1 " * 50_000 + "}",
        "layers { } " * 20_000,
        'input: "a" input_shape { dim: 1 } ' * 20_000,
    ],
    ids=lambda text: text[:20],
)
def test_upgrade_of_a_large_net_ends_soon(text):
    prototxt.parse(text, pb.NetParameter)
