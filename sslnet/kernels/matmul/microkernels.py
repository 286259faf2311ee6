"""The innermost loops of the fully connected layer: products of few rows (the images) with a large matrix w.

w is read, or added to, in its own layout, row after row, once: it is too large to be copied for a few images' sake.
What is small is packed so that a tile reads it in one go.

    dot_tile     y = a w^T: vectors along the rows of w and of a, their lanes summed at the end
    sum_tile     y = a w: a block of w held in registers while all images pass by
    outer_tile   w += a^T b: a block of w's sums held in registers while all images pass by

Each function returns the address of a compiled C function of int64 arguments, to be called through vector.call_tile.
Distances are in bytes. Rows and columns that a block lacks at the edge of w are neither read nor written.
"""

from __future__ import annotations

from functools import cache

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from sslnet.kernels.simd import vector as vec
from sslnet.kernels.simd.vector import I32, I64, REVISION, VectorUnit, compiled, literal_values

LINE = 64
"""Bytes of a cache line."""
NEAREST = 3
"""What LLVM calls the first-level cache."""


@cache
def dot_tile(unit: VectorUnit, rows: int, images: int, ahead: int) -> int:
    """y[image, row] = first + sum over columns of a[image, column] * w[row, column], then ReLU.

    (w, w_step, left, steps, rest, a, y, y_step, count, first, relu, next)
    w, w_step     the first row, and from one row to the next
    left          how many of the tile's rows there are
    steps, rest   columns: whole vectors, and what is left
    a             (steps, and one more if there is a rest, images, lanes), zeros behind the rest
    y, y_step     the first image's first row, and from one image to the next
    count         how many of the tile's images are stored
    first         address of first values (rows,) for every image; 0: what y holds
    relu          0 or 1
    next          the first of ``ahead`` rows that will be wanted next
    """
    lanes, revision = unit.lanes, REVISION

    @compiled(12)
    def tile(w, w_step, left, steps, rest, a, y, y_step, count, first, relu, following):
        _dot_tile(
            lanes, rows, images, ahead, revision, w, w_step, left, steps, rest, a, y, y_step, count, first, relu, following
        )  # fmt: skip

    return tile


@intrinsic(prefer_literal=True)
def _dot_tile(
    typingctx, lanes, rows, images, ahead, revision, w, w_step, left, steps, rest, a, y, y_step, count, first, relu, following
):  # fmt: skip
    numbers = literal_values(lanes, rows, images, ahead, revision)
    if numbers is None:
        return None
    width, nr, ni, fetched, _ = numbers
    size = 4 * width

    def codegen(context, builder, signature, args):
        w, w_step, left, steps, rest, a, y, y_step, count, first, relu, following = args[5:]
        lines = _rows_of(builder, w, w_step, nr, left)
        fetch = [_line(builder, following, w_step, i) for i in range(fetched)]

        def products(load, position, pixels, totals):
            own = [load(builder.add(line, position)) for line in lines]
            sums = []
            for i in range(ni):
                value = vec.load(builder, width, vec.offset(builder, pixels, i * size), size)
                sums += [vec.multiply_add(builder, value, own[r], totals[i * nr + r]) for r in range(nr)]
            return sums

        def step(state):
            position, pixels, totals = state[0], state[1], state[2:]
            for line in fetch:
                _prefetch(builder, builder.add(line, position), write=False)
            totals = products(lambda address: vec.load(builder, width, address), position, pixels, totals)
            return [vec.offset(builder, position, size), vec.offset(builder, pixels, ni * size), *totals]

        def last(state):
            mask = vec.first_lanes(builder, width, rest)
            return products(
                lambda address: vec.masked_load(builder, width, address, mask), state[0], state[1], state[2:]
            )

        state = vec.counted_loop(builder, steps, [I64(0), a, *[vec.zeros(width)] * (nr * ni)], step)
        totals = vec.either(
            builder,
            builder.icmp_signed(">", rest, I64(0)),
            lambda: last(state),
            lambda: state[2:],
            vec.vector_type(width),
        )
        least = vec.least_value(builder, width, relu)
        mask = vec.first_lanes(builder, width, builder.select(builder.icmp_signed("<", left, I64(nr)), left, I64(nr)))
        fresh = builder.icmp_signed("!=", first, I64(0))
        for i in range(ni):
            with builder.if_then(builder.icmp_signed("<", I64(i), count)):
                target = _line(builder, y, y_step, i)
                start = vec.masked_load(builder, width, builder.select(fresh, first, target), mask)
                total = builder.fadd(start, _sum_each(builder, totals[i * nr : (i + 1) * nr]))
                vec.masked_store(builder, vec.at_least(builder, total, least), target, mask)
        return context.get_dummy_value()

    return types.void(lanes, rows, images, ahead, revision, *[types.int64] * 12), codegen


@cache
def sum_tile(unit: VectorUnit, rows: int, vectors: int) -> int:
    """y[image, column] += sum over rows of a[image, row] * w[row, column].

    (w, w_step, left, columns, a, y, images, ahead)
    w, w_step   the block's first row, and from one row to the next
    left        how many of the tile's rows there are
    columns     how many of its vectors * lanes columns there are
    a           (images, rows), zero for the rows that there are not
    y           (images, vectors * lanes), aligned
    ahead       from the block to what will be wanted next
    """
    lanes, revision = unit.lanes, REVISION

    @compiled(8)
    def tile(w, w_step, left, columns, a, y, images, ahead):
        _sum_tile(lanes, rows, vectors, revision, w, w_step, left, columns, a, y, images, ahead)

    return tile


@intrinsic(prefer_literal=True)
def _sum_tile(typingctx, lanes, rows, vectors, revision, w, w_step, left, columns, a, y, images, ahead):
    numbers = literal_values(lanes, rows, vectors, revision)
    if numbers is None:
        return None
    width, nr, nv, _ = numbers
    size = 4 * width

    def codegen(context, builder, signature, args):
        w, w_step, left, columns, a, y, images, ahead = args[4:]
        lines = [_line(builder, w, w_step, r) for r in range(nr)]

        def whole():
            return [vec.load(builder, width, vec.offset(builder, line, v * size)) for line in lines for v in range(nv)]

        def part():
            loaded = []
            for r, line in enumerate(lines):
                there = builder.select(builder.icmp_signed("<", I64(r), left), columns, I64(0))
                for v in range(nv):
                    mask = vec.first_lanes(builder, width, builder.sub(there, I64(v * width)))
                    loaded.append(vec.masked_load(builder, width, vec.offset(builder, line, v * size), mask))
            return loaded

        held = vec.either(
            builder, _is_whole(builder, left, nr, columns, nv * width), whole, part, vec.vector_type(width)
        )
        for line in lines:
            for byte in range(0, nv * size, LINE):
                _prefetch(builder, vec.offset(builder, builder.add(line, ahead), byte), write=False)

        def image(state):
            factors, targets = state
            sums = [vec.load(builder, width, vec.offset(builder, targets, v * size), size) for v in range(nv)]
            for r in range(nr):
                factor = vec.broadcast(builder, width, vec.offset(builder, factors, 4 * r))
                sums = [vec.multiply_add(builder, factor, held[r * nv + v], sums[v]) for v in range(nv)]
            for v, total in enumerate(sums):
                vec.store(builder, total, vec.offset(builder, targets, v * size), size)
            return [vec.offset(builder, factors, 4 * nr), vec.offset(builder, targets, nv * size)]

        vec.counted_loop(builder, images, [a, y], image)
        return context.get_dummy_value()

    return types.void(lanes, rows, vectors, revision, *[types.int64] * 8), codegen


@cache
def outer_tile(unit: VectorUnit, rows: int, vectors: int) -> int:
    """w[row, column] += sum over images of a[image, row] * b[image, column].

    (w, w_step, left, columns, a, b, images, ahead)
    w, w_step, left, columns, ahead   as sum_tile
    a        (images, rows)
    b        (images, vectors * lanes), aligned
    """
    lanes, revision = unit.lanes, REVISION

    @compiled(8)
    def tile(w, w_step, left, columns, a, b, images, ahead):
        _outer_tile(lanes, rows, vectors, revision, w, w_step, left, columns, a, b, images, ahead)

    return tile


@intrinsic(prefer_literal=True)
def _outer_tile(typingctx, lanes, rows, vectors, revision, w, w_step, left, columns, a, b, images, ahead):
    numbers = literal_values(lanes, rows, vectors, revision)
    if numbers is None:
        return None
    width, nr, nv, _ = numbers
    size = 4 * width

    def codegen(context, builder, signature, args):
        w, w_step, left, columns, a, b, images, ahead = args[4:]
        lines = [_line(builder, w, w_step, r) for r in range(nr)]
        places = [vec.offset(builder, line, v * size) for line in lines for v in range(nv)]
        for line in lines:
            for byte in range(0, nv * size, LINE):
                _prefetch(builder, vec.offset(builder, builder.add(line, ahead), byte), write=True)

        def image(state):
            factors, values, totals = state[0], state[1], state[2:]
            own = [vec.load(builder, width, vec.offset(builder, values, v * size), size) for v in range(nv)]
            sums = []
            for r in range(nr):
                factor = vec.broadcast(builder, width, vec.offset(builder, factors, 4 * r))
                sums += [vec.multiply_add(builder, factor, own[v], totals[r * nv + v]) for v in range(nv)]
            return [vec.offset(builder, factors, 4 * nr), vec.offset(builder, values, nv * size), *sums]

        totals = vec.counted_loop(builder, images, [a, b, *[vec.zeros(width)] * (nr * nv)], image)[2:]
        with builder.if_else(_is_whole(builder, left, nr, columns, nv * width)) as (full, part):
            with full:
                for total, place in zip(totals, places):
                    vec.store(builder, builder.fadd(total, vec.load(builder, width, place)), place)
            with part:
                for i, (total, place) in enumerate(zip(totals, places)):
                    there = builder.select(builder.icmp_signed("<", I64(i // nv), left), columns, I64(0))
                    mask = vec.first_lanes(builder, width, builder.sub(there, I64(i % nv * width)))
                    total = builder.fadd(total, vec.masked_load(builder, width, place, mask))
                    vec.masked_store(builder, total, place, mask)
        return context.get_dummy_value()

    return types.void(lanes, rows, vectors, revision, *[types.int64] * 8), codegen


def _line(builder, address, step, i):
    """The address of line i."""
    return builder.add(address, builder.mul(step, I64(i))) if i else address


def _rows_of(builder, w, w_step, rows, left):
    """The addresses of the tile's rows; for those that there are not, that of the last one that there is."""
    lines = [w]
    for r in range(1, rows):
        following = builder.add(lines[-1], w_step)
        lines.append(builder.select(builder.icmp_signed("<", I64(r), left), following, lines[-1]))
    return lines


def _is_whole(builder, left, rows, columns, width):
    """Whether all rows and columns of a block are there."""
    return builder.and_(builder.icmp_signed(">=", left, I64(rows)), builder.icmp_signed(">=", columns, I64(width)))


def _prefetch(builder, address, *, write):
    """Asks for a cache line; an address outside every array does no harm."""
    pointer = vec.at(builder, address, ir.IntType(8))
    kind = ir.FunctionType(ir.VoidType(), [pointer.type, I32, I32, I32])
    name = "llvm.prefetch.p0"
    function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    builder.call(function, [pointer, I32(int(write)), I32(NEAREST), I32(1)])


def _sum_each(builder, vectors):
    """One vector: lane i is the sum of the lanes of vector i; any value in the lanes beyond."""
    width = vectors[0].type.count
    while len(vectors) > 1 or width > 1:
        if len(vectors) % 2:
            vectors = [*vectors, vectors[-1]]
        pairs = list(zip(vectors[::2], vectors[1::2]))
        vectors = [builder.fadd(vec.even_lanes(builder, a, b), _odd_lanes(builder, a, b)) for a, b in pairs]
        width //= 2
    return vectors[0]


def _odd_lanes(builder, a, b):
    """a1 a3 ... b1 b3 ..."""
    lanes = ir.Constant(ir.VectorType(I32, a.type.count), [2 * i + 1 for i in range(a.type.count)])
    return builder.shuffle_vector(a, b, lanes)
