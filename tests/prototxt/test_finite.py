"""Every numeric field of the schema refuses NaN and infinity, with its name and its place, but for those of the table."""

from __future__ import annotations

import math
from typing import Any

import pytest
from google.protobuf import text_format

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import DefinitionError, ErrorList
from sslnet.net.graph import PhaseState, build_graph
from sslnet.prototxt.finite import INFINITE, WEIGHTS
from sslnet.solver.solver_definition import check

BY_TYPE = {
    name: getattr(pb, name).DESCRIPTOR for name in ("SolverParameter", "NetParameter", "LayerParameter", "ParamSpec")
}
OLD = ("sslnet.V0LayerParameter", "sslnet.V1LayerParameter")


def numeric_fields(descriptor: Any, path: tuple[str, ...] = ()) -> list[tuple[Any, tuple[str, ...]]]:
    """The fields of numbers below a block, each with the names that lead to it; old forms of layers apart."""
    found = []
    for field in descriptor.fields:
        if field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
            found.append((field, (*path, field.name)))
        elif field.message_type is not None and field.message_type.full_name not in (*OLD, *WEIGHTS):
            found += numeric_fields(field.message_type, (*path, field.name))
    return found


SOLVER = numeric_fields(BY_TYPE["SolverParameter"])
NET = numeric_fields(BY_TYPE["NetParameter"])
OWN = [(field, path) for field, path in SOLVER if not path[0].endswith("net_param")]


def text_of(path: tuple[str, ...], value: str) -> str:
    *blocks, name = path
    return "".join(f"{block} {{\n" for block in blocks) + f"{name}: {value}" + " }" * len(blocks)


def parse_net(text: str) -> prototxt.Definition:
    return prototxt.parse(text, pb.NetParameter, path="net.prototxt")


def test_schema_has_the_fields_that_are_tried() -> None:
    assert {path for _, path in OWN} >= {("clip_gradients",), ("base_lr",), ("delta",), ("momentum2",)}
    names = {path for _, path in NET}
    assert {("layer", "loss_weight"), ("layer", "param", "lr_mult"), ("layer", "relu_param", "negative_slope")} <= names
    assert INFINITE.keys() <= {field.full_name for field, _ in NET}


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-nan"])
def test_every_number_of_a_solver_is_finite(value: str) -> None:
    for field, path in OWN:
        text = 'lr_policy: "fixed"\n' + text_of(path, value)
        with pytest.raises(DefinitionError) as caught:
            check(prototxt.parse(text, pb.SolverParameter, path="solver.prototxt"))
        number = "nan" if "nan" in value else value
        assert caught.value.message == f"{field.name} must be a finite number, not {number}"
        assert (caught.value.path, caught.value.line) == ("solver.prototxt", 1 + len(path)), path
        assert caught.value.column == text.splitlines()[-1].index(value) + 1


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_every_number_of_a_net_is_finite_but_for_the_table(value: str) -> None:
    for field, path in NET:
        text = text_of(path, value).replace("layer {", 'layer { name: "l" type: "Input" top: "x"')
        definition = parse_net(text)
        if value != "nan" and field.full_name in INFINITE:
            prototxt.check_finite(definition)
            continue
        with pytest.raises(DefinitionError) as caught:
            build_graph(definition, PhaseState())
        assert caught.value.message == f"{field.name} must be a finite number, not {value}", path
        assert (caught.value.line, caught.value.layer) == (len(path), "l"), path


def test_one_of_a_list_is_named_by_its_own_place() -> None:
    text = 'layer {\n name: "e" type: "Eltwise"\n eltwise_param { coeff: 1\n coeff: nan coeff: 2\n coeff: inf } }'
    with pytest.raises(ErrorList) as caught:
        build_graph(parse_net(text), PhaseState())
    assert [(error.line, error.column) for error in caught.value.errors] == [(4, 9), (5, 9)]


def test_a_field_from_the_command_line_names_the_option() -> None:
    solver = prototxt.parse('lr_policy: "fixed" base_lr: 1', pb.SolverParameter, path="solver.prototxt")
    with pytest.raises(DefinitionError) as caught:
        check(prototxt.apply_overrides(solver, ["clip_gradients=nan"]))
    assert str(caught.value) == (
        "solver.prototxt: error: clip_gradients must be a finite number, not nan\n  set by --set clip_gradients=nan"
    )


def test_a_solver_that_was_made_is_checked_too() -> None:
    with pytest.raises(DefinitionError, match="clip_gradients must be a finite number, not nan"):
        check(prototxt.Definition(pb.SolverParameter(lr_policy="fixed", base_lr=1, clip_gradients=math.nan)))


def test_weights_in_a_net_are_no_settings() -> None:
    layer = text_format.Parse('name: "l" type: "Input" top: "x" blobs { data: nan }', pb.LayerParameter())
    prototxt.check_finite(prototxt.Definition(pb.NetParameter(layer=[layer])))


def test_finite_numbers_of_any_size_pass() -> None:
    for _, path in NET:
        prototxt.check_finite(parse_net(text_of(path, "-3.4e38") + "\n" + text_of(path, "1e-45")))
