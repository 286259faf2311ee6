"""How a depthwise tile comes by the pixels of a padded plane: from the plane itself, or from a padded copy of it.

From the plane, with masks at its edges, where the machine loads parts of vectors as fast as whole ones; rows narrower than
half a vector then share one. Else from a window (depthwise_windows).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sslnet.kernels.conv.depthwise.stencil import Place, Reading, Stencil
from sslnet.kernels.simd import vector as vec
from sslnet.kernels.simd.vector import I64, Builder, Value


class WindowLoads:
    """From windows that are split by phase: every vector lies side by side, and nothing is outside."""

    def __init__(self, builder: Builder, lanes: int, shape: Stencil, planes: Any, reading: Reading) -> None:
        self.builder, self.lanes, self.shape, self.planes = builder, lanes, shape, planes
        self.right = 4 * lanes

    def start(self, plane: Value) -> Value:
        """The address of what the first output's first tap reads."""
        return plane

    def down(self, vectors: int) -> Value:
        """Bytes from a tile of so many vectors to the one below it."""
        return self.builder.mul(self.planes.pitch, I64(vectors))

    def all(self, tile: Value, top: Value, at: Value, places: Iterable[Place]) -> Iterator[tuple[Place, Value]]:
        """The vector of every place, as seen from the tile at that address.

        top, at   row and column, in the plane, of the place (0, 0)
        """
        b, (split_h, split_w) = self.builder, self.shape.split
        for down, right in places:
            phase = down % split_h * split_w + right % split_w
            row = b.add(tile, b.mul(self.planes.pitch, I64(down // split_h)))
            where = b.add(row, b.mul(self.planes.extra, I64(phase)))
            yield (down, right), vec.load(b, self.lanes, vec.offset(b, where, right // split_w * 4))


class PlaneLoads:
    """From the planes themselves; every second pixel is picked out of two vectors where the convolution strides."""

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
        """The pixels from a column on, 0 outside the plane."""
        b, lanes = self.builder, self.lanes
        first = b.add(at, I64(column))
        before = vec.first_lanes(b, lanes, b.neg(first))
        mask = b.and_(b.not_(before), vec.first_lanes(b, lanes, b.sub(self.planes.width, first)))
        return vec.masked_load(b, lanes, vec.offset(b, row, 4 * column), mask)


class FoldedLoads:
    """From planes of few columns: several whole rows are one vector, with the same number of lanes for each (stride 1 only)."""

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
        """Rows from one of the plane's on, one behind the other, without gaps; 0 for those outside the plane, and behind."""
        b, lanes = self.builder, self.lanes
        before = vec.first_lanes(b, lanes, I64(-row * self.width))
        inside = min(self.folds, self.height - row) * self.width
        mask = b.and_(b.not_(before), vec.first_lanes(b, lanes, I64(inside)))
        return vec.masked_load(b, lanes, vec.offset(b, tile, 4 * down * self.width), mask)

    def _lanes(self, displacement: int) -> list[int]:
        """For the lanes of a vector, the lane of the dense rows that each shows; a lane of zeros beside a row.

        Behind the rows there are zeros, too, and to order the lanes of one vector is faster than those of two.
        """
        zero = self.folds * self.width
        each = self.lanes // self.folds
        columns = [column + displacement for column in range(each)]
        inside = [fold * self.width + c if 0 <= c < self.width else None for fold in range(self.folds) for c in columns]
        return [zero if lane is None else lane for lane in inside]


def folded_lanes(lanes: int, folds: int, width: int) -> list[int]:
    """Where the values of the rows in one vector stand, row by row."""
    return [fold * (lanes // folds) + column for fold in range(folds) for column in range(width)]
