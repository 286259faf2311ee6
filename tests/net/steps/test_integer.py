"""Layers with whole numbers against the same integers computed layer by layer in NumPy."""

import numpy as np
import pytest

from sslnet import Net, Predictor
from sslnet import sslnet_pb2 as pb
from sslnet.errors import DefinitionError, UsageError
from sslnet.net.steps.integer import IntegerStep
from sslnet.prototxt import parse

NET = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 4 dim: 3 dim: 15 dim: 17 } } }
layer { name: "c1" type: "Convolution" bottom: "data" top: "c1"
  convolution_param { num_output: 18 kernel_size: 5 pad: 2 weight_filler { type: "msra" } bias_filler { type: "gaussian" std: 0.3 } }
  quantization_param { weight_bits: 7 input_range { min: -3 max: 3.5 } output_range { max: 5 } } }
layer { name: "r1" type: "ReLU" bottom: "c1" top: "c1" }
layer { name: "p1" type: "Pooling" bottom: "c1" top: "p1" pooling_param { kernel_size: 3 stride: 2 } }
layer { name: "c2" type: "Convolution" bottom: "p1" top: "c2"
  convolution_param { num_output: 18 group: 2 kernel_size: 3 pad: 1 bias_term: false weight_filler { type: "msra" } }
  quantization_param { weight_bits: 4 output_range { min: -4 max: 5 } } }
layer { name: "e" type: "Eltwise" bottom: "c2" bottom: "p1" top: "e"
  eltwise_param { coeff: 1 coeff: 0.5 } quantization_param { output_range { min: -2 max: 6 } } }
layer { name: "r2" type: "ReLU" bottom: "e" top: "r2" relu_param { negative_slope: 0.25 } }
layer { name: "n" type: "LRN" bottom: "r2" top: "n" }
layer { name: "a" type: "Pooling" bottom: "r2" top: "a"
  pooling_param { pool: AVE kernel_size: 2 stride: 2 } quantization_param { output_range { min: -1 max: 4 } } }
layer { name: "ip" type: "InnerProduct" bottom: "a" top: "ip"
  inner_product_param { num_output: 10 weight_filler { type: "msra" } bias_filler { type: "gaussian" std: 0.3 } }
  quantization_param { weight_bits: 8 } }
layer { name: "sm" type: "Softmax" bottom: "ip" top: "sm" }
"""
BLOBS = ("c1", "p1", "c2", "e", "r2", "n", "a", "ip", "sm")


def definition(text=NET):
    return parse(text, pb.NetParameter, None)


def images(seed=0):
    return np.random.default_rng(seed).standard_normal((4, 3, 15, 17)).astype(np.float32)


class Scale:
    def __init__(self, low, high, bits=8):
        self.top = 2**bits - 1
        self.step = np.float32((high - low) / self.top)
        self.zero = int(np.clip(np.rint(-low / self.step.astype(np.float64)), 0, self.top))

    def put(self, values):
        """Values in steps to bytes."""
        return np.clip(np.rint(values), -self.zero, self.top - self.zero).astype(np.int64) + self.zero

    def floats(self, q):
        return (q - self.zero).astype(np.float32) * self.step


def integers(weights, bits):
    rows = weights.reshape(len(weights), -1).astype(np.float64)
    steps = (np.abs(rows).max(axis=1) / (2 ** (bits - 1) - 1)).astype(np.float32)
    return np.rint(rows / steps[:, None].astype(np.float64)).astype(np.int64).reshape(weights.shape), steps


def conv(x, source, weights, bias, bits, target, pad, groups=1):
    """x (N, C, H, W) bytes."""
    w, steps = integers(weights, bits)
    unit = source.step.astype(np.float64) * steps
    x = np.pad(x - source.zero, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    n, k, each = len(w), w.shape[2], w.shape[1]
    height, width = x.shape[2] - k + 1, x.shape[3] - k + 1
    total = np.zeros((len(x), n, height, width), np.int64)
    total += np.rint(bias / unit).astype(np.int64)[:, None, None] if bias is not None else 0
    for f in range(n):
        g = f // (n // groups)
        for i in range(k):
            for j in range(k):
                part = x[:, g * each : (g + 1) * each, i : i + height, j : j + width]
                total[:, f] += np.einsum("nchw,c->nhw", part, w[f, :, i, j])
    if target is None:
        return total.astype(np.float32) * unit.astype(np.float32)[:, None, None]
    return target.put(
        total.astype(np.float32) * (unit / target.step.astype(np.float64)).astype(np.float32)[:, None, None]
    )


def windows(x, size, stride, how):
    height, width = (-(-(n - size) // stride) + 1 for n in x.shape[2:])
    out = np.zeros((*x.shape[:2], height, width), np.float64)
    for i in range(height):
        for j in range(width):
            part = x[:, :, i * stride : i * stride + size, j * stride : j * stride + size].astype(np.float64)
            out[:, :, i, j] = how(part)
    return out


def expected(net, x):
    """Blobs of the net as the definition of whole numbers says: {name: float values}."""
    w = {name: [b.data for b in blobs] for name, blobs in net.params.items()}
    s0, s1, s2, se, sa = Scale(-3, 3.5), Scale(0, 5), Scale(-4, 5), Scale(-2, 6), Scale(-1, 4)
    q0 = s0.put(x / s0.step)
    c1 = conv(q0, s0, w["c1"][0], w["c1"][1], 7, s1, 2)
    p1 = windows(c1, 3, 2, lambda part: part.max(axis=(2, 3))).astype(np.int64)
    c2 = conv(p1, s1, w["c2"][0], None, 4, s2, 1, groups=2)
    products = [
        (q - s.zero).astype(np.float32) * np.float32(f * float(s.step) / float(se.step))
        for q, s, f in ((c2, s2, 1.0), (p1, s1, 0.5))
    ]
    e = se.put(products[0] + products[1])
    values = se.floats(e)
    r2 = se.put(np.where(values > 0, values, values * np.float32(0.25)) / se.step)
    total = windows(r2 - se.zero, 2, 2, lambda part: part.sum(axis=(2, 3)))
    count = windows(np.ones_like(r2), 2, 2, lambda part: part.sum(axis=(2, 3)))
    a = sa.put(total.astype(np.float32) * (float(se.step) / float(sa.step) / count).astype(np.float32))
    flat = a.reshape(len(a), -1, 1, 1)
    ip = conv(flat, sa, w["ip"][0][:, :, None, None], w["ip"][1], 8, None, 0)[:, :, 0, 0]
    return {"c1": s1.floats(c1), "p1": s1.floats(p1), "c2": s2.floats(c2), "e": se.floats(e), "r2": se.floats(r2),
            "a": sa.floats(a), "ip": ip}  # fmt: skip


@pytest.mark.parametrize("lean", [False, True])
def test_every_blob_is_that_of_numpy(lean):
    net = Net(definition(), seed=1, lean=lean)
    x = images()
    found = net.forward(list(BLOBS), data=x) if lean else net.forward(data=x) and {b: net.blobs[b].data for b in BLOBS}
    for name, wanted in expected(net, x).items():
        np.testing.assert_array_equal(found[name], wanted, err_msg=name)
    exponents = np.exp(found["ip"].astype(np.float64))
    np.testing.assert_allclose(found["sm"], exponents / exponents.sum(axis=1, keepdims=True), rtol=1e-5)


def test_all_layers_between_the_first_and_the_last_are_in_bytes():
    net = Net(definition(), seed=1)
    steps = {net.layer_names[i]: step for i, step in enumerate(net.plan(fused=True).steps)}
    inside = {name for name, step in steps.items() if isinstance(step, IntegerStep)}
    assert inside == {"c1", "r1", "p1", "c2", "e", "r2", "a", "ip"}
    assert steps["c1"].kernel.endswith("from float") and steps["ip"].kernel.endswith("to float")
    assert steps["r1"].kernel == "u8 joined" and steps["r2"].kernel == "u8 table"


def test_parts_of_a_net_read_what_blobs_show():
    net, x = Net(definition(), seed=1), images()
    net.forward(data=x)
    before = {name: net.blobs[name].data.copy() for name in BLOBS}
    net.forward(start="c2")
    for name in BLOBS:
        np.testing.assert_array_equal(net.blobs[name].data, before[name], err_msg=name)
    net.forward(end="p1", data=images(1))
    other = net.blobs["p1"].data.copy()
    assert (other != before["p1"]).any()
    net.blobs["p1"].data[...] = before["p1"]
    net.forward(start="c2")
    np.testing.assert_array_equal(net.blobs["sm"].data, before["sm"])
    net.forward(data=x)
    net.blobs["c2"].data[...] = 0
    net.forward(start="e", end="e")
    assert (net.blobs["e"].data != before["e"]).any()


def test_changed_weights_and_batches_take_effect():
    net, x = Net(definition(), seed=1), images()
    net.forward(data=x)
    net.params["c2"][0].data[...] *= -1
    net.forward(data=x)
    np.testing.assert_array_equal(net.blobs["ip"].data, expected(net, x)["ip"])
    net.blobs["data"].reshape(2, 3, 15, 17)
    net.reshape()
    net.forward(data=x[:2])
    np.testing.assert_array_equal(net.blobs["ip"].data, expected(net, x)["ip"][:2])


def test_predictor_and_saved_weights_give_the_same_bits(tmp_path):
    net, x = Net(definition(), seed=1), images()
    wanted = net.forward(data=x)["sm"].copy()
    path = tmp_path / "w.caffemodel"
    net.save(path)
    model = tmp_path / "net.prototxt"
    model.write_text(NET)
    predict = Predictor(str(model), str(path), outputs=["sm", "e"])
    for _ in range(2):
        np.testing.assert_array_equal(predict(x)["sm"], wanted)
    np.testing.assert_array_equal(predict(x)["e"], net.blobs["e"].data)


def test_training_and_double_precision_run_in_float():
    train = Net(definition(), phase=pb.TRAIN, seed=1)
    double = Net(definition(), seed=1, dtype=np.float64)
    for net in (train, double):
        assert not any(isinstance(step, IntegerStep) for step in net.plan(fused=True).steps)
    train.forward(data=images())
    train.backward()


def test_backward_is_refused_in_phase_test():
    net = Net(definition().with_message(_forced()), seed=1)
    net.forward(data=images())
    with pytest.raises(UsageError, match="no gradient"):
        net.backward()


def _forced():
    message = pb.NetParameter()
    message.CopyFrom(definition().message)
    message.force_backward = True
    return message


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("input_range { min: -3 max: 3.5 }", "", "input_range is missing"),
        ("weight_bits: 4", "weight_bits: 9", "weight_bits must be 2 to 8, not 9"),
        ("output_range { max: 5 }", "output_range { min: 1 max: 5 }", "a range holds 0"),
        ("output_range { min: -4 max: 5 }", "output_range { }", "a range holds 0"),
        ("weight_bits: 7", "activation_bits: 1", "activation_bits must be 2 to 8, not 1"),
    ],
)
def test_wrong_fields_are_named(old, new, message):
    assert old in NET
    net = Net(definition(NET.replace(old, new)), seed=1)
    with pytest.raises(DefinitionError, match=message):
        net.forward(data=images())


def test_layers_without_an_integer_kernel_are_named():
    text = NET.replace('type: "Convolution" bottom: "p1"', 'type: "Deconvolution" bottom: "p1"')
    with pytest.raises(DefinitionError, match="a Deconvolution of this kind"):
        Net(definition(text), seed=1).forward(data=images())


def test_weights_small_beside_their_bias():
    """Sums stay within 32 bits: the step of such a filter grows; a filter of zeros gives its bias."""
    net = Net(definition(), seed=1)
    net.params["c1"][0].data[0] *= 1e-12
    net.params["c1"][0].data[1] = 0
    net.params["c1"][1].data[:2] = 3
    net.forward(data=images())
    np.testing.assert_allclose(net.blobs["c1"].data[:, :2], 3, atol=5 / 255)


@pytest.mark.parametrize("lean", [False, True])
def test_repeated_runs_as_tapes(lean):
    """From the second run on a pass may be native code: every blob, and every change, is as in the first run."""
    net = Net(definition(), seed=1, lean=lean)
    asked = list(BLOBS) if lean else None
    for turn in range(5):
        x = images(turn)
        if turn == 3:
            net.params["c2"][0].data[...] *= -1
        found = net.forward(asked, data=x)
        wanted = expected(net, x)
        for name in wanted:
            got = found[name] if lean else net.blobs[name].data
            np.testing.assert_array_equal(got, wanted[name], err_msg=f"{name}, run {turn}")
    assert net.plan(fused=True).taped is not None
