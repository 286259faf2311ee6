"""The loop nest of the weight gradient through Winograd's F(m x m, r x r) or F(m, r), for the geometries that ``loop.fits``
accepts.

Tiles of x and of dy are transformed; at each position of the transform a matrix product sums over all tiles of all
images, and only the sums are transformed back. Where the sums are small each thread has images and sums of its own, which
are added in the order of the threads; where they are large the threads share out the positions of one set of sums.

Ref: Lavin and Gray 2016, eq. 8, differentiated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sslnet.kernels.conv.geometry import ConvGeometry
from sslnet.kernels.conv.loop_nest import SummedGradLoop
from sslnet.kernels.conv.microkernels import filter_tile
from sslnet.kernels.conv.packing import address, record
from sslnet.kernels.conv.transposes import add_rows, add_transposed
from sslnet.kernels.conv.winograd.loop import spread_bytes
from sslnet.kernels.conv.winograd.matrices import GRADIENT, INPUT, WEIGHT_GRADIENT, TileShape
from sslnet.kernels.conv.winograd.microkernels import stage_rows, transform
from sslnet.kernels.runtime.compiler import exact_kernel
from sslnet.kernels.runtime.memory import scratch_address
from sslnet.kernels.runtime.threads import parallel
from sslnet.kernels.simd.vector import VectorUnit, call_tile

BLOCK_BYTES = 768 * 1024
"""The most bytes of the transformed tiles of a block of images when each thread has sums of its own."""
SHARED_BYTES = 24 * 1024 * 1024
"""The same limit when the threads share the sums: each block then costs two more parallel regions, and loads and stores
all sums."""
OWN_SUMS = 1024 * 1024
"""The most bytes of sums for which each thread has sums of its own."""


@dataclass(frozen=True)
class WinogradGradTile:
    """Tiles of pixels of dy; in the product, registers hold ``vectors`` of filters by ``channels`` channels."""

    shape: TileShape
    vectors: int
    channels: int

    @property
    def name(self) -> str:
        return f"{self.shape.name} {self.vectors}x{self.channels}"


class WinogradGradLoop(SummedGradLoop):
    """Winograd's loop nest of the weight gradient; nothing is packed in advance."""

    def __init__(self, geometry: ConvGeometry, unit: VectorUnit, tile: WinogradGradTile) -> None:
        g = self.geometry = geometry
        self.tile = tile
        self.kernel = tile.name
        self.multiply_adds = g.flops // 2
        lanes, shape = unit.lanes, tile.shape
        positions = shape.positions
        rows, columns = -(-g.out_h // shape.m_h), -(-g.out_w // shape.m_w)
        channels, filters = (-(-count // lanes) * lanes for count in (g.group_channels, g.group_filters))
        self.block_width = min(tile.vectors * lanes, filters)
        self.sums_size = g.groups * positions * channels * filters
        self.shared = self.sums_size * 4 > OWN_SUMS
        image_bytes = positions * rows * columns * g.groups * (channels + filters) * 4
        self.images = max(1, min((SHARED_BYTES if self.shared else BLOCK_BYTES) // image_bytes, g.batch))
        tiles = self.images * rows * columns
        x_position, dy_position = (spread_bytes(g.groups * count * tiles) for count in (channels, filters))
        stage_columns = columns * shape.m_w + shape.r_w - 1
        self.sizes = {
            "winograd stage": ((rows * shape.m_h + shape.r_h - 1) * stage_columns + 2 * lanes) * lanes,
            "winograd v": positions * x_position // 4,
            "winograd products": positions * dy_position // 4,
        }
        self.bias_shape = g.groups, filters
        self.group_filters = g.group_filters
        self.column_size = (g.columns + lanes) * lanes
        self.offsets = np.arange(tiles) * lanes * 4
        counts = [self.block_width // lanes, filters % self.block_width // lanes]
        products = [filter_tile(unit, count, 1, tile.channels, 1) if count else 0 for count in counts]
        self.numbers = record(
            groups=g.groups, channels=g.group_channels, height=g.height, width=g.width, filters=g.group_filters,
            padded_channels=channels, padded=filters, block_width=self.block_width, lanes=lanes, out_h=g.out_h,
            out_w=g.out_w, pad_h=g.pad_h, pad_w=g.pad_w, m_h=shape.m_h, m_w=shape.m_w, r_h=shape.r_h,
            r_w=shape.r_w, n_w=shape.n_w, positions=positions, rows=rows, columns=columns, images=self.images,
            tiles=tiles, tile_channels=tile.channels, x_position=x_position, dy_position=dy_position,
            stage_columns=stage_columns, position_sums=g.groups * channels * filters, stage=stage_rows(unit),
            enter_x=transform(unit, INPUT, shape), enter_dy=transform(unit, GRADIENT, shape), add_rows=add_rows(unit),
            multiply=products[0], multiply_rest=products[1], leave=transform(unit, WEIGHT_GRADIENT, shape),
            add_sums=add_transposed(unit),
        )  # fmt: skip

    def _parts(self, threads: int) -> int:
        return 1 if self.shared else min(threads, self.geometry.batch)

    def _sum(self, threads: int, x: int, dy: int, sums: np.ndarray, bias_sums: np.ndarray) -> None:
        if self.shared:
            self._run_shared(threads, x, dy, sums, bias_sums)
        else:
            parallel(self._images, self.geometry.batch, x, dy, sums, bias_sums, most=len(sums))

    def _put(self, threads: int, sums: np.ndarray, dw: np.ndarray, accumulate: bool) -> None:
        vectors = self.numbers["padded"][0] // self.numbers["lanes"][0]
        parallel(self._leave, self.geometry.groups * vectors, sums, address(dw), int(not accumulate), most=threads)

    def _images(self, i0: int, i1: int, thread: int, x: int, dy: int, sums: np.ndarray, bias_sums: np.ndarray) -> None:
        sums[thread] = 0
        stage, v, d = (scratch_address(slot, size) for slot, size in self.sizes.items())
        _run_images(
            i0, i1, self.numbers, self.offsets, x, dy, stage, v, d, address(sums[thread]),
            address(bias_sums[thread]),
        )  # fmt: skip

    def _run_shared(self, threads: int, x: int, dy: int, sums: np.ndarray, bias_sums: np.ndarray) -> None:
        n = self.numbers[0]
        v, d = (scratch_address(slot, self.sizes[slot]) for slot in ("winograd v", "winograd products"))
        parallel(_clear, sums.shape[1], sums[0])
        planes = n["groups"] * (n["padded_channels"] + n["padded"]) // n["lanes"]
        for image in range(0, self.geometry.batch, self.images):
            images = min(self.images, self.geometry.batch - image)
            parallel(self._enter, int(planes), image, images, x, dy, v, d, bias_sums, most=threads)
            parallel(
                _multiply, int(n["positions"]), self.numbers, images * n["rows"] * n["columns"], self.offsets,
                v, d, address(sums), most=threads,
            )  # fmt: skip

    def _enter(
        self,
        p0: int,
        p1: int,
        thread: int,
        image: int,
        images: int,
        x: int,
        dy: int,
        v: int,
        d: int,
        bias_sums: np.ndarray,
    ) -> None:
        stage = scratch_address("winograd stage", self.sizes["winograd stage"])
        _enter_planes(p0, p1, self.numbers, image, images, x, dy, stage, v, d, address(bias_sums[thread]))

    def _leave(self, u0: int, u1: int, thread: int, sums: np.ndarray, dw: int, overwrite: int) -> None:
        columns = scratch_address("conv window", self.column_size)
        _leave_units(u0, u1, self.numbers, sums, columns, dw, overwrite)


@exact_kernel
def _run_images(i0, i1, numbers, offsets, x, dy, stage, v, d, sums, bias_sums):
    """Adds images i0 .. i1 to the sums of all positions."""
    n = numbers[0]
    planes = n.groups * (n.padded_channels + n.padded) // n.lanes
    for image in range(i0, i1, n.images):
        images = min(n.images, i1 - image)
        _enter_planes(0, planes, numbers, image, images, x, dy, stage, v, d, bias_sums)
        _multiply(0, n.positions, 0, numbers, images * n.rows * n.columns, offsets, v, d, sums)


@exact_kernel
def _enter_planes(p0, p1, numbers, image, images, x, dy, stage, v, d, bias_sums):
    """Transforms planes p0 .. p1, lanes channels of x or lanes filters of dy each, of some images."""
    n = numbers[0]
    size = n.lanes * 4
    vectors = n.padded_channels // n.lanes
    in_all = vectors + n.padded // n.lanes
    for plane in range(p0, p1):
        group, vector = plane // in_all, plane % in_all
        if vector < vectors:
            c = vector * n.lanes
            at = v + (group * n.padded_channels + c) * n.tiles * 4
            for q in range(image, image + images):
                channel = (q * n.groups + group) * n.channels + c
                call_tile(
                    n.stage,
                    (
                        x + channel * n.height * n.width * 4, n.height * n.width * 4, n.channels - c, n.height, n.width,
                        -n.pad_h, -n.pad_w, n.rows * n.m_h + n.r_h - 1, n.stage_columns, stage,
                    ),
                )  # fmt: skip
                _transform_rows(n, n.enter_x, stage, at, n.x_position, size)
                at += n.rows * n.columns * size
        else:
            f = (vector - vectors) * n.lanes
            block = f // n.block_width * n.block_width
            width = min(n.block_width, n.padded - block)
            at = d + ((group * n.padded + block) * n.tiles + f - block) * 4
            for q in range(image, image + images):
                maps = (q * n.groups + group) * n.filters + f
                call_tile(
                    n.stage,
                    (
                        dy + maps * n.out_h * n.out_w * 4, n.out_h * n.out_w * 4, n.filters - f, n.out_h, n.out_w,
                        np.int64(0), np.int64(0), n.rows * n.m_h, n.stage_columns, stage,
                    ),
                )  # fmt: skip
                pixels = n.rows * n.m_h * n.stage_columns
                call_tile(n.add_rows, (stage, pixels, n.lanes, bias_sums + (group * n.padded + f) * 4))
                _transform_rows(n, n.enter_dy, stage, at, n.dy_position, width * 4)
                at += n.rows * n.columns * width * 4


@exact_kernel
def _transform_rows(n, tile, stage, target, position, step):
    """Transforms all tiles of one image."""
    size = n.lanes * 4
    for row in range(n.rows):
        call_tile(
            tile,
            (
                stage + row * n.m_h * n.stage_columns * size, n.stage_columns * size, size,
                target + row * n.columns * step, n.n_w * position, position, n.columns, n.m_w * size, step, np.int64(0),
            ),
        )  # fmt: skip


@exact_kernel
def _multiply(p0, p1, thread, numbers, count, offsets, v, d, sums):
    """sums[position][group][block][channel][filter] += sum over ``count`` tiles, for the positions p0 .. p1."""
    n = numbers[0]
    for position in range(p0, p1):
        for group in range(n.groups):
            totals = sums + (position * n.position_sums + group * n.padded_channels * n.padded) * 4
            for f in range(0, n.padded, n.block_width):
                width = min(n.block_width, n.padded - f)
                multiply = n.multiply if width == n.block_width else n.multiply_rest
                for c in range(0, n.channels, n.tile_channels):
                    vector = c // n.lanes * n.lanes
                    pixels = ((group * n.padded_channels + vector) * n.tiles + c - vector) * 4
                    call_tile(
                        multiply,
                        (
                            d + position * n.dy_position + (group * n.padded + f) * n.tiles * 4,
                            np.int64(offsets.ctypes.data), np.int64(count), v + position * n.x_position + pixels,
                            np.int64(0), totals + (f * n.padded_channels + c * width) * 4, np.int64(0),
                        ),
                    )  # fmt: skip


@exact_kernel
def _leave_units(u0, u1, numbers, sums, columns, dw, overwrite):
    """Computes dw of the units u0 .. u1, lanes filters each, after sums[0] += sums[1] + ..., in order."""
    n = numbers[0]
    vectors = n.padded // n.lanes
    size = n.lanes * 4
    taps = n.r_h * n.r_w
    for u in range(u0, u1):
        group, f = u // vectors, u % vectors * n.lanes
        block = f // n.block_width * n.block_width
        width = min(n.block_width, n.padded - block)
        first = group * n.padded_channels * n.padded + block * n.padded_channels + f - block
        for part in range(1, len(sums)):
            for position in range(n.positions):
                for c in range(n.channels):
                    start = first + position * n.position_sums + c * width
                    total, more = sums[0, start : start + n.lanes], sums[part, start : start + n.lanes]
                    for i in range(n.lanes):
                        total[i] += more[i]
        call_tile(
            n.leave,
            (
                np.int64(sums.ctypes.data) + first * 4, n.n_w * n.position_sums * 4, n.position_sums * 4, columns, n.r_w * size, size, n.channels, width * 4,
                taps * size, np.int64(0),
            ),
        )  # fmt: skip
        target = dw + (group * n.filters + f) * n.channels * taps * 4
        call_tile(
            n.add_sums,
            (columns, np.int64(0), np.int64(1), size, target, n.filters - f, n.channels * taps, np.int64(overwrite)),
        )  # fmt: skip


@exact_kernel
def _clear(i0, i1, thread, sums):
    sums[i0:i1] = 0
