"""The forms of layers with zeros: what each computes, in which order, and what is counted. How long it takes is not tested."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import UsageError
from sslnet.net.net import Net
from sslnet.net.steps import Step
from sslnet.sparsity.measure import NonZero
from sslnet.timing import layerwise as timing
from sslnet.timing import sparse_forms as forms
from sslnet.timing.layerwise import Spread
from sslnet.timing.sparse_forms import FormTime, FormTimes, FormTiming, LayerForms, time_forms

NET = """
name: "tiny"
layer {{ name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {{
        shape {{ dim: 3 dim: 4 {sizes} }} shape {{ dim: 3 }} data_filler {{ type: "gaussian" std: 1 }}
        data_filler {{ type: "constant" value: 1 }} }} }}
layer {{ name: "first" type: "Convolution" bottom: "data" top: "first" convolution_param {{
        num_output: 4 kernel_size: 1 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "conv" type: "Convolution" bottom: "first" top: "conv" convolution_param {{
        num_output: 6 {settings} weight_filler {{ type: "gaussian" std: 0.3 }} }} }}
layer {{ name: "relu" type: "ReLU" bottom: "conv" top: "conv" }}
layer {{ name: "ip" type: "InnerProduct" bottom: "conv" top: "ip" inner_product_param {{
        num_output: 5 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }}
"""
SETTINGS = {
    "plain": "kernel_size: 3 pad: 1",
    "groups": "kernel_size: 3 group: 2 stride: 2",
    "kept_column": "kernel_size: 3 kept_column: [0, 3, 4, 11, 20, 35]",
    "asked for": "kernel_size: 3 conv_mode: DIRECT_SCONV",
}


def make(
    settings: str = SETTINGS["plain"], sizes: str = "dim: 7 dim: 8", *, plain: bool = False, lean: bool = False
) -> Net:
    """A net with zeros in conv: a row, columns, single weights."""
    definition = prototxt.parse(NET.format(settings=settings, sizes=sizes), pb.NetParameter)
    net = Net(definition, phase=pb.TRAIN, seed=0, plain=plain, lean=lean)
    weights = net.params["conv"][0].data.reshape(6, -1)
    weights[1] = 0
    weights[:, ::2] = 0
    weights[2, 1::4] = 0
    net.layers[0].forward(net.bottoms[0], net.tops[0])
    return net


@pytest.fixture
def no_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "WARM_UP", 0)
    monkeypatch.setattr(forms, "peak_flops", lambda: 1e9)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch, no_warm_up: None) -> Callable[[Callable[[Step], object]], None]:
    """Has a function called with each single step after it has run forward, and after it has run backward."""

    def watch(look: Callable[[Step], object]) -> None:
        def run(steps: Sequence[Step], backward: bool = False) -> float:
            for step in steps:
                (step.backward if backward else step.forward)()
            if len(steps) == 1:
                look(steps[0])
            return 1.0

        monkeypatch.setattr(forms, "seconds_of", run)

    return watch


@pytest.mark.parametrize("lean", [False, True])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_all_forms_compute_the_layer(settings: str, lean: bool, watched: Callable[..., None]) -> None:
    plain, net = make(settings, plain=True), make(settings, lean=lean)
    plain.forward(start="first")
    plain.backward()
    found: list[str] = []

    def look(step: Step) -> None:
        if step.layer.name != "conv":
            return
        found.append(getattr(step, "way", ""))
        if len(found) <= 4:  # forward
            expected = plain.blobs["conv"].data
            np.testing.assert_allclose(np.maximum(step.top[0].data, 0), expected, rtol=1e-4, atol=1e-5)

    watched(look)
    time_forms(net, 1)
    assert found == ["dense", "kept", "lowered", "direct", "dense", "kept"]


@pytest.mark.parametrize("settings", [SETTINGS["plain"], SETTINGS["groups"]])
def test_gradients_of_kept_are_those_of_dense_where_weights_are_kept(
    settings: str, watched: Callable[..., None]
) -> None:
    plain, net = make(settings, plain=True), make(settings)
    plain.forward(start="first")
    plain.backward()
    gradients: list[np.ndarray] = []
    own, reference = net.params["conv"][0], plain.params["conv"][0]

    def look(step: Step) -> None:
        if step.layer.name == "conv":
            gradients.append(own.diff.copy())
            own.diff[...] = 0
            if np.any(gradients[-1]):
                np.testing.assert_allclose(net.blobs["first"].diff, plain.blobs["first"].diff, rtol=1e-3, atol=1e-6)

    watched(look)
    time_forms(net, 1)
    dense, kept = (g.reshape(6, -1) for g in gradients[-2:])
    groups = 2 if "group" in settings else 1
    matrices = reference.data.reshape(groups, 6 // groups, -1)
    there = ((matrices != 0).any(axis=2)[:, :, None] & (matrices != 0).any(axis=1)[:, None]).reshape(6, -1)
    np.testing.assert_allclose(dense, reference.diff.reshape(6, -1), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(kept[there], dense[there], rtol=1e-3, atol=1e-5)


def test_forms_take_turns(watched: Callable[..., None]) -> None:
    order: list[str] = []
    watched(lambda step: order.append(step.way) if step.layer.name == "conv" else None)
    time_forms(make(), 2, forward_only=True)
    assert order == ["dense", "kept", "lowered", "direct", "direct", "lowered", "kept", "dense"]


def test_only_the_forms_wanted_are_timed(watched: Callable[..., None]) -> None:
    order: list[str] = []
    watched(lambda step: order.append(step.way) if step.layer.name == "conv" else None)
    result = time_forms(make(), 1, forms=["direct"], forward_only=True)
    assert order == ["dense", "direct"]
    assert list(result.whole.forms) == list(result.layers[1].forms) == ["dense", "direct"]


def test_layers_without_zeros_run_dense_and_inner_product_has_products(no_warm_up: None) -> None:
    net = make()
    net.params["ip"][0].data[:, :10] = 0
    first, conv, ip = time_forms(net, 1).layers
    assert (first.name, list(first.forms)) == ("first", ["dense"])
    assert list(conv.forms) == ["dense", "kept", "csr", "direct"]
    assert list(ip.forms) == ["dense", "kept", "csr"]
    assert [form.product is not None for form in conv.forms.values()] == [True, True, True, False]
    assert [form.backward is not None for form in conv.forms.values()] == [True, True, False, False]
    assert [form.forward is not None for form in ip.forms.values()] == [True, False, False]


def test_what_is_left_and_its_flops_are_counted(no_warm_up: None) -> None:
    net = make()
    nonzero = int(np.count_nonzero(net.params["conv"][0].data))
    result = time_forms(net, 1, forward_only=True)
    conv = result.layers[1]
    assert (conv.filters, conv.columns, conv.weights) == (NonZero(5, 6), NonZero(18, 36), NonZero(nonzero, 216))
    pixels = 3 * 7 * 8
    flops = {form: time.flops for form, time in conv.forms.items()}
    assert flops == {
        "dense": 2 * 216 * pixels, "kept": 2 * 90 * pixels, "csr": 2 * nonzero * pixels, "direct": 2 * nonzero * pixels
    }  # fmt: skip
    assert conv.limit("kept") == 216 / 90
    others = 2 * 16 * pixels + 2 * 5 * 336 * 3
    relu = net.layers[3].flops(net.bottoms[3], net.tops[3]) + net.layers[5].flops(net.bottoms[5], net.tops[5])
    assert result.whole.forms["kept"].flops == flops["kept"] + others + relu
    assert result.limit("kept") == (flops["dense"] + others) / (flops["kept"] + others)


def test_layer_whose_weights_are_all_zero_has_no_limit(no_warm_up: None) -> None:
    net = make()
    net.params["conv"][0].data[...] = 0
    conv = time_forms(net, 1).layers[1]
    assert conv.limit("kept") is None and conv.forms["kept"].flops == 0


def test_parameters_stay_as_they_are(no_warm_up: None) -> None:
    net = make()
    before = {param.name: param.blob.data.copy() for param in net.learnable}
    time_forms(net, 1)
    for param in net.learnable:
        np.testing.assert_array_equal(param.blob.data, before[param.name])


def test_net_without_zeros_is_refused(no_warm_up: None) -> None:
    net = make()
    net.params["conv"][0].data[...] = 1
    with pytest.raises(UsageError, match="no weight is zero"):
        time_forms(net, 1)


def test_net_of_zeros_is_refused(no_warm_up: None) -> None:
    net = make()
    for param in net.learnable:
        param.blob.data[...] = 0
    with pytest.raises(UsageError, match="all weights are zero"):
        time_forms(net, 1)


def test_net_without_layers_that_have_forms_is_refused(no_warm_up: None) -> None:
    text = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 2 } } }'
    net = Net(prototxt.parse(f'{text} layer {{ name: "r" type: "ReLU" bottom: "data" top: "r" }}', pb.NetParameter))
    with pytest.raises(UsageError, match="no convolution and no InnerProduct"):
        time_forms(net, 1)


def test_interrupt_leaves_what_was_measured(no_warm_up: None) -> None:
    def stop(done: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    result = time_forms(make(), 50, partial=True, on_run=stop)
    assert result.iterations == 2
    assert result.layers[1].forms["direct"].forward is not None


def test_interrupt_is_raised_when_nothing_was_measured_or_it_is_not_waited_for(no_warm_up: None) -> None:
    def stop(done: int) -> None:
        raise KeyboardInterrupt

    for partial in (True, False):
        with pytest.raises(KeyboardInterrupt):
            time_forms(make(), 50, partial=partial, on_run=stop)


def layer(name: str, **seconds: float) -> LayerForms:
    """A layer by milliseconds of its forms; dense takes 100 FLOPs, the others 20."""
    times = {
        form: FormTime("", 100 if form == "dense" else 20, 1, Spread(value, value, value), None, None, "")
        for form, value in seconds.items()
    }
    return LayerForms(name, "Convolution", times, NonZero(1, 1), NonZero(1, 1), NonZero(1, 1))


def test_totals_take_layers_without_the_form_dense() -> None:
    layers = [layer("a", dense=6, kept=2, csr=1), layer("b", dense=4)]
    result = FormTiming("", "", "TEST", 1, 1, 1, 1e9, layers, FormTimes("", "", layers[0].forms))
    assert [result.total(form, "forward") for form in ("dense", "kept", "csr", "fastest")] == [10, 6, 5, 5]
    assert result.total("direct", "forward") is None and result.total("dense", "product") is None
    assert result.speedup("csr", "forward") == 2
    assert result.limit("kept") == 200 / 120 and result.limit("fastest") is None
    assert layers[0].speedup("kept", "forward") == 3 and layers[1].speedup("kept", "forward") is None
    assert layers[0].forms["kept"].rate("forward") == 10


def test_whole_net_computes_the_same_in_every_form(no_warm_up: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a convolution that has taken the normalisation and the ReLU behind it into its weights."""
    text = """
    layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 4 dim: 6 dim: 6 } } }
    layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param {
            num_output: 8 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
    layer { name: "norm" type: "BatchNorm" bottom: "conv" top: "conv" }
    layer { name: "scale" type: "Scale" bottom: "conv" top: "conv" scale_param { bias_term: true } }
    layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
    layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip" inner_product_param {
            num_output: 3 weight_filler { type: "xavier" } } }
    """
    plain, net = (Net(prototxt.parse(text, pb.NetParameter), seed=0, plain=plain) for plain in (True, False))
    for own in (plain, net):
        own.params["conv"][0].data[:, ::2] = 0
        own.params["norm"][1].data[...] = 2.0
        own.params["norm"][2].data[...] = 1.0
        own.params["scale"][1].data[...] = 0.5
        own.blobs["data"].data[...] = np.random.default_rng(0).standard_normal((2, 4, 6, 6))
    expected = plain.forward()["ip"].copy()
    outputs: list[np.ndarray] = []
    kernels: list[str] = []

    def run(steps: Sequence[Step], backward: bool = False) -> float:
        for step in steps:
            step.forward()
        if len(steps) > 1:
            outputs.append(net.blobs["ip"].data.copy())
            kernels.append(steps[0].kernel)
            net.blobs["ip"].data[...] = 0
        return 1.0

    monkeypatch.setattr(forms, "seconds_of", run)
    time_forms(net, 1)
    assert [kernel.split()[0] for kernel in kernels[1:]] == ["kept", "lowered", "direct"]
    assert all(kernel.endswith("+norm+relu") for kernel in kernels) and not kernels[0].startswith("kept")
    for output in outputs:
        np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-5)
