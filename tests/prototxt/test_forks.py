"""Definitions of Caffe's forks, unedited: fields that map, fields that are read past, and all problems at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import DefinitionError, ErrorList
from sslnet.prototxt.parse import skip_unknown_fields

X = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 9 dim: 9 } } }\n'


def net(text: str) -> prototxt.Definition:
    return prototxt.parse(X + text, pb.NetParameter, "net.prototxt")


@pytest.mark.parametrize(("ceil", "mode"), [("true", pb.PoolingParameter.CEIL), ("false", pb.PoolingParameter.FLOOR)])
def test_ceil_mode_is_a_round_mode_at_its_place(ceil: str, mode: int) -> None:
    definition = net(
        f'layer {{ name: "p" type: "Pooling" bottom: "x" top: "p" pooling_param {{ kernel_size: 2 ceil_mode: {ceil} }} }}'
    )
    param = definition.message.layer[1].pooling_param
    assert (param.round_mode, param.HasField("ceil_mode")) == (mode, False)
    span = definition.span("layer", 1, "pooling_param", "round_mode")
    assert span is not None and span.text[span.column - 1 :].startswith("ceil_mode")


@pytest.mark.parametrize(
    "fields",
    [
        "scale_bias: true",
        "scale_filler { value: 1 } bias_filler { value: 0 }",
        "use_weight_bias: true filler { value: 1 }",
    ],
)
def test_scale_and_bias_in_a_batch_norm_are_a_layer(fields: str) -> None:
    definition = net(
        'layer { name: "b" type: "BatchNorm" bottom: "x" top: "y" include { phase: TEST }'
        " param { lr_mult: 1 } param { lr_mult: 1 } param { lr_mult: 0 } param { lr_mult: 2 } param { lr_mult: 3 }"
        f" batch_norm_param {{ eps: 0.01 {fields} }} }}\n"
        'layer { name: "r" type: "ReLU" bottom: "y" top: "r" bad_field: 1 }'.replace(" bad_field: 1", "")
    )
    layers = definition.message.layer
    assert [(layer.name, layer.type) for layer in layers[1:]] == [
        ("b", "BatchNorm"),
        ("b_scale_bias", "Scale"),
        ("r", "ReLU"),
    ]
    norm, scale = layers[1], layers[2]
    assert [spec.lr_mult for spec in norm.param] == [0, 0, 0]
    assert [spec.lr_mult for spec in scale.param] == [2, 3]
    assert (list(scale.bottom), list(scale.top), scale.include[0].phase) == (["y"], ["y"], pb.TEST)
    assert scale.scale_param.bias_term
    assert [field.name for field, _ in norm.batch_norm_param.ListFields()] == ["eps"]
    span = definition.span("layer", 3, "name")
    assert span is not None and span.line == 3


def test_filler_of_a_batch_norm_of_intel_is_that_of_the_scale_that_reads_it() -> None:
    definition = net(
        'layer { name: "b" type: "BatchNorm" bottom: "x" top: "y" batch_norm_param { filler { value: 0.5 } } }\n'
        'layer { name: "s" type: "Scale" bottom: "y" top: "y" scale_param { bias_term: true } }'
    )
    assert [layer.type for layer in definition.message.layer] == ["Input", "BatchNorm", "Scale"]
    assert definition.message.layer[2].scale_param.filler.value == 0.5
    assert not definition.message.layer[1].batch_norm_param.ListFields()


def test_layers_of_one_name_get_names_of_their_own_where_they_run_together() -> None:
    definition = net(
        "".join(
            f'layer {{ name: "{name}" type: "ReLU" bottom: "x" top: "{name}{k}" {rule} }}\n'
            for k, (name, rule) in enumerate(
                [
                    ("a", ""),
                    ("a", "include { phase: TRAIN }"),
                    ("a", "include { phase: TEST }"),
                    ("b", "include { phase: TRAIN }"),
                    ("b", "include { phase: TEST }"),
                    ("c", 'include { stage: "one" }'),
                    ("c", 'include { not_stage: "one" }'),
                ]
            )
        )
    )
    assert [layer.name for layer in definition.message.layer] == ["x", "a", "a_2", "a_3", "b", "b", "c", "c"]
    assert definition.renamed == {"a_2": "a", "a_3": "a"}


def test_input_that_a_layer_makes_is_left_out() -> None:
    definition = prototxt.parse('input: "x"\n' + X, pb.NetParameter)
    assert [layer.type for layer in definition.message.layer] == ["Input"]


def test_layers_with_types_in_quotes_are_layers_of_today() -> None:
    definition = prototxt.parse(X.replace("layer {", "layers {"), pb.NetParameter)
    assert [layer.type for layer in definition.message.layer] == ["Input"]
    assert [note.level for note in definition.notes] == ["note"]


def test_fields_that_say_nothing_of_the_numbers_are_one_note() -> None:
    definition = net(
        'layer { name: "c" type: "Convolution" bottom: "x" top: "c" engine: "MKLDNN" quantization_param { bw_layer_in: 8 scale_in: [1, 2] }\n'
        "  convolution_param { num_output: 4 kernel_size: 3 engine: MKL2017 } }\n"
        'layer { name: "r" type: "ReLU" bottom: "c" top: "r" engine: "CAFFE" }\n'
    )
    assert [str(note) for note in definition.notes] == [
        "net.prototxt: warning: ignored bw_layer_in: the layer computes with floats",
        "net.prototxt: warning: ignored scale_in: the layer computes with floats",
        "net.prototxt: note: ignored fields of other Caffes, which say nothing of the numbers: engine (2 times), "
        "engine: MKL2017",
    ]
    assert definition.message.layer[1].convolution_param.num_output == 4
    assert len(definition.message.layer) == 3


def test_solver_fields_of_forks_are_read() -> None:
    solver = prototxt.parse(
        'base_lr: 0.1 device_id: [0, 1] eval_type: "detection" ap_version: "11point" warmup_iter: 5 local_lr_auto: false',
        pb.SolverParameter,
    )
    assert (solver.message.warmup_iter, solver.message.HasField("device_id")) == (5, False)
    twice = prototxt.parse("device_id: 0\ndevice_id: 1\nmax_iter: 7", pb.SolverParameter)
    assert (twice.message.device_id, twice.message.max_iter) == (0, 7)
    with pytest.raises(DefinitionError, match='no field "local_lr_auto"'):
        prototxt.parse("local_lr_auto: true", pb.SolverParameter)


PROBLEMS = """layer { name: "c" type: "Convolution" bottom: "x" top: "c" kernels: 3
  convolution_param { num_output: -1 kernel_size: 3 kernle: 3 bias_term: yes } }
layer { name: "d" type: "ReLU" name: "e" bottom: "c" top: "d" wonderful_param { a { b: "}" } } }
"""


def test_all_problems_of_a_text_are_raised_at_once_in_their_order() -> None:
    with pytest.raises(ErrorList) as caught:
        net(PROBLEMS)
    places = [(error.line, error.message) for error in caught.value.errors]
    assert places == [
        (2, 'LayerParameter has no field "kernels"'),
        (3, "num_output must be at least 0, not -1"),
        (3, 'ConvolutionParameter has no field "kernle"'),
        (3, "bias_term must be true or false, not yes"),
        (4, "name is given twice"),
        (4, 'LayerParameter has no field "wonderful_param"'),
    ]


def test_unknown_fields_are_a_warning_that_lists_them_when_asked_for() -> None:
    skip_unknown_fields()
    try:
        definition = net('layer { name: "d" type: "ReLU" bottom: "x" top: "d" a_param { b: 1 } c: "1" "2" }\nd: [1, 2]')
    finally:
        skip_unknown_fields(False)
    assert [str(note) for note in definition.notes] == [
        "net.prototxt: warning: ignored fields that are not known: a_param, c, d"
    ]
    assert definition.message.layer[1].top[0] == "d"


def test_wild_solvers_are_read() -> None:
    folder = Path(__file__).resolve().parents[3] / "shared" / "wild" / "solvers"
    if not folder.is_dir():
        pytest.skip("the collection of real solvers is not here")
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    failed = []
    for path in paths:
        try:
            prototxt.read_solver(path)
        except DefinitionError as error:
            failed.append(f"{path.name}: {error.message}")
    assert len(failed) <= len(paths) // 50, failed


def test_layers_of_different_stages_keep_their_common_name() -> None:
    """As in Caffe's auto-encoder, which is tested on two databases: only one of the layers is in a net."""
    layer = 'layer {{ name: "data" type: "Input" top: "data" include {{ phase: TEST {} }} }}\n'
    texts = [layer.format(stage) for stage in ('stage: "on-train"', 'stage: "on-test"')]
    assert [layer.name for layer in net("".join(texts)).message.layer] == ["x", "data", "data"]
    texts.append(layer.format(""))
    assert [layer.name for layer in net("".join(texts)).message.layer] == ["x", "data", "data", "data_2"]
