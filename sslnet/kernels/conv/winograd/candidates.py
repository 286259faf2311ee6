"""Winograd's loop nests: tiles worth trying, and their estimated cycles."""

from __future__ import annotations

import os
from collections.abc import Iterator

from sslnet.errors import UsageError
from sslnet.kernels.conv.cost import UnitCosts
from sslnet.kernels.conv.loop_nest import PackedLoop, WeightGradLoop
from sslnet.kernels.conv.problem import ConvProblem, Direction, LoopCandidate
from sslnet.kernels.conv.winograd.loop import LEAST_TILES, WinogradLoop, WinogradTile, fits, shapes_of, split_units
from sslnet.kernels.conv.winograd.matrices import TileShape
from sslnet.kernels.conv.winograd.weight_grad import OWN_SUMS, WinogradGradLoop, WinogradGradTile
from sslnet.kernels.runtime.threads import num_parts
from sslnet.kernels.simd.vector import VectorUnit

VARIABLE = "SSLNET_WINOGRAD"
"""The environment variable that turns Winograd off when it is 0."""
MOST_VECTORS = 4
"""The most vectors of filters in a tile of the product."""


def allowed() -> bool:
    """Whether the environment allows Winograd."""
    text = os.environ.get(VARIABLE, "").strip()
    if text not in ("", "0", "1"):
        raise UsageError(f'{VARIABLE} must be 0 or 1, not "{text}"')
    return text != "0"


def _suits(problem: ConvProblem) -> bool:
    return problem.kept is None and problem.winograd and allowed() and fits(problem.geometry)


class WinogradCandidate(LoopCandidate[WinogradTile]):
    """Winograd's loop nest of the forward pass and the gradient of the input."""

    DIRECTIONS = (Direction.FORWARD, Direction.INPUT_GRAD)

    def __init__(self, problem: ConvProblem) -> None:
        super().__init__(problem)
        g = self.geometry
        ends = (g.height, g.width, g.group_channels), (g.out_h, g.out_w, g.group_filters)
        (self.height, self.width, filters), (*_, self.channels) = ends if problem.backward else ends[::-1]
        self.vectors = -(-filters // self.unit.lanes)

    def suits(self) -> bool:
        return _suits(self.problem)

    def tiles(self) -> Iterator[WinogradTile]:
        """As many tiles in the product as the registers allow, spread evenly over a thread's tiles where these are
        few."""
        g, unit = self.geometry, self.unit
        for shape in shapes_of(g):
            rows, columns = -(-self.height // shape.m_h), -(-self.width // shape.m_w)
            own_tiles = -(-g.batch * rows // min(num_parts(), g.batch * rows)) * columns
            for vectors in range(1, min(self.vectors, MOST_VECTORS) + 1):
                most = (unit.registers - 1) // vectors - 1
                if most < 1:
                    break
                if own_tiles <= 3 * most:
                    most = -(-own_tiles // -(-own_tiles // most))
                yield WinogradTile(shape, vectors, most)

    def cycles(self, tile: WinogradTile) -> float:
        g, unit, costs = self.geometry, self.unit, self.costs
        shape, vectors, most = tile.shape, tile.vectors, tile.tiles
        rows, columns = -(-self.height // shape.m_h), -(-self.width // shape.m_w)
        moves = (
            rows
            * columns
            * (
                -(-self.channels // unit.lanes) * _entering(costs, shape, self.width, unit)
                + self.vectors * _leaving(costs, shape, self.width, unit)
            )
        )
        weights = 4 * g.groups * shape.positions * self.channels * self.vectors * unit.lanes
        tile_bytes = shape.positions * 4 * (self.channels + self.vectors * unit.lanes)
        own, block, filled = split_units(g.batch * rows, columns, most, tile_bytes, weights)
        blocks = -(-own // block)
        per_tap = costs.step(vectors * most, vectors + most + 2)
        calls = blocks * filled / most * -(-self.vectors // vectors) * g.groups
        product = shape.positions * calls * (self.channels * per_tap + costs.call + costs.sum_out * vectors * most)
        far = costs.weights(weights, blocks * g.batch * rows // own, g.batch)
        return g.groups * moves + product * rows / own + far

    def loop(self, tile: WinogradTile) -> PackedLoop:
        p = self.problem
        return WinogradLoop(p.geometry, p.unit, tile, relu=p.relu, backward=p.backward, lasting=p.lasting)


class WinogradGradCandidate(LoopCandidate[WinogradGradTile]):
    """Winograd's loop nest of the gradient of the weights."""

    DIRECTIONS = (Direction.WEIGHT_GRAD,)

    def suits(self) -> bool:
        return _suits(self.problem)

    def tiles(self) -> Iterator[WinogradGradTile]:
        """For every number of vectors of filters, the largest power of two of channels that the registers allow."""
        vectors_in_all = -(-self.geometry.group_filters // self.unit.lanes)
        for shape in shapes_of(self.geometry):
            for vectors in range(1, min(vectors_in_all, MOST_VECTORS) + 1):
                most = (self.unit.registers - 1) // vectors - 1
                channels = self.unit.lanes
                while channels > most:
                    channels //= 2
                if channels < 1:
                    break
                yield WinogradGradTile(shape, vectors, channels)

    def cycles(self, tile: WinogradGradTile) -> float:
        g, unit, costs = self.geometry, self.unit, self.costs
        shape, vectors, channels = tile.shape, tile.vectors, tile.channels
        positions = shape.positions
        vectors_in_all, channel_vectors = -(-g.group_filters // unit.lanes), -(-g.group_channels // unit.lanes)
        tiles = -(-g.out_h // shape.m_h) * -(-g.out_w // shape.m_w)
        moves = tiles * (channel_vectors + vectors_in_all) * _entering(costs, shape, g.width, unit)
        sums = positions * channel_vectors * unit.lanes * vectors_in_all
        calls = -(-g.group_channels // channels) * -(-vectors_in_all // vectors)
        per_tile = costs.step(vectors * channels, vectors + channels + 2)
        # Sums are loaded and stored for every block of images.
        block = max(LEAST_TILES * 2, tiles)
        enter = costs.call + costs.sum_out * vectors * channels
        product = positions * calls * (tiles * per_tile + tiles / block * enter)
        shared = sums * unit.bytes > OWN_SUMS
        slow = (
            tiles * positions * (channel_vectors + vectors_in_all) * unit.bytes * 2 / costs.far_bytes if shared else 0
        )
        # The sums are cleared, loaded and stored, transformed back.
        leaving = sums * 4 * (4 / costs.far_bytes if shared else 1) / g.batch
        return g.groups * (moves + product + slow + leaving)

    def loop(self, tile: WinogradGradTile) -> WeightGradLoop:
        return WinogradGradLoop(self.geometry, self.unit, tile)


def _entering(costs: UnitCosts, shape: TileShape, width: int, unit: VectorUnit) -> float:
    """Cycles to transpose and transform a vector of channels of one input tile."""
    positions = shape.positions
    return _transposing(costs, shape, width, unit) + costs.winograd_in * positions * max(
        1.0, positions / unit.registers
    )


def _leaving(costs: UnitCosts, shape: TileShape, width: int, unit: VectorUnit) -> float:
    """Cycles to transform and transpose a vector of filters of one output tile."""
    positions = shape.positions
    values = positions + (shape.n_h * shape.m_w + shape.m_h * shape.n_w) / 2
    return _transposing(costs, shape, width, unit) + costs.winograd_out * values * max(1.0, positions / unit.registers)


def _transposing(costs: UnitCosts, shape: TileShape, width: int, unit: VectorUnit) -> float:
    """Cycles to transpose a vector of one tile's pixels; a row that does not fill its last vector costs as a full
    one."""
    return costs.winograd_pixel * shape.m_h * shape.m_w * -(-width // unit.lanes) * unit.lanes / width
