"""The collapse guard on a net of two InnerProduct layers, 3 -> 4 -> 2."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sslnet.compress.control.collapse_guard import CollapseGuard, is_whole
from sslnet.errors import RunError
from sslnet.net.net import Net

Make = Callable[..., Any]


def guard_of(net: Net, rows_handle: Make, update_of: Make) -> CollapseGuard:
    handles = [
        rows_handle(net.params[name][0].data, np.ones(len(net.params[name][0].data)), [1], name, update=update_of(name))
        for name in ("a", "b")
    ]
    return CollapseGuard(handles)


def test_largest_rows_are_chosen(net: Net, rows_handle: Make, update_of: Make) -> None:
    guard = guard_of(net, rows_handle, update_of)
    net.params["a"][0].data[2] = [3, 0, 0]
    net.params["a"][0].data[1] = 1.8  # shorter in its largest value, longer as a row
    net.params["b"][0].data[...] = 0
    guard.choose()
    assert guard.state().tolist() == [1, -1]
    np.testing.assert_allclose(guard.rows[0].values, 1.8)


def test_zeroed_rows_come_largest_value_first_and_others_are_remembered(
    net: Net, rows_handle: Make, update_of: Make
) -> None:
    guard = guard_of(net, rows_handle, update_of)
    net.params["b"][0].data[1] = 7
    guard.choose()
    net.params["a"][0].data[0] = 0.5
    assert guard.zeroed() == []
    np.testing.assert_allclose(guard.rows[0].values, 0.5)
    net.params["a"][0].data[...] = 0
    net.params["b"][0].data[...] = 0
    assert [row.values[0] for row in guard.zeroed()] == [7, 0.5]


def test_rows_are_restored_until_the_net_is_whole(net: Net, rows_handle: Make, update_of: Make) -> None:
    guard = guard_of(net, rows_handle, update_of)
    guard.choose()
    net.params["a"][0].data[...] = 0
    zeroed = guard.zeroed()
    held = guard.restore(SimpleNamespace(net=net), zeroed)
    assert [handle.layers for handle in held] == [{"a"}] and held[0].ended and not guard.handles[1].ended
    assert net.params["a"][0].data.tolist() == [[1, 1, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert guard.rows[0].update.history[0].tolist() == [0] * 3 + [5] * 9  # the row starts without momentum
    assert is_whole(net)


def test_net_that_was_cut_elsewhere_is_an_error(net: Net, rows_handle: Make, update_of: Make) -> None:
    guard = guard_of(net, rows_handle, update_of)
    guard.choose()
    net.params["b"][0].data[...] = 0
    with pytest.raises(RunError, match="would lose every channel"):
        guard.restore(SimpleNamespace(net=net), [])


def test_handle_at_the_last_row_of_a_layer_in_the_way_is_collapsing(
    net: Net, rows_handle: Make, update_of: Make
) -> None:
    guard = guard_of(net, rows_handle, update_of)
    net.params["a"][0].data[2:] = 0
    assert guard.collapsing(net) == []
    net.params["a"][0].data[1] = 0
    assert [handle.layers for handle in guard.collapsing(net)] == [{"a"}]
    assert net.params["a"][0].data[0].all()
    guard.handles[0].ended = True
    assert guard.collapsing(net) == []


def test_state_comes_back(net: Net, rows_handle: Make, update_of: Make) -> None:
    one, two = (guard_of(net, rows_handle, update_of) for _ in range(2))
    net.params["a"][0].data[3] = 2
    one.choose()
    two.set_state(one.state())
    assert two.rows[0].index == 3
    np.testing.assert_array_equal(two.rows[0].values, one.rows[0].values)
