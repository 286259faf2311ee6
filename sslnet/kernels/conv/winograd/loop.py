"""The loop nest for dense kernels of stride 1 through Winograd's F(m x m, r x r), and F(m, r) along one axis for kernels of
one row or one column: fewer products, more additions.

Vectors hold channels of the input and filters of the output, so images of any width fill them. A block of rows of
tiles, of one image or of several, is computed in three stages: pixels to V (positions, channels, tiles), a matrix
product with the transformed weights at each position, products to pixels.

Largest errors, relative to the largest output, of normal weights and inputs with up to 512 channels: F(2x2, 3x3) 1e-6,
F(4x4, 3x3) 2e-5, F(2x2, 5x5) and F(4x4, 5x5) 2e-5, gradients of 5x5 weights 4e-5; along one axis, with 64 channels,
F(4, 3), F(6, 3) and F(4, 5) 3e-6, F(6, 5), F(8, 3) and F(8, 5) 2e-5; of the sums as they stand: 1e-6.

Ref: Lavin and Gray 2016, algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from sslnet.kernels.conv.geometry import ConvGeometry
from sslnet.kernels.conv.loop_nest import PackedLoop
from sslnet.kernels.conv.microkernels import filter_tile
from sslnet.kernels.conv.packing import FilterBlocking, address, record
from sslnet.kernels.conv.transposes import load_transposed, store_tile
from sslnet.kernels.conv.winograd.matrices import INPUT, OUTPUT, WEIGHTS, TileShape
from sslnet.kernels.conv.winograd.microkernels import stage_rows, transform
from sslnet.kernels.runtime.compiler import exact_kernel
from sslnet.kernels.runtime.memory import aligned_empty, aligned_zeros, scratch, scratch_address
from sslnet.kernels.runtime.recording import Scratch
from sslnet.kernels.runtime.threads import num_parts, parallel
from sslnet.kernels.simd.vector import VectorUnit, call_tile

OUTPUTS = {3: (2, 4), 5: (2, 4)}
"""m of F(m x m, r x r), by r."""
LINE_OUTPUTS = {3: (4, 6, 8), 5: (4, 6, 8)}
"""m of F(m, r), for kernels of r x 1 and 1 x r, by r."""
BLOCK_BYTES = 512 * 1024
"""The most bytes of V and the products of a block of tiles, so that they stay in the second-level cache."""
SMALL_TRANSFORM = 1 << 17
"""Floats of transformed weights below which one thread packs faster than several."""
LEAST_TILES = 28
MANY_WEIGHTS = 4 * 1024 * 1024
LEAST_TILES_OF_MANY = 64
"""The least tiles of a block, LEAST_TILES_OF_MANY when the transformed weights take more than MANY_WEIGHTS bytes,
because every block reads all weights once."""


@dataclass(frozen=True)
class WinogradTile:
    """A tile of outputs; in the product, registers hold ``vectors`` of filters by ``tiles`` tiles."""

    shape: TileShape
    vectors: int
    tiles: int

    @property
    def name(self) -> str:
        return f"{self.shape.name} {self.vectors}x{self.tiles}"


def fits(g: ConvGeometry) -> bool:
    """Whether the kernel size is supported, and the padding leaves no output without a tap."""
    plain = g.stride_h == g.stride_w == g.dilation_h == g.dilation_w == 1
    padded = max(g.pad_h, g.pad_end_h) >= g.kernel_h or max(g.pad_w, g.pad_end_w) >= g.kernel_w
    return bool(shapes_of(g)) and plain and not padded


def shapes_of(g: ConvGeometry) -> list[TileShape]:
    """The tiles of outputs for the kernel size; none if it is not supported."""
    r_h, r_w = g.kernel_h, g.kernel_w
    if r_h == r_w:
        return [TileShape(m, m, r_h, r_w) for m in OUTPUTS.get(r_h, ())]
    if r_w == 1:
        return [TileShape(m, 1, r_h, 1) for m in LINE_OUTPUTS.get(r_h, ())]
    return [TileShape(1, m, 1, r_w) for m in LINE_OUTPUTS.get(r_w, ())] if r_h == 1 else []


def split_units(units: int, columns: int, in_product: int, tile_bytes: int, weight_bytes: int) -> tuple[int, int, int]:
    """Blocking of ``units`` rows of ``columns`` tiles: (rows of a thread, rows of a block, tiles of a block with
    padding).

    The tiles of a block are padded to a multiple of ``in_product``; of the blocks that fit into the cache the one with
    the least padding is chosen.

    tile_bytes, weight_bytes   bytes of a tile in V and the products, and of all weights
    """
    own = -(-units // min(num_parts(), units))
    least = LEAST_TILES_OF_MANY if weight_bytes > MANY_WEIGHTS else LEAST_TILES
    most = min(max(1, max(least, BLOCK_BYTES // tile_bytes) // columns), own)

    def filled(rows: int) -> int:
        return -(-rows * columns // in_product) * in_product

    block = min(range(most, most // 2, -1), key=lambda rows: -(-own // rows) * filled(rows))
    return own, block, filled(block)


def spread_bytes(floats: int) -> int:
    """The distance in bytes of planes of that size: an odd number of cache lines, so that planes use all cache sets."""
    return (-(-floats * 4 // 64) | 1) * 64


class WinogradLoop(PackedLoop):
    """Winograd's loop nest of a forward pass or of the gradient of the input.

    lasting   False: weights are packed into memory that all such loop nests share, valid until another of them packs
    """

    def __init__(
        self,
        geometry: ConvGeometry,
        unit: VectorUnit,
        tile: WinogradTile,
        *,
        relu: bool = False,
        backward: bool = False,
        lasting: bool = True,
    ) -> None:
        g = self.geometry = geometry
        self.tile = tile
        self.kernel = tile.name
        self.backward = backward
        shape, lanes = tile.shape, unit.lanes
        positions = shape.positions
        self.height, self.width, out_h, out_w = g.height, g.width, g.out_h, g.out_w
        pad_h, pad_w = g.pad_h, g.pad_w
        channels, filters = g.group_channels, g.group_filters
        if backward:
            self.height, self.width, out_h, out_w = out_h, out_w, self.height, self.width
            pad_h, pad_w = shape.r_h - 1 - pad_h, shape.r_w - 1 - pad_w
            channels, filters = filters, channels
        padded = -(-filters // lanes) * lanes
        self.blocks = FilterBlocking(min(tile.vectors * lanes, padded), padded)
        rows, columns = -(-out_h // shape.m_h), -(-out_w // shape.m_w)
        self.units = g.batch * rows
        weight_bytes = g.groups * positions * channels * padded * 4
        tile_bytes = positions * (channels + padded) * 4
        _, block_units, most_tiles = split_units(self.units, columns, tile.tiles, tile_bytes, weight_bytes)
        channel_blocks = -(-channels // lanes)
        v_position = spread_bytes(channel_blocks * most_tiles * lanes)
        product_position = spread_bytes(most_tiles * padded)
        stage_columns = columns * shape.m_w + shape.r_w - 1
        self.sizes = {
            "winograd stage": ((min(block_units, rows) * shape.m_h + shape.r_h - 1) * stage_columns + 2 * lanes)
            * lanes,
            "winograd v": positions * v_position // 4,
            "winograd products": positions * product_position // 4,
            "winograd band": (shape.m_h * (out_w + lanes) + shape.m_h * shape.m_w + lanes) * lanes,
        }
        self.offsets = (np.arange(channels) // lanes * most_tiles * lanes + np.arange(channels) % lanes) * 4
        self.weight_position = channels * padded
        self.lasting = lasting
        self.weights_shape = (g.groups, positions, channels * padded)
        self.weights = aligned_empty(self.weights_shape if lasting else 0)
        self.packed_size = prod(self.weights_shape)
        self.multiply_adds = self.units * columns * self.packed_size
        self.pack_units = g.groups * padded // lanes
        self.transposed_size = channels * shape.r_h * shape.r_w * lanes + lanes**2
        self.filters = filters
        self.bias = aligned_zeros((g.groups, padded))
        self.zeros = aligned_zeros(self.blocks.width)
        self.constants = address(self.bias), address(self.zeros)
        counts = [self.blocks.width // lanes, padded % self.blocks.width // lanes]
        products = [filter_tile(unit, count, 1, tile.tiles, lanes) if count else 0 for count in counts]
        self.numbers = record(
            groups=g.groups, channels=channels, height=self.height, width=self.width, filters=filters, padded=padded,
            block_width=self.blocks.width, lanes=lanes, out_h=out_h, out_w=out_w, pad_h=pad_h, pad_w=pad_w, m_h=shape.m_h,
            m_w=shape.m_w, r_h=shape.r_h, r_w=shape.r_w, n_w=shape.n_w, positions=positions, rows=rows, columns=columns, tile_tiles=tile.tiles, block_units=block_units,
            most_tiles=most_tiles, v_position=v_position, product_position=product_position,
            weight_position=self.weight_position, stage_columns=stage_columns, relu=relu, backward=backward,
            stage=stage_rows(unit), enter=transform(unit, INPUT, shape), multiply=products[0],
            multiply_rest=products[1], leave=transform(unit, OUTPUT, shape), store=store_tile(unit),
            load_weights=load_transposed(unit), enter_weights=transform(unit, WEIGHTS, shape),
        )  # fmt: skip

    def pack(self, weights: np.ndarray, bias: np.ndarray | None) -> None:
        if not self.lasting:
            self.weights = scratch("winograd weights", self.packed_size)
        most = 1 if self.packed_size < SMALL_TRANSFORM else None
        parallel(self._pack, self.pack_units, address(weights), self.transposed_size, most=most)
        self.bias[:, : self.filters] = 0 if bias is None else bias.reshape(-1, self.filters)

    def _pack(self, u0: int, u1: int, thread: int, weights: int, size: int) -> None:
        _pack_units(u0, u1, self.numbers, scratch_address("conv window", size), weights, address(self.weights))

    def _call(self) -> tuple[Any, ...]:
        blocks = (Scratch(slot, size) for slot, size in self.sizes.items())
        return _run_units, self.numbers, self.offsets, address(self.weights), *self.constants, *blocks


@exact_kernel
def _pack_units(u0, u1, numbers, transposed, weights, packed):
    """Packs transformed weights of the units u0 .. u1, lanes filters each:
    packed[group][position][block][channel][filter]."""
    n = numbers[0]
    vectors = n.padded // n.lanes
    taps = n.r_h * n.r_w
    size = n.lanes * 4
    for u in range(u0, u1):
        group, f = u // vectors, u % vectors * n.lanes
        if n.backward:
            for c in range(n.channels):
                first = weights + ((group * n.channels + c) * n.filters + f) * taps * 4
                call_tile(n.load_weights, (first, taps * 4, n.filters - f, taps, transposed + c * taps * size, n.lanes))
            start, step = transposed + (taps - 1) * size, -size
        else:
            columns = n.channels * taps
            first = weights + (group * n.filters + f) * columns * 4
            call_tile(n.load_weights, (first, columns * 4, n.filters - f, columns, transposed, n.lanes))
            start, step = transposed, size
        block = f // n.block_width * n.block_width
        own = min(n.block_width, n.padded - block)
        target = packed + (group * n.positions * n.weight_position + block * n.channels + f - block) * 4
        position = n.weight_position * 4
        call_tile(
            n.enter_weights,
            (
                start, n.r_w * step, step, target, n.n_w * position, position, n.channels, taps * size, own * 4, np.int64(0)
            ),
        )  # fmt: skip


@exact_kernel
def _run_units(
    u0, u1, numbers, offsets, packed, bias, zeros, stage, v, products, band, source, target
):  # fmt: skip
    """Computes rows of tiles u0 .. u1 of all images."""
    n = numbers[0]
    size = n.lanes * 4
    for u in range(u0, u1, n.block_units):
        last = min(u + n.block_units, u1)
        for group in range(n.groups):
            for c in range(0, n.channels, n.lanes):
                at = v + c * n.most_tiles * 4
                one = u
                while one < last:
                    image, first = one // n.rows, one % n.rows
                    count = min(n.rows - first, last - one)
                    channel = (image * n.groups + group) * n.channels + c
                    rows = count * n.m_h + n.r_h - 1
                    call_tile(
                        n.stage,
                        (
                            source + channel * n.height * n.width * 4, n.height * n.width * 4, n.channels - c,
                            n.height, n.width, first * n.m_h - n.pad_h, -n.pad_w, rows, n.stage_columns, stage,
                        ),
                    )  # fmt: skip
                    for row in range(count):
                        line = stage + row * n.m_h * n.stage_columns * size
                        call_tile(
                            n.enter,
                            (
                                line, n.stage_columns * size, size, at, n.n_w * n.v_position, n.v_position,
                                n.columns, n.m_w * size, size, np.int64(0),
                            ),
                        )  # fmt: skip
                        at += n.columns * size
                    one += count
            _multiply(n, (last - u) * n.columns, offsets, packed, group, zeros, v, products)
            for f in range(0, n.filters, n.lanes):
                _leave(n, u, last, group, f, bias, products, band, target)


@exact_kernel
def _multiply(n, count, offsets, packed, group, zeros, v, products):
    """products[position][block][tile][filter] = sum over channels of v[position][channel][tile] * weight."""
    weights = packed + group * n.positions * n.weight_position * 4
    for position in range(n.positions):
        for f in range(0, n.padded, n.block_width):
            width = min(n.block_width, n.padded - f)
            multiply = n.multiply if width == n.block_width else n.multiply_rest
            for t in range(0, count, n.tile_tiles):
                call_tile(
                    multiply,
                    (
                        weights + (position * n.weight_position + f * n.channels) * 4, np.int64(offsets.ctypes.data),
                        n.channels, v + position * n.v_position + t * n.lanes * 4, np.int64(0),
                        products + position * n.product_position + (f * n.most_tiles + t * width) * 4, zeros,
                    ),
                )  # fmt: skip


@exact_kernel
def _leave(n, u, last, group, f, bias, products, band, target):
    """Transforms the products of lanes filters from f on to outputs."""
    block = f // n.block_width * n.block_width
    width = min(n.block_width, n.padded - block)
    size = n.lanes * 4
    at = products + (block * n.most_tiles + f - block) * 4
    for one in range(u, last):
        image, row = one // n.rows, one % n.rows
        # From the last tile back to the first, so that a later tile overwrites what a tile writes beyond its row.
        call_tile(
            n.leave,
            (
                at + (n.columns - 1) * width * 4, n.n_w * n.product_position, n.product_position,
                band + (n.columns - 1) * n.m_w * size, n.out_w * size, size, n.columns, -width * 4, -n.m_w * size,
                bias + (group * n.padded + f) * 4,
            ),
        )  # fmt: skip
        at += n.columns * width * 4
        maps = (image * n.groups + group) * n.filters + f
        top = row * n.m_h
        call_tile(
            n.store,
            (
                band, np.int64(1), min(n.m_h, n.out_h - top) * n.out_w,
                target + (maps * n.out_h + top) * n.out_w * 4, n.out_h * n.out_w * 4, n.filters - f, n.relu,
            ),
        )  # fmt: skip
