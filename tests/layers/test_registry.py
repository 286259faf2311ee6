"""What holds for every layer type: the checks run over LAYERS, so that what is forgotten fails."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

import sslnet
from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.layers import LAYERS
from sslnet.layers.base import Layer
from sslnet.layers.kinds import KINDS

from .cases import CASES, WITHOUT_GOLDEN, WITHOUT_GRADIENT
from .harness import Case, Objective, check_gradients, make_net
from .test_goldens import FOLDER

EACH = [
    pytest.param(case if isinstance(case, Case) else Case(case), id=f"{type_}-{number}")
    for type_, cases in CASES.items()
    if type_ in LAYERS
    for number, case in enumerate(cases)
]


SOURCES = {type_ for type_, cls in LAYERS.items() if cls.IS_SOURCE}
GOLDENS = [*FOLDER.glob("*.prototxt"), *(FOLDER.parent / "data").glob("*.prototxt")]
NAMED = {layer.type for path in GOLDENS for layer in prototxt.read_net(path).message.layer}


@pytest.mark.parametrize("type_", LAYERS)
def test_layer_knows_its_type(type_):
    assert type_ == LAYERS[type_].TYPE


def test_registry_is_in_alphabetical_order():
    assert list(LAYERS) == sorted(LAYERS, key=str.lower), "sort the lines of LAYERS in sslnet/layers/__init__.py"


@pytest.mark.parametrize("type_", LAYERS)
def test_every_layer_has_a_golden_case_or_a_reason(type_):
    assert type_ in NAMED or type_ in WITHOUT_GOLDEN, (
        f"add tests/goldens/layers/NAME.prototxt and .npz with a {type_}, from another implementation (make_torch.py "
        "there writes those of PyTorch), or say in WITHOUT_GOLDEN of tests/layers/cases.py where it is compared instead"
    )
    assert not (type_ in NAMED and type_ in WITHOUT_GOLDEN), "there is a case now: the line in WITHOUT_GOLDEN can go"


@pytest.mark.parametrize("type_", LAYERS)
def test_every_layer_has_its_gradient_checked_or_a_reason(type_):
    assert type_ in CASES or type_ in WITHOUT_GRADIENT or type_ in SOURCES, (
        f"add nets with a {type_} to CASES of tests/layers/cases.py, in place too where it may be; or, where it has no "
        "gradient, say why in WITHOUT_GRADIENT"
    )
    assert not (type_ in CASES and type_ in WITHOUT_GRADIENT), "it is checked: the line in WITHOUT_GRADIENT can go"


@pytest.mark.parametrize("type_", LAYERS)
def test_every_layer_has_a_kind(type_):
    layer = LAYERS[type_]
    assert layer.KIND in KINDS, f"KIND of {layer.__name__} must be one of {', '.join(KINDS)}"
    assert (layer.KIND == "source") == layer.IS_SOURCE and (layer.KIND == "loss") == layer.IS_LOSS
    assert layer.KIND != "other" or type_ in ("Parameter", "Python"), (
        f"say in {layer.__name__} what it is: KIND, one of {', '.join(KINDS)}; drawings and docs/layers.md go by it"
    )


@pytest.mark.parametrize("type_", LAYERS)
def test_every_layer_says_what_becomes_of_its_channels(type_):
    layer = LAYERS[type_]
    assert (layer.CHANNELS != Layer.CHANNELS) == layer.SHRINKS, (
        f"CHANNELS of {layer.__name__} must say in words, for docs/layers.md, what compaction does with its channels"
    )


@pytest.mark.parametrize("type_", LAYERS)
def test_every_layer_describes_a_definition_that_says_nothing(type_):
    assert isinstance(LAYERS[type_].describe(pb.LayerParameter(type=type_)), str)


@pytest.mark.parametrize("type_", LAYERS)
def test_what_a_loss_leaves_in_deployment_is_a_layer(type_):
    output = LAYERS[type_].OUTPUT
    assert output is None or (output[0] in LAYERS and LAYERS[type_].IS_LOSS)
    assert not (LAYERS[type_].IS_LOSS and LAYERS[type_].DEPLOYED)


def test_no_table_of_layer_types_stands_outside_layers():
    """Such a table is a place where a new layer is forgotten. Names of ONNX operators, and of the old formats, are others."""
    package = Path(sslnet.__file__).parent
    others = {package / "prototxt" / "old_forms.py", *(package / "layers").iterdir(), *(package / "exchange").iterdir()}
    for path in sorted({*package.rglob("*.py")} - others):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            entries = node.keys if isinstance(node, ast.Dict) else getattr(node, "elts", ())
            types = [entry.value for entry in entries if isinstance(entry, ast.Constant) and entry.value in LAYERS]
            assert len(types) < 3, (
                f"{path}:{node.lineno}: a table of layer types ({', '.join(types)}): what is to be known of a layer stands "
                "at its class, as a class variable or method of sslnet.layers.base.Layer, and is asked there"
            )


@pytest.mark.parametrize("case", EACH)
def test_layer_gradients_agree_with_differences(case):
    check_gradients(case)


@pytest.mark.parametrize("case", EACH)
def test_layer_leaves_its_inputs_as_they_are(case):
    net = make_net(case)
    before = {name: net.blobs[name].data.copy() for name in net.inputs}
    objective = Objective(case, net)
    objective.value()
    objective.backward()
    for name, data in before.items():
        np.testing.assert_array_equal(net.blobs[name].data, data, err_msg=name)


@pytest.mark.parametrize("case", EACH)
def test_layer_adds_to_parameter_diffs_and_overwrites_those_of_its_bottoms(case):
    net = make_net(case)
    objective = Objective(case, net)
    objective.value()
    net.clear_param_diffs()
    objective.backward()
    expected = {name: diff.copy() for name, _, diff in objective.variables()}
    learned = {param.name for param in net.learnable if param.lr_mult}
    objective.value()
    for name, _, diff in objective.variables():
        diff[...] = 3 if name in learned else np.nan
    objective.backward()
    for name, _, diff in objective.variables():
        wanted = expected[name] + 3 if name in learned else expected[name]
        np.testing.assert_allclose(diff, wanted, rtol=1e-10, atol=1e-10, err_msg=name)


@pytest.mark.parametrize("case", EACH)
def test_layer_gives_the_same_in_single_precision(case):
    """Within 2e-5 of the largest value, and of what rounding may do to sums that cancel."""
    values = {}
    for dtype in (np.float32, np.float64):
        net = make_net(case, dtype=dtype)
        objective = Objective(case, net)
        values[dtype] = [objective.value()]
        net.clear_param_diffs()
        objective.backward()
        values[dtype] += [diff for _, _, diff in objective.variables()]
        assert all(blob.data.dtype == dtype for blob in net.blobs.values())
    gradients = [np.copy(value) for value in values[np.float64]]
    for single, double, rounding in zip(values[np.float32], gradients, objective.rounding()):
        np.testing.assert_allclose(single, double, rtol=2e-5, atol=2e-5 * np.abs(double).max(initial=0) + rounding)


@pytest.mark.parametrize("case", EACH)
def test_layer_tells_whether_its_gradient_reads_its_tops(case):
    net = make_net(case)
    objective = Objective(case, net)
    gradients = []
    for spoil in (False, True):
        objective.value()
        for layer, bottoms, tops in zip(net.layers, net.bottoms, net.tops):
            in_place = bool(bottoms and tops) and tops[0] is bottoms[0]
            for blob in tops:
                if spoil and layer.name == "l" and blob.owns("data") and not layer.reads_top(in_place):
                    blob.data[...] = np.nan
        net.clear_param_diffs()
        objective.backward()
        gradients.append([diff.copy() for _, _, diff in objective.variables()])
    for expected, found in zip(*gradients, strict=True):
        np.testing.assert_array_equal(found, expected)
