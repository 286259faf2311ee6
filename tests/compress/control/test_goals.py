"""Goals: which handles belong to which, and the words for what is asked and found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sslnet.compress.control.goals import Goal, make_goals, share_out
from sslnet.compress.control.targets import Targets
from sslnet.errors import UsageError

Make = Callable[..., Any]


def handle(rows_handle: Make, *layers: str) -> Any:
    return rows_handle(np.eye(1), [1], [1], *layers)


def test_layers_come_before_the_net() -> None:
    goals = make_goals(Targets("speedup", 4.0, {"a": 0.5}))
    assert [(goal.layer, goal.target) for goal in goals] == [("a", 0.5), ("", 0.25)]
    assert [goal.layer for goal in make_goals(Targets("flops", None, {"a": 0.5}))] == ["a"]


def test_net_turns_the_handles_that_no_layer_has(rows_handle: Make) -> None:
    a, ab, c = (handle(rows_handle, *layers) for layers in ("a", "ab", "c"))
    goals = make_goals(Targets("flops", 0.5, {"a": 0.5}))
    share_out(goals, [a, ab, c], ["a", "b", "c"])
    assert goals[0].handles == [a, ab] and goals[1].handles == [c]


@pytest.mark.parametrize(
    "layers, message",
    [
        ({"A": 0.5}, 'the layer "A", which the net does not have'),
        ({"d": 0.5}, 'the layer "d", which has no group lasso'),
        ({"a": 0.5, "b": 0.5}, 'the layer "b", which shares its groups with "a"'),
    ],
)
def test_layer_without_a_handle_is_an_error(rows_handle: Make, layers: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        share_out(make_goals(Targets("flops", None, layers)), [handle(rows_handle, "a", "b")], ["a", "b", "d"])


@pytest.mark.parametrize(
    "goal, wanted, short, found",
    [
        (Goal("flops", "", 0.3), "30 % of the FLOPs", "30 %", "50.0 % of the FLOPs remain"),
        (Goal("params", "a", 0.05), '5 % of the parameters of "a"', "5 %", '50.0 % of the parameters of "a" remain'),
        (Goal("speedup", "", 0.25), "a speedup of 4", "4 times", "the compacted net runs about 2.00 times as fast"),
    ],
)
def test_words(goal: Goal, wanted: str, short: str, found: str) -> None:
    goal.remaining = 0.5
    assert (goal.wanted(), goal.wanted(short=True), goal.found()) == (wanted, short, found)
