"""Convolutions with zeros: whole rows and columns of the weight matrix that are zero, or single weights.

    kept = find_kept(weights, groups)            which filters and columns are not zero throughout
    forward = plan_kept(geometry, kept)          kept filters x kept columns, then a dense product   (LOWERED_CCNMM)
    forward = plan_unstructured(geometry)        one weight at a time, from a lowered matrix         (LOWERED_CSRMM)
    forward = plan_unstructured(geometry, direct=True)    the same, from the padded image            (DIRECT_SCONV)
    forward.pack(weights, bias); forward.run(x, y)

    plan_kept_input_grad(geometry, kept)         pack(weights), run(dy, dx): overwrites dx
    plan_kept_weight_grad(geometry, kept)        run(x, dy, dw, db): accumulates into db, and into dw where it is kept

They take the place of the plans of ``kernels.conv`` and give the same values within rounding. Plans for a pattern read only
the weights of that pattern: what is not kept counts as zero. A pattern is data: another one compiles nothing, planning it
takes about a millisecond. Weights without structure are read anew by every pack.
"""

from __future__ import annotations

from sslnet.kernels.conv.geometry import ConvGeometry
from sslnet.kernels.conv.pattern import SparsityPattern
from sslnet.kernels.conv.sparse.grads import KeptInputGrad, KeptWeightGrad
from sslnet.kernels.conv.sparse.packing import KeptForward
from sslnet.kernels.conv.sparse.structured_filters import FilterForward, choose_blocks, takes
from sslnet.kernels.conv.sparse.structured_pixels import PixelForward, choose_panels
from sslnet.kernels.conv.sparse.unstructured import DirectForward, LoweredForward
from sslnet.kernels.simd.vector import VectorUnit, vector_unit


def plan_kept(
    geometry: ConvGeometry, kept: SparsityPattern, *, relu: bool = False, unit: VectorUnit | None = None
) -> KeptForward:
    """The forward pass over kept filters and columns; the outputs of the other filters are their bias.

    relu   fused: negative outputs become 0
    """

    kept.check(geometry)
    unit = unit or vector_unit()
    if takes(geometry):
        blocks = choose_blocks(geometry, kept, unit)
        if blocks.cycles <= choose_panels(geometry, kept, unit)[2]:
            return FilterForward(geometry, kept, unit, relu=relu, blocks=blocks)
    return PixelForward(geometry, kept, unit, relu=relu)


def plan_kept_input_grad(
    geometry: ConvGeometry, kept: SparsityPattern, *, unit: VectorUnit | None = None
) -> KeptInputGrad:
    """The gradient with respect to the input, from kept filters and columns."""
    kept.check(geometry)
    return KeptInputGrad(geometry, kept, unit or vector_unit())


def plan_kept_weight_grad(
    geometry: ConvGeometry, kept: SparsityPattern, *, unit: VectorUnit | None = None
) -> KeptWeightGrad:
    """The gradient with respect to the kept weights, and to the bias of all filters."""

    kept.check(geometry)
    return KeptWeightGrad(geometry, kept, unit or vector_unit())


def plan_unstructured(
    geometry: ConvGeometry, *, direct: bool = False, relu: bool = False, unit: VectorUnit | None = None
) -> DirectForward | LoweredForward:
    """The forward pass with the non-zero weights alone, wherever they are.

    direct   reads the padded image in place of a lowered matrix
    """

    if direct:
        return DirectForward(geometry, unit or vector_unit(), relu=relu)
    return LoweredForward(geometry, unit or vector_unit(), relu=relu)
