"""Lean nets: blobs that share memory change no value, and what cannot be read any more says so."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import UsageError
from sslnet.net.net import Net
from sslnet.solver.solver import Solver

from ..support.lean import assert_apart, assert_same_results, build, poisoned, results

INPUTS = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 4 dim: 6 dim: 6 } } }
layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 2 } } }
"""
FILLER = 'weight_filler { type: "gaussian" std: 0.2 }'
ONE_BOTTOM = {
    "conv": f'type: "Convolution" convolution_param {{ num_output: 4 kernel_size: 3 pad: 1 {FILLER} }}',
    "wide": f'type: "Convolution" convolution_param {{ num_output: 6 kernel_size: 1 {FILLER} }}',
    "relu": 'type: "ReLU"',
    "leaky": 'type: "ReLU" relu_param { negative_slope: 0.1 }',
    "sigmoid": 'type: "Sigmoid"',
    "power": 'type: "Power" power_param { power: 2 scale: 0.5 }',
    "drop": 'type: "Dropout"',
    "bn": 'type: "BatchNorm"',
    "scale": 'type: "Scale" scale_param { bias_term: true }',
    "max": 'type: "Pooling" pooling_param { kernel_size: 3 stride: 1 pad: 1 }',
    "ave": 'type: "Pooling" pooling_param { pool: AVE kernel_size: 3 stride: 1 pad: 1 }',
    "lrn": 'type: "LRN" lrn_param { local_size: 3 }',
    "flat": 'type: "Reshape" reshape_param { shape { dim: 0 dim: 0 dim: 0 dim: 0 } }',
}
IN_PLACE = ("relu", "leaky", "sigmoid", "power", "drop", "bn", "scale")
TWO_BOTTOMS = {
    "sum": 'type: "Eltwise" eltwise_param { coeff: 1 coeff: -0.5 }',
    "product": 'type: "Eltwise" eltwise_param { operation: PROD }',
    "quotient": 'type: "Eltwise" eltwise_param { operation: PROD stable_prod_grad: false }',
    "largest": 'type: "Eltwise" eltwise_param { operation: MAX }',
}


@st.composite
def graphs(draw: st.DrawFn) -> str:
    """A prototxt: each layer reads any of the newest blobs; some end in a loss, some in an output, some nowhere."""
    text = INPUTS if draw(st.booleans()) else INPUTS.replace("dim: 2", "dim: 1")
    channels = {"x": 4}
    for number in range(draw(st.integers(1, 12))):
        kind = draw(st.sampled_from([*ONE_BOTTOM, *TWO_BOTTOMS, "chain", "concat", "concat", "slice"]))
        names = list(channels)[-4:]
        bottom, top = draw(st.sampled_from(names)), f"b{number}"
        head = f'layer {{ name: "l{number}" bottom: "{bottom}" '
        same = [name for name in names if channels[name] == channels[bottom]]
        if kind in ONE_BOTTOM:
            if kind in IN_PLACE and bottom != "x" and draw(st.booleans()):
                top = bottom
            channels[top] = 6 if kind == "wide" else 4 if kind == "conv" else channels[bottom]
            text += f'{head} top: "{top}" {ONE_BOTTOM[kind]} }}\n'
        elif kind == "chain":
            channels[top] = 4
            text += f'{head} top: "{top}" {ONE_BOTTOM["conv"]} }}\n'
            for part in ("bn", "scale", "relu"):
                text += f'layer {{ name: "{part}{number}" bottom: "{top}" top: "{top}" {ONE_BOTTOM[part]} }}\n'
        elif kind in TWO_BOTTOMS:
            channels[top] = channels[bottom]
            text += f'{head} bottom: "{draw(st.sampled_from(same))}" top: "{top}" {TWO_BOTTOMS[kind]} }}\n'
        elif kind == "concat":
            other = draw(st.sampled_from(names))
            channels[top] = channels[bottom] + channels[other]
            text += f'{head} bottom: "{other}" top: "{top}" type: "Concat" }}\n'
        elif channels[bottom] % 2 == 0:
            channels[top] = channels[f"{top}s"] = channels[bottom] // 2
            text += f'{head} top: "{top}" top: "{top}s" type: "Slice" }}\n'
    for number, name in enumerate(draw(st.lists(st.sampled_from(list(channels)), min_size=1, max_size=2))):
        scores = f'bottom: "s{number}" bottom: "label"'
        text += (
            f'layer {{ name: "s{number}" type: "InnerProduct" bottom: "{name}" top: "s{number}"'
            f" inner_product_param {{ num_output: 3 {FILLER} }} }}\n"
            f'layer {{ name: "loss{number}" type: "SoftmaxWithLoss" {scores} top: "loss{number}" loss_weight: 0.7 }}\n'
        )
        if draw(st.booleans()):
            text += f'layer {{ name: "a{number}" type: "Accuracy" {scores} top: "a{number}" }}\n'
    return text


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # a quotient by 0 is NaN, in both nets alike
@settings(max_examples=80, deadline=None)
@given(text=graphs(), phase=st.sampled_from([pb.TRAIN, pb.TEST]), force=st.booleans(), plain=st.booleans())
def test_lean_net_computes_what_a_net_that_keeps_everything_does(
    text: str, phase: int, force: bool, plain: bool
) -> None:
    assert_same_results("force_backward: true\n" * force + text, phase=phase, plain=plain)


CHAIN = INPUTS + "".join(
    f'layer {{ name: "{name}" bottom: "{bottom}" top: "{top}" {ONE_BOTTOM[kind]} }}\n'
    for name, bottom, top, kind in (
        ("conv1", "x", "a", "conv"),
        ("relu1", "a", "a", "relu"),
        ("pool1", "a", "b", "max"),
        ("conv2", "b", "c", "wide"),
        ("pool2", "c", "d", "ave"),
        ("conv3", "d", "e", "conv"),
    )
)
HEAD = 'layer { name: "s" type: "InnerProduct" bottom: "e" top: "s" inner_product_param { num_output: 3 weight_filler { type: "gaussian" } } }\n'
LOSS = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "s" bottom: "label" top: "loss" }\n'


def test_bottoms_of_a_concat_are_made_in_its_place():
    branch = 'layer {{ name: "{0}" bottom: "{1}" top: "{0}" {2} }}\n'.format
    text = (
        CHAIN.replace("dim: 2", "dim: 1") + branch("p", "e", ONE_BOTTOM["conv"]) + branch("q", "e", ONE_BOTTOM["max"])
    )
    text += 'layer { name: "r" bottom: "p" bottom: "q" top: "r" type: "Concat" }\n' + branch(
        "s", "r", ONE_BOTTOM["wide"]
    )
    lean, kept = (build(text, phase=pb.TEST, lean=lean) for lean in (True, False))
    np.testing.assert_array_equal(lean.forward()["s"], kept.forward()["s"])
    lease = lean.plan(fused=True).lease
    assert lease is not None
    inside = {
        live_range.blob.name: live_range.offset for live_range in lease.live_ranges if live_range.inside is not None
    }
    whole = next(live_range.offset for live_range in lease.live_ranges if live_range.blob.name == "r")
    assert inside == {"p": whole, "q": whole + 4 * 4 * 36}
    for name in ("p", "r"):
        np.testing.assert_array_equal(lean.forward(blobs=[name])[name], kept.blobs[name].data)
        np.testing.assert_array_equal(lean.blobs["s"].data, kept.blobs["s"].data)


def test_bottoms_of_a_concat_that_backward_reads_stay_apart_from_it():
    layers = (
        ("conv", "x", "a", "conv"), ("relu", "a", "a", "relu"), ("pool", "x", "q", "max"), ("wide", "q", "q2", "wide"),
    )  # fmt: skip
    text = INPUTS.replace("dim: 2", "dim: 1")
    text += "".join(f'layer {{ name: "{n}" bottom: "{b}" top: "{t}" {ONE_BOTTOM[k]} }}\n' for n, b, t, k in layers)
    text += 'layer { name: "e" bottom: "a" bottom: "q2" top: "e" type: "Concat" }\n'
    text += f'layer {{ name: "scale" bottom: "e" top: "e" {ONE_BOTTOM["scale"]} }}\n'
    assert_same_results(text + HEAD + LOSS)


def test_what_is_gone_says_so_and_how_to_keep_it():
    net = build(CHAIN + HEAD, phase=pb.TEST, lean=True)
    net.forward()
    assert not net.blobs["b"].holds("data")
    with pytest.raises(UsageError, match=r'data of blob "b" are no longer available.*lean=True') as caught:
        net.blobs["b"].data  # noqa: B018
    assert 'forward(blobs=["b"])' in caught.value.hint
    kept = build(CHAIN + HEAD, phase=pb.TEST)
    kept.forward()
    np.testing.assert_array_equal(net.forward(blobs=["b"])["b"], kept.blobs["b"].data)
    net.forward()
    np.testing.assert_array_equal(net.blobs["b"].data, kept.blobs["b"].data)
    np.testing.assert_array_equal(net.blobs["s"].data, kept.blobs["s"].data)


def test_data_that_backward_reads_are_there_until_it_has_run():
    net = build(CHAIN + HEAD + LOSS, lean=True)
    net.forward()
    assert net.blobs["a"].holds("data")
    assert not net.blobs["e"].holds("diff")
    net.backward()
    assert not net.blobs["b"].holds("data")
    assert np.isfinite(net.blobs["loss"].data)


def test_backward_keeps_the_diffs_that_are_asked_for():
    lean, kept = (build(CHAIN + HEAD + LOSS, lean=lean) for lean in (True, False))
    for net in (lean, kept):
        net.forward()
    np.testing.assert_array_equal(lean.backward(diffs=["c"])["c"], kept.backward(diffs=["c"])["c"])
    for mine, theirs in zip(lean.learnable, kept.learnable):
        np.testing.assert_array_equal(mine.blob.diff, theirs.blob.diff)


@pytest.mark.parametrize(
    "phase, call, message",
    [
        (pb.TEST, lambda net: net.forward(start="conv2"), 'cannot run from layer "conv2" on'),
        (pb.TEST, lambda net: (net.forward(), net.backward()), "no backward pass|nothing for a backward pass in phase TEST"),
        (pb.TRAIN, lambda net: (net.forward(), net.backward(start="conv2")), "from the last layer on"),
        (pb.TRAIN, lambda net: net.backward(), "runs forward, as a whole, before each backward pass"),
        (pb.TRAIN, lambda net: (net.forward(), net.backward(), net.backward()), "before each backward pass"),
        (pb.TRAIN, lambda net: (net.forward(end="conv2"), net.backward()), "before each backward pass"),
    ],
)  # fmt: skip
def test_what_a_lean_net_cannot_do_is_told(phase, call, message):
    with pytest.raises(UsageError, match=message):
        call(build(CHAIN + HEAD + LOSS, phase=phase, lean=True))


def test_a_run_that_ends_early_returns_the_tops_of_its_last_layer():
    lean, kept = (build(CHAIN + HEAD, phase=pb.TEST, lean=lean) for lean in (True, False))
    for end in ("conv2", "pool1", "s"):
        for name, data in kept.forward(end=end).items():
            np.testing.assert_array_equal(lean.forward(end=end)[name], data)


def test_a_lean_net_follows_its_inputs_to_other_sizes_and_back():
    normal = CHAIN.replace(
        'name: "pool1"', 'name: "bn" type: "BatchNorm" bottom: "a" top: "a" } layer { name: "scale" type: "Scale"'
        ' bottom: "a" top: "a" scale_param { bias_term: true } } layer { name: "pool1"'
    )  # fmt: skip
    lean, kept = (build(normal + HEAD + LOSS, lean=lean) for lean in (True, False))
    for batch in (2, 5, 1, 5, 2):
        random = np.random.default_rng(batch)
        values = {"x": random.normal(size=(batch, 4, 6, 6)), "label": random.integers(0, 3, batch)}
        for net in (lean, kept):
            for name, array in values.items():
                net.blobs[name].reshape(array.shape)
            net.forward(**values)
            net.clear_param_diffs()
            net.backward()
        assert_apart(lean)
        assert lean.loss == kept.loss
        for mine, theirs in zip(lean.learnable, kept.learnable):
            np.testing.assert_array_equal(mine.blob.diff, theirs.blob.diff)


def test_nets_that_share_parameters_share_memory_too():
    train = build(CHAIN + HEAD + LOSS, lean=True)
    test = build(CHAIN + HEAD + LOSS, phase=pb.TEST, lean=True, share=train)
    assert train.arena is test.arena
    expected = results(build(CHAIN + HEAD + LOSS))
    found = []
    for seed in range(2):
        test.forward()
        found += results(train, passes=1) if not seed else []
        assert not any(net.blobs["b"].holds("data") for net in (train, test))
    for mine, theirs in zip(found, expected):
        np.testing.assert_array_equal(mine, theirs)
    train.forward()
    assert train.blobs["a"].holds("data")
    test.forward()
    assert not train.blobs["a"].holds("data")
    with pytest.raises(UsageError, match="before each backward pass"):
        train.backward()


def test_debug_info_of_a_lean_net_is_that_of_any():
    told = []
    for lean in (True, False):
        net = build(CHAIN + HEAD + LOSS, lean=lean)
        if lean:
            poisoned(net)
        lines: list[str] = []
        net.on_debug = lines.append
        net.forward_backward()
        told.append(lines)
    assert told[0] == told[1]
    assert not any("nan" in line for line in told[0])


def test_a_net_whose_shapes_depend_on_the_data_keeps_everything():
    select = 'layer { name: "f" type: "Filter" bottom: "e" bottom: "label" top: "f" }\n'
    lean, kept = (build(CHAIN + select, phase=pb.TEST, lean=lean) for lean in (True, False))
    for label in ([1, 0], [1, 1], [0, 1]):
        for net in (lean, kept):
            net.forward(label=np.array(label))
        for name in ("a", "b", "c", "f"):
            np.testing.assert_array_equal(lean.blobs[name].data, kept.blobs[name].data)
    assert lean.memory().shared == 0


def test_memory_of_a_lean_net_is_what_its_plan_takes():
    lean, kept = (build(CHAIN + HEAD + LOSS, lean=lean).memory() for lean in (True, False))
    assert lean.params == kept.params
    assert lean.data + lean.diff + lean.shared < 0.8 * (kept.data + kept.diff)
    alone = build(CHAIN + HEAD, phase=pb.TEST, lean=True).memory()
    pixels = 4 * 2 * 36
    # at any time a layer's bottom and top: 6 + 6 channels at most; inputs and outputs by themselves
    assert alone.shared == 12 * pixels
    assert alone.diff == 0
    assert alone.data == 4 * (2 * 4 * 36 + 2 + 6)


def test_an_in_place_layer_writes_over_what_only_a_backward_pass_would_read():
    text = CHAIN.replace(
        'name: "relu1" bottom: "a" top: "a" type: "ReLU"', 'name: "relu1" bottom: "a" top: "a" type: "Sigmoid"'
    )
    text += 'layer { name: "drop" type: "Dropout" bottom: "a" top: "a" }\n'
    text = text.replace('bottom: "a" top: "b"', 'bottom: "x" top: "b"')
    train, test = build(text, lean=True), build(text, phase=pb.TEST, lean=True)
    assert len(train.versions) == len(test.versions) + 1


def test_a_run_that_fails_leaves_a_net_that_runs():
    net = build(CHAIN + HEAD + LOSS, lean=True)
    net.blobs["label"].data[...] = 7
    with pytest.raises(Exception, match="out of range"):
        net.forward()
    net.blobs["label"].data[...] = 1
    net.forward_backward()
    assert np.isfinite(net.loss)


def test_a_lean_net_of_one_layer_shares_nothing():
    net = build('layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 } } }', phase=pb.TEST, lean=True)
    assert net.forward()["x"].shape == (2,)
    assert isinstance(net, Net)


def test_a_solver_trains_lean_nets_to_the_same_bits(tmp_path):
    text = CHAIN + HEAD + LOSS
    data = text.replace('type: "Input"', 'type: "DummyData"').replace("input_param { shape", "dummy_data_param { shape")
    data = data.replace("dim: 6 } }", 'dim: 6 } data_filler { type: "gaussian" } }')
    solver = f'''net_param {{ {data} }} test_iter: 2 test_interval: 2 base_lr: 0.1 lr_policy: "fixed" momentum: 0.9
    iter_size: 2 max_iter: 5 random_seed: 3 snapshot_prefix: "{tmp_path}/net" '''
    nets = []
    for lean in (True, False):
        trained = Solver(prototxt.parse(solver, pb.SolverParameter), lean=lean)
        trained.solve()
        nets.append(trained)
        resumed = Solver(prototxt.parse(solver, pb.SolverParameter), lean=not lean, snapshot=trained.last_snapshot)
        resumed.step(2)
        trained.step(2)
        nets.append(resumed)
    first, *others = nets
    assert first.memory() < others[1].memory()
    for other in others:
        for mine, theirs in zip(first.net.learnable, other.net.learnable):
            np.testing.assert_array_equal(mine.blob.data, theirs.blob.data)
