"""Places the boxes of a layered graph; all lines lead in one direction, from rank to rank.

1. rank       the longest path to a node; a node without predecessors is placed directly before its first successor
2. order      within a rank, such that few lines cross: each node at the mean of its neighbours, in alternating sweeps
              (Sugiyama 1981)
3. position   across: the trunk, which is the longest path through the graph, is straight; the places in every rank are the
              least squares solution of being near their neighbours, at a minimum distance from each other: an isotonic
              regression (pool adjacent violators)
4. segments   the lines: straight along the ranks, bent only in the gaps between them, so that none crosses a box

Lengths are measured along the flow, breadths across it. The caller decides which of the two is vertical.

Ref: Sugiyama, Tagawa, Toda 1981, "Methods for visual understanding of hierarchical system structures"
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

GAP = 26.0
"""Minimum length between two ranks."""
SLOPE, MOST_SLOPE = 0.1, 50.0
"""Growth of a gap per breadth that a line crosses in it, and its maximum."""
SPACE, LINE_SPACE = 22.0, 12.0
"""Breadth between two boxes; breadth between a line and its neighbour."""
CORNER = 16.0
"""Breadth at the ends of a box without lines."""
LINE = 2.0
"""Breadth reserved for a line that passes a rank."""
ORDER_SWEEPS, POSITION_SWEEPS, STRAIGHT_SWEEPS = 12, 12, 24
PINNED = 1e6
"""Weight of items that must not move."""


@dataclass(frozen=True)
class DrawnNode:
    length: float
    breadth: float


@dataclass(frozen=True)
class Link:
    """Lines from one node to others, which share a path as long as possible.

    offset   offset of its start from the middle of the node, across
    """

    source: int
    targets: tuple[int, ...]
    offset: float = 0.0


@dataclass(frozen=True)
class Segment:
    """A piece of a line, (along, across) to (along, across); target: the node at its end, if any."""

    start: tuple[float, float]
    end: tuple[float, float]
    target: int | None = None


@dataclass(frozen=True)
class Placement:
    """The result of ``place``.

    begin, middle   of each node: its start along, its middle across
    segments        of each link
    length          total length; the graph begins at 0
    low, high       ends of the graph, across
    """

    begin: list[float]
    middle: list[float]
    segments: list[list[Segment]]
    length: float
    low: float
    high: float


def place(nodes: Sequence[DrawnNode], links: Sequence[Link]) -> Placement:
    """Places nodes; links lead from nodes to later nodes of the sequence."""
    ranks = rank_nodes(len(nodes), links)
    graph = _Graph(nodes, links, ranks)
    graph.order()
    graph.position()
    return graph.placement()


def rank_nodes(count: int, links: Sequence[Link]) -> list[int]:
    """The rank of each node; every link leads to higher ranks."""
    ranks = [0] * count
    reached = [False] * count
    for link in sorted(links, key=lambda link: link.source):
        for target in link.targets:
            assert target > link.source
            ranks[target] = max(ranks[target], ranks[link.source] + 1)
            reached[target] = True
    for node in reversed(range(count)):
        ahead = [ranks[target] for link in links if link.source == node for target in link.targets]
        if ahead and not reached[node]:
            ranks[node] = min(ahead) - 1
    return ranks


def separate(wanted: Sequence[float], weights: Sequence[float], distances: Sequence[float]) -> list[float]:
    """The x that minimise sum of weights (x - wanted)^2 with x[i + 1] - x[i] >= distances[i].

    After subtraction of the cumulative distances the x must not decrease: an isotonic regression, by pooling adjacent
    violators.
    """
    before = [0.0]
    for distance in distances:
        before.append(before[-1] + distance)
    pools: list[tuple[float, float, int]] = []  # mean, weight, how many
    for x, weight, distance in zip(wanted, weights, before):
        pool = (x - distance, weight, 1)
        while pools and pools[-1][0] > pool[0]:
            mean, other, count = pools.pop()
            total = other + pool[1]
            pool = ((mean * other + pool[0] * pool[1]) / total, total, count + pool[2])
        pools.append(pool)
    means = [mean for mean, _, count in pools for _ in range(count)]
    return [mean + distance for mean, distance in zip(means, before)]


class _Graph:
    """Nodes, and a point for every rank that a link passes, as items: ranks of items, lines between adjacent ranks."""

    def __init__(self, nodes: Sequence[DrawnNode], links: Sequence[Link], ranks: Sequence[int]) -> None:
        self.nodes = nodes
        self.links = links
        self.rank = list(ranks)
        self.points: list[dict[int, int]] = []
        """For each link, rank -> the item at which it passes the rank; at first the node where it starts."""
        self.above: list[list[tuple[int, float]]] = [[] for _ in nodes]
        self.below: list[list[tuple[int, float]]] = [[] for _ in nodes]
        """For each item its neighbours of the rank before and of the rank after, and the offset of the line's start
        from the middle of the node."""
        for link in links:
            self._add(link)
        self.layers: list[list[int]] = [[] for _ in range(max(self.rank, default=-1) + 1)]
        for item in sorted(range(len(self.rank)), key=self._age):
            self.layers[self.rank[item]].append(item)
        self.x = [0.0] * len(self.rank)

    def _add(self, link: Link) -> None:
        first = self.rank[link.source]
        last = max((self.rank[target] for target in link.targets), default=first)
        passed = {first: link.source}
        for rank in range(first + 1, last):
            passed[rank] = len(self.rank)
            self.rank.append(rank)
            self.above.append([])
            self.below.append([])
            self._join(passed[rank - 1], passed[rank], link)
        for target in link.targets:
            self._join(passed[self.rank[target] - 1], target, link)
        self.points.append(passed)

    def _join(self, upper: int, lower: int, link: Link) -> None:
        offset = link.offset if upper == link.source else 0.0
        self.below[upper].append((lower, offset))
        self.above[lower].append((upper, offset))

    def _age(self, item: int) -> tuple[int, int]:
        """The initial order: that of the nodes; points of lines after the node where the line starts."""
        while not self.is_node(item):
            item = self.above[item][0][0]
            if self.is_node(item):
                return item, 1
        return item, 0

    def is_node(self, item: int) -> bool:
        return item < len(self.nodes)

    def breadth(self, item: int) -> float:
        return self.nodes[item].breadth if self.is_node(item) else LINE

    # -- order -----------------------------------------------------------------------------------------------------

    def order(self) -> None:
        best, least = [list(layer) for layer in self.layers], self._crossings()
        for sweep in range(ORDER_SWEEPS):
            if not least:
                break
            downwards = sweep % 2 == 0
            near = self.above if downwards else self.below
            for layer in self.layers[1:] if downwards else self.layers[-2::-1]:
                place = self._places()
                mean = {
                    item: sum(place[other] for other, _ in near[item]) / len(near[item]) if near[item] else place[item]
                    for item in layer
                }
                layer.sort(key=mean.__getitem__)
            crossings = self._crossings()
            if crossings < least:
                best, least = [list(layer) for layer in self.layers], crossings
        self.layers = best

    def _places(self) -> dict[int, float]:
        """The place of an item in its rank, 0 to 1."""
        return {item: (i + 0.5) / len(layer) for layer in self.layers for i, item in enumerate(layer)}

    def _crossings(self) -> int:
        place = {item: i for layer in self.layers for i, item in enumerate(layer)}
        count = 0
        for layer in self.layers:
            ends = [sorted(place[lower] for lower, _ in self.below[upper]) for upper in layer]
            flat = [end for group in ends for end in group]
            count += sum(b < a for i, a in enumerate(flat) for b in flat[i + 1 :])
        return count

    # -- position --------------------------------------------------------------------------------------------------

    def position(self) -> None:
        trunk = self._trunk()
        for layer in self.layers:
            self._set(layer, [0.0] * len(layer), [PINNED if item in trunk else 1.0 for item in layer], trunk)
        for _ in range(POSITION_SWEEPS):
            for layer in (*self.layers, *reversed(self.layers)):
                self._set(layer, [self._wanted(item) for item in layer], [self._weight(item) for item in layer], trunk)
        straight = self._straight_runs()
        for _ in range(STRAIGHT_SWEEPS):
            wanted = list(self.x)
            weights = [1.0] * len(self.x)
            for run in straight:
                mean = sum(self.x[item] for item in run) / len(run)
                for item in run:
                    wanted[item], weights[item] = mean, float(len(run) ** 2)
            for layer in self.layers:
                self._set(layer, [wanted[item] for item in layer], [weights[item] for item in layer], trunk)

    def _set(self, layer: list[int], wanted: list[float], weights: list[float], trunk: dict[int, float]) -> None:
        for i, item in enumerate(layer):
            if item in trunk:
                wanted[i], weights[i] = trunk[item], PINNED
        for item, x in zip(layer, separate(wanted, weights, self._distances(layer))):
            self.x[item] = x

    def _distances(self, layer: list[int]) -> list[float]:
        return [
            (self.breadth(a) + self.breadth(b)) / 2 + (SPACE if self.is_node(a) and self.is_node(b) else LINE_SPACE)
            for a, b in pairwise(layer)
        ]

    def _wanted(self, item: int) -> float:
        near = [self.x[other] + offset for other, offset in self.above[item]]
        near += [self.x[other] - offset for other, offset in self.below[item]]
        return sum(near) / len(near) if near else self.x[item]

    def _weight(self, item: int) -> float:
        return float(max(1, len(self.above[item]) + len(self.below[item])))

    def _trunk(self) -> dict[int, float]:
        """The items of the longest path, from its last node to its first, and their x: each below the start of the line
        to it."""
        if not self.layers:
            return {}

        def from_middle(item: int) -> tuple[bool, float]:
            layer = self.layers[self.rank[item]]
            return not self.above[item], abs(layer.index(item) - (len(layer) - 1) / 2)

        path = [(min((item for item in self.layers[-1]), key=from_middle), 0.0)]
        while self.above[path[-1][0]]:
            nodes = [(item, offset) for item, offset in self.above[path[-1][0]] if self.is_node(item)]
            path.append(min(nodes, key=lambda pair: from_middle(pair[0])))
        x, trunk = 0.0, {}
        for i in reversed(range(len(path))):
            trunk[path[i][0]] = x
            x += path[i][1]
        return trunk

    def _straight_runs(self) -> list[list[int]]:
        """Items that form a chain without other neighbours, which are placed in one straight line."""
        runs: dict[int, list[int]] = {}
        for layer in self.layers:
            for item in layer:
                above = self.above[item]
                single = len(above) == 1 and len(self.below[above[0][0]]) == 1 and not above[0][1]
                runs[item] = runs[above[0][0]] if single else []
                runs[item].append(item)
        return [run for item, run in runs.items() if run[0] == item and len(run) > 1]

    # -- the result ------------------------------------------------------------------------------------------------

    def placement(self) -> Placement:
        self.arrivals = self._arrivals()
        starts, ends = self._rank_ends()
        begin = [(starts[rank] + ends[rank] - node.length) / 2 for node, rank in zip(self.nodes, self.rank)]
        segments = [self._segments(link, passed, begin, starts, ends) for link, passed in zip(self.links, self.points)]
        sides = [(x - self.breadth(item) / 2, x + self.breadth(item) / 2) for item, x in enumerate(self.x)]
        return Placement(
            begin,
            self.x[: len(self.nodes)],
            segments,
            ends[-1] if ends else 0.0,
            min((low for low, _ in sides), default=0.0),
            max((high for _, high in sides), default=0.0),
        )

    def _rank_ends(self) -> tuple[list[float], list[float]]:
        """Start and end of each rank, along."""
        starts, ends = [], []
        at = 0.0
        for layer in self.layers:
            starts.append(at)
            ends.append(at + max(self.nodes[item].length if self.is_node(item) else 0.0 for item in layer))
            across = [
                abs(self.arrivals[upper, offset, lower] - self.x[upper] - offset)
                for upper in layer
                for lower, offset in self.below[upper]
            ]
            at = ends[-1] + GAP + min(MOST_SLOPE, SLOPE * max(across, default=0.0))
        return starts, ends

    def _arrivals(self) -> dict[tuple[int, float, int], float]:
        """The place at which each line, by item, offset and next item, meets the next item: straight on if possible,
        else near its end, beside the other lines."""
        found: dict[tuple[int, float, int], float] = {}
        for item, above in enumerate(self.above):
            lines = sorted({(self.x[other] + offset, other, offset) for other, offset in above})
            room = max(0.0, self.nodes[item].breadth / 2 - CORNER) if self.is_node(item) else 0.0
            low, high = self.x[item] - room, self.x[item] + room
            wanted = [min(max(x, low), high) for x, _, _ in lines]
            weights = [10.0 if low <= x <= high else 1.0 for x, _, _ in lines]
            apart = min(LINE_SPACE, 2 * room / max(1, len(lines) - 1))
            distances = [0.0, *[apart] * (len(lines) - 1), 0.0]
            places = separate([low, *wanted, high], [PINNED, *weights, PINNED], distances)[1:-1] if lines else []
            found |= {(other, offset, item): x for (_, other, offset), x in zip(lines, places)}
        return found

    def _segments(
        self, link: Link, passed: dict[int, int], begin: list[float], starts: list[float], ends: list[float]
    ) -> list[Segment]:
        if not link.targets:
            return []
        rank = self.rank[link.source]
        x = self.x[link.source] + link.offset
        found = [Segment((begin[link.source] + self.nodes[link.source].length, x), (ends[rank], x))]
        at = {rank: (link.source, link.offset, x)}
        for rank, item in passed.items():
            if item != link.source:
                at[rank] = (item, 0.0, self.x[item])
                found.append(Segment((ends[rank - 1], at[rank - 1][2]), (starts[rank], self.x[item])))
                found.append(Segment((starts[rank], self.x[item]), (ends[rank], self.x[item])))
        for target in link.targets:
            rank = self.rank[target]
            item, offset, x = at[rank - 1]
            arrival = self.arrivals[item, offset, target]
            found.append(Segment((ends[rank - 1], x), (starts[rank], arrival)))
            found.append(Segment((starts[rank], arrival), (begin[target], arrival), target))
        return [segment for segment in found if segment.start != segment.end or segment.target is not None]
