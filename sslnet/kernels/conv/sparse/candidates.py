"""The loop nests over kept filters and columns: tiles worth trying, and their estimated cycles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from math import prod

import numpy as np

from sslnet.kernels.conv.loop_nest import PackedLoop, WeightGradLoop
from sslnet.kernels.conv.pattern import SparsityPattern
from sslnet.kernels.conv.problem import Direction, LoopCandidate, Tile
from sslnet.kernels.conv.sparse.grads import (
    MOST_VECTORS,
    KeptInputGradLoop,
    KeptWeightGradLoop,
    columns_of_parts,
    lowered_chunks,
)
from sslnet.kernels.conv.sparse.structured_filters import (
    FilterBlocks,
    KeptFilterLoop,
    cut_row,
    even_parts,
    group_spans,
    limits,
    spans_of,
)
from sslnet.kernels.conv.sparse.structured_pixels import KeptPixelLoop, PanelTile, cut_chunks, panels_of

MOST_SPANS = 16
"""The most kernel columns with a loop of their own in a micro-kernel; wider kernels with padding use the pixel loop
nest."""


class KeptCandidate(LoopCandidate[Tile]):
    """A loop nest that reads only the weights of a pattern."""

    def suits(self) -> bool:
        return self.problem.kept is not None

    @property
    def kept(self) -> SparsityPattern:
        assert self.problem.kept is not None
        return self.problem.kept


class KeptFilterCandidate(KeptCandidate[FilterBlocks]):
    """The loop nest with kept filters side by side in a vector and pixels broadcast in place."""

    DIRECTIONS = (Direction.FORWARD,)

    def suits(self) -> bool:
        """Whether the taps of the kernel form few enough spans."""
        return super().suits() and spans_of(self.geometry) <= MOST_SPANS

    def tiles(self) -> Iterator[FilterBlocks]:
        in_all = [-(-len(f) // self.unit.lanes) for f in self.kept.filters]
        for most in range(1, min(max(*in_all, 1), (self.unit.registers - 1) // 2) + 1):
            yield tuple(tuple(even_parts(vectors, most)) for vectors in in_all)

    def cycles(self, tile: FilterBlocks) -> float:
        cycles = sum(self._block_cycles(v, count) for own, count in zip(tile, self._counts) for v in own)
        return cycles / self.costs.kept_forward

    @cached_property
    def _counts(self) -> list[np.ndarray]:
        """For each group (spans,): the number of taps that read a source row, summed over the output rows."""
        return [group_spans(self.geometry, c)[1].sum(axis=0)[:, 1] for c in self.kept.columns]

    def _block_cycles(self, vectors: int, taps: np.ndarray) -> float:
        """Estimated cycles of a block of ``vectors`` vectors of filters for one image."""
        g, unit, costs = self.geometry, self.unit, self.costs
        cycles = 0.0
        block = int(taps.sum()) * vectors * unit.bytes // g.out_h
        tiles = Counter((cut[1], *limits(g, cut)) for cut in cut_row(g, unit, vectors))
        for (pixels, low, high), tile_count in tiles.items():
            leaving = costs.span_out * vectors * -(-pixels // unit.lanes)
            own = g.out_h * (costs.call + costs.span * len(taps) + leaving)
            for span, count in enumerate(taps):
                met = pixels
                if g.is_padded_w:
                    met = sum(low <= p * g.stride_w + span * g.dilation_w < high for p in range(pixels))
                per_tap = costs.step(vectors * met, vectors + met + 3)
                if block > costs.first_cache:
                    rate = costs.second_bytes if block <= costs.kept_weights else costs.far_bytes
                    per_tap = max(per_tap, vectors * unit.bytes / rate)
                own += count * per_tap * (met > 0)
            cycles += tile_count * own
        return cycles

    def loop(self, tile: FilterBlocks) -> PackedLoop:
        return KeptFilterLoop(self.geometry, self.kept, self.unit, tile, relu=self.problem.relu)


class PanelCandidate(KeptCandidate[PanelTile]):
    """The estimates that the loop nests over panels of pixels (lowered, or added back) share."""

    def tiles(self) -> Iterator[PanelTile]:
        """Tiles with enough sums to hide the latency, and few loads per sum."""
        for vectors in range(1, 7):
            filters = (self.unit.registers - 1 - vectors) // vectors
            yield from (PanelTile(f, vectors) for f in range(filters, max(filters - 3, 0), -1))

    def _products(self, tile: PanelTile, chunks: np.ndarray, sizes: list[tuple[int, int]], put: bool) -> float:
        """Estimated cycles of the products of an image, over its chunks.

        sizes   (outputs, terms of each output) of every product
        put     whether the outputs are added back to the pixels
        """
        costs, cycles = self.costs, 0.0
        for vectors, count in Counter(chunks["vectors"].tolist()).items():
            for outputs, terms in sizes:
                moved = terms * (costs.lower_tap + costs.lower_vector * vectors)
                if put:
                    moved += outputs * (costs.add_tap + costs.add_vector * vectors)
                cycles += count * (self._panels(tile, outputs, terms, vectors) + moved)
        return cycles

    def _panels(self, tile: PanelTile, filters: int, taps: int, vectors: int) -> float:
        """Estimated cycles of all filters over ``vectors`` vectors of pixels."""
        costs, cycles = self.costs, 0.0
        for panel, count in Counter(panels_of(vectors, tile.vectors)).items():
            sums = tile.filters * panel
            loads = max((tile.filters + panel) / 2, costs.lowered_load * panel)
            per_tap = max(sums / 2, loads, costs.panel_latency)
            blocks = -(-filters // tile.filters)
            cycles += count * blocks * (taps * per_tap + costs.panel_call + costs.sum_out * sums)
        return cycles


class KeptPixelCandidate(PanelCandidate):
    """The loop nest with the lowered pixels of kept columns side by side in a vector."""

    DIRECTIONS = (Direction.FORWARD,)

    def cycles(self, tile: PanelTile) -> float:
        g, costs = self.geometry, self.costs
        sizes = [(len(f), len(c)) for f, c in zip(self.kept.filters, self.kept.columns)]
        chunks = cut_chunks(self.unit, g, tile, max(terms for _, terms in sizes))
        cycles = self._products(tile, chunks, sizes, put=False)
        moved = 4 * (prod(g.input_shape) + prod(g.output_shape))
        if moved > costs.shared_cache:
            cycles += moved / g.batch / costs.far_bytes
        return cycles / costs.kept_forward

    def loop(self, tile: PanelTile) -> PackedLoop:
        return KeptPixelLoop(self.geometry, self.kept, self.unit, tile, relu=self.problem.relu)


class KeptInputGradCandidate(PanelCandidate):
    """The loop nest of the input gradient: the gradient of the lowered pixels of kept columns is added back to the
    image."""

    DIRECTIONS = (Direction.INPUT_GRAD,)

    def suits(self) -> bool:
        return super().suits() and not self.problem.relu

    def cycles(self, tile: PanelTile) -> float:
        return self._products(tile, self._chunks, self._sizes, put=True) / self.costs.kept_input_grad

    @cached_property
    def _sizes(self) -> list[tuple[int, int]]:
        """(kept columns, kept filters) of each part of the channels."""
        pieces = columns_of_parts(self.geometry, self.kept)
        parts = len(pieces) // self.geometry.groups
        return [(len(columns), len(self.kept.filters[p // parts])) for p, columns in enumerate(pieces)]

    @cached_property
    def _chunks(self) -> np.ndarray:
        return lowered_chunks(self.unit, self.geometry, max(columns for columns, _ in self._sizes))

    def loop(self, tile: PanelTile) -> PackedLoop:
        return KeptInputGradLoop(self.geometry, self.kept, self.unit, tile)


class KeptWeightGradCandidate(KeptCandidate[tuple[int, int]]):
    """The loop nest of the weight gradient: products of kept filters of dy with lowered pixels, pixels along
    vectors."""

    DIRECTIONS = (Direction.WEIGHT_GRAD,)

    def tiles(self) -> Iterator[tuple[int, int]]:
        """The tile (filters, taps), as square as the registers allow."""
        yield (4, 6) if self.unit.registers >= 32 else (3, 3)

    def cycles(self, tile: tuple[int, int]) -> float:
        g, costs = self.geometry, self.costs
        vectors, (filters, taps), cycles = -(-g.out_h * g.out_w // self.unit.lanes), tile, 0.0
        # Several small images are summed together.
        images = max(1, min(MOST_VECTORS // vectors, g.batch))
        for f, c in zip(self.kept.filters, self.kept.columns):
            calls = -(-len(f) // filters) * -(-len(c) // taps)
            moved = (len(f) + len(c)) * (costs.lower_tap + costs.lower_vector * vectors)
            sums = (costs.call + costs.lanes_sum * filters * taps) / images
            cycles += calls * (vectors * costs.step(filters * taps, filters + taps) + sums) + moved
        return cycles / costs.kept_weight_grad

    def loop(self, tile: tuple[int, int]) -> WeightGradLoop:
        return KeptWeightGradLoop(self.geometry, self.kept, self.unit, tile)
