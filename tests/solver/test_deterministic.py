"""With deterministic sums a run gives the same bits with any number of threads; without, the same number repeats itself."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.kernels.runtime.threads import set_deterministic, set_num_threads
from sslnet.solver.solver import Solver

NET = """
layer {{ name: "data" type: "DummyData" top: "data" top: "label"
  dummy_data_param {{ shape {{ dim: 19 dim: 4 dim: 20 dim: 18 }} shape {{ dim: 19 }}
    data_filler {{ type: "gaussian" std: 1 }} data_filler {{ type: "constant" value: 3 }} }} }}
layer {{ name: "conv1" type: "Convolution" bottom: "data" top: "conv1" param {{ group_lasso {{ group: SHAPE }} }}
  convolution_param {{ num_output: 24 kernel_size: 5 pad: 2 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "bn" type: "BatchNorm" bottom: "conv1" top: "bn" }}
layer {{ name: "scale" type: "Scale" bottom: "bn" top: "scale" scale_param {{ bias_term: true }} }}
layer {{ name: "prelu" type: "PReLU" bottom: "scale" top: "prelu" }}
layer {{ name: "norm" type: "LRN" bottom: "prelu" top: "norm" lrn_param {{ local_size: 3 alpha: 0.1 }} }}
layer {{ name: "pool" type: "Pooling" bottom: "norm" top: "pool" pooling_param {{ pool: MAX kernel_size: 2 stride: 2 }} }}
layer {{ name: "conv2" type: "Convolution" bottom: "pool" top: "conv2"
  convolution_param {{ num_output: 40 kernel_size: 3 stride: 2 group: 2 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "relu2" type: "ReLU" bottom: "conv2" top: "conv2" }}
layer {{ name: "up" type: "Deconvolution" bottom: "conv2" top: "up"
  convolution_param {{ num_output: 12 kernel_size: 4 stride: 2 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "drop" type: "Dropout" bottom: "up" top: "up" }}
layer {{ name: "ip1" type: "InnerProduct" bottom: "up" top: "ip1"
  inner_product_param {{ num_output: 150 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "tanh" type: "TanH" bottom: "ip1" top: "ip1" }}
layer {{ name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
  inner_product_param {{ num_output: 10 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }}
layer {{ name: "side" type: "EuclideanLoss" bottom: "ip2" bottom: "ip2" top: "side" loss_weight: 0.1 }}
"""


@pytest.fixture(autouse=True)
def defaults_again() -> Iterator[None]:
    yield
    set_num_threads(None)
    set_deterministic(None)


def run(threads: int, rule: str, plain: bool) -> list[np.ndarray]:
    """All parameters, and the loss, after a few iterations with so many threads."""
    set_num_threads(threads)
    text = (
        f'type: "{rule}" base_lr: 0.01 lr_policy: "fixed" max_iter: 3 weight_decay: 0.001 clip_gradients: 1 '
        f"group_lasso_decay: 0.01 random_seed: 1 snapshot_after_train: false iter_size: 2 "
        f"{'momentum: 0.9' if rule == 'SGD' else ''} net_param {{ {NET.format()} }}"
    )
    solver = Solver(prototxt.parse(text, pb.SolverParameter), plain=plain)
    solver.step(3)
    assert np.isfinite(solver.net.loss)
    return [np.array(solver.net.loss), *(param.blob.data.copy() for param in solver.net.learnable)]


@pytest.mark.parametrize("rule, plain", [("SGD", False), ("SGD", True), ("Adam", False)])
def test_training_gives_the_same_bits_with_any_number_of_threads(rule: str, plain: bool) -> None:
    set_deterministic(True)
    one, two, three = (run(threads, rule, plain) for threads in (1, 2, 3))
    for a, b, c in zip(one, two, three):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)


@pytest.mark.parametrize("threads", [1, 3])
def test_training_with_the_same_number_of_threads_repeats_itself(threads: int) -> None:
    for a, b in zip(run(threads, "SGD", False), run(threads, "SGD", False)):
        np.testing.assert_array_equal(a, b)


def test_sums_of_fixed_parts_are_right() -> None:
    """The same run up to rounding, with and without."""
    usual = run(2, "SGD", False)
    set_deterministic(True)
    for a, b in zip(usual, run(2, "SGD", False)):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
