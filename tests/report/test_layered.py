"""Layouts: ranks go forward, boxes stay apart, lines run from box to box and through none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import lsq_linear

from sslnet.report.layered import GAP, DrawnNode, Link, place, rank_nodes, separate


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 8))
def test_separate_is_the_least_squares_solution(seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    wanted, weights = random.normal(0, 5, count), random.uniform(0.1, 3, count)
    distances = random.uniform(0, 4, count - 1)
    found = separate(wanted.tolist(), weights.tolist(), distances.tolist())
    # x = the first one and what each is further than it must be, which is not negative
    steps = np.tril(np.ones((count, count)))
    root = np.sqrt(weights)
    before = np.concatenate([[0], np.cumsum(distances)])
    low = np.array([-np.inf] + [0.0] * (count - 1))
    solution = lsq_linear(root[:, None] * steps, root * (wanted - before), (low, np.inf), tol=1e-12)
    np.testing.assert_allclose(found, steps @ solution.x + before, atol=1e-4)


def test_rank_is_the_longest_path_and_sources_stand_before_their_readers() -> None:
    links = [Link(0, (1, 2)), Link(1, (2,)), Link(2, (4,)), Link(3, (4,))]
    assert rank_nodes(5, links) == [0, 1, 2, 2, 3]


@st.composite
def graphs(draw):
    """Nodes of random sizes; links from each to some later ones, several links from some."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(1, 14))
    nodes = [DrawnNode(*random.uniform(20, 200, 2).tolist()) for _ in range(count)]
    links = []
    for source in range(count):
        for offset in random.uniform(-10, 10, random.integers(3)).tolist():
            later = np.arange(source + 1, count)
            targets = (
                random.choice(later, min(len(later), int(random.integers(4))), replace=False) if len(later) else []
            )
            links.append(Link(source, tuple(sorted(int(target) for target in targets)), offset))
    return nodes, links


def edges(nodes, placed, i):
    """(begin, end) along, (low, high) across."""
    half = nodes[i].breadth / 2
    begin = placed.begin[i]
    return (begin, begin + nodes[i].length), (placed.middle[i] - half, placed.middle[i] + half)


@settings(deadline=None, max_examples=100)
@given(graphs())
def test_boxes_do_not_touch_and_stand_within_the_whole(graph) -> None:
    nodes, links = graph
    placed = place(nodes, links)
    for i in range(len(nodes)):
        along, across = edges(nodes, placed, i)
        assert along[0] > -1e-6 and along[1] < placed.length + 1e-6
        assert across[0] > placed.low - 1e-6 and across[1] < placed.high + 1e-6
        for j in range(i):
            along_j, across_j = edges(nodes, placed, j)
            apart = along[0] > along_j[1] or along[1] < along_j[0] or across[0] > across_j[1] or across[1] < across_j[0]
            assert apart, (i, j)


@settings(deadline=None, max_examples=100)
@given(graphs())
def test_lines_lead_from_their_source_to_every_target_and_forward(graph) -> None:
    nodes, links = graph
    placed = place(nodes, links)
    for link, segments in zip(links, placed.segments, strict=True):
        assert sorted(segment.target for segment in segments if segment.target is not None) == list(link.targets)
        starts = {(placed.begin[link.source] + nodes[link.source].length, placed.middle[link.source] + link.offset)}
        reached = {(round(a, 6), round(b, 6)) for a, b in starts}
        for segment in segments:
            assert segment.end[0] >= segment.start[0] - 1e-6
            assert (round(segment.start[0], 6), round(segment.start[1], 6)) in reached
            reached.add((round(segment.end[0], 6), round(segment.end[1], 6)))
            if segment.target is not None:
                along, across = edges(nodes, placed, segment.target)
                assert segment.end[0] == pytest.approx(along[0])
                assert across[0] <= segment.end[1] <= across[1]


@settings(deadline=None, max_examples=100)
@given(graphs())
def test_lines_run_through_no_box(graph) -> None:
    nodes, links = graph
    placed = place(nodes, links)
    for segments in placed.segments:
        for segment in segments:
            if segment.start[1] != segment.end[1]:
                # bent: between two ranks, where no box is
                for i in range(len(nodes)):
                    (begin, end), _ = edges(nodes, placed, i)
                    assert end <= segment.start[0] + 1e-6 or begin >= segment.end[0] - 1e-6
                continue
            for i in range(len(nodes)):
                (begin, end), (low, high) = edges(nodes, placed, i)
                inside = (
                    low < segment.start[1] < high and segment.start[0] < end - 1e-6 and segment.end[0] > begin + 1e-6
                )
                assert not inside


def test_chain_is_one_straight_line() -> None:
    nodes = [DrawnNode(40, 50.0 + 20 * i) for i in range(5)]
    placed = place(nodes, [Link(i, (i + 1,)) for i in range(4)])
    assert len(set(placed.middle)) == 1
    assert np.diff(placed.begin).tolist() == [40 + GAP] * 4


def test_shortcut_bows_around_a_straight_trunk() -> None:
    placed = place([DrawnNode(40, 100)] * 4, [Link(0, (1, 3)), Link(1, (2,)), Link(2, (3,))])
    assert len(set(placed.middle)) == 1
    passing = [segment for segment in placed.segments[0] if segment.start[1] == segment.end[1] != placed.middle[0]]
    assert passing
    assert all(abs(segment.start[1] - placed.middle[0]) >= 50 or segment.target == 3 for segment in passing)


def test_branches_do_not_cross_where_they_need_not() -> None:
    links = [
        Link(0, (1, 2, 3)),
        Link(1, (6,)),
        Link(2, (5,)),
        Link(3, (4,)),
        Link(4, (7,)),
        Link(5, (7,)),
        Link(6, (7,)),
    ]
    placed = place([DrawnNode(40, 100)] * 8, links)
    first = np.argsort([placed.middle[i] for i in (1, 2, 3)]).tolist()
    second = np.argsort([placed.middle[i] for i in (6, 5, 4)]).tolist()
    assert first == second


def test_nothing_is_placed_as_nothing() -> None:
    placed = place([], [])
    assert (placed.length, placed.begin, placed.segments) == (0.0, [], [])
