"""How a depthwise tile loads the pixels of a padded plane: from the plane itself, or from a padded copy of it.

The plane is read in place, with masks at its edges, where the machine loads parts of vectors as fast as whole ones;
several rows narrower than half a vector then share a vector. Elsewhere a padded window is read (``window``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sslnet.kernels.conv.depthwise.stencil import Place, Reading, Stencil
from sslnet.kernels.simd import vector as vec
from sslnet.kernels.simd.vector import I64, Builder, Value


class WindowLoads:
    """Loads from windows that are split by phase: the pixels of a vector are contiguous, and none is outside."""

    def __init__(self, builder: Builder, lanes: int, shape: Stencil, planes: Any, reading: Reading) -> None:
        self.builder, self.lanes, self.shape, self.planes = builder, lanes, shape, planes
        self.right = 4 * lanes

    def start(self, plane: Value) -> Value:
        """The address of the pixel that the first output's first tap reads."""
        return plane

    def down(self, vectors: int) -> Value:
        """Bytes from a tile of ``vectors`` vectors to the one below it."""
        return self.builder.mul(self.planes.pitch, I64(vectors))

    def all(self, tile: Value, top: Value, at: Value, places: Iterable[Place]) -> Iterator[tuple[Place, Value]]:
        """The vector at every place, relative to the tile at that address.

        top, at   row and column in the plane of the place (0, 0)
        """
        b, (split_h, split_w) = self.builder, self.shape.split
        for down, right in places:
            phase = down % split_h * split_w + right % split_w
            row = b.add(tile, b.mul(self.planes.pitch, I64(down // split_h)))
            where = b.add(row, b.mul(self.planes.extra, I64(phase)))
            yield (down, right), vec.load(b, self.lanes, vec.offset(b, where, right // split_w * 4))


class PlaneLoads:
    """Loads from the planes in place; with stride 2, every second pixel is selected from two vectors."""

    def __init__(self, builder: Builder, lanes: int, shape: Stencil, planes: Any, reading: Reading) -> None:
        self.builder, self.lanes, self.shape, self.planes, self.reading = builder, lanes, shape, planes, reading
        self.right = 4 * lanes * shape.split[1]

    def start(self, plane: Value) -> Value:
        b, p = self.builder, self.planes
        return b.sub(b.add(plane, b.mul(p.first_row, p.pitch)), b.mul(p.pad, I64(4)))

    def down(self, vectors: int) -> Value:
        return self.builder.mul(self.planes.pitch, I64(vectors * self.shape.split[0]))

    def all(self, tile: Value, top: Value, at: Value, places: Iterable[Place]) -> Iterator[tuple[Place, Value]]:
        b, made = self.builder, {}
        split = self.shape.split[1]
        # A row outside the plane is read from a row of zeros.
        outside = b.add(self.planes.extra, b.mul(at, I64(4)))
        for down, right in places:
            if self.reading.whole and not 0 <= down - self.reading.pad_h < self.reading.height:
                continue
            first = right // split * split
            if (down, first) not in made:
                inside = b.icmp_unsigned("<", b.add(top, I64(down)), self.planes.height)
                row = b.select(inside, b.add(tile, b.mul(self.planes.pitch, I64(down))), outside)
                made[down, first] = [self._masked(row, at, first + i * self.lanes) for i in range(split)]
            vectors = made[down, first]
            if split == 2:
                value = (vec.odd_lanes if right % 2 else vec.even_lanes)(b, *vectors)
            else:
                (value,) = vectors
            yield (down, right), value

    def _masked(self, row: Value, at: Value, column: int) -> Value:
        """A vector of the pixels from a column on, 0 outside the plane."""
        b, lanes = self.builder, self.lanes
        first = b.add(at, I64(column))
        before = vec.first_lanes(b, lanes, b.neg(first))
        mask = b.and_(b.not_(before), vec.first_lanes(b, lanes, b.sub(self.planes.width, first)))
        return vec.masked_load(b, lanes, vec.offset(b, row, 4 * column), mask)


class FoldedLoads:
    """Loads from planes of few columns: a vector holds several whole rows, each in the same number of lanes (stride 1
    only)."""

    right = 0

    def __init__(self, builder: Builder, lanes: int, shape: Stencil, planes: Any, reading: Reading) -> None:
        self.builder, self.lanes, self.planes = builder, lanes, planes
        self.folds, self.width, self.height = reading.folds, reading.width, reading.height
        self.pads = (reading.pad_h, reading.pad_w)

    def start(self, plane: Value) -> Value:
        return self.builder.add(plane, self.builder.mul(self.planes.first_row, self.planes.pitch))

    def down(self, vectors: int) -> Value:
        return I64(4 * vectors * self.folds * self.width)

    def all(self, tile: Value, top: Value, at: Value, places: Iterable[Place]) -> Iterator[tuple[Place, Value]]:
        b, made = self.builder, {}
        for down, right in places:
            row = down - self.pads[0]
            if not -self.folds < row < self.height:
                continue
            if down not in made:
                made[down] = self._rows(tile, down, row)
            yield (down, right), vec.shuffle(b, made[down], vec.zeros(self.lanes), self._lanes(right - self.pads[1]))

    def _rows(self, tile: Value, down: int, row: int) -> Value:
        """A vector of consecutive rows from ``row`` on, without gaps; 0 for rows outside the plane, and after the last
        one."""
        b, lanes = self.builder, self.lanes
        before = vec.first_lanes(b, lanes, I64(-row * self.width))
        inside = min(self.folds, self.height - row) * self.width
        mask = b.and_(b.not_(before), vec.first_lanes(b, lanes, I64(inside)))
        return vec.masked_load(b, lanes, vec.offset(b, tile, 4 * down * self.width), mask)

    def _lanes(self, displacement: int) -> list[int]:
        """For each lane of a vector, its lane in the dense rows, or a lane of zeros where it is outside the row.

        The zeros after the dense rows are used, because a shuffle of one vector is faster than of two.
        """
        zero = self.folds * self.width
        each = self.lanes // self.folds
        columns = [column + displacement for column in range(each)]
        inside = [fold * self.width + c if 0 <= c < self.width else None for fold in range(self.folds) for c in columns]
        return [zero if lane is None else lane for lane in inside]


def folded_lanes(lanes: int, folds: int, width: int) -> list[int]:
    """The lanes of the values of the rows in one vector, row by row."""
    return [fold * (lanes // folds) + column for fold in range(folds) for column in range(width)]
