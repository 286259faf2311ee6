"""Chains of BatchNorm, Scale and ReLU give what the layers' own code gives, whole runs and parts of runs alike."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.net.net import Net

HEAD = """
force_backward: %s
layer { name: "x" type: "Input" top: "x" input_param { shape { %s } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "conv" convolution_param {
  num_output: %d kernel_size: 3 pad: 1 bias_term: %s weight_filler { type: "gaussian" std: 0.3 } bias_filler { type: "gaussian" } } }
"""
LAYERS = {
    "norm": 'layer { name: "norm" type: "BatchNorm" bottom: "%s" top: "%s" batch_norm_param { moving_average_fraction: 0.9 %s } }',
    "scale": 'layer { name: "scale" type: "Scale" bottom: "%s" top: "%s" %s scale_param { bias_term: true '
    'filler { type: "gaussian" std: 1 } bias_filler { type: "gaussian" std: 1 } } }',
    "relu": 'layer { name: "relu" type: "ReLU" bottom: "%s" top: "%s" %s }',
}
TAIL = """
layer { name: "ip" type: "InnerProduct" bottom: "%s" top: "ip" inner_product_param { num_output: 3 weight_filler { type: "gaussian" std: 0.3 } } }
"""
CHAINS = ["norm", "norm scale", "norm relu", "norm scale relu", "scale relu"]


def text(chain, *, in_place=True, shape=(5, 3, 7, 6), maps=4, bias=False, force=True, **extra):
    blob = "conv" if in_place else "chain"
    parts = [HEAD % (str(force).lower(), " ".join(f"dim: {n}" for n in shape), maps, str(bias).lower())]
    for k, name in enumerate(chain.split()):
        parts.append(LAYERS[name] % ("conv" if k == 0 else blob, blob, extra.get(name, "")))
    return "\n".join([*parts, TAIL % blob])


def nets(definition, phase=pb.TRAIN, **options):
    """The net as it runs, and by the layers' own code, with one state of the statistics."""
    both = [
        Net(prototxt.parse(definition, pb.NetParameter), phase=phase, seed=3, plain=plain, **options)
        for plain in (False, True)
    ]
    for net in both:
        for blob, value in zip(net.params.get("norm", []), (0.6, 3.0, 2.0)):
            blob.data[:] = value
    return both


def run(both, seed, **part):
    random = np.random.default_rng(seed)
    x, dy = (random.normal(size=both[0].blobs[name].shape) for name in ("x", "ip"))
    for net in both:
        net.forward(x=x)
        net.backward(ip=dy, **part)


def compare(both, diffs=True):
    fast, plain = both
    for name in fast.blobs:
        np.testing.assert_allclose(fast.blobs[name].data, plain.blobs[name].data, atol=1e-4, err_msg=name)
        if diffs and name not in ("x", "ip"):
            np.testing.assert_allclose(fast.blobs[name].diff, plain.blobs[name].diff, atol=1e-4, err_msg=name)
    for name, blobs in fast.params.items():
        for mine, theirs in zip(blobs, plain.params[name]):
            np.testing.assert_allclose(mine.data, theirs.data, rtol=1e-6, atol=1e-6, err_msg=name)
            assert mine.has_diff == theirs.has_diff
            if mine.has_diff:
                limit = 1e-5 * max(1.0, np.abs(theirs.diff).max())
                np.testing.assert_allclose(mine.diff, theirs.diff, atol=10 * limit, err_msg=name)


def kernels(net):
    return [step.kernel for step in net.plan(fused=True).steps]


@pytest.mark.parametrize("phase", [pb.TRAIN, pb.TEST], ids=["train", "test"])
@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("chain", CHAINS)
def test_chains_give_what_the_layers_give(chain, in_place, phase):
    """Three batches whose gradients add up, as iter_size makes them."""
    both = nets(text(chain, in_place=in_place), phase)
    for seed in range(3):
        run(both, seed)
    compare(both)
    joined = [kernel for kernel in kernels(both[0])[2:-1] if kernel == "joined"]
    folded = in_place and phase == pb.TEST and "norm" in chain
    assert len(joined) == len(chain.split()) - (not folded)
    assert ("+norm" in kernels(both[0])[1]) == folded


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 9), st.integers(1, 40)),
    st.integers(1, 5),
    st.sampled_from(CHAINS),
    st.booleans(),
    st.booleans(),
    st.sampled_from([pb.TRAIN, pb.TEST]),
)
def test_chains_of_any_shape_give_what_the_layers_give(shape, maps, chain, in_place, fixed, phase):
    saved = f"use_global_stats: {str(fixed).lower()} eps: 0.1"
    both = nets(text(chain, in_place=in_place, shape=shape, maps=maps, norm=saved), phase)
    run(both, 1)
    compare(both)


def test_moving_averages_are_those_of_the_layer():
    both = nets(text("norm scale relu"))
    for seed in range(10):
        run(both, seed)
    for mine, theirs in zip(both[0].params["norm"], both[1].params["norm"]):
        np.testing.assert_allclose(mine.data, theirs.data, rtol=1e-6, atol=1e-6)


def test_frozen_parameters_get_no_gradient():
    frozen = {"scale": "param { lr_mult: 0 } param { lr_mult: 1 }"}
    definition = text("norm scale relu", force=False, **frozen) + LOSS
    both = nets(definition)
    for net in both:
        random = np.random.default_rng(5)
        net.forward(x=random.normal(size=net.blobs["x"].shape), t=np.zeros((5, 3)))
        net.backward()
    compare(both, diffs=False)
    assert not both[0].params["scale"][0].has_diff


def test_gradient_that_ends_within_the_chain():
    """Nothing below the Scale is learned: BatchNorm and convolution run no backward pass."""
    definition = text("norm scale relu", force=False).replace(
        "convolution_param", "param { lr_mult: 0 } convolution_param"
    )
    both = nets(definition + LOSS)
    for net in both:
        random = np.random.default_rng(5)
        net.forward(x=random.normal(size=net.blobs["x"].shape), t=np.zeros((5, 3)))
        net.backward()
    assert not both[0].layer_need_backward[2]
    assert both[0].params["scale"][0].diff.any()
    compare(both, diffs=False)


LOSS = """
layer { name: "t" type: "Input" top: "t" input_param { shape { dim: 5 dim: 3 } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "t" top: "loss" }
"""


@pytest.mark.parametrize("phase", [pb.TRAIN, pb.TEST], ids=["train", "test"])
@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("chain", CHAINS)
def test_backward_in_parts_after_a_whole_forward(chain, in_place, phase):
    last = chain.split()[-1]
    both = nets(text(chain, in_place=in_place), phase)
    run(both, 0, end=last)
    for net in both:
        net.backward(start="conv")
    compare(both)
    run(both, 1, end="ip")
    for layer in (*reversed(chain.split()), "conv"):
        for net in both:
            net.backward(start=layer, end=layer)
    compare(both)


@pytest.mark.parametrize("in_place", [True, False])
def test_a_part_of_the_net_run_anew_after_the_whole(in_place):
    both = nets(text("norm scale relu", in_place=in_place))
    run(both, 0)
    random = np.random.default_rng(1)
    x, dy = (random.normal(size=both[0].blobs[name].shape) for name in ("x", "ip"))
    for net in both:
        net.forward(x=x)
        net.forward(start="norm", end="scale")
        net.backward(ip=dy)
    compare(both)


def test_a_convolution_follows_weights_and_statistics_that_change():
    both = nets(text("norm scale relu", bias=True), pb.TEST)
    run(both, 0)
    compare(both)
    for change in (("conv", 0), ("conv", 1), ("norm", 0), ("norm", 1), ("scale", 0), ("scale", 1)):
        for net in both:
            net.params[change[0]][change[1]].data[:] *= 1.5
        kept = both[0].params["conv"][0].data.copy()
        run(both, 1)
        compare(both)
        np.testing.assert_array_equal(both[0].params["conv"][0].data, kept)


def test_other_batch_sizes_in_turns():
    both = nets(text("norm scale relu"))
    for batch in (5, 2, 5, 3):
        for net in both:
            net.blobs["x"].reshape(batch, 3, 7, 6)
            net.reshape()
        run(both, batch)
        run(both, batch, end="norm")
        for net in both:
            net.backward(start="conv")
        compare(both)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (('type: "ReLU"', 'type: "ReLU" relu_param { negative_slope: 0.1 }'), ["norm+scale", "joined", "plain"]),
        (('type: "BatchNorm"', 'type: "BatchNorm" loss_weight: 1'), ["norm", "plain", "scale+relu"]),
        (("bias_term: true filler", "axis: 0 num_axes: 2 filler"), ["norm", "plain", "plain"]),
    ],
    ids=["leaky", "loss in between", "scale by image"],
)
def test_what_a_chain_does_not_do_is_left_to_the_layers(change, expected):
    both = nets(text("norm scale relu", in_place=False).replace(*change))
    run(both, 0)
    compare(both)
    assert kernels(both[0])[2:5] == expected


def test_a_blob_with_a_second_reader_keeps_its_values():
    """The convolution's output goes to two layers, so nothing is written over it."""
    definition = text("norm scale relu") + (
        'layer { name: "again" type: "Power" bottom: "x" top: "other" }\n'
        'layer { name: "sum" type: "Eltwise" bottom: "conv" bottom: "twin" top: "sum" }\n'
    )
    definition = definition.replace(
        'layer { name: "norm"', 'layer { name: "twin" type: "Power" bottom: "conv" top: "twin" }\nlayer { name: "norm"'
    )
    both = nets(definition)
    random = np.random.default_rng(4)
    x = random.normal(size=both[0].blobs["x"].shape)
    for net in both:
        net.forward(x=x)
    compare(both, diffs=False)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3, 4, 5, 3), (4, 3)])
def test_variance_of_zero_without_eps_is_not_finite_as_in_plain_code(shape):
    dims = " ".join(f"dim: {n}" for n in shape)
    text = (
        f'force_backward: true layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ {dims} }} }} }} '
        'layer { name: "n" type: "BatchNorm" bottom: "x" top: "y" batch_norm_param { eps: 0 } }'
    )
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    x[:, 1] = 2.5
    found = []
    for plain in (False, True):
        net = Net(prototxt.parse(text, pb.NetParameter), phase=pb.TRAIN, plain=plain)
        y = np.array(net.forward(x=x)["y"])
        net.backward(y=np.ones(shape))
        found.append((y, np.array(net.blobs["x"].diff)))
    for ours, theirs in zip(*found):
        np.testing.assert_array_equal(np.isfinite(ours), np.isfinite(theirs))
    assert np.isfinite(found[0][0][:, [0, 2]]).all()
    assert not np.isfinite(found[0][0][:, 1]).any()
