"""The loop nests (macro-kernels) of the fully connected layer: products of a matrix w (rows, columns) with few images.

Each is made once per shape. A thread packs its part of the small matrix, one block of columns at a time, so that the
block stays in the second-level cache for all rows of w. Threads share out the rows of w (DotLoop) or its columns, so
that no two threads write to the same place and nothing is summed over threads.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sslnet.kernels.conv.packing import address, record, threads_for
from sslnet.kernels.matmul.microkernels import dot_tile, outer_tile, sum_tile
from sslnet.kernels.matmul.packing import copy_blocks, copy_vectors, put_vectors
from sslnet.kernels.runtime.compiler import exact_kernel
from sslnet.kernels.runtime.memory import aligned_zeros, scratch, scratch_address
from sslnet.kernels.runtime.recording import Scratch
from sslnet.kernels.runtime.threads import parallel, region
from sslnet.kernels.simd.vector import VectorUnit, call_tile

ROW_BYTES = 2048
"""Bytes of a block of a row of w that several tiles of images read: the rows of a tile, and those prefetched for the
next one, stay in the first-level cache."""
SLOWLY = 8
"""From this many tiles of images on, rows are needed so slowly that blocks of 2 * ROW_BYTES can be prefetched."""
BLOCK_BYTES = 256 * 1024
"""Bytes of the small matrix in a block of columns."""
AHEAD = 8
"""The prefetch distance of w along its rows, in tiles."""


@dataclass(frozen=True)
class ProductShape:
    """The sizes of a product: w is (rows, columns), and the number of images."""

    images: int
    rows: int
    columns: int

    @property
    def multiply_adds(self) -> int:
        return self.images * self.rows * self.columns

    @property
    def work(self) -> int:
        """The time of the product in multiply-adds; loading an element of w counts as four."""
        return self.multiply_adds + 4 * self.rows * self.columns


class DotLoop:
    """The loop nest of y = a w^T + bias, with optional ReLU: a (images, columns), y (images, rows)."""

    TAPED = True
    """Whether a run is nothing but a region of compiled code, which a tape can take."""

    def __init__(self, shape: ProductShape, unit: VectorUnit) -> None:
        self.shape = shape
        most_rows, most_images = _dot_sizes(unit, shape.images)
        rows, images = _even(shape.rows, most_rows), _even(shape.images, most_images)
        blocks = -(-shape.images // images)
        vectors = -(-shape.columns // unit.lanes)
        chunk = vectors
        if blocks > 1:
            chunk = _even(vectors, ROW_BYTES // unit.bytes * (1 if blocks < SLOWLY else 2))
        # With one block of images each row is read once, and the hardware prefetcher suffices.
        ahead = -(-rows // blocks) if blocks > 1 else 0
        self.kernel = f"dot {rows}x{images}"
        self.units = -(-shape.rows // rows)
        self.packed_size = chunk * blocks * images * unit.lanes
        self.no_bias = aligned_zeros(shape.rows)
        self.numbers = record(
            images=shape.images, rows=shape.rows, columns=shape.columns, lanes=unit.lanes, tile_rows=rows,
            tile_images=images, blocks=blocks, chunk=chunk, ahead=ahead, pack=copy_vectors(unit),
            multiply=dot_tile(unit, rows, images, ahead),
        )  # fmt: skip

    def run(self, a: np.ndarray, w: np.ndarray, y: np.ndarray, bias: np.ndarray | None, relu: bool) -> None:
        first = address(self.no_bias if bias is None else bias)
        most = threads_for(self.shape.work)
        region(
            _run_dot, self.units, self.shape.work, self.numbers, address(a), address(w), address(y), first,
            Scratch("fc images", self.packed_size), relu, most=most,
        )  # fmt: skip


class _ColumnLoop:
    """The tile and the blocks of a loop nest whose units are the columns of a tile, and the packing of its factors a.

    sizes        (most rows, vectors) of the tile
    block_size   number of elements of a thread's block: the columns of a chunk of units, for all images
    """

    numbers: np.ndarray

    def __init__(self, shape: ProductShape, unit: VectorUnit, sizes: tuple[int, int]) -> None:
        self.shape = shape
        most_rows, self.vectors = sizes
        self.tile_rows = _even(shape.rows, most_rows)
        width = self.vectors * unit.lanes
        blocks = -(-shape.rows // self.tile_rows)
        self.units = -(-shape.columns // width)
        chunk = min(max(BLOCK_BYTES // (shape.images * width * 4), 1), self.units)
        self.block_size = chunk * shape.images * width
        self.packed_size = blocks * shape.images * self.tile_rows
        self.sizes = {
            "images": shape.images, "rows": shape.rows, "columns": shape.columns, "tile_rows": self.tile_rows,
            "width": width, "blocks": blocks, "chunk": chunk, "pack_factors": copy_blocks(unit),
        }  # fmt: skip

    def _packed(self, a: np.ndarray) -> int:
        """The address of the packed factors a (images, rows), in the scratch memory of the calling thread."""
        packed = scratch_address("fc factors", self.packed_size)
        _pack_factors(self.numbers, address(a), packed)
        return packed


class SumLoop(_ColumnLoop):
    """The loop nest of y = a w + bias, with optional ReLU: a (images, rows), y (images, columns)."""

    TAPED = False

    def __init__(self, shape: ProductShape, unit: VectorUnit) -> None:
        super().__init__(shape, unit, _sum_sizes(unit))
        self.kernel = f"sum {self.tile_rows}x{self.vectors}"
        multiply = sum_tile(unit, self.tile_rows, self.vectors)
        self.numbers = record(**self.sizes, multiply=multiply, store=put_vectors(unit))

    def run(self, a: np.ndarray, w: np.ndarray, y: np.ndarray, bias: np.ndarray | None, relu: bool) -> None:
        packed = self._packed(a)
        first = 0 if bias is None else address(bias)
        most = threads_for(self.shape.work)
        parallel(self._part, self.units, packed, address(w), address(y), first, relu, most=most)

    def _part(self, u0: int, u1: int, thread: int, packed: int, w: int, y: int, first: int, relu: bool) -> None:
        sums = scratch("fc sums", self.block_size)
        _run_sum(u0, u1, self.numbers, packed, w, y, first, sums, relu)


class OuterLoop(_ColumnLoop):
    """The loop nest of w += a^T b: a (images, rows), b (images, columns)."""

    def __init__(self, shape: ProductShape, unit: VectorUnit) -> None:
        super().__init__(shape, unit, _outer_sizes(unit))
        self.kernel = f"outer {self.tile_rows}x{self.vectors}"
        multiply = outer_tile(unit, self.tile_rows, self.vectors)
        self.numbers = record(**self.sizes, lanes=unit.lanes, multiply=multiply, pack=copy_vectors(unit))

    def run(self, a: np.ndarray, b: np.ndarray, w: np.ndarray) -> None:
        packed = self._packed(a)
        parallel(self._part, self.units, packed, address(b), address(w), most=threads_for(self.shape.work))

    def _part(self, u0: int, u1: int, thread: int, packed: int, b: int, w: int) -> None:
        _run_outer(u0, u1, self.numbers, packed, b, w, scratch_address("fc images", self.block_size))


def _even(count: int, most: int) -> int:
    """The size of the fewest even parts of ``count``, each at most ``most``."""
    return -(-count // -(-count // most))


def _dot_sizes(unit: VectorUnit, images: int) -> tuple[int, int]:
    """(rows, images) of a dot_tile whose sums and one step's vectors fit into the registers; rows at most lanes."""
    if unit.registers < 32:
        return 3, 4
    if images < 4:
        return 4, images
    return (6, 4) if unit.lanes >= 6 else (4, 6)


def _sum_sizes(unit: VectorUnit) -> tuple[int, int]:
    """(rows, vectors) of a sum_tile; more than eight rows a power of two apart would conflict in the first-level
    cache."""
    return (4, 3) if unit.registers < 32 else (8, 3)


def _outer_sizes(unit: VectorUnit) -> tuple[int, int]:
    """(rows, vectors) of an outer_tile."""
    return (6, 2) if unit.registers < 32 else (6, 4)


@exact_kernel
def _pack_factors(numbers, a, packed):
    """Packs a (images, rows) as (blocks, images, rows of a tile)."""
    n = numbers[0]
    call_tile(n.pack_factors, (a, n.rows * 4, n.images, n.rows, packed, n.tile_rows, n.blocks))


@exact_kernel
def _run_dot(u0, u1, numbers, a, w, y, first, packed, relu):
    """Computes the units u0 .. u1; a unit is the rows of a tile."""
    n = numbers[0]
    vector_bytes, w_step = n.lanes * 4, n.columns * 4
    unit_bytes = n.tile_rows * w_step
    vectors = (n.columns + n.lanes - 1) // n.lanes
    for k in range(0, vectors, n.chunk):
        steps = min(n.chunk, vectors - k)
        columns = min(n.columns - k * n.lanes, steps * n.lanes)
        block_bytes = steps * n.tile_images * vector_bytes
        for j in range(n.blocks):
            image = j * n.tile_images
            call_tile(
                n.pack,
                (
                    a + image * w_step + k * vector_bytes, w_step, n.images - image, columns, packed + j * block_bytes,
                    n.tile_images, vector_bytes, steps, n.tile_images * vector_bytes,
                ),
            )  # fmt: skip
        last = k + steps == vectors
        for u in range(u0, u1):
            row = u * n.tile_rows
            block = w + u * unit_bytes + k * vector_bytes
            following = block + unit_bytes
            if u + 1 == u1:
                following = w + u0 * unit_bytes + (k + steps) * vector_bytes
            for j in range(n.blocks):
                image = j * n.tile_images
                call_tile(
                    n.multiply,
                    (
                        block, w_step, n.rows - row, columns // n.lanes, columns % n.lanes, packed + j * block_bytes,
                        y + (image * n.rows + row) * 4, n.rows * 4, n.images - image, first + row * 4 if k == 0 else 0,
                        np.int64(relu and last), following + j * n.ahead * w_step,
                    ),
                )  # fmt: skip


@exact_kernel
def _run_sum(u0, u1, numbers, packed, w, y, first, sums, relu):
    """Computes the units u0 .. u1; a unit is the columns of a tile."""
    n = numbers[0]
    w_step, tile_bytes = n.columns * 4, n.width * 4
    block_bytes, sums_bytes = n.images * n.tile_rows * 4, n.images * tile_bytes
    own = np.int64(sums.ctypes.data)
    chunks = (u1 - u0 + n.chunk - 1) // n.chunk
    for c in range(chunks):
        start, end = u0 + (u1 - u0) * c // chunks, u0 + (u1 - u0) * (c + 1) // chunks
        sums[: (end - start) * n.images * n.width] = 0
        for block in range(n.blocks):
            row = block * n.tile_rows
            for u in range(start, end):
                ahead = _ahead(u, start, end) * tile_bytes
                if u + AHEAD >= end:
                    ahead += n.tile_rows * w_step
                call_tile(
                    n.multiply,
                    (
                        w + row * w_step + u * tile_bytes, w_step, n.rows - row, n.columns - u * n.width,
                        packed + block * block_bytes, own + (u - start) * sums_bytes, n.images, ahead,
                    ),
                )  # fmt: skip
        for u in range(start, end):
            bias = first + u * tile_bytes if first != 0 else 0
            call_tile(
                n.store,
                (
                    own + (u - start) * sums_bytes, tile_bytes, n.images, min(n.width, n.columns - u * n.width),
                    y + u * tile_bytes, w_step, bias, np.int64(relu),
                ),
            )  # fmt: skip


@exact_kernel
def _run_outer(u0, u1, numbers, packed, b, w, own):
    """Computes the units u0 .. u1; a unit is the columns of a tile."""
    n = numbers[0]
    w_step, tile_bytes = n.columns * 4, n.width * 4
    block_bytes, own_bytes = n.images * n.tile_rows * 4, n.images * tile_bytes
    chunks = (u1 - u0 + n.chunk - 1) // n.chunk
    for c in range(chunks):
        start, end = u0 + (u1 - u0) * c // chunks, u0 + (u1 - u0) * (c + 1) // chunks
        for u in range(start, end):
            call_tile(
                n.pack,
                (
                    b + u * tile_bytes, w_step, n.images, n.columns - u * n.width, own + (u - start) * own_bytes,
                    n.images, tile_bytes, n.width // n.lanes, n.lanes * 4,
                ),
            )  # fmt: skip
        for block in range(n.blocks):
            row = block * n.tile_rows
            for u in range(start, end):
                ahead = _ahead(u, start, end) * tile_bytes
                if u + AHEAD >= end:
                    ahead += n.tile_rows * w_step
                call_tile(
                    n.multiply,
                    (
                        w + row * w_step + u * tile_bytes, w_step, n.rows - row, n.columns - u * n.width,
                        packed + block * block_bytes, own + (u - start) * own_bytes, n.images, ahead,
                    ),
                )  # fmt: skip


@exact_kernel
def _ahead(u, start, end):
    """The number of units from u to the one AHEAD tiles later, which wraps from ``end`` to ``start``."""
    return AHEAD if u + AHEAD < end else (u + AHEAD - end) % (end - start) + start - u
