"""Whatever way a convolution goes, and however its zeros come and go, it computes the same."""

from __future__ import annotations

import numpy as np
import pytest

from sslnet.kernels.conv.adaptive import WAYS, AdaptivePlan
from sslnet.kernels.conv.plan import ConvGeometry
from sslnet.kernels.conv.problem import ConvProblem, Direction

from ..conv_oracle import assert_close, naive_forward
from .sparse.test_conv_sparse import naive_input_grad, operands

G = ConvGeometry(3, 8, 9, 9, 24, 3, 3, pad_h=1, pad_w=1, groups=2)


@pytest.mark.parametrize("way", WAYS)
def test_every_way_computes_the_same_while_zeros_come_and_go(way):
    forward = AdaptivePlan(ConvProblem(Direction.FORWARD, G, relu=True), way)
    input_grad = AdaptivePlan(ConvProblem(Direction.INPUT_GRAD, G, lasting=False), way)
    for seed, zeros in enumerate([(0, 0), (0.5, 0.6), (0.5, 0.9), (0.1, 0.2), (1, 1), (0, 0, 0.95), (0, 0)]):
        x, weights, bias, dy = operands(G, seed, *zeros)
        forward.pack(weights, bias)
        y = np.full(G.output_shape, np.nan, np.float32)
        forward.run(x, y)
        assert_close(y, np.maximum(naive_forward(G, x, weights, bias), 0))
        input_grad.pack(weights)
        dx = np.full(G.input_shape, np.nan, np.float32)
        input_grad.run(dy, dx)
        assert_close(dx, naive_input_grad(G, weights, dy))


def test_estimate_takes_kept_columns_when_nearly_all_are_zero_and_dense_when_none_is():
    large = ConvGeometry(1, 96, 13, 13, 96, 3, 3, pad_h=1, pad_w=1)
    for direction in (Direction.FORWARD, Direction.INPUT_GRAD):
        plan = AdaptivePlan(ConvProblem(direction, large), "estimate")
        plan.pack(operands(large, 0, 0, 0)[1])
        assert not plan.kernel.startswith("kept")
        plan.pack(operands(large, 0, 0.4, 0.9)[1])
        assert plan.kernel.startswith("kept")


def test_a_plan_stays_while_zeros_hardly_change():
    _, weights, _, _ = operands(G, 1, 0.5, 0.6)
    forward = AdaptivePlan(ConvProblem(Direction.FORWARD, G), "kept")
    forward.pack(weights, None)
    loop = forward.loop
    weights[np.nonzero(weights)[0][0]] *= 2
    forward.pack(weights, None)
    assert forward.loop is loop
    forward.pack(operands(G, 1, 0.9, 0.9)[1], None)
    assert forward.loop is not loop
