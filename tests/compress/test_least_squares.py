"""Least squares after pruning: where other channels can stand for a removed one, the net computes what it did before."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.compress.pruning.calibration import CalibrationSet
from sslnet.compress.pruning.prune_channels import Pruner, prune_channels
from sslnet.compress.pruning.repair.fit import RIDGES, fit
from sslnet.errors import UsageError
from sslnet.net.net import Net

INPUT = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 8 dim: 8 } } }'


def layer(name: str, kind: str, bottom: str, top: str, more: str = "") -> str:
    return f'layer {{ name: "{name}" type: "{kind}" bottom: "{bottom}" top: "{top}" {more} }}\n'


def conv(name: str, bottom: str, outputs: int, kernel: int = 3, more: str = "") -> str:
    pad = kernel // 2
    window = f"num_output: {outputs} kernel_size: {kernel} pad: {pad} {more}"
    return layer(name, "Convolution", bottom, name, f"convolution_param {{ {window} }}")


CONV = conv("a", "data", 4) + layer("relu", "ReLU", "a", "a")
READERS = {
    "Convolution": conv("r", "a", 5) + layer("sig", "Sigmoid", "r", "r"),
    "strided, dilated": conv("r", "a", 5, more="stride: 2 dilation: 2"),
    "Deconvolution": layer(
        "r", "Deconvolution", "a", "r", "convolution_param { num_output: 5 kernel_size: 3 stride: 2 }"
    ),
    "InnerProduct": layer("r", "InnerProduct", "a", "r", "inner_product_param { num_output: 5 }"),
    "transposed": layer("r", "InnerProduct", "a", "r", "inner_product_param { num_output: 5 transpose: true }"),
    "two readers": conv("p", "a", 3) + conv("q", "a", 3, 1) + layer("r", "Concat", "p", "r", 'bottom: "q"'),
    "no bias, BatchNorm": conv("r", "a", 5, more="bias_term: false") + layer("bn", "BatchNorm", "r", "r"),
    "residual sum": conv("b", "a", 4) + layer("r", "Eltwise", "a", "r", 'bottom: "b"'),
}
OUT = layer("out", "InnerProduct", "r", "out", "inner_product_param { num_output: 3 }")


@pytest.fixture
def make() -> Callable[[str], Net]:
    def make(text: str) -> Net:
        net = Net(prototxt.parse(INPUT + text, pb.NetParameter), seed=0)
        random = np.random.default_rng(1)
        for param in net.learnable:
            blob = param.blob
            blob.data[...] = random.standard_normal(blob.shape) / np.sqrt(max(1, blob.count // max(1, blob.shape[0])))
            if param.layer.TYPE == "BatchNorm":
                blob.data[...] = np.abs(blob.data) + 0.5
        return net

    return make


@pytest.fixture
def images() -> CalibrationSet:
    return CalibrationSet({"data": np.random.default_rng(2).standard_normal((300, 3, 8, 8)).astype(np.float32)})


def outputs(net: Net, count: int = 2) -> np.ndarray:
    data = np.random.default_rng(9).standard_normal((count, 3, 8, 8))
    return net.forward(data=data)["out"].copy()


@pytest.mark.parametrize("reader", READERS)
def test_channel_that_is_a_multiple_of_another_is_replaced_by_it(
    reader: str, make: Callable[[str], Net], images: CalibrationSet
) -> None:
    """Behind ReLU, channel 3 is twice channel 1: the fitted readers take it from there. With a residual sum both layers
    make it so."""
    net = make(CONV + READERS[reader] + OUT)
    for name in [name for name in ("a", "b") if name in net.params]:
        for blob in net.params[name]:
            blob.data[3] = 2 * blob.data[1]
    before = outputs(net)
    pruner = Pruner(net, images=images)
    gone = np.zeros(pruner.channels.count, np.bool_)
    gone[pruner.channels.tops[net.layer_names.index("a")][3]] = True
    fits = pruner.fits
    pruner.channels.clear(gone)
    cut = np.abs(outputs(net) - before).max()
    repaired = fits.repair(gone)
    left = np.abs(outputs(net) - before).max()
    assert cut > 0.05 and left < 0.02 * cut, (cut, left)
    assert all(entry.after <= entry.before for entry in repaired)
    assert fits.output_error() < 1e-3


def test_channels_of_a_convolution_with_groups_are_replaced_inside_their_group(
    make: Callable[[str], Net], images: CalibrationSet
) -> None:
    net = make(CONV + conv("r", "a", 6, more="group: 2") + layer("sig", "Sigmoid", "r", "r") + OUT)
    for blob in net.params["a"]:
        blob.data[1], blob.data[3] = 2 * blob.data[0], 3 * blob.data[2]
    before = outputs(net)
    pruner = Pruner(net, images=images)
    units = pruner.channels.tops[net.layer_names.index("a")]
    gone = np.arange(pruner.channels.count) == units[1]
    assert units[1] == units[3] != units[0]
    scores, fits = pruner.scores("reconstruction"), pruner.fits
    assert scores[units].min() < 1e-2 * np.delete(scores, units).max()
    pruner.channels.clear(gone)
    cut = np.abs(outputs(net) - before).max()
    fits.repair(gone)
    assert np.abs(outputs(net) - before).max() < 0.02 * cut


def test_fit_is_the_minimiser_of_the_ridge_problem() -> None:
    random = np.random.default_rng(3)
    x, w = random.standard_normal((1, 200, 6)) + 1, random.standard_normal((1, 6, 2))
    y = x @ random.standard_normal((1, 6, 2)) + 0.5 + 0.1 * random.standard_normal((1, 200, 2))
    old = np.zeros((1, 2))
    found = fit(x.astype(np.float32), y.astype(np.float32), w, old, intercept=True)
    xc, yc = x[0] - x[0].mean(axis=0), y[0] - y[0].mean(axis=0)
    closest = np.inf
    for ridge in RIDGES:
        size = ridge * np.trace(xc.T @ xc) / 6
        rows = np.vstack([xc, np.sqrt(size) * np.eye(6)])
        wanted = np.linalg.lstsq(rows, np.vstack([yc, np.sqrt(size) * w[0]]), rcond=None)[0]
        closest = min(closest, float(np.abs(found.weights[0] - wanted).max()))
    assert closest < 1e-4
    np.testing.assert_allclose(found.bias[0], y[0].mean(axis=0) - x[0].mean(axis=0) @ found.weights[0], atol=1e-5)
    residual = np.square(x[0] @ found.weights[0] + found.bias[0] - y[0]).sum() / np.square(yc).sum()
    assert found.after == pytest.approx(residual, rel=1e-3) and found.after < found.before


def test_fit_keeps_old_weights_that_are_the_best() -> None:
    random = np.random.default_rng(4)
    x, w, b = random.standard_normal((2, 50, 4)), random.standard_normal((2, 4, 3)), random.standard_normal((2, 3))
    y = x @ w + b[:, None]
    found = fit(x.astype(np.float32), y.astype(np.float32), w, b, intercept=True)
    np.testing.assert_allclose(found.weights, w, atol=1e-4)
    assert found.after <= found.before < 1e-10


def test_fit_of_more_inputs_than_samples_does_not_learn_them_by_heart() -> None:
    """Targets of pure noise: the ridge is chosen so that the fit stays near the old weights, here zero."""
    random = np.random.default_rng(5)
    x, y = random.standard_normal((1, 80, 120)), random.standard_normal((1, 80, 5))
    old = np.zeros((1, 120, 5))
    found = fit(x.astype(np.float32), y.astype(np.float32), old, np.zeros((1, 5)), intercept=True)
    test = random.standard_normal((2000, 120))
    assert np.square(test @ found.weights[0]).mean() < 0.5  # of the smallest ridge: about 1


def test_mean_repair_keeps_the_mean_of_each_layer(make: Callable[[str], Net], images: CalibrationSet) -> None:
    net = make(CONV + READERS["InnerProduct"] + OUT)
    data = images.arrays["data"]
    before = np.concatenate([net.forward(data=data[k : k + 2])["out"].copy() for k in range(0, 300, 2)])
    result = prune_channels(net, target_flops=0.7, by="magnitude", repair="mean", share_out="uniform", images=images)
    after = np.concatenate([net.forward(data=data[k : k + 2])["out"].copy() for k in range(0, 300, 2)])
    np.testing.assert_allclose(after.mean(axis=0), before.mean(axis=0), atol=1e-4)
    assert result.images == 300


def test_statistics_repair_gives_batch_norm_the_moments_of_the_images(
    make: Callable[[str], Net], images: CalibrationSet
) -> None:
    net = make(conv("a", "data", 4) + layer("bn", "BatchNorm", "a", "n") + conv("r", "n", 4) + OUT)
    prune_channels(net, target_flops=0.7, by="magnitude", repair="statistics", share_out="uniform", images=images)
    data = images.arrays["data"]
    made = np.concatenate([net.forward(["a"], data=data[k : k + 2])["a"].copy() for k in range(0, 300, 2)])
    mean, variance, factor = (blob.data for blob in net.params["bn"])
    np.testing.assert_allclose(mean / factor, made.mean(axis=(0, 2, 3)), atol=1e-4)
    np.testing.assert_allclose(variance / factor, made.var(axis=(0, 2, 3)), rtol=1e-3, atol=1e-6)


def test_statistics_repair_says_that_it_needs_batch_norm(make: Callable[[str], Net], images: CalibrationSet) -> None:
    net = make(CONV + READERS["Convolution"] + OUT)
    with pytest.raises(UsageError, match="needs BatchNorm"):
        prune_channels(net, target_flops=0.7, repair="statistics", images=images)
