"""The remaining estimate of a net of two InnerProduct layers, 3 -> 4 -> 2, by hand."""

from __future__ import annotations

import pytest

from sslnet.compress.control.estimate import (
    Remaining,
    RemainingPart,
    costs,
    estimate_remaining,
    remaining_parts,
    remaining_share,
)
from sslnet.net.net import Net

WHOLE = RemainingPart(1.0, 1.0)


def test_whole_net_remains(net: Net) -> None:
    assert remaining_parts(net) == [WHOLE, WHOLE, WHOLE]
    assert estimate_remaining(net) == Remaining(1.0, 1.0)


def test_costs(net: Net) -> None:
    assert costs(net, "params") == [(0, 0), (12, 4), (8, 2)]
    flops = costs(net, "flops")
    assert [rows for _, rows in flops] == [0, 0, 0] and flops[1][0] > flops[2][0] > flops[0][0] == 0


def test_zero_row_takes_the_column_that_reads_it(net: Net) -> None:
    net.params["a"][0].data[1] = 0
    assert remaining_parts(net) == [WHOLE, RemainingPart(0.75, 0.75), RemainingPart(1.0, 0.75)]
    assert estimate_remaining(net).params == pytest.approx((9 + 3 + 6 + 2) / 26)


def test_zero_column_takes_the_row_that_makes_it(net: Net) -> None:
    net.params["b"][0].data[:, 2:] = 0
    assert remaining_parts(net) == [WHOLE, RemainingPart(0.5, 0.5), RemainingPart(1.0, 0.5)]
    assert estimate_remaining(net).params == pytest.approx((6 + 2 + 4 + 2) / 26)


def test_zero_inputs_are_left_out_of_the_matrix(net: Net) -> None:
    net.params["a"][0].data[:, 0] = 0
    parts = remaining_parts(net)
    assert (parts[1].rows, parts[1].matrix) == (1.0, pytest.approx(2 / 3))


def test_nothing_remains_of_a_net_that_is_cut_in_two(net: Net) -> None:
    net.params["a"][0].data[...] = 0
    assert estimate_remaining(net) == Remaining(0.0, 0.0)


def test_share_weighs_by_cost() -> None:
    found = [RemainingPart(0.5, 0.25), RemainingPart(1.0, 0.5)]
    assert remaining_share([(8, 4), (20, 0)], found) == pytest.approx((2 + 2 + 10) / 32)
    assert remaining_share([(0, 0), (0, 0)], found) == 0
