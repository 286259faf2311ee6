"""Importance criteria against their formulas, computed the slow way; a case for every criterion of the registry."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.compress.pruning.calibration import CalibrationSet
from sslnet.compress.pruning.importance import IMPORTANCES
from sslnet.compress.pruning.prune_channels import Pruner
from sslnet.errors import UsageError
from sslnet.net.net import Net

IMAGES = 8
MODEL = """
layer { name: "data" type: "Input" top: "data" top: "label" input_param { shape { dim: 2 dim: 2 dim: 5 dim: 5 }
        shape { dim: 2 } } }
layer { name: "a" type: "Convolution" bottom: "data" top: "a" convolution_param { num_output: 4 kernel_size: 3 pad: 1 } }
layer { name: "bn" type: "BatchNorm" bottom: "a" top: "a" }
layer { name: "scale" type: "Scale" bottom: "a" top: "a" scale_param { bias_term: true } }
layer { name: "relu" type: "ReLU" bottom: "a" top: "a" }
layer { name: "b" type: "Convolution" bottom: "a" top: "b" convolution_param { num_output: 4 kernel_size: 1 } }
layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "b" top: "sum" }
layer { name: "out" type: "InnerProduct" bottom: "sum" top: "out" inner_product_param { num_output: 3 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "out" bottom: "label" top: "loss" }
"""
"""Channels 0 to 3 of a, b and their sum are one family: a and b make them, b and out read them."""


@pytest.fixture
def net() -> Net:
    net = Net(prototxt.parse(MODEL, pb.NetParameter), seed=0)
    random = np.random.default_rng(1)
    for param in net.learnable:
        param.blob.data[...] = 0.5 * random.standard_normal(param.blob.shape)
    for blob in net.params["bn"]:
        blob.data[...] = np.abs(blob.data) + 0.5
    return net


@pytest.fixture
def images() -> CalibrationSet:
    random = np.random.default_rng(2)
    data = random.standard_normal((IMAGES, 2, 5, 5)).astype(np.float32)
    return CalibrationSet({"data": data, "label": random.integers(0, 3, IMAGES).astype(np.float32)})


class Slow:
    """The net in float64, one image after the other; each blob as it is when its last layer has written it."""

    def __init__(self, net: Net, images: CalibrationSet) -> None:
        self.images = images
        message = prototxt.parse(MODEL, pb.NetParameter).message
        for shape in message.layer[0].input_param.shape:
            shape.dim[0] = 1
        self.net = Net(message, seed=0, dtype=np.float64)
        for name, blobs in net.params.items():
            for mine, theirs in zip(self.net.params[name], blobs):
                mine.data[...] = theirs.data
        self.w = {name: [blob.data for blob in blobs] for name, blobs in self.net.params.items()}

    def run(self, k: int) -> float:
        self.net.forward(data=self.images.arrays["data"][k : k + 1], label=self.images.arrays["label"][k : k + 1])
        return self.net.loss

    def blob(self, name: str) -> np.ndarray:
        """(images, channels, positions)"""
        rows = []
        for k in range(self.images.count):
            self.run(k)
            rows.append(self.net.blobs[name].data[0].reshape(4, -1).copy())
        return np.array(rows)

    def gates(self) -> np.ndarray:
        """Derivatives by a factor on a channel of both makers, by central differences: (images, channels)."""
        result = np.zeros((self.images.count, 4))
        for k in range(self.images.count):
            for c in range(4):
                ends = []
                for factor in (1 + 1e-5, 1 - 1e-5):
                    changed = [self.w["scale"][0], self.w["scale"][1], *self.w["b"]]
                    saved = [array[c].copy() for array in changed]
                    for array in changed:
                        array[c] *= factor
                    ends.append(self.run(k))
                    for array, values in zip(changed, saved):
                        array[c] = values
                result[k, c] = (ends[0] - ends[1]) / 2e-5
        return result


def size(slow: Slow, power: int) -> np.ndarray:
    filters = [np.concatenate([slow.w["a"][0][c].ravel(), slow.w["b"][0][c].ravel()]) for c in range(4)]
    return np.array([np.mean(np.abs(values) ** power) ** (1 / power) for values in filters])


def distances(slow: Slow) -> np.ndarray:
    total = np.zeros(4)
    for name in "ab":
        filters = slow.w[name][0].reshape(4, -1)
        total += [np.mean([np.linalg.norm(f - g) for g in filters]) for f in filters]
    return total


def fluctuation(slow: Slow) -> np.ndarray:
    a, total = slow.blob("a"), slow.blob("sum")
    read = [np.square(slow.w["b"][0][:, c]).sum() for c in range(4)]
    last = [np.square(slow.w["out"][0].reshape(3, 4, -1)[:, c]).sum() for c in range(4)]
    return a.var(axis=(0, 2)) * read + total.var(axis=(0, 2)) * last


def active(slow: Slow) -> np.ndarray:
    """Of a behind its ReLU; of b, which none follows, as it is."""
    return np.mean([(slow.blob(name) > 0).mean(axis=(0, 2)) for name in "ab"], axis=0)


FORMULAS: dict[str, Callable[[Slow], np.ndarray]] = {
    "magnitude": lambda slow: size(slow, 2),
    "magnitude_l1": lambda slow: size(slow, 1),
    "fpgm": distances,
    "fisher": lambda slow: np.square(slow.gates()).mean(axis=0) / 2,
    "taylor": lambda slow: np.abs(slow.gates()).mean(axis=0),
    "fluctuation": fluctuation,
    "activation": active,
    "bn_scale": lambda slow: np.abs(slow.w["scale"][0]),
}
OTHERS = {"random", "reconstruction"}
"""Criteria with tests of their own, below."""


def test_every_criterion_has_a_test() -> None:
    assert FORMULAS.keys() | OTHERS == IMPORTANCES.keys()
    assert all(name == importance.NAME for name, importance in IMPORTANCES.items())


@pytest.mark.parametrize("name", FORMULAS)
def test_scores_are_those_of_the_formula(name: str, net: Net, images: CalibrationSet) -> None:
    found = Pruner(net, images=images).scores(name)
    np.testing.assert_allclose(found, FORMULAS[name](Slow(net, images)), rtol=2e-4)


def test_random_scores_depend_on_the_seed_alone(net: Net, images: CalibrationSet) -> None:
    first, again, other = (Pruner(net, images=images, seed=seed).scores("random") for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).all() and len(set(first)) == 4


def test_reconstruction_removes_what_least_squares_repairs_best() -> None:
    """One reader: the order and the losses are those of fits of all subsets of the inputs by numpy.linalg.lstsq."""
    text = """
    layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 6 } } }
    layer { name: "a" type: "InnerProduct" bottom: "data" top: "a" inner_product_param { num_output: 6 } }
    layer { name: "relu" type: "ReLU" bottom: "a" top: "a" }
    layer { name: "out" type: "InnerProduct" bottom: "a" top: "out" inner_product_param { num_output: 4 } }
    """
    net = Net(prototxt.parse(text, pb.NetParameter), seed=0)
    random = np.random.default_rng(5)
    for param in net.learnable:
        param.blob.data[...] = random.standard_normal(param.blob.shape)
    images = CalibrationSet({"data": random.standard_normal((400, 6)).astype(np.float32)})
    pruner = Pruner(net, images=images)
    scores = pruner.scores("reconstruction")
    seen = images.arrays["data"][: images.count - 64].astype(np.float64)
    a, out = ([blob.data.astype(np.float64) for blob in net.params[name]] for name in ("a", "out"))
    x = np.maximum(seen @ a[0].T + a[1], 0)
    y = x @ out[0].T
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    left, order, losses = list(range(6)), [], []
    while left:
        trials = []
        for unit in left:
            rest = [other for other in left if other != unit]
            fitted = x[:, rest] @ np.linalg.lstsq(x[:, rest], y, rcond=None)[0] if rest else 0 * y
            trials.append(np.square(y - fitted).sum() / np.square(y).sum())
        best = int(np.argmin(trials))
        losses.append(trials[best])
        order.append(left.pop(best))
    np.testing.assert_array_equal(np.argsort(scores), order)
    np.testing.assert_allclose(np.sort(scores), losses, rtol=0.02, atol=2e-3)  # a small ridge


@pytest.mark.parametrize("name", ["fisher", "taylor"])
def test_criteria_of_the_gradient_say_that_they_need_a_loss(name: str, net: Net, images: CalibrationSet) -> None:
    message = prototxt.parse(MODEL, pb.NetParameter).message
    del message.layer[-1]
    with pytest.raises(UsageError, match=f"{name} needs the loss and labels") as error:
        Pruner(Net(message, net.to_proto(), seed=0), images=images).scores(name)
    assert "train_test.prototxt" in error.value.hint


def test_bn_scale_says_that_it_needs_scales() -> None:
    text = """
    layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 6 } } }
    layer { name: "a" type: "InnerProduct" bottom: "data" top: "a" inner_product_param { num_output: 6 } }
    layer { name: "out" type: "InnerProduct" bottom: "a" top: "out" inner_product_param { num_output: 4 } }
    """
    with pytest.raises(UsageError, match="bn_scale needs Scale layers"):
        Pruner(Net(prototxt.parse(text, pb.NetParameter), seed=0)).scores("bn_scale")


def test_scores_do_not_depend_on_what_was_pruned_before(net: Net, images: CalibrationSet) -> None:
    fresh = {name: Pruner(net, images=images).scores(name) for name in sorted(IMPORTANCES)}
    pruner = Pruner(net, images=images)
    for name in sorted(IMPORTANCES, reverse=True):
        result = pruner.prune(target_flops=0.7, by=name, repair="least-squares", share_out="uniform")
        pruner.restore()
        assert result.by == name
        np.testing.assert_array_equal(pruner.scores(name), fresh[name])
