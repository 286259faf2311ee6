"""What holds for every layer type: the checks run over LAYERS, so that what is forgotten fails."""

from __future__ import annotations

import numpy as np
import pytest

from sslnet import prototxt
from sslnet.layers import LAYERS

from .cases import CASES, WITHOUT_GOLDEN, WITHOUT_GRADIENT
from .harness import Case, Objective, check_gradients, make_net
from .test_goldens import FOLDER

EACH = [
    pytest.param(case if isinstance(case, Case) else Case(case), id=f"{type_}-{number}")
    for type_, cases in CASES.items()
    if type_ in LAYERS
    for number, case in enumerate(cases)
]


@pytest.mark.parametrize("type_", LAYERS)
def test_layer_knows_its_type(type_):
    assert type_ == LAYERS[type_].TYPE


def test_registry_is_in_alphabetical_order():
    assert list(LAYERS) == sorted(LAYERS, key=str.lower)


def test_every_layer_has_a_golden_case_or_a_reason():
    goldens = [*FOLDER.glob("*.prototxt"), *(FOLDER.parent / "data").glob("*.prototxt")]
    named = {layer.type for path in goldens for layer in prototxt.read_net(path).message.layer}
    assert LAYERS.keys() - named - WITHOUT_GOLDEN.keys() == set()
    assert named & WITHOUT_GOLDEN.keys() == set(), "there is a case now: the reason can go"


def test_every_layer_has_its_gradient_checked_or_a_reason():
    sources = {type_ for type_, cls in LAYERS.items() if cls.IS_SOURCE}
    assert LAYERS.keys() - CASES.keys() - WITHOUT_GRADIENT.keys() - sources == set()
    assert CASES.keys() & WITHOUT_GRADIENT.keys() == set(), "its gradient is checked: the reason can go"


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
