"""The step gives what the layer's own code gives, in every form the layer has."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.kernels.matmul import fully_connected as fc
from sslnet.kernels.matmul import structured as fc_kept
from sslnet.net.net import Net

NET = """
force_backward: %s
layer { name: "x" type: "Input" top: "x" input_param { shape { %s } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" %s inner_product_param {
  num_output: %d bias_term: %s transpose: %s axis: %d weight_filler { type: "gaussian" } bias_filler { type: "gaussian" } } }
%s
"""
RELU = 'layer { name: "relu" type: "ReLU" bottom: "ip" top: "ip" }'


@pytest.fixture(autouse=True)
def no_blas(monkeypatch):
    monkeypatch.setattr(fc, "_suits_blas", lambda shape, unit: False)
    monkeypatch.setattr(fc, "FEW_ROWS", 0)
    monkeypatch.setattr(fc, "FEW_IMAGES", 0)
    monkeypatch.setattr(fc_kept, "SMALL", 0)


def nets(shape, outputs, *, bias=True, transpose=False, axis=1, relu=False, params="", force=True):
    dims = " ".join(f"dim: {n}" for n in shape)
    words = [str(value).lower() for value in (bias, transpose)]
    text = NET % (str(force).lower(), dims, params, outputs, *words, axis, RELU if relu else "")
    return [Net(prototxt.parse(text, pb.NetParameter), phase=pb.TRAIN, seed=5, plain=plain) for plain in (False, True)]


def run(net):
    random = np.random.default_rng(1)
    net.forward(x=random.normal(size=net.blobs["x"].shape))
    for param in net.learnable:
        param.blob.diff[...] = 0.5
    net.backward(ip=random.normal(size=net.blobs["ip"].shape))


def compare(fast, plain):
    for net in (fast, plain):
        run(net)
    np.testing.assert_allclose(fast.blobs["ip"].data, plain.blobs["ip"].data, atol=2e-5, rtol=1e-5)
    np.testing.assert_allclose(fast.blobs["x"].diff, plain.blobs["x"].diff, atol=2e-5, rtol=1e-5)
    for mine, theirs in zip(fast.learnable, plain.learnable, strict=True):
        np.testing.assert_allclose(mine.blob.diff, theirs.blob.diff, atol=2e-5, rtol=1e-5)


def kernels(net):
    return [step.kernel for step in net.plan(fused=True).steps]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 7), min_size=2, max_size=4),
    st.integers(1, 40),
    st.fixed_dictionaries({"bias": st.booleans(), "transpose": st.booleans(), "relu": st.booleans()}),
    st.data(),
)
def test_step_gives_what_plain_code_gives(shape, outputs, options, data):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    fast, plain = nets(shape, outputs, axis=axis, **options)
    compare(fast, plain)


@pytest.mark.parametrize(("transpose", "kernel"), [(False, "dot"), (True, "sum")])
def test_relu_in_place_runs_with_the_product(transpose, kernel):
    fast, plain = nets((6, 5, 3), 20, transpose=transpose, relu=True)
    compare(fast, plain)
    _, product, relu = kernels(fast)
    assert product.startswith(kernel)
    assert product.endswith("+relu")
    assert relu == "joined"
    assert kernels(plain)[1:] == ["plain", "plain"]
    fast.forward(end="ip")
    assert (fast.blobs["ip"].data < 0).any()


@pytest.mark.parametrize("frozen", [0, 1])
def test_only_the_wanted_gradients_are_computed(frozen):
    params = " ".join(f"param {{ lr_mult: {int(i != frozen)} }}" for i in range(2))
    fast, plain = nets((6, 5), 20, params=params, force=False)
    for net in (fast, plain):
        net.forward(x=np.ones((6, 5)))
        net.clear_param_diffs()
        net.backward(ip=np.ones((6, 20)))
        assert not net.params["ip"][frozen].has_diff
        assert not net.blobs["x"].has_diff
    np.testing.assert_allclose(fast.params["ip"][1 - frozen].diff, plain.params["ip"][1 - frozen].diff, rtol=1e-5)


def test_new_batch_size_is_a_new_plan():
    fast, plain = nets((6, 5), 20)
    for batch in (6, 1, 17):
        for net in (fast, plain):
            net.blobs["x"].reshape(batch, 5)
            net.reshape()
        compare(fast, plain)


ZEROS = st.sampled_from([(0.5, 0.5), (0.8, 0), (0, 0.8), (1, 1), (0.1, 0.05), (0, 0)])


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 20),
    st.fixed_dictionaries({"bias": st.booleans(), "transpose": st.booleans(), "relu": st.booleans()}),
    ZEROS,
)
def test_held_weights_leave_out_zero_rows_and_columns(images, options, zeros):
    fast, plain = nets((images, 30), 40, **options)
    random = np.random.default_rng(images)
    dead = [random.random(size) < share for size, share in zip((40, 30), zeros)]
    for net in (fast, plain):
        weights = net.params["ip"][0].data
        matrix = weights.T if options["transpose"] else weights
        matrix[dead[0]] = 0
        matrix[:, dead[1]] = 0
    plan = fast.plan(fused=True)
    plan.hold_weights(True)
    x = random.normal(size=(images, 30))
    for _ in range(2):
        for net in (fast, plain):
            net.forward(x=x)
        np.testing.assert_allclose(fast.blobs["ip"].data, plain.blobs["ip"].data, atol=2e-5, rtol=1e-5)
    assert ("kept" in kernels(fast)[1]) == (min(zeros[0] + zeros[1], 1) > 0.3)
    plan.hold_weights(False)
    compare(fast, plain)


def test_weights_held_again_are_read_again():
    fast, plain = nets((3, 30), 40)
    plan = fast.plan(fused=True)
    for dead in (35, 5, 20):
        for net in (fast, plain):
            net.params["ip"][0].data[...] = 1.5
            net.params["ip"][0].data[:dead] = 0
        plan.hold_weights(True)
        for net in (fast, plain):
            net.forward(x=np.ones((3, 30)))
        np.testing.assert_allclose(fast.blobs["ip"].data, plain.blobs["ip"].data, atol=2e-5, rtol=1e-5)
