"""Quantisation after training: folding, ranges, rounding, the files, and the command."""

import json

import numpy as np
import pytest

import sslnet
from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.cli import main
from sslnet.compress.quantization.bit_widths import BitWidths, parse_bits, parse_layers
from sslnet.compress.quantization.fold import fold_affine
from sslnet.compress.quantization.ranges import least_error
from sslnet.compress.quantization.rounding import nearest, second_order, steps_of
from sslnet.errors import RunError, UsageError
from sslnet.kernels.quantized.dot import best_weight_bits
from sslnet.net.net import Net
from sslnet.net.steps.integer import IntegerStep
from sslnet.net.weights import read_weights

NET = """
name: "small"
layer { name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {
  shape { dim: 8 dim: 3 dim: 12 dim: 12 } shape { dim: 8 }
  data_filler { type: "gaussian" std: 1 } data_filler { type: "constant" value: 1 } } }
layer { name: "c1" type: "Convolution" bottom: "data" top: "c1"
  convolution_param { num_output: 12 kernel_size: 3 pad: 1 bias_term: false weight_filler { type: "msra" } } }
layer { name: "b1" type: "BatchNorm" bottom: "c1" top: "c1" }
layer { name: "s1" type: "Scale" bottom: "c1" top: "c1" scale_param { bias_term: true } }
layer { name: "r1" type: "ReLU" bottom: "c1" top: "c1" }
layer { name: "p1" type: "Pooling" bottom: "c1" top: "p1" pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "c2" type: "Convolution" bottom: "p1" top: "c2"
  convolution_param { num_output: 12 kernel_size: 3 pad: 1 group: 2 weight_filler { type: "msra" } } }
layer { name: "b2" type: "BatchNorm" bottom: "c2" top: "b2" }
layer { name: "c3" type: "Convolution" bottom: "p1" top: "c3"
  convolution_param { num_output: 12 kernel_size: 1 weight_filler { type: "msra" } } }
layer { name: "sum" type: "Eltwise" bottom: "b2" bottom: "c3" top: "sum" }
layer { name: "r2" type: "ReLU" bottom: "sum" top: "r2" }
layer { name: "cat" type: "Concat" bottom: "r2" bottom: "p1" top: "cat" }
layer { name: "n" type: "LRN" bottom: "cat" top: "n" }
layer { name: "c4" type: "Convolution" bottom: "n" top: "c4"
  convolution_param { num_output: 6 kernel_size: 3 weight_filler { type: "msra" } } }
layer { name: "p2" type: "Pooling" bottom: "c4" top: "p2" pooling_param { pool: AVE global_pooling: true } }
layer { name: "ip" type: "InnerProduct" bottom: "p2" top: "ip"
  inner_product_param { num_output: 4 weight_filler { type: "msra" } } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> tuple[str, str]:
    """The net with random statistics and biases: (definition, weights)."""
    folder = tmp_path_factory.mktemp("quantize")
    (folder / "net.prototxt").write_text(NET)
    net = Net(folder / "net.prototxt", seed=3)
    random = np.random.default_rng(0)
    for name in ("b1", "b2"):
        net.params[name][0].data[...] = random.standard_normal(12)
        net.params[name][1].data[...] = random.uniform(0.5, 2, 12)
        net.params[name][2].data[...] = 1
    net.params["s1"][0].data[...] = random.uniform(0.5, 2, 12) * random.choice([-1, 1], 12)
    net.params["s1"][1].data[...] = random.standard_normal(12)
    for name in ("c2", "c3", "c4", "ip"):
        net.params[name][1].data[...] = random.standard_normal(net.params[name][1].shape) * 0.2
    net.save(folder / "w.caffemodel")
    return str(folder / "net.prototxt"), str(folder / "w.caffemodel")


def outputs(net: Net, x: np.ndarray, *names: str) -> list[np.ndarray]:
    net.blobs["data"].data[...] = x
    net.forward(start=net.layer_names[1])
    return [net.blobs[name].data.copy() for name in names]


def images() -> np.ndarray:
    return np.random.default_rng(5).standard_normal((8, 3, 12, 12)).astype(np.float32)


def test_folded_layers_leave_the_function_unchanged(files):
    net = Net(*files)
    folded = fold_affine(net, net.definition.message, read_weights(files[1]))
    assert folded.names == ["b1", "s1", "b2"]
    small = Net(folded.message)
    for name, values in folded.arrays.items():
        for blob, value in zip(small.params[name], values, strict=True):
            blob.data[...] = value
    for before, after in zip(outputs(net, images(), "c1", "b2", "ip"), outputs(small, images(), "c1", "b2", "ip")):
        np.testing.assert_allclose(after, before, atol=2e-5 * np.abs(before).max())


def test_a_layer_between_prevents_folding():
    text = NET.replace(
        'layer { name: "b1"', 'layer { name: "other" type: "Pooling" bottom: "c1" top: "o" }\nlayer { name: "b1"', 1
    ).replace('top: "o" }', 'top: "o" pooling_param { kernel_size: 2 } }')
    net = Net(prototxt.parse(text, pb.NetParameter), seed=0)
    assert fold_affine(net, net.definition.message, {n: [b.data for b in p] for n, p in net.params.items()}).names == [
        "b2"
    ]


@pytest.mark.parametrize("bits", ["8/8", "7/8", "4/8", "8/6"])
def test_the_quantised_net_is_near_the_float_net(files, bits):
    result = sslnet.quantize(*files, images=30, bits=bits)
    small = result.net()
    wanted, found = (outputs(net, images(), "ip")[0] for net in (Net(*files), small))
    change = np.sqrt(((wanted - found) ** 2).mean() / (wanted**2).mean())
    assert change < {"8/8": 0.012, "7/8": 0.015, "4/8": 0.1, "8/6": 0.05}[bits]
    steps = {small.layer_names[i]: step for i, step in enumerate(small.plan(fused=True).steps)}
    inside = {name for name, step in steps.items() if isinstance(step, IntegerStep)}
    assert inside == {"c1", "r1", "p1", "c2", "c3", "sum", "r2", "cat", "c4", "p2", "ip"}
    assert result.details.islands == [("n", "LRN")]
    assert [str(layer.bits) for layer in result.details.layers] == [bits] * 5
    for layer in result.details.layers:
        assert layer.noise is not None and layer.noise > {"8": 35, "7": 30, "4": 8}[bits[0]], layer


def test_files_hold_numbers_and_give_the_same_bits(files, tmp_path):
    result = sslnet.quantize(*files, images=10, bits="4/8")
    paths = result.save(tmp_path / "q")
    assert set(paths) == {"model", "deploy", "weights"}
    for layer in result.weights.layer:
        assert layer.blobs[0].packed.bits == 4 and not layer.blobs[0].data
    again = Net(paths["model"], paths["weights"])
    np.testing.assert_array_equal(outputs(again, images(), "ip")[0], outputs(result.net(), images(), "ip")[0])
    again.save(tmp_path / "again.caffemodel")
    third = Net(paths["model"], str(tmp_path / "again.caffemodel"))
    np.testing.assert_array_equal(outputs(third, images(), "ip")[0], outputs(again, images(), "ip")[0])
    saved = pb.NetParameter.FromString((tmp_path / "again.caffemodel").read_bytes())
    assert all(layer.blobs[0].packed.bits == 4 for layer in saved.layer if layer.blobs)
    predict = sslnet.Predictor(paths["deploy"], paths["weights"])
    scores = outputs(again, images(), "ip")[0].astype(np.float64)
    exponents = np.exp(scores - scores.max(axis=1, keepdims=True))
    (probabilities,) = predict(images()).values()
    np.testing.assert_allclose(probabilities, exponents / exponents.sum(axis=1, keepdims=True), rtol=1e-5)


def test_layers_with_bits_of_their_own(files):
    result = sslnet.quantize(*files, images=10, bits=8, layers={"c2": "4/8", "c4": "float"}, target="any")
    assert {layer.name: str(layer.bits) for layer in result.details.layers} == {
        "c1": "7/8", "c2": "4/8", "c3": "7/8", "c4": "None", "ip": "7/8",
    }  # fmt: skip
    assert {name for name, _ in result.details.islands} == {"n", "c4", "p2"}
    outputs(result.net(), images(), "ip")


def test_second_order_rounding_lowers_the_error_of_the_outputs():
    random = np.random.default_rng(0)
    x = random.standard_normal((500, 40)) @ random.standard_normal((40, 40))
    rows = random.standard_normal((10, 40)).astype(np.float32)
    steps = steps_of(rows, 4, clip=True)
    moments = x.T @ x / len(x)
    near, best = nearest(rows, steps, 4), second_order(rows, steps, moments, 4)
    errors = [float(((x @ (found - rows).T) ** 2).sum()) for found in (near, best)]
    assert errors[1] < 0.6 * errors[0]
    for found in (near, best):
        numbers = found / steps[:, None]
        np.testing.assert_allclose(numbers, np.rint(numbers), atol=1e-4)
        assert np.abs(numbers).max() <= 7.001


def test_second_order_rounding_is_the_sequential_rule():
    """Column by column, as the paper's algorithm states it, with the inverse of the remaining moments each time."""
    random = np.random.default_rng(1)
    x = random.standard_normal((60, 9))
    moments = x.T @ x / len(x)
    rows = random.standard_normal((3, 9)).astype(np.float32)
    steps = steps_of(rows, 3, clip=False)
    order = np.argsort(-moments.diagonal(), kind="stable")
    h = moments[np.ix_(order, order)] + 0.01 * moments.diagonal().mean() * np.eye(9)
    left, wanted = rows[:, order].astype(np.float64), np.zeros((3, 9))
    for j in range(9):
        inverse = np.linalg.inv(h[j:, j:])
        wanted[:, j] = np.clip(np.rint(left[:, j] / steps), -3, 3) * steps
        left[:, j:] -= np.outer((left[:, j] - wanted[:, j]) / inverse[0, 0], inverse[0])
    found = second_order(rows, steps, moments, 3)
    np.testing.assert_allclose(found[:, order], wanted, rtol=1e-5, atol=1e-6)


def test_ranges_with_the_least_error():
    counts = np.ones(1000)
    counts[-1] = 1
    assert least_error(counts, 0, 1, 8) == (0, 1)
    narrow = np.exp(-np.linspace(0, 30, 1000))
    low, high = least_error(narrow, 0, 30, 4)
    assert low == 0 and high < 15


def test_bits():
    assert parse_bits("8", "vnni") == BitWidths(8, 8)
    assert parse_bits("8", "avx2") == BitWidths(7, 8) == parse_bits("8", "any")
    assert parse_bits("8", "this").weights == best_weight_bits()
    assert parse_bits("8/8", "avx2") == BitWidths(8, 8) and parse_bits("4", "any") == BitWidths(4, 4)
    assert parse_layers(["a=4/8", "b=float", "x=y=8/6"], "any") == {
        "a": BitWidths(4, 8), "b": None, "x=y": BitWidths(8, 6),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bits": "9"}, "2 to 8"),
        ({"bits": "4/8/8"}, "2 to 8"),
        ({"bits": "four"}, "2 to 8"),
        ({"images": 0}, "at least 1"),
        ({"layers": {"c9": 4}}, 'no layer "c9"'),
        ({"layers": {"b1": 4}}, 'no layer "b1"'),
        ({"range": "kl"}, "range must be one of"),
        ({"rounding": "up"}, "rounding must be one of"),
        ({"target": "mars"}, "target must be one of"),
    ],
)
def test_wrong_arguments(files, arguments, message):
    with pytest.raises(UsageError, match=message):
        sslnet.quantize(*files, **arguments)


def test_nets_that_cannot_be_quantised(files, tmp_path):
    deploy = tmp_path / "deploy.prototxt"
    deploy.write_text('layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 12 dim: 12 } } }\n'
                      + NET[NET.index('layer { name: "c1"') : NET.index('layer { name: "accuracy"')])  # fmt: skip
    with pytest.raises(UsageError, match="no data in phase TRAIN"):
        sslnet.quantize(str(deploy), files[1])
    once = sslnet.quantize(*files, images=5)
    with pytest.raises(UsageError, match="quantised already"):
        sslnet.quantize(once)


def test_command(files, tmp_path, capsys):
    model, weights = files
    prefix = str(tmp_path / "q")
    arguments = ["quantize", "--model", model, "--weights", weights, "--calibrate", "10", "--output", prefix,
                 "--iterations", "2", "--threads", "1"]  # fmt: skip
    assert main([*arguments, "--bits", "4/8", "--sweep"]) == 0
    text = capsys.readouterr().out
    for word in ("Each layer quantised alone", "second-order", "n (LRN)", "test error", "ms, 16 images", "b1, s1, b2"):
        assert word in text
    assert main([*arguments, "--bits", "8", "--json", "--no-test"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["test"] is None and [row["name"] for row in found["layers"]] == ["c1", "c2", "c3", "c4", "ip"]
    assert found["times"][0]["batch"] == 1 and found["float_between"] == [{"name": "n", "type": "LRN"}]
    assert (
        main(["test", "--model", prefix + ".prototxt", "--weights", prefix + ".caffemodel", "--iterations", "2"]) == 0
    )
    assert (
        main(
            [
                "time",
                "--phase",
                "TEST",
                "--forward-only",
                "--model",
                prefix + "_deploy.prototxt",
                "--weights",
                prefix + ".caffemodel",
                "--iterations",
                "2",
            ]
        )
        == 0
    )
    assert "from float" in capsys.readouterr().out


def test_target_error(files, tmp_path, capsys):
    model, weights = files
    arguments = ["quantize", "--model", model, "--weights", weights, "--calibrate", "10", "--bits", "2/8", "--iterations", "2",
                 "--output", str(tmp_path / "q"), "--threads", "1", "--json"]  # fmt: skip
    assert main([*arguments, "--target-error", "99"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {row["bits"]["weights"] for row in found["layers"]} == {2}
    assert main([*arguments, "--target-error", "-1"]) == 2
    assert main([*arguments, "--target-error", "1", "--no-test"]) == 2


def test_a_target_that_cannot_be_reached(files):
    from sslnet.compress.quantization.quantize import prepare
    from sslnet.compress.quantization.sensitivity import choose_bits, sweep

    calibration = prepare(*files, images=8)
    ways = {"method": "minmax", "rounding": "nearest"}
    costs = sweep(calibration, BitWidths(2, 8), {}, **ways)
    assert all(cost.change > 0 and cost.saved > 0 for cost in costs)

    def error(result):
        return 0.1 * sum(layer.bits.weights == 2 for layer in result.layers)

    result = choose_bits(calibration, BitWidths(2, 8), {}, costs, error, 0.25, 8, **ways)
    raised = {layer.name for layer in result.layers if layer.bits.weights == 8}
    worst = sorted(costs, key=lambda cost: -cost.change)[:3]
    assert raised == {cost.name for cost in worst}
    with pytest.raises(RunError, match="the target is"):
        choose_bits(calibration, BitWidths(2, 8), {}, costs, lambda result: 1.0, 0.25, 8, **ways)


def test_compaction_removes_rows_and_columns_of_the_numbers(files, tmp_path):
    """Filters of zeros go, with what reads them; the other numbers stay, so that the outputs are the same bits."""
    quantised = sslnet.quantize(*files, images=20, bits="4/8", layers={"c2": "float"})
    net = quantised.net()
    for name, filters in (("c4", [1, 4]), ("c1", [])):
        net.params[name][0].data[filters] = 0
        net.params[name][1].data[filters] = 0
    before = outputs(net, images(), "ip")[0]
    paths = sslnet.compact(net).save(tmp_path / "small")
    small = Net(paths["model"], paths["weights"])
    assert small.params["c4"][0].shape[0] == 4 and small.params["ip"][0].shape == (4, 4)
    np.testing.assert_array_equal(outputs(small, images(), "ip")[0], before)
    saved = pb.NetParameter.FromString((tmp_path / "small.caffemodel").read_bytes())
    packed = {layer.name for layer in saved.layer if layer.blobs[0].HasField("packed")}
    assert packed == {"c1", "c3", "c4", "ip"}
