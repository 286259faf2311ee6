"""The machine model of the heuristic that chooses loop nests: one table of costs, a row for each vector unit.

All estimates count cycles of one core that begins two multiply-adds and two loads in a cycle. They only have to rank
loop nests and tiles, not to predict seconds. Each figure is one of:

    counted   instructions of the micro-kernel or the packing, divided by how many the core begins in a cycle
    fitted    so that the order of the estimates is that of the times which ``tools/bench convs`` and ``tools/bench sparse``
              measure over the shapes of the models, on a server core with AVX-512 at 2.3 GHz; units without a figure of
              their own in COSTS use this one unmeasured
"""

from __future__ import annotations

from dataclasses import dataclass

from sslnet.kernels.simd.vector import GENERIC, UNITS, VectorUnit


@dataclass(frozen=True)
class UnitCosts:
    """Costs in cycles, unless another unit is named; "vector" is a full register of the vector unit."""

    unaligned_load: float
    """Loads for one unaligned vector: 1, and 1 more where it crosses a cache line of 64 bytes, on average. Counted."""
    strided_vector: float
    """Cost to copy a vector of pixels that lie three or more apart, lane by lane: a load and a store per lane.
    Counted."""

    latency: float = 4.5
    """Latency from one multiply-add to the next on the same register (4 by the manuals), with the cycles lost where
    nothing else fills it. Fitted."""
    call: float = 15
    """Cost to enter and leave a micro-kernel. Fitted."""
    sum_out: float = 2
    """Cost to store a vector of sums to a buffer and to load it again when it is written out. Counted."""
    sum_stored: float = 1
    """Cost to store a vector of sums directly in the output. Counted."""
    transposed_row: float = 3
    """Cost per vector to write sums out through a square transpose of lanes vectors. Fitted."""

    first_cache: int = 32 * 1024
    second_cache: int = 1024 * 1024
    shared_cache: int = 8 * 1024 * 1024
    """Bytes of the first-level and second-level cache and of one core's part of the shared level, as on common server
    cores: data that are read repeatedly and are larger come from the level below."""
    second_bytes: float = 40
    far_bytes: float = 8
    """Bytes per cycle from the second-level cache, and from beyond it. Fitted."""
    weight_block: int = 256 * 1024
    """Filter loop: bytes of weights from which they are multiplied in blocks of taps, so that a block stays in a cache
    while it meets all pixels of a chunk. Fitted."""
    long_rows: bool = False
    """Whether the planes of pointwise convolutions are seen as few long rows, which fill tiles better: with AVX2 up to
    1.8 times as fast; with AVX-512, whose tiles suit short rows, as often slower as faster. Measured."""
    packed_bytes: float = 2.5
    """Bytes of weights packed per cycle to memory beyond the second-level cache. Fitted."""

    fill_row: float = 2
    fill_vector: float = 3
    fill_pairs: float = 5
    """Costs to copy a row of pixels into a window: once per row, per vector of neighbours, per vector of every second
    pixel. Fitted."""
    combine_row: float = 10
    combine_pixels: float = 4
    """Interleaving the phases of a strided gradient: cycles once per output row; pixels per cycle. Fitted."""

    place: float = 3
    """Pixel loop: cost to set up the places of a vector of outputs. Fitted."""
    distant_tap: float = 3
    """Pixel loop of the weight gradient: cost per vector of pixels and tap beyond eight, because the distances of more
    taps do not fit into the integer registers. Fitted."""
    lanes_row: float = 5
    lanes_sum: float = 5
    """Pixel loop of the weight gradient: costs to begin a row of pixels, and to add up the lanes of a vector of sums.
    Fitted."""
    grad_row: float = 3
    grad_sum: float = 3
    """Filter loop of the weight gradient: costs to begin a row of pixels, and to load and store a vector of sums.
    Fitted."""
    grad_pixel: float = 8
    """Filter loop of the weight gradient: cost to transpose a vector of filters of one pixel of dy. Fitted."""

    winograd_pixel: float = 5
    """Winograd: cost to transpose a vector of channels of one pixel, of the input or of the output. Fitted."""
    winograd_in: float = 2.7
    winograd_out: float = 0.6
    """Winograd: costs to transform a vector of channels of the input, per position; and a vector of filters of the
    output, per product of the tile's positions with its positions and outputs. Fitted."""

    span: float = 12
    span_out: float = 90
    """Kept filters: costs to step from one kernel column to the next, and to write out lanes filters of up to lanes
    pixels. Fitted."""
    kept_weights: int = 512 * 1024
    """Bytes of a block of kept weights above which the block no longer stays in the second-level cache. Fitted."""
    panel_latency: float = 4
    panel_call: float = 20
    """Kept pixels: like latency, for a micro-kernel whose loads all lie side by side (by the manuals); like call, for a
    micro-kernel that looks up the place of each output."""
    lower_tap: float = 12
    lower_vector: float = 4
    """Kept pixels: costs to lower a tap, once per chunk of pixels and per vector of them. Fitted."""
    add_tap: float = 20
    add_vector: float = 10
    """Kept gradient of the input: costs to add a row of the lowered matrix back to the pixels, per chunk and per
    vector. Fitted."""
    lowered_load: float = 2.2
    """Cost to load a vector of lowered pixels from the second-level cache. Fitted."""
    kept_forward: float = 0.85
    kept_input_grad: float = 0.6
    kept_weight_grad: float = 0.8
    """Fractions of the dense cycles up to which kept filters and columns are used, lower where the estimate is rougher
    (gradients added back to the pixels). Fitted, the last one on AVX2: above it the dense gradient was faster in every
    measured layer of the models."""

    def step(self, products: float, loads: float) -> float:
        """Cycles of one step of a micro-kernel: so many multiply-adds and loads, each sum waiting for its previous
        step."""
        return max(products / 2, loads / 2, self.latency)

    def weights(self, size: int, times: int, batch: int) -> float:
        """Cycles per image that ``size`` bytes of weights cost beyond cached reads: packing, and ``times`` loads from
        memory.

        With a batch of one, packing costs nothing: inference packs its weights once.
        """
        if size <= self.second_cache:
            return size / self.packed_bytes / 4 / batch if batch > 1 else 0
        return times * size / self.far_bytes / batch + (size / self.packed_bytes / batch if batch > 1 else 0)


COSTS = {
    UNITS["avx512f"]: UnitCosts(unaligned_load=2.0, strided_vector=32),
    UNITS["avx2"]: UnitCosts(
        unaligned_load=1.5, strided_vector=16, second_bytes=18, weight_block=12 * 1024, long_rows=True
    ),
    UNITS["neon"]: UnitCosts(unaligned_load=1.25, strided_vector=8),
    GENERIC: UnitCosts(unaligned_load=1.25, strided_vector=8),
}


def costs_of(unit: VectorUnit) -> UnitCosts:
    """The costs of a vector unit: its row of the table."""
    return COSTS[unit]
