"""The micro-kernels of the fully connected layer: products of few rows (the images) with a large matrix w.

w is read or updated once, in its own layout, row by row: packing it for few images would cost too much. The small
matrices are packed so that a tile reads them contiguously.

    dot_tile     y = a w^T: vectors along the rows of w and of a, their lanes summed at the end
    sum_tile     y = a w: registers hold a block of w over a loop of images
    outer_tile   w += a^T b: registers hold the sums of a block of w over a loop of images

How such functions are made and called: ``simd.tile``. Distances are in bytes. Rows and columns beyond the edge of w are
neither read nor written.
"""

from __future__ import annotations

from sslnet.kernels.simd import vector as vec
from sslnet.kernels.simd.tile import tile
from sslnet.kernels.simd.vector import I64

LINE = 64
"""Bytes of a cache line."""


@tile
def dot_tile(
    builder, lanes, w, w_step, left, steps, rest, a, y, y_step, count, first, relu, following, *, rows, images, ahead
):
    """y[image, row] = first + sum over columns of a[image, column] * w[row, column], then ReLU.

    w, w_step     the first row, and from one row to the next
    left          how many of the tile's rows exist
    steps, rest   columns: number of whole vectors, and remaining columns
    a             (steps, and one more if there is a rest, images, lanes), zeros after the rest
    y, y_step     the first image's first row, and from one image to the next
    count         how many of the tile's images are stored
    first         address of first values (rows,) for every image; 0: the values in y
    relu          0 or 1
    following     the first of ``ahead`` rows to prefetch for the next tile
    """
    size = 4 * lanes
    lines = _rows_of(builder, w, w_step, rows, left)
    fetch = [vec.line(builder, following, w_step, i) for i in range(ahead)]

    def products(load, position, pixels, totals):
        own = [load(builder.add(line, position)) for line in lines]
        sums = []
        for i in range(images):
            value = vec.load(builder, lanes, vec.offset(builder, pixels, i * size), size)
            sums += [vec.multiply_add(builder, value, own[r], totals[i * rows + r]) for r in range(rows)]
        return sums

    def step(state):
        position, pixels, totals = state[0], state[1], state[2:]
        for line in fetch:
            vec.prefetch(builder, builder.add(line, position))
        totals = products(lambda address: vec.load(builder, lanes, address), position, pixels, totals)
        return [vec.offset(builder, position, size), vec.offset(builder, pixels, images * size), *totals]

    def last(state):
        mask = vec.first_lanes(builder, lanes, rest)
        return products(lambda address: vec.masked_load(builder, lanes, address, mask), state[0], state[1], state[2:])

    state = vec.counted_loop(builder, steps, [I64(0), a, *[vec.zeros(lanes)] * (rows * images)], step)
    totals = vec.either(
        builder,
        builder.icmp_signed(">", rest, I64(0)),
        lambda: last(state),
        lambda: state[2:],
        vec.vector_type(lanes),
    )
    least = vec.least_value(builder, lanes, relu)
    mask = vec.first_lanes(builder, lanes, builder.select(builder.icmp_signed("<", left, I64(rows)), left, I64(rows)))
    fresh = builder.icmp_signed("!=", first, I64(0))
    for i in range(images):
        with builder.if_then(builder.icmp_signed("<", I64(i), count)):
            target = vec.line(builder, y, y_step, i)
            start = vec.masked_load(builder, lanes, builder.select(fresh, first, target), mask)
            total = builder.fadd(start, _sum_each(builder, totals[i * rows : (i + 1) * rows]))
            vec.masked_store(builder, vec.at_least(builder, total, least), target, mask)


@tile
def sum_tile(builder, lanes, w, w_step, left, columns, a, y, images, ahead, *, rows, vectors):
    """y[image, column] += sum over rows of a[image, row] * w[row, column].

    w, w_step   the block's first row, and from one row to the next
    left        how many of the tile's rows exist
    columns     how many of its vectors * lanes columns exist
    a           (images, rows), zero for rows that do not exist
    y           (images, vectors * lanes), aligned
    ahead       distance from the block to the one to prefetch
    """
    size = 4 * lanes
    lines = [vec.line(builder, w, w_step, r) for r in range(rows)]

    def whole():
        return [vec.load(builder, lanes, vec.offset(builder, line, v * size)) for line in lines for v in range(vectors)]

    def part():
        loaded = []
        for r, line in enumerate(lines):
            there = builder.select(builder.icmp_signed("<", I64(r), left), columns, I64(0))
            for v in range(vectors):
                mask = vec.first_lanes(builder, lanes, builder.sub(there, I64(v * lanes)))
                loaded.append(vec.masked_load(builder, lanes, vec.offset(builder, line, v * size), mask))
        return loaded

    held = vec.either(
        builder, _is_whole(builder, left, rows, columns, vectors * lanes), whole, part, vec.vector_type(lanes)
    )
    for line in lines:
        for byte in range(0, vectors * size, LINE):
            vec.prefetch(builder, vec.offset(builder, builder.add(line, ahead), byte))

    def image(state):
        factors, targets = state
        sums = [vec.load(builder, lanes, vec.offset(builder, targets, v * size), size) for v in range(vectors)]
        for r in range(rows):
            factor = vec.broadcast(builder, lanes, vec.offset(builder, factors, 4 * r))
            sums = [vec.multiply_add(builder, factor, held[r * vectors + v], sums[v]) for v in range(vectors)]
        for v, total in enumerate(sums):
            vec.store(builder, total, vec.offset(builder, targets, v * size), size)
        return [vec.offset(builder, factors, 4 * rows), vec.offset(builder, targets, vectors * size)]

    vec.counted_loop(builder, images, [a, y], image)


@tile
def outer_tile(builder, lanes, w, w_step, left, columns, a, b, images, ahead, *, rows, vectors):
    """w[row, column] += sum over images of a[image, row] * b[image, column].

    w, w_step, left, columns, ahead   as in sum_tile
    a        (images, rows)
    b        (images, vectors * lanes), aligned
    """
    size = 4 * lanes
    lines = [vec.line(builder, w, w_step, r) for r in range(rows)]
    places = [vec.offset(builder, line, v * size) for line in lines for v in range(vectors)]
    for line in lines:
        for byte in range(0, vectors * size, LINE):
            vec.prefetch(builder, vec.offset(builder, builder.add(line, ahead), byte), to_write=True)

    def image(state):
        factors, values, totals = state[0], state[1], state[2:]
        own = [vec.load(builder, lanes, vec.offset(builder, values, v * size), size) for v in range(vectors)]
        sums = []
        for r in range(rows):
            factor = vec.broadcast(builder, lanes, vec.offset(builder, factors, 4 * r))
            sums += [vec.multiply_add(builder, factor, own[v], totals[r * vectors + v]) for v in range(vectors)]
        return [vec.offset(builder, factors, 4 * rows), vec.offset(builder, values, vectors * size), *sums]

    totals = vec.counted_loop(builder, images, [a, b, *[vec.zeros(lanes)] * (rows * vectors)], image)[2:]
    with builder.if_else(_is_whole(builder, left, rows, columns, vectors * lanes)) as (full, part):
        with full:
            for total, place in zip(totals, places):
                vec.store(builder, builder.fadd(total, vec.load(builder, lanes, place)), place)
        with part:
            for i, (total, place) in enumerate(zip(totals, places)):
                there = builder.select(builder.icmp_signed("<", I64(i // vectors), left), columns, I64(0))
                mask = vec.first_lanes(builder, lanes, builder.sub(there, I64(i % vectors * lanes)))
                total = builder.fadd(total, vec.masked_load(builder, lanes, place, mask))
                vec.masked_store(builder, total, place, mask)


def _rows_of(builder, w, w_step, rows, left):
    """The addresses of the tile's rows; rows that do not exist get the address of the last one."""
    lines = [w]
    for r in range(1, rows):
        following = builder.add(lines[-1], w_step)
        lines.append(builder.select(builder.icmp_signed("<", I64(r), left), following, lines[-1]))
    return lines


def _is_whole(builder, left, rows, columns, width):
    """Whether all rows and columns of a block exist."""
    return builder.and_(builder.icmp_signed(">=", left, I64(rows)), builder.icmp_signed(">=", columns, I64(width)))


def _sum_each(builder, vectors):
    """A vector whose lane i is the sum of the lanes of vector i; further lanes hold any value."""
    width = vectors[0].type.count
    while len(vectors) > 1 or width > 1:
        if len(vectors) % 2:
            vectors = [*vectors, vectors[-1]]
        pairs = list(zip(vectors[::2], vectors[1::2]))
        vectors = [builder.fadd(vec.even_lanes(builder, a, b), vec.odd_lanes(builder, a, b)) for a, b in pairs]
        width //= 2
    return vectors[0]
