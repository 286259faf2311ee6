"""The taps of a depthwise convolution: the pixels of a channel plane that an output, or a tile of outputs, reads."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

Place = tuple[int, int]
"""(rows, columns) from the first pixel that a tile can read."""


@dataclass(frozen=True)
class Stencil:
    """The pixels of zero-padded source planes that contribute to an output of one plane.

    sources   number of planes that are summed
    adjoint   the stencil computes the gradient of a convolution with these strides: its outputs form stride_h *
              stride_w phases, each with its own taps, and neighbours in a phase are neighbours in the source
    pad       only for an adjoint stencil: it decides which taps belong to a phase
    """

    kernel_h: int
    kernel_w: int
    stride_h: int
    stride_w: int
    dilation_h: int
    dilation_w: int
    sources: int = 1
    adjoint: int = 0
    pad_h: int = 0
    pad_w: int = 0

    @property
    def taps(self) -> int:
        """The number of weights of one plane."""
        return self.sources * self.kernel_h * self.kernel_w

    @property
    def split(self) -> tuple[int, int]:
        """Rows and columns of the source from one output to the next."""
        return (1, 1) if self.adjoint else (self.stride_h, self.stride_w)

    @property
    def steps(self) -> tuple[int, int]:
        """The number of phases of the output's rows and columns."""
        return (self.stride_h, self.stride_w) if self.adjoint else (1, 1)

    @cached_property
    def along(self) -> tuple[list[list[tuple[int, int]]], list[list[tuple[int, int]]]]:
        """For rows and for columns, by output phase: the pairs (kernel place, displacement in the padded plane)."""
        rows = (self.kernel_h, self.stride_h, self.dilation_h, self.pad_h)
        columns = (self.kernel_w, self.stride_w, self.dilation_w, self.pad_w)
        return self._places(*rows), self._places(*columns)

    def _places(self, kernel: int, stride: int, dilation: int, pad: int) -> list[list[tuple[int, int]]]:
        if not self.adjoint:
            return [[(i, i * dilation) for i in range(kernel)]]
        low = lowest(kernel, stride, dilation, pad)
        found = [(i, a, a + pad - i * dilation) for a in range(stride) for i in range(kernel)]
        met = [(i, a, at // stride - low) for i, a, at in found if at % stride == 0]
        return [[(i, at) for i, phase, at in met if phase == a] for a in range(stride)]

    @property
    def reach(self) -> tuple[int, int]:
        """The largest displacement along rows and columns."""
        rows, columns = (max((at for places in axis for _, at in places), default=0) for axis in self.along)
        return rows, columns

    def meetings(self, rows: int, folds: int, phase: int = 0) -> dict[Place, list[tuple[int, int, int]]]:
        """The places that a tile reads, row by row, each with its uses: (vector, column phase, tap).

        rows    vectors of the tile, one below the other, with ``folds`` rows of outputs in each
        phase   phase of the output rows
        """
        found: dict[Place, list[tuple[int, int, int]]] = {}
        for row in range(rows):
            for i, down in self.along[0][phase]:
                for b, places in enumerate(self.along[1]):
                    for j, right in places:
                        place = (down + row * folds * self.split[0], right)
                        found.setdefault(place, []).append((row, b, i * self.kernel_w + j))
        return dict(sorted(found.items()))


@dataclass(frozen=True)
class Reading:
    """How tiles read planes.

    folds   0: from windows; 1: from the planes; more: that many rows of a plane in one vector
    others  set if one tile is a whole plane of outputs: its shape, the shape of the planes read, and the padding above
            and before them
    """

    folds: int
    out_h: int = 0
    out_w: int = 0
    height: int = 0
    width: int = 0
    pad_h: int = 0
    pad_w: int = 0

    @property
    def whole(self) -> bool:
        """Whether one tile is a whole plane."""
        return self.out_h > 0


def lowest(kernel: int, stride: int, dilation: int, pad: int) -> int:
    """The smallest displacement, at most 0, at which a gradient of the input reads dy."""
    found = [a + pad - i * dilation for a in range(stride) for i in range(kernel)]
    return min([0, *(at // stride for at in found if at % stride == 0)])
