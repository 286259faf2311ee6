"""The micro-kernels of depthwise convolutions: each channel plane by itself, vectors along its rows.

    stencil        planes of outputs, in the forward pass and the gradient of the input
    stencil_sums   sums of products of dy with the source, for the gradient of the weights
    add_lanes      adds the lanes of those sums to the gradient

How such functions are made and called: ``simd.tile``. Distances are in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from sslnet.kernels.conv.depthwise.loads import FoldedLoads, PlaneLoads, WindowLoads, folded_lanes
from sslnet.kernels.conv.depthwise.stencil import Reading, Stencil
from sslnet.kernels.runtime.compiler import c_function
from sslnet.kernels.simd import vector as vec
from sslnet.kernels.simd.tile import instructions, tile
from sslnet.kernels.simd.vector import I64, VectorUnit


@dataclass(frozen=True)
class _Planes:
    """Addresses and sizes of the planes, as LLVM values."""

    address: Any
    plane_step: Any
    source_step: Any
    pitch: Any
    height: Any
    width: Any
    first_row: Any
    pad: Any
    extra: Any


@tile
def stencil(
    builder, lanes, weights, tap_step, weights_step, bias, bias_step, x, plane_step, source_step, pitch, height, width,
    first_row, pad, extra, planes, count, columns, y, y_step, relu, *, shape: Stencil, rows, reading: Reading,
):  # fmt: skip
    """y = bias + sum over taps of weight * source, then ReLU, for planes that follow each other.

    rows   vectors of a tile, one below the other
    weights       of a plane: (sources, kernel_h, kernel_w), each source's read with tap_step: 4, or -4 from its last
                  one
    x             planes or windows; source_step from one source of an output plane to the next, pitch from row to row
    first_row     row of the plane (negative in the padding) that the first output's first tap reads; pad: columns
                  before it
    extra         address of ``width`` zeros; for windows the distance from one phase plane to the next
    count, columns   rows and columns of y
    weights_step, bias_step, plane_step, y_step   from one plane to the next
    """
    where = _Planes(x, plane_step, source_step, pitch, height, width, first_row, pad, extra)
    code = _StencilCode(builder, lanes, shape, rows, reading, where)
    code.emit(weights, tap_step, weights_step, bias, bias_step, planes, count, columns, y, y_step, relu)


class _TileCode:
    """The loops that all tiles share: over planes, bands of rows and vectors along them."""

    def __init__(self, builder: Any, lanes: int, shape: Stencil, rows: int, reading: Reading, where: _Planes) -> None:
        self.b, self.lanes, self.shape, self.rows, self.reading = builder, lanes, shape, rows, reading
        if reading.whole:
            numbers = {
                "height": reading.height,
                "width": reading.width,
                "first_row": -reading.pad_h,
                "pad": reading.pad_w,
            }
            where = replace(where, pitch=I64(4 * reading.width), **{name: I64(n) for name, n in numbers.items()})
        self.where = where
        loads: type[Any] = WindowLoads
        if reading.folds:
            loads = FoldedLoads if reading.folds > 1 else PlaneLoads
        self.loads = loads(builder, lanes, shape, where, reading)
        self.folds, self.out_width = max(1, reading.folds), reading.out_w
        self.step_h, self.step_w = shape.steps
        self.band_rows = rows * self.folds * self.step_h
        """Output rows of one tile."""
        self.in_row = lanes * self.step_w
        """Outputs of one tile along a row."""

    def bands(self, count: Any) -> Any:
        return self.b.sdiv(self.b.add(count, I64(self.band_rows - 1)), I64(self.band_rows))

    def vectors(self, columns: Any) -> Any:
        return I64(1) if self.folds > 1 else self.b.sdiv(self.b.add(columns, I64(self.in_row - 1)), I64(self.in_row))

    def each_band(self, count, columns, plane, out, carried, vector):
        """Emits the loop over the tiles of a plane; vector(tile, top, at, out, left, columns, carried) -> carried.

        out    address of the plane of outputs; left: remaining rows, columns: remaining columns of the row
        """
        b, loads = self.b, self.loads
        if self.reading.whole:
            count, columns = I64(self.reading.out_h), I64(self.reading.out_w)
        row_bytes = b.mul(columns, I64(4))
        down, split_h = loads.down(self.rows), self.shape.split[0]

        def band(state):
            tile, top, out, left = state[:4]

            def one(state):
                tile, at, out, columns = state[:4]
                carried = vector(tile, top, at, out, left, columns, state[4:])
                further = vec.offset(b, tile, loads.right), b.add(at, I64(loads.right // 4))
                return [*further, vec.offset(b, out, 4 * self.in_row), b.sub(columns, I64(self.in_row)), *carried]

            first = [tile, b.neg(self.where.pad), out, columns, *state[4:]]
            carried = vec.counted_loop(b, self.vectors(columns), first, one)[4:]
            top = b.add(top, I64(self.rows * self.folds * split_h))
            out = b.add(out, b.mul(row_bytes, I64(self.band_rows)))
            return [b.add(tile, down), top, out, b.sub(left, I64(self.band_rows)), *carried]

        first = [loads.start(plane), self.where.first_row, out, count, *carried]
        return vec.counted_loop(b, self.bands(count), first, band)[4:]

    def fetch_below(self, tile: Any, out: Any, row_bytes: Any, *, write: bool) -> None:
        """Prefetches the cache lines that the tile below this one reads, and those of its outputs: the rows of a tile
        are too many streams for the hardware prefetcher.

        write   whether outputs will be written
        """
        b, size = self.b, 4 * self.lanes
        if self.reading.folds != 1 or self.reading.whole:
            return
        below = b.add(tile, self.loads.down(self.rows))
        for row in range(self.rows * self.shape.split[0]):
            place = b.add(below, b.mul(self.where.pitch, I64(row + self.shape.reach[0])))
            for part in range(self.shape.split[1]):
                vec.prefetch(b, vec.offset(b, place, size * part))
        for row in range(self.band_rows):
            place = b.add(out, b.mul(row_bytes, I64(self.band_rows + row)))
            for part in range(self.step_w):
                vec.prefetch(b, vec.offset(b, place, size * part), to_write=write)

    def folded_mask(self, left: Any, row: int) -> Any:
        """The mask of the lanes of vector ``row`` that are outputs, after its rows are packed without gaps."""
        b = self.b
        below = b.sub(left, I64(row * self.folds))
        below = b.select(b.icmp_signed("<", below, I64(self.folds)), below, I64(self.folds))
        return vec.first_lanes(b, self.lanes, b.mul(below, I64(self.out_width)))


class _StencilCode(_TileCode):
    """The emitter of a stencil."""

    def emit(self, weights, tap_step, weights_step, bias, bias_step, planes, count, columns, y, y_step, relu):
        b = self.b
        columns = I64(self.reading.out_w) if self.reading.whole else columns
        self.least = vec.least_value(b, self.lanes, relu)
        self.row_bytes = b.mul(columns, I64(4))

        def plane(state):
            weights, bias, x, y = state
            values = self._weights(weights, tap_step)
            start = vec.broadcast(b, self.lanes, bias)

            def vector(tile, top, at, y, left, columns, carried):
                self.fetch_below(tile, y, self.row_bytes, write=True)
                for phase in range(self.step_h):
                    self._outputs(values, start, tile, top, at, y, left, columns, phase)
                return []

            self.each_band(count, columns, x, y, [], vector)
            steps = (weights_step, bias_step, self.where.plane_step, y_step)
            return [b.add(place, step) for place, step in zip(state, steps)]

        vec.counted_loop(b, planes, [weights, bias, self.where.address, y], plane)

    def _weights(self, weights, tap_step):
        """Every weight of the plane, broadcast to all lanes, by (source, kernel place)."""
        b, taps = self.b, self.shape.kernel_h * self.shape.kernel_w
        values = {}
        for source in range(self.shape.sources):
            place = vec.offset(b, weights, 4 * source * taps)
            for t in range(taps):
                values[source, t] = vec.broadcast(b, self.lanes, place)
                place = b.add(place, tap_step)
        return values

    def _outputs(self, weights, start, tile, top, at, y, left, columns, phase):
        """Computes and stores the outputs of one row phase of a tile."""
        b = self.b
        sums = {(row, column): start for row in range(self.rows) for column in range(self.step_w)}
        meetings = self.shape.meetings(self.rows, self.folds, phase)
        for source in range(self.shape.sources):
            base = b.add(tile, b.mul(self.where.source_step, I64(source)))
            for place, value in self.loads.all(base, top, at, meetings):
                for row, column, t in meetings[place]:
                    sums[row, column] = vec.multiply_add(b, value, weights[source, t], sums[row, column])
        for key, total in sums.items():
            sums[key] = vec.at_least(b, total, self.least)
        if self.folds > 1:
            self._store_folded(sums, y, left)
        else:
            self._store(sums, y, left, columns, phase)

    def _store(self, sums, y, left, columns, phase):
        b, lanes = self.b, self.lanes
        lines = []
        for row in range(self.rows):
            down = row * self.step_h + phase
            place = b.add(y, b.mul(self.row_bytes, I64(down)))
            lines.append((down, place, _in_turn(b, [sums[row, i] for i in range(self.step_w)])))
        if self.reading.whole and self.step_h == self.step_w == 1:
            for row, place, (value,) in lines:
                self._store_below(value, place, row, self.out_width, vec.first_lanes(b, lanes, I64(self.out_width)))
            return
        whole = b.and_(
            b.icmp_signed(">=", left, I64(self.band_rows)), b.icmp_signed(">=", columns, I64(lanes * self.step_w))
        )
        with b.if_else(whole) as (full, part):
            with full:
                for _, place, vectors in lines:
                    for i, value in enumerate(vectors):
                        vec.store(b, value, vec.offset(b, place, 4 * lanes * i))
            with part:
                for down, place, vectors in lines:
                    there = b.icmp_signed(">", left, I64(down))
                    for i, value in enumerate(vectors):
                        count = b.select(there, b.sub(columns, I64(lanes * i)), I64(0))
                        mask = vec.first_lanes(b, lanes, count)
                        vec.masked_store(b, value, vec.offset(b, place, 4 * lanes * i), mask)

    def _store_folded(self, sums, y, left):
        """Packs the rows of a vector without gaps and stores them, as they lie in y."""
        b, size = self.b, self.folds * self.out_width
        order = folded_lanes(self.lanes, self.folds, self.out_width)
        for row in range(self.rows):
            dense = vec.shuffle(b, sums[row, 0], sums[row, 0], order + [0] * (self.lanes - size))
            self._store_below(dense, vec.offset(b, y, 4 * row * size), row, size, self.folded_mask(left, row))

    def _store_below(self, value, place, row, size, mask):
        """Stores one vector, ``size`` outputs, of a plane that is one tile; a whole vector where the next store
        overwrites the rest of it, because masked stores are slow."""
        following = self.reading.out_h * self.out_width - (row + 1) * size
        if following >= self.lanes - size:
            vec.store(self.b, value, place)
        else:
            vec.masked_store(self.b, value, place, mask)


def _in_turn(builder, parts):
    """The vectors that interleave the values of the parts (1, 2, 4 ... vectors)."""
    if len(parts) == 1:
        return parts
    even, odd = _in_turn(builder, parts[0::2]), _in_turn(builder, parts[1::2])
    return [value for a, b in zip(even, odd) for value in vec.zip_lanes(builder, a, b)]


@tile
def stencil_sums(
    builder, lanes, x, plane_step, source_step, pitch, height, width, first_row, pad, extra, planes, count, columns, dy,
    dy_step, sums, *, shape: Stencil, rows, reading: Reading,
):  # fmt: skip
    """sums[tap] += sum over the plane of dy * x, sums[last] += sum of dy, lane by lane, for consecutive planes.

    dy         (planes, count, columns), dy_step from one plane to the next
    sums       (planes, taps + 1, lanes), aligned
    the others as in stencil
    """
    where = _Planes(x, plane_step, source_step, pitch, height, width, first_row, pad, extra)
    _SumsCode(builder, lanes, shape, rows, reading, where).emit(planes, count, columns, dy, dy_step, sums)


class _SumsCode(_TileCode):
    """The emitter of stencil_sums."""

    def emit(self, planes, count, columns, dy, dy_step, sums):
        b, size = self.b, 4 * self.lanes
        columns = I64(self.reading.out_w) if self.reading.whole else columns
        self.row_bytes = b.mul(columns, I64(4))
        meetings = self.shape.meetings(self.rows, self.folds)

        def vector(tile, top, at, dy, left, columns, totals):
            self.fetch_below(tile, dy, self.row_bytes, write=False)
            grads, totals = self._grads(dy, left, columns), list(totals)
            for place, value in self.loads.all(tile, top, at, meetings):
                for row, _, t in meetings[place]:
                    totals[t] = vec.multiply_add(b, value, grads[row], totals[t])
            for grad in grads:
                totals[-1] = b.fadd(totals[-1], grad)
            return totals

        def plane(state):
            dy, x, place = state
            # The sums start at zero and are added at the end: sums over one plane have small rounding errors.
            initial = [vec.zeros(self.lanes)] * (self.shape.taps + 1)
            for total in self.each_band(count, columns, x, dy, initial, vector):
                vec.store(b, b.fadd(vec.load(b, self.lanes, place, size), total), place, size)
                place = vec.offset(b, place, size)
            return [b.add(dy, dy_step), b.add(x, self.where.plane_step), place]

        vec.counted_loop(b, planes, [dy, self.where.address, sums], plane)

    def _grads(self, dy, left, columns):
        """The vectors of dy of a tile, 0 in lanes without an output."""
        b, lanes = self.b, self.lanes
        if self.folds > 1:
            return [self._folded_grad(dy, left, row) for row in range(self.rows)]
        places = [b.add(dy, b.mul(self.row_bytes, I64(row))) for row in range(self.rows)]
        whole = b.and_(b.icmp_signed(">=", left, I64(self.rows)), b.icmp_signed(">=", columns, I64(lanes)))

        def part():
            counts = [b.select(b.icmp_signed(">", left, I64(row)), columns, I64(0)) for row in range(self.rows)]
            masks = [vec.first_lanes(b, lanes, count) for count in counts]
            return [vec.masked_load(b, lanes, place, mask) for place, mask in zip(places, masks)]

        def full():
            return [vec.load(b, lanes, place) for place in places]

        return vec.either(b, whole, full, part, vec.vector_type(lanes))

    def _folded_grad(self, dy, left, row):
        b, lanes, size = self.b, self.lanes, self.folds * self.out_width
        dense = vec.masked_load(b, lanes, vec.offset(b, dy, 4 * row * size), self.folded_mask(left, row))
        order = [lanes] * lanes
        for i, lane in enumerate(folded_lanes(lanes, self.folds, self.out_width)):
            order[lane] = i
        return vec.shuffle(b, dense, vec.zeros(lanes), order)


@cache
def add_lanes(unit: VectorUnit) -> int:
    """Adds the lanes of the sums that stencil_sums computed to dw, and those of each plane's last vector to db.

    (sums, planes, taps, dw, dw_step, db, db_step)
    sums               (planes, taps + 1, lanes), aligned
    dw_step, db_step   from one plane to the next
    """
    lanes = unit.lanes

    @c_function
    def add(sums, planes, taps, dw, dw_step, db, db_step):
        for p in range(planes):
            first = sums + p * (taps + 1) * lanes * 4
            for t in range(taps):
                _add_lanes(lanes, first + t * lanes * 4, dw + p * dw_step + t * 4)
            _add_lanes(lanes, first + taps * lanes * 4, db + p * db_step)

    return add


@instructions
def _add_lanes(builder, lanes, source, target):
    total = vec.sum_lanes(builder, vec.load(builder, lanes, source, 4 * lanes))
    place = vec.at(builder, target, vec.F32)
    builder.store(builder.fadd(builder.load(place), total), place)
