"""Net: who runs backward, parameters shared by name, losses, memory, and the calls of its users."""

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import DefinitionError, RunError, ShapeError, UsageError
from sslnet.net.memory_estimate import Memory
from sslnet.net.net import Net

HEAD = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 4 dim: 3 } } }
layer { name: "t" type: "Input" top: "t" input_param { shape { dim: 4 dim: 2 } } }
"""


def ip(name, bottom, top, outputs=2, extra=""):
    return (
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{top}" {extra}\n'
        f'  inner_product_param {{ num_output: {outputs} weight_filler {{ type: "gaussian" }} }} }}\n'
    )


LOSS = 'layer { name: "loss" type: "EuclideanLoss" bottom: "b" bottom: "t" top: "loss" }\n'
CHAIN = HEAD + ip("a", "x", "a") + ip("b", "a", "b") + LOSS


def make(text, **settings):
    settings.setdefault("phase", pb.TRAIN)
    settings.setdefault("seed", 1)
    return Net(prototxt.parse(text, pb.NetParameter, "net.prototxt"), **settings)


def needs(net):
    return dict(zip(net.layer_names, net.layer_need_backward))


def test_backward_runs_from_the_loss_to_the_first_learnable_layer():
    net = make(CHAIN)
    assert needs(net) == {"x": False, "t": False, "a": True, "b": True, "loss": True}
    assert net.bottom_need_backward[net.layer_names.index("a")] == [False]
    assert net.bottom_need_backward[net.layer_names.index("loss")] == [True, False]


def test_lr_mult_zero_skips_backward_below():
    frozen = "param { lr_mult: 0 } param { lr_mult: 0 }"
    net = make(HEAD + ip("a", "x", "a", extra=frozen) + ip("b", "a", "b") + LOSS)
    assert needs(net)["a"] is False
    assert needs(net)["b"] is True
    net.forward_backward()
    assert not net.params["a"][0].has_diff


def test_propagate_down_false_stops_the_gradient():
    net = make(HEAD + ip("a", "x", "a") + ip("b", "a", "b", extra="propagate_down: false") + LOSS)
    assert needs(net)["a"] is False


def test_a_branch_without_loss_runs_no_backward():
    net = make(CHAIN + ip("c", "a", "c"))
    assert needs(net)["c"] is False
    assert needs(net)["a"] is True


def test_force_backward_reaches_the_inputs():
    net = make("force_backward: true\n" + CHAIN)
    net.forward(x=np.ones((4, 3)), t=np.zeros((4, 2)))
    diffs = net.backward()
    a, b = net.params["a"][0].data, net.params["b"][0].data
    np.testing.assert_allclose(diffs["x"], net.blobs["b"].data @ b @ a / 4, rtol=1e-5)


def test_loss_is_the_weighted_sum_and_its_weight_the_top_diff():
    net = make(CHAIN.replace('top: "loss" }', 'top: "loss" loss_weight: 3 }'))
    net.forward(x=np.ones((4, 3)), t=np.zeros((4, 2)))
    assert net.loss == pytest.approx(3 * float(net.blobs["loss"].data))
    assert net.loss_weights == {"loss": 3.0}
    net.backward()
    assert float(net.blobs["loss"].diff) == 3


def test_loss_layer_without_a_top_still_counts():
    net = make(CHAIN.replace(' top: "loss" }', " }"))
    net.forward(x=np.ones((4, 3)), t=np.zeros((4, 2)))
    assert net.loss > 0
    assert net.outputs == ["loss"]


SHARED = 'param { name: "w" %s } param { name: "v" }'


def test_params_of_one_name_share_values_and_gradients():
    net = make(
        HEAD
        + ip("a", "x", "a", extra=SHARED % "")
        + ip("c", "x", "c", extra=SHARED % "")
        + ('layer { name: "b" type: "Eltwise" bottom: "a" bottom: "c" top: "b" }\n' + LOSS)
    )
    assert [param.name for param in net.learnable] == ["a[0]", "a[1]"]
    net.params["a"][0].data[...] = 2
    assert (net.params["c"][0].data == 2).all()
    net.forward(x=np.ones((4, 3)), t=np.zeros((4, 2)))
    net.backward()
    alone = net.blobs["b"].data.T @ np.ones((4, 3)) / 4
    np.testing.assert_allclose(net.params["a"][0].diff, 2 * alone, rtol=1e-5)


def test_shared_params_must_agree_in_shape_and_rate():
    with pytest.raises(ShapeError, match=r"shape \(5, 3\) here and \(2, 3\)"):
        make(HEAD + ip("a", "x", "a", extra=SHARED % "") + ip("c", "x", "c", 5, extra=SHARED % ""))
    with pytest.raises(DefinitionError, match="lr_mult 2 here and 1"):
        make(HEAD + ip("a", "x", "a", extra=SHARED % "lr_mult: 1") + ip("c", "x", "c", extra=SHARED % "lr_mult: 2"))


def test_shared_params_must_agree_in_what_else_is_said_of_them():
    def text(first, second):
        return HEAD + "".join(
            ip(name, bottom, name, 3, f'param {{ name: "w" {spec} }}')
            for name, bottom, spec in (("a", "x", first), ("b", "a", second))
        )

    make(text("breadth_decay_mult: 1", "breadth_decay_mult: 1"))
    make(text("breadth_decay_mult: 1", ""))
    with pytest.raises(DefinitionError, match='has another breadth_decay_mult in layer "a"') as caught:
        make(text("", "breadth_decay_mult: 1"))
    assert caught.value.layer == "b"
    assert caught.value.line == 6


def test_fillers_depend_on_seed_and_layer_alone():
    one, two = make(CHAIN), make(HEAD + ip("new", "x", "new") + CHAIN.removeprefix(HEAD))
    np.testing.assert_array_equal(one.params["b"][0].data, two.params["b"][0].data)
    assert (make(CHAIN, seed=2).params["b"][0].data != one.params["b"][0].data).any()


def test_partial_runs_take_and_return_what_is_asked():
    net = make(CHAIN)
    net.forward(x=np.ones((4, 3)), t=np.zeros((4, 2)))
    a = net.blobs["a"].data.copy()
    assert list(net.forward(end="a")) == ["a"]
    net.blobs["a"].data[...] = 0
    out = net.forward(start="b", blobs=["b"])
    np.testing.assert_array_equal(out["b"], np.broadcast_to(net.params["b"][1].data, (4, 2)))
    assert (a != 0).any()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda net: net.forward(y=np.ones((4, 3))), 'no input "y"'),
        (lambda net: net.forward(x=np.ones((4, 2))), r"shape \(4, 3\), the array \(4, 2\)"),
        (lambda net: net.forward(end="aa"), 'no layer "aa"'),
        (lambda net: net.forward(blobs=["q"]), 'no blob "q"'),
    ],
)
def test_wrong_calls_are_told(call, message):
    with pytest.raises(UsageError, match=message):
        call(make(CHAIN))


def test_reshape_of_an_input_goes_through_the_net():
    net = make(CHAIN)
    for name in ("x", "t"):
        net.blobs[name].reshape(7, net.blobs[name].shape[1])
    net.reshape()
    assert net.blobs["b"].shape == (7, 2)
    net.forward(x=np.ones((7, 3)), t=np.zeros((7, 2)))
    net.backward()


def test_shape_error_points_to_the_layer():
    with pytest.raises(ShapeError) as caught:
        make(CHAIN.replace("dim: 4 dim: 2", "dim: 4 dim: 5"))
    assert caught.value.layer == "loss"
    assert caught.value.line is not None


def test_share_with_uses_the_other_nets_parameters():
    train = make(CHAIN)
    test = make(CHAIN, phase=pb.TEST, seed=9, share=train)
    train.params["a"][0].data[0, 0] = 42
    assert test.params["a"][0].data[0, 0] == 42


def test_share_with_refuses_a_layer_of_other_parameters():
    with pytest.raises(ShapeError, match="2 parameter blobs cannot be shared with 1"):
        make(CHAIN, share=make(CHAIN.replace("num_output: 2", "bias_term: false num_output: 2", 1)))
    with pytest.raises(ShapeError, match=r"shape \(2, 3\) cannot be shared with shape \(5, 3\)"):
        make(CHAIN, share=make(CHAIN.replace("num_output: 2", "num_output: 5", 1)))


def test_memory_counts_each_array_once():
    net = make(CHAIN)
    memory = net.memory()
    # x 12, t 8, a 8, b 8, loss 1 values; diffs of a, b and loss; two weights and biases, data and diff
    assert memory.data == 4 * (12 + 8 + 8 + 8 + 1)
    assert memory.diff == 4 * (8 + 8 + 1)
    assert memory.params == 2 * 4 * (6 + 2 + 4 + 2)


def test_a_net_too_large_for_the_machine_is_refused_before_it_allocates(monkeypatch):
    monkeypatch.setattr("sslnet.net.memory_estimate.available_memory", lambda: 100)
    with pytest.raises(RunError, match=r"needs 0\.0 MiB for its blobs") as caught:
        make(CHAIN)
    assert "batch_size" in str(caught.value)
    assert isinstance(Memory(1, 2, 3).total, int)


def test_debug_tells_every_blob():
    net = make(CHAIN)
    lines = []
    net.on_debug = lines.append
    net.forward_backward()
    assert sum("[Forward]" in line for line in lines) == 5 + 4
    assert any("[Backward] Layer b, bottom blob a diff" in line for line in lines)


def test_float64_runs_the_same_net():
    single, double = make(CHAIN), make(CHAIN, dtype=np.float64)
    for name, blobs in single.params.items():
        for mine, theirs in zip(blobs, double.params[name]):
            theirs.data[...] = mine.data
    x = np.random.default_rng(0).normal(size=(4, 3))
    single.forward(x=x)
    double.forward(x=x)
    assert double.blobs["b"].data.dtype == np.float64
    np.testing.assert_allclose(single.blobs["b"].data, double.blobs["b"].data, rtol=1e-5)


def test_a_net_is_made_from_a_path_a_message_or_a_definition(tmp_path):
    (tmp_path / "net.prototxt").write_text(CHAIN)
    message = prototxt.parse(CHAIN, pb.NetParameter).message
    for source in (tmp_path / "net.prototxt", str(tmp_path / "net.prototxt"), message):
        assert Net(source, phase=pb.TRAIN).layer_names == ["x", "t", "a", "b", "loss"]
    with pytest.raises(DefinitionError, match="not from int"):
        Net(3)


def test_forward_follows_a_reshaped_input_by_itself():
    net = make(CHAIN)
    for name in ("x", "t"):
        net.blobs[name].reshape(6, net.blobs[name].shape[1])
    net.forward(x=np.ones((6, 3)), t=np.zeros((6, 2)))
    assert net.blobs["b"].data.shape == (6, 2)


def test_layers_behind_a_filter_follow_its_size():
    text = (
        'layer { name: "x" type: "Input" top: "x" top: "s" input_param { shape { dim: 4 dim: 3 } shape { dim: 4 } } }\n'
        'layer { name: "f" type: "Filter" bottom: "x" bottom: "s" top: "f" }\n' + ip("a", "f", "a")
    )
    net = make(text)
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    for chosen in ([0, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 1]):
        out = net.forward(x=x, s=np.array(chosen))["a"]
        assert out.shape == (sum(chosen), 2)
        np.testing.assert_allclose(out, x[np.array(chosen, bool)] @ net.params["a"][0].data.T, rtol=1e-5)


def chain_of(*layers):
    """x through an InnerProduct, the layers given as (type, bottom, top, param), and another InnerProduct to a loss."""
    text = "".join(
        f'layer {{ name: "l{i}" type: "{kind}" bottom: "{bottom}" top: "{top}" {param} }}\n'
        for i, (kind, bottom, top, param) in enumerate(layers)
    )
    return HEAD + ip("a", "x", "a", 5) + text + ip("b", layers[-1][2], "b") + LOSS


def gradient_and_difference(text):
    """Of the loss by one weight of layer a: from backward, and from central differences, in float64."""
    net = make(text, dtype=np.float64)
    random = np.random.default_rng(3)
    for name in net.inputs:
        net.blobs[name].data[...] = random.standard_normal(net.blobs[name].shape)
    weights, before = net.params["a"][0], net.layer_states()

    def loss(step):
        weights.data[1, 2] += step
        net.set_layer_states(before)
        net.forward()
        weights.data[1, 2] -= step
        return net.loss

    loss(0)
    net.backward()
    return weights.diff[1, 2], (loss(1e-5) - loss(-1e-5)) / 2e-5


@pytest.mark.parametrize(
    "layers",
    [
        [("Sigmoid", "a", "a", ""), ("Dropout", "a", "a", "")],
        [("Sigmoid", "a", "s", ""), ("Dropout", "s", "s", "")],
        [("ReLU", "a", "a", ""), ("BatchNorm", "a", "a", "")],
        [("ReLU", "a", "a", ""), ("Dropout", "a", "a", "")],
        [("TanH", "a", "a", ""), ("Flatten", "a", "f", ""), ("Power", "f", "f", "power_param { scale: -2 }")],
        [("Softmax", "a", "s", ""), ("Power", "s", "s", "power_param { power: 2 }")],
    ],
    ids=lambda layers: "-".join(kind for kind, *_ in layers),
)
def test_gradient_survives_a_layer_that_asks_to_work_in_place(layers):
    backward, difference = gradient_and_difference(chain_of(*layers))
    assert abs(difference) > 1e-4
    assert backward == pytest.approx(difference, rel=1e-5)


def test_in_place_layer_leaves_what_is_read_under_another_name():
    side = 'layer { name: "e" type: "Eltwise" bottom: "f" bottom: "a" top: "e" eltwise_param { coeff: 0 coeff: 1 } }\n'
    flat = 'layer { name: "f" type: "Flatten" bottom: "a" top: "f" }\n'
    relu = 'layer { name: "r" type: "Power" bottom: "f" top: "f" power_param { scale: 0 } }\n'
    net = make(HEAD + ip("a", "x", "a") + flat + relu + side)
    net.forward(x=np.ones((4, 3)))
    assert np.abs(net.blobs["e"].data).min() > 0
    assert not net.blobs["f"].data.any()


def test_in_place_layer_takes_no_memory_where_nobody_reads_the_old_values():
    net = make(chain_of(("ReLU", "a", "a", ""), ("Sigmoid", "a", "s", "")))
    assert net.tops[net.layer_names.index("l0")] == net.bottoms[net.layer_names.index("l0")]


def test_memory_counts_the_blob_that_an_in_place_layer_gets():
    in_place = make(chain_of(("Power", "a", "a", ""), ("Dropout", "a", "a", ""))).memory()
    apart = make(chain_of(("Sigmoid", "a", "a", ""), ("Dropout", "a", "a", ""))).memory()
    assert apart.data == in_place.data + 4 * 20
    assert apart.diff == in_place.diff + 4 * 20


def test_states_of_the_beginning_are_those_of_layers_that_had_none():
    net = make(HEAD + 'layer { name: "d" type: "Dropout" bottom: "x" top: "d" }')
    before, x = net.layer_states(), np.ones((4, 3))
    first = net.forward(x=x)["d"].copy()
    net.forward()
    net.set_layer_states(before)
    np.testing.assert_array_equal(net.forward()["d"], first)


@pytest.mark.parametrize("own", ["", "loss_weight: 0.5"])
def test_a_loss_that_another_layer_reads_counts_by_both(own):
    twice = 'layer { name: "p" type: "Power" bottom: "loss" top: "q" power_param { scale: 2 } loss_weight: 1 }\n'
    plain, read = make(CHAIN), make(CHAIN.replace('top: "loss" }', f'top: "loss" {own} }}') + twice)
    values = {"x": np.ones((4, 3)), "t": np.ones((4, 2))}
    for net in (plain, read):
        net.forward(**values)
        net.backward()
    factor = 2 + (0.5 if own else 1)
    assert read.loss == pytest.approx(factor * plain.loss, rel=1e-6)
    np.testing.assert_allclose(read.params["a"][0].diff, factor * plain.params["a"][0].diff, rtol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [
        'type: "Pooling" pooling_param { kernel_size: 2 }',
        'type: "BatchNorm"',
        'type: "Deconvolution" convolution_param { num_output: 2 kernel_size: 2 }',
        'type: "Reshape" reshape_param { shape { dim: 0 dim: -1 } }',
    ],
)
def test_a_filter_may_let_nothing_through(layer):
    text = (
        'layer { name: "x" type: "Input" top: "x" top: "s" input_param { shape { dim: 4 dim: 2 dim: 5 dim: 5 } shape { dim: 4 } } }\n'
        'layer { name: "t" type: "Input" top: "t" input_param { shape { dim: 4 } } }\n'
        'layer { name: "f" type: "Filter" bottom: "x" bottom: "t" bottom: "s" top: "f" top: "labels" }\n'
        'layer { name: "c" type: "Convolution" bottom: "f" top: "c" convolution_param { num_output: 3 kernel_size: 3'
        ' weight_filler { type: "gaussian" } } }\n'
        f'layer {{ name: "m" bottom: "c" top: "m" {layer} }}\n'
        + ip("a", "m", "a")
        + 'layer { name: "l" type: "SoftmaxWithLoss" bottom: "a" bottom: "labels" top: "l" }'
    )
    net = make(text)
    statistics = [blob.data.copy() for blob in net.params.get("m", ())]
    net.forward(s=np.zeros(4), x=np.ones((4, 2, 5, 5)))
    net.backward()
    assert net.loss == 0
    assert all(not param.blob.diff.any() for param in net.learnable if param.lr_mult)
    for blob, before in zip(net.params.get("m", ()), statistics):
        np.testing.assert_array_equal(blob.data, before)
    net.forward(s=np.array([1, 0, 0, 1]))
    assert net.blobs["a"].shape == (2, 2)
    assert np.isfinite(net.loss) and net.loss > 0


@pytest.mark.parametrize("layer", ['type: "Dropout"', 'type: "SPP" spp_param { pool: STOCHASTIC pyramid_height: 2 }'])
def test_another_seed_draws_what_a_net_made_with_it_draws(layer):
    text = (
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 6 dim: 6 } } }\n'
        f'layer {{ name: "y" bottom: "x" top: "y" {layer} }}'
    )
    x = np.random.default_rng(0).random((2, 3, 6, 6))
    net, other = make(text, seed=1), make(text, seed=9)
    first = net.forward(x=x)["y"].copy()
    net.reseed(9)
    np.testing.assert_array_equal(net.forward()["y"], other.forward(x=x)["y"])
    assert (net.blobs["y"].data != first).any()


def test_a_run_that_ends_early_returns_what_its_last_layer_made():
    text = chain_of(("Sigmoid", "a", "a", ""), ("Dropout", "a", "a", ""))
    net = make(text)
    values = {"x": np.ones((4, 3)), "t": np.zeros((4, 2))}
    net.forward(**values)
    assert len(net.versions) == len(net.blobs) + 1
    ended = net.forward(end="l0", blobs=["a", "x"])
    assert (ended["a"] > 0).all() and (ended["a"] < 1).all()
    assert (net.forward(blobs=["a"])["a"] == 0).any()


def test_an_input_that_is_written_anew_is_still_filled_from_outside():
    flat = 'layer { name: "f" type: "Flatten" bottom: "x" top: "f" }\n'
    net = make(HEAD + flat + 'layer { name: "p" type: "Power" bottom: "f" top: "f" power_param { scale: 3 } }')
    out = net.forward(x=np.full((4, 3), 2.0))
    assert (out["f"] == 6).all()
    assert (net.blobs["x"].data == 2).all()


def test_backward_runs_the_steps_that_ran_forward():
    fused, apart = make(CHAIN), make(CHAIN)
    values = {"x": np.ones((4, 3)), "t": np.zeros((4, 2))}
    fused.forward(**values)
    apart.forward(**values)
    apart.forward(start="b")
    for net in (fused, apart):
        net.backward()
    for mine, theirs in zip(fused.learnable, apart.learnable):
        np.testing.assert_allclose(mine.blob.diff, theirs.blob.diff, rtol=1e-6)


@pytest.mark.parametrize("shape", ["dim: 0 dim: 9223372036854775807", "dim: 9223372036854775807"])
def test_a_shape_that_no_array_can_have_is_an_error_at_its_layer(shape):
    text = f'layer {{ name: "in" type: "Input" top: "x" input_param {{ shape {{ {shape} }} }} }}'
    with pytest.raises(ShapeError, match='"x": no array can have the shape') as caught:
        Net(prototxt.parse(text, pb.NetParameter), pb.TEST)
    assert caught.value.layer == "in"
