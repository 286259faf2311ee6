"""Which Winograd tiles a convolution could take, and their estimated cycles, to be weighed against those of conv_choice."""

from __future__ import annotations

import os
from collections.abc import Iterator

from sslnet.errors import UsageError
from sslnet.kernels.conv.cost import CALL, FAR_BYTES, LATENCY, weights_cost
from sslnet.kernels.conv.geometry import ConvGeometry
from sslnet.kernels.conv.winograd.loop import LEAST_TILES, OUTPUTS, WinogradTile, fits, split_units
from sslnet.kernels.conv.winograd.weight_grad import OWN_SUMS, WinogradGradTile
from sslnet.kernels.runtime.threads import num_parts
from sslnet.kernels.simd.vector import VectorUnit

VARIABLE = "SSLNET_WINOGRAD"
"""0 in the environment: no convolution goes this way."""


def allowed() -> bool:
    """Whether the environment leaves Winograd on."""
    text = os.environ.get(VARIABLE, "").strip()
    if text not in ("", "0", "1"):
        raise UsageError(f'{VARIABLE} must be 0 or 1, not "{text}"')
    return text != "0"


def winograd_tiles(g: ConvGeometry, unit: VectorUnit, *, backward: bool) -> Iterator[tuple[float, WinogradTile]]:
    """Every tile with its estimated cycles for one image; none if the geometry does not fit."""
    if not fits(g):
        return
    height, width, filters = (g.height, g.width, g.group_channels) if backward else (g.out_h, g.out_w, g.group_filters)
    channels = g.group_filters if backward else g.group_channels
    vectors_in_all = -(-filters // unit.lanes)
    for m in OUTPUTS[g.kernel_h]:
        n = m + g.kernel_h - 1
        tiles = -(-height // m) * -(-width // m)
        moves = tiles * (
            -(-channels // unit.lanes) * _entering(n, m, width, unit) + vectors_in_all * _leaving(n, m, width, unit)
        )
        rows, columns = -(-height // m), -(-width // m)
        weights = 4 * g.groups * n * n * channels * vectors_in_all * unit.lanes
        for vectors in range(1, min(vectors_in_all, 4) + 1):
            most = (unit.registers - 1) // vectors - 1
            if most < 1:
                break
            own_tiles = -(-g.batch * rows // min(num_parts(), g.batch * rows)) * columns
            if own_tiles <= 3 * most:
                most = -(-own_tiles // -(-own_tiles // most))
            tile_bytes = n * n * 4 * (channels + vectors_in_all * unit.lanes)
            own, block, filled = split_units(g.batch * rows, columns, most, tile_bytes, weights)
            blocks = -(-own // block)
            per_tap = max(vectors * most / 2, (vectors + most + 2) / 2, LATENCY)
            calls = blocks * filled / most * -(-vectors_in_all // vectors) * g.groups
            product = n * n * calls * (channels * per_tap + CALL + 2 * vectors * most)
            far = weights_cost(weights, blocks * g.batch * rows // own, g.batch)
            yield g.groups * moves + product * rows / own + far, WinogradTile(m, vectors, most)


def winograd_grad_tiles(g: ConvGeometry, unit: VectorUnit) -> Iterator[tuple[float, WinogradGradTile]]:
    """As winograd_tiles, for the gradient of the weights."""
    if not fits(g):
        return
    vectors_in_all = -(-g.group_filters // unit.lanes)
    channel_vectors = -(-g.group_channels // unit.lanes)
    for m in OUTPUTS[g.kernel_h]:
        n = m + g.kernel_h - 1
        tiles = -(-g.out_h // m) * -(-g.out_w // m)
        moves = tiles * (channel_vectors + vectors_in_all) * _entering(n, m, g.width, unit)
        sums = n * n * channel_vectors * unit.lanes * vectors_in_all
        for vectors in range(1, min(vectors_in_all, 4) + 1):
            most = (unit.registers - 1) // vectors - 1
            channels = unit.lanes
            while channels > most:
                channels //= 2
            if channels < 1:
                break
            calls = -(-g.group_channels // channels) * -(-vectors_in_all // vectors)
            per_tile = max(vectors * channels / 2, (vectors + channels + 2) / 2, LATENCY)
            # Sums are loaded and stored for every block of images.
            block = max(LEAST_TILES * 2, tiles)
            product = n * n * calls * (tiles * per_tile + tiles / block * (CALL + 2 * vectors * channels))
            shared = sums * unit.bytes > OWN_SUMS
            slow = tiles * n * n * (channel_vectors + vectors_in_all) * unit.bytes * 2 / FAR_BYTES if shared else 0
            # Cleared, loaded and stored, transformed back.
            leaving = sums * 4 * (4 / FAR_BYTES if shared else 1) / g.batch
            yield g.groups * (moves + product + slow + leaving), WinogradGradTile(m, vectors, channels)


def _entering(n: int, m: int, width: int, unit: VectorUnit) -> float:
    """Cycles to bring a vector of channels of one tile in: transposed pixels, then the transform."""
    return _transposing(m, width, unit) + 2.7 * n * n * max(1.0, n * n / unit.registers)


def _leaving(n: int, m: int, width: int, unit: VectorUnit) -> float:
    """Cycles to bring a vector of filters of one tile out: the transform, then transposed pixels."""
    return _transposing(m, width, unit) + 0.6 * n * (n + m) * max(1.0, n * n / unit.registers)


def _transposing(m: int, width: int, unit: VectorUnit) -> float:
    """Rows that do not fill their last vector cost as much as if they did."""
    return 5 * m * m * -(-width // unit.lanes) * unit.lanes / width
