"""What the heuristic that chooses loop nests assumes of the machine: one table of costs, a row for each vector unit.

All estimates count cycles of one core that begins two multiply-adds and two loads in a cycle. They need only rank loop nests
and tiles, not foretell seconds. Where a figure comes from:

    counted   instructions of the micro-kernel or the packing, divided by how many the core begins in a cycle
    fitted    so that the order of the estimates is that of the times which ``tools/bench convs`` and ``tools/bench sparse``
              measure over the shapes of the models, on a server core with AVX-512 at 2.3 GHz; units without a figure of
              their own in COSTS have taken it over, not been measured again
"""

from __future__ import annotations

from dataclasses import dataclass

from sslnet.kernels.simd.vector import GENERIC, UNITS, VectorUnit


@dataclass(frozen=True)
class UnitCosts:
    """Cycles, unless another unit is named; "vector" is a full register of the vector unit."""

    unaligned_load: float
    """Loads that one of a vector takes anywhere in memory: 1, and 1 more where it crosses a cache line of 64 bytes. Counted."""
    strided_vector: float
    """To copy a vector of pixels that lie three or more apart, lane by lane. Counted: a load and a store for each lane."""

    latency: float = 4.5
    """From one multiply-add to the next on the same register (4 by the manuals), and what is lost where nothing else fills
    them. Fitted."""
    call: float = 15
    """To enter and leave a micro-kernel. Fitted."""
    sum_out: float = 2
    """To store a vector of sums, and to load it again where it is brought out from a buffer. Counted."""
    sum_stored: float = 1
    """To store a vector of sums where it belongs. Counted."""
    transposed_row: float = 3
    """To bring a vector of sums out through a square transpose, where lanes vectors make a square. Fitted."""

    first_cache: int = 32 * 1024
    second_cache: int = 1024 * 1024
    shared_cache: int = 8 * 1024 * 1024
    """Bytes of the first and second level, and of one core's part of the level that cores share, as on common server cores:
    what is gone over again and again and takes more comes from the level below."""
    second_bytes: float = 40
    far_bytes: float = 8
    """Bytes a cycle from the second level, and from beyond it. Fitted."""
    packed_bytes: float = 2.5
    """Bytes of weights packed in a cycle, to beyond the second level. Fitted."""

    fill_row: float = 2
    fill_vector: float = 3
    fill_pairs: float = 5
    """To copy a row of pixels into a window: once, and for a vector of neighbours, and of every second pixel. Fitted."""
    combine_row: float = 10
    combine_pixels: float = 4
    """To put the phases of a strided gradient together: once a row of outputs; pixels a cycle. Fitted."""

    place: float = 3
    """Pixel loop: to place a vector of outputs. Fitted."""
    distant_tap: float = 3
    """Pixel loop of the weight gradient: for a vector of pixels and each tap beyond eight, whose distances no longer fit into
    the integer registers. Fitted."""
    lanes_row: float = 5
    lanes_sum: float = 5
    """The same: to begin a row of pixels, and to add the lanes of a vector of sums up. Fitted."""
    grad_row: float = 3
    grad_sum: float = 3
    """Filter loop of the weight gradient: to begin a row of pixels, and to load and store a vector of sums. Fitted."""
    grad_pixel: float = 8
    """The same: to transpose a vector of filters of a pixel of dy. Fitted."""

    winograd_pixel: float = 5
    """To transpose a vector of channels of a pixel, on its way in or out. Fitted."""
    winograd_in: float = 2.7
    winograd_out: float = 0.6
    """To transform a vector of channels on its way in, for each position; of filters on its way out, for each product of
    positions of the tile with those of the tile and its outputs. Fitted."""

    span: float = 12
    span_out: float = 90
    """Kept filters: to go from one kernel column to the next, and to bring lanes filters of up to lanes pixels out. Fitted."""
    kept_weights: int = 512 * 1024
    """Bytes of a block of kept weights beyond which they come from beyond the second-level cache. Fitted."""
    panel_latency: float = 4
    panel_call: float = 20
    """Kept pixels: as latency, for a micro-kernel whose loads all lie side by side (by the manuals); and as call, for one that
    looks up where each output belongs. Fitted."""
    lower_tap: float = 12
    lower_vector: float = 4
    """Kept pixels: to lower a tap, once a chunk of pixels, and for each vector of them. Fitted."""
    add_tap: float = 20
    add_vector: float = 10
    """Kept gradient of the input: the same to add a row of the lowered matrix back to the pixels. Fitted."""
    lowered_load: float = 2.2
    """To load a vector of lowered pixels, which lie in the second-level cache. Fitted."""
    kept_forward: float = 0.85
    kept_input_grad: float = 0.6
    kept_weight_grad: float = 0.8
    """Part of the dense cycles up to which kept filters and columns are used; more room where the estimate is rougher (what is
    added back to the pixels). Fitted, the last one on AVX2: beyond it the dense gradient was the faster one in every layer of
    the models that was tried."""

    def step(self, products: float, loads: float) -> float:
        """A micro-kernel's step of so many multiply-adds and loads, one after the other on each register."""
        return max(products / 2, loads / 2, self.latency)

    def weights(self, size: int, times: int, batch: int) -> float:
        """For each image, what ``size`` bytes of weights cost more than in the cache: packed, and brought in so often.

        A single image is not trained on: its weights are packed once.
        """
        if size <= self.second_cache:
            return size / self.packed_bytes / 4 / batch if batch > 1 else 0
        return times * size / self.far_bytes / batch + (size / self.packed_bytes / batch if batch > 1 else 0)


COSTS = {
    UNITS["avx512f"]: UnitCosts(unaligned_load=2.0, strided_vector=32),
    UNITS["avx2"]: UnitCosts(unaligned_load=1.5, strided_vector=16),
    UNITS["neon"]: UnitCosts(unaligned_load=1.25, strided_vector=8),
    GENERIC: UnitCosts(unaligned_load=1.25, strided_vector=8),
}


def costs_of(unit: VectorUnit) -> UnitCosts:
    """The row of the table."""
    return COSTS[unit]
