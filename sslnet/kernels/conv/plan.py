"""2-D convolution, planned once per geometry and run many times.

    forward = plan_forward(geometry, relu=True)
    forward.pack(weights, bias)          # after every change of the weights
    forward.run(x, y)                    # overwrites y

    plan_input_grad(geometry)            # pack(weights), run(dy, dx): overwrites dx; a deconvolution too
    plan_weight_grad(geometry)           # run(x, dy, dw, db): accumulates into dw and db

Weights with zeros:

    kept = find_kept(weights, groups)            the filters and columns that hold non-zero weights
    plan_forward(geometry, kept=kept)            kept filters x kept columns only                    (LOWERED_CCNMM)
    plan_unstructured(geometry)                  one weight at a time, from a lowered matrix         (LOWERED_CSRMM)
    plan_unstructured(geometry, direct=True)     the same, from the padded image                     (DIRECT_SCONV)

A plan for a pattern reads only the weights of that pattern; the others count as zero. A pattern is data: a new pattern
needs no compilation, and planning takes about a millisecond. plan_unstructured finds the non-zero weights at every
pack.

Arrays are C-contiguous float32, NCHW. 64-byte alignment (memory.aligned_empty) is faster but not required. Nothing
outside an array is read or written. Plans run in threads over the batch through threads.parallel; for a given number of
threads the same input gives the same bits. A plan must not be run by two threads at once.
"""

from __future__ import annotations

import numpy as np

from sslnet.kernels.conv.choose import choose
from sslnet.kernels.conv.geometry import ConvGeometry
from sslnet.kernels.conv.loop_nest import PackedLoop, WeightGradLoop
from sslnet.kernels.conv.packing import address
from sslnet.kernels.conv.pattern import SparsityPattern
from sslnet.kernels.conv.problem import ConvProblem, Direction
from sslnet.kernels.conv.sparse.unstructured import DirectLoop, LoweredLoop
from sslnet.kernels.runtime.plan import KernelPlan
from sslnet.kernels.simd.vector import VectorUnit, vector_unit

__all__ = [
    "ConvGeometry",
    "ConvPlan",
    "WeightGradPlan",
    "plan_forward",
    "plan_input_grad",
    "plan_unstructured",
    "plan_weight_grad",
]


class ConvPlan(KernelPlan):
    """A plan of the forward pass (source x, target y) or the gradient of the input (source dy, target dx).

    A bias of the target is added, and ReLU applied if the plan was made with it. The gradient with a bias is the
    forward pass of a deconvolution.
    """

    def __init__(self, geometry: ConvGeometry, loop: PackedLoop | None, *, backward: bool = False) -> None:
        g = self.geometry = geometry
        shapes = {"x": g.input_shape, "y": g.output_shape}
        if backward:
            shapes = {"dy": g.output_shape, "dx": g.input_shape}
        self.source, self.target = shapes
        maps = shapes[self.target][1]
        super().__init__(loop, weights=g.weight_shape, bias=(maps,), **shapes)

    def pack(self, weights: np.ndarray, bias: np.ndarray | None = None) -> None:
        """Copies weights (filters, channels / groups, kernel_h, kernel_w) and the bias (maps of the target,) into the order
        in which the micro-kernel reads them."""
        self.check(weights=weights, bias=bias)
        self.loop.pack(weights, bias)

    def run(self, source: np.ndarray, target: np.ndarray) -> None:
        """Runs the pass with the weights last packed.  [overwrites the target]"""
        self.check(**{self.source: source, self.target: target})
        self.run_at(address(source), address(target))

    def run_at(self, source: int, target: int) -> None:
        """As ``run``, for arrays that begin at these addresses, without checks."""
        self.loop.run_at(source, target)


class WeightGradPlan(KernelPlan):
    """A plan of the gradients of the weights and the bias."""

    loop: WeightGradLoop

    def __init__(self, geometry: ConvGeometry, loop: WeightGradLoop) -> None:
        g = self.geometry = geometry
        super().__init__(loop, x=g.input_shape, dy=g.output_shape, dw=g.weight_shape, db=(g.filters,))

    def run(
        self, x: np.ndarray, dy: np.ndarray, dw: np.ndarray, db: np.ndarray | None = None, *, accumulate: bool = True
    ) -> None:
        """Computes the gradients of weights and bias.  [accumulates into dw and db; overwrites them if not accumulate]

        A plan for a pattern computes only the kept weights of dw; the others are unchanged, or set to 0 if not
        accumulate.
        """
        self.check(x=x, dy=dy, dw=dw, db=db)
        self.loop.run(x, dy, dw, db, accumulate)


def plan_forward(
    geometry: ConvGeometry,
    *,
    relu: bool = False,
    kept: SparsityPattern | None = None,
    unit: VectorUnit | None = None,
    winograd: bool = True,
) -> ConvPlan:
    """A plan of the forward pass of a convolution; relu, kept, winograd as in ConvProblem.

    unit   the vector unit to use; None: the machine's best
    """
    problem = ConvProblem(Direction.FORWARD, geometry, unit or vector_unit(), kept, relu, winograd)
    return ConvPlan(geometry, choose(problem).loop())


def plan_input_grad(
    geometry: ConvGeometry,
    *,
    relu: bool = False,
    kept: SparsityPattern | None = None,
    unit: VectorUnit | None = None,
    winograd: bool = True,
    lasting: bool = True,
) -> ConvPlan:
    """A plan of the gradient with respect to the input; unit as in plan_forward, the others as in ConvProblem."""
    problem = ConvProblem(Direction.INPUT_GRAD, geometry, unit or vector_unit(), kept, relu, winograd, lasting)
    return ConvPlan(geometry, choose(problem).loop(), backward=True)


def plan_weight_grad(
    geometry: ConvGeometry,
    *,
    kept: SparsityPattern | None = None,
    unit: VectorUnit | None = None,
    winograd: bool = True,
) -> WeightGradPlan:
    """A plan of the gradient with respect to the weights and the bias; kept, unit, winograd as in plan_forward."""
    problem = ConvProblem(Direction.WEIGHT_GRAD, geometry, unit or vector_unit(), kept, winograd=winograd)
    return WeightGradPlan(geometry, choose(problem).loop())


def plan_unstructured(
    geometry: ConvGeometry, *, direct: bool = False, relu: bool = False, unit: VectorUnit | None = None
) -> ConvPlan:
    """A plan of the forward pass that multiplies only the non-zero weights, without structure.

    direct   reads the padded image instead of a lowered matrix
    """
    kind = DirectLoop if direct else LoweredLoop
    return ConvPlan(geometry, kind(geometry, unit or vector_unit(), relu=relu))
