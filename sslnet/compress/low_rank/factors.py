"""Low-rank factors of a weight blob: cost and error of each rank, and the layers that replace it.

    svd       InnerProduct (n, k):  k -> r -> n
    filters   Convolution: r filters of the same window, then n of 1 x 1 that mix them (PCA over the filters)
    spatial   Convolution: r filters of kh x 1, then n of 1 x kw over these
    tucker    Convolution: 1 x 1 to r channels, the window from r to s, 1 x 1 to n

A convolution with groups is factored group by group, with one rank for all. Errors are relative: the norm of the residual
divided by the norm of the weights.

Ref: Zhang et al. 2015, "Accelerating Very Deep Convolutional Networks" (filters); Jaderberg, Vedaldi, Zisserman 2014, Tai
et al. 2016 (spatial); Kim et al. 2016, "Compression of Deep Convolutional Neural Networks" (tucker, by HOSVD)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import ClassVar, final

import numpy as np

Pair = tuple[int, int]
ONE: Pair = (1, 1)
NONE: Pair = (0, 0)


@dataclass(frozen=True)
class Weights:
    """A layer's weights, with its window and the size of its bottom.

    array     (num_output, channels / group, kh, kw), or (num_output, inputs)
    sizes     (height, width) of the bottom; (1, 1) for InnerProduct
    pad_end   zeros below and to the right; -1, the default: as many as above and to the left
    """

    array: np.ndarray
    group: int = 1
    stride: Pair = ONE
    pad: Pair = NONE
    dilation: Pair = ONE
    sizes: Pair = ONE
    pad_end: Pair = (-1, -1)

    def __post_init__(self) -> None:
        ends = (pad if end == -1 else end for pad, end in zip(self.pad, self.pad_end))
        object.__setattr__(self, "pad_end", tuple(ends))

    @property
    def kernel(self) -> Pair:
        return (1, 1) if self.array.ndim == 2 else (self.array.shape[2], self.array.shape[3])

    def out(self, axis: int) -> int:
        """Output size along an axis of the image."""
        reach = self.dilation[axis] * (self.kernel[axis] - 1) + 1
        return (self.sizes[axis] + self.pad[axis] + self.pad_end[axis] - reach) // self.stride[axis] + 1

    @property
    def flops(self) -> int:
        """FLOPs of a forward pass over one image; a multiply-add is two."""
        return 2 * self.array.size * self.out(0) * self.out(1)


@dataclass(frozen=True)
class Stage:
    """One of the layers that replace a layer: its weights, in the layout of the layer type, and its window.

    group   groups of this stage; None: those of the layer
    """

    array: np.ndarray
    kernel: Pair = ONE
    stride: Pair = ONE
    pad: Pair = NONE
    dilation: Pair = ONE
    group: int | None = None


@dataclass(frozen=True)
class Candidate:
    """A rank, or a pair of them, with its relative ``error``, its ``flops`` for one image and its number of parameters."""

    rank: tuple[int, ...]
    error: float
    flops: int
    parameters: int


class Factors(ABC):
    """A factorisation of given weights, for every rank."""

    METHOD: ClassVar[str]

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.candidates = self._candidates()
        """The candidates in order of decreasing error."""

    @abstractmethod
    def _candidates(self) -> list[Candidate]: ...

    @abstractmethod
    def stages(self, rank: tuple[int, ...]) -> list[Stage]:
        """The layers for a rank, first to last; their product approximates the weights."""

    def candidate(self, rank: tuple[int, ...], error: float) -> Candidate:
        shapes, places = self._shapes(rank), self._places()
        counts = [prod(shape) for shape in shapes]
        return Candidate(rank, error, 2 * sum(n * p for n, p in zip(counts, places)), sum(counts))

    @abstractmethod
    def _shapes(self, rank: tuple[int, ...]) -> list[tuple[int, ...]]:
        """The shapes of the stages' weights."""

    @abstractmethod
    def _places(self) -> list[int]:
        """Number of pixels that each stage computes."""


class _MatrixFactors(Factors):
    """Factors from the singular value decomposition of one matrix per group; one rank for all groups."""

    def _candidates(self) -> list[Candidate]:
        groups = np.split(self.weights.array.astype(np.float64), self.weights.group)
        self._parts = [np.linalg.svd(self._matrix(part), full_matrices=False) for part in groups]
        energy = np.sum([s**2 for _, s, _ in self._parts], axis=0)
        lost = np.append(np.cumsum(energy[::-1])[::-1], 0.0)
        errors = np.sqrt(lost / (lost[0] or 1.0))
        return [self.candidate((rank,), float(errors[rank])) for rank in range(1, len(errors))]

    def _pieces(self, rank: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Left and right factors of each group, each scaled by the square roots of the singular values."""
        left = [u[:, :rank] * np.sqrt(s[:rank]) for u, s, _ in self._parts]
        right = [np.sqrt(s[:rank])[:, None] * v[:rank] for _, s, v in self._parts]
        return left, right

    @abstractmethod
    def _matrix(self, part: np.ndarray) -> np.ndarray:
        """The weights of one group as the matrix that is factored."""


@final
class Svd(_MatrixFactors):
    METHOD: ClassVar[str] = "svd"

    def _matrix(self, part: np.ndarray) -> np.ndarray:
        return part

    def _shapes(self, rank: tuple[int, ...]) -> list[tuple[int, ...]]:
        outputs, inputs = self.weights.array.shape
        return [(rank[0], inputs), (outputs, rank[0])]

    def _places(self) -> list[int]:
        return [1, 1]

    def stages(self, rank: tuple[int, ...]) -> list[Stage]:
        (left,), (right,) = self._pieces(rank[0])
        return [Stage(right), Stage(left)]


@final
class FilterFactors(_MatrixFactors):
    METHOD: ClassVar[str] = "filters"

    def _matrix(self, part: np.ndarray) -> np.ndarray:
        return part.reshape(len(part), -1)

    def _shapes(self, rank: tuple[int, ...]) -> list[tuple[int, ...]]:
        n, c, kh, kw = self.weights.array.shape
        return [(self.weights.group * rank[0], c, kh, kw), (n, rank[0])]

    def _places(self) -> list[int]:
        return [self.weights.out(0) * self.weights.out(1)] * 2

    def stages(self, rank: tuple[int, ...]) -> list[Stage]:
        w = self.weights
        left, right = self._pieces(rank[0])
        first, last = (np.concatenate(parts) for parts in (right, left))
        return [
            Stage(first.reshape(-1, *w.array.shape[1:]), w.kernel, w.stride, w.pad, w.dilation),
            Stage(last.reshape(*last.shape, 1, 1)),
        ]


@final
class Spatial(_MatrixFactors):
    METHOD: ClassVar[str] = "spatial"

    def _matrix(self, part: np.ndarray) -> np.ndarray:
        n, c, kh, kw = part.shape
        return part.transpose(0, 3, 1, 2).reshape(n * kw, c * kh)

    def _shapes(self, rank: tuple[int, ...]) -> list[tuple[int, ...]]:
        n, c, kh, kw = self.weights.array.shape
        return [(self.weights.group * rank[0], c, kh, 1), (n, rank[0], 1, kw)]

    def _places(self) -> list[int]:
        w = self.weights
        return [w.out(0) * w.sizes[1], w.out(0) * w.out(1)]

    def stages(self, rank: tuple[int, ...]) -> list[Stage]:
        w, (r,) = self.weights, rank
        _, c, kh, kw = w.array.shape
        left, right = self._pieces(r)
        first = np.concatenate([part.reshape(r, c, kh, 1) for part in right])
        last = np.concatenate([part.reshape(-1, kw, r).transpose(0, 2, 1)[:, :, None] for part in left])
        return [
            Stage(first, (kh, 1), (w.stride[0], 1), (w.pad[0], 0), (w.dilation[0], 1)),
            Stage(last, (1, kw), (1, w.stride[1]), (0, w.pad[1]), (1, w.dilation[1])),
        ]


@final
class Tucker(Factors):
    METHOD: ClassVar[str] = "tucker"

    def _candidates(self) -> list[Candidate]:
        groups = np.split(self.weights.array.astype(np.float64), self.weights.group)
        self._cores, self._bases = [], []
        for part in groups:
            outputs = np.linalg.svd(part.reshape(len(part), -1), full_matrices=False)[0]
            inputs = np.linalg.svd(part.swapaxes(0, 1).reshape(part.shape[1], -1), full_matrices=False)[0]
            self._bases.append((outputs, inputs))
            self._cores.append(np.einsum("nchw,ns,cr->srhw", part, outputs, inputs))
        # energy[s, r]: energy in the first s directions of the outputs and r of the inputs, which gives the error of a pair
        energy = sum((core**2).sum(axis=(2, 3)).cumsum(axis=0).cumsum(axis=1) for core in self._cores)
        lost = 1 - energy / (energy[-1, -1] or 1.0)
        along_outputs, along_inputs = lost[:, -1], lost[-1]
        ranks = {
            (int(np.argmax(along_inputs <= level)) + 1, int(np.argmax(along_outputs <= level)) + 1)
            for level in (*along_outputs, *along_inputs)
        }
        found = [self.candidate(rank, float(np.sqrt(max(lost[rank[1] - 1, rank[0] - 1], 0)))) for rank in ranks]
        return sorted(found, key=lambda candidate: -candidate.error)

    def _shapes(self, rank: tuple[int, ...]) -> list[tuple[int, ...]]:
        r, s = rank
        n, c, kh, kw = self.weights.array.shape
        group = self.weights.group
        return [(group * r, c), (group * s, r, kh, kw), (n, s)]

    def _places(self) -> list[int]:
        w = self.weights
        out = w.out(0) * w.out(1)
        return [w.sizes[0] * w.sizes[1], out, out]

    def stages(self, rank: tuple[int, ...]) -> list[Stage]:
        (r, s), w = rank, self.weights
        first = np.concatenate([inputs[:, :r].T for _, inputs in self._bases])
        core = np.concatenate([core[:s, :r] for core in self._cores])
        last = np.concatenate([outputs[:, :s] for outputs, _ in self._bases])
        return [
            Stage(first.reshape(*first.shape, 1, 1)),
            Stage(core, w.kernel, w.stride, w.pad, w.dilation),
            Stage(last.reshape(*last.shape, 1, 1)),
        ]


METHODS: dict[str, Callable[[Weights], Factors]] = {
    "svd": Svd,
    "filters": FilterFactors,
    "spatial": Spatial,
    "tucker": Tucker,
}
"""The factorisations by name: "svd" for InnerProduct, the others for Convolution."""


def factorise(weights: Weights, methods: tuple[str, ...]) -> list[Factors]:
    """The factorisations of the weights by all applicable methods."""
    dense = weights.array.ndim == 2
    return [METHODS[name](weights) for name in methods if (name == "svd") == dense]


def choose(factors: list[Factors], error: float) -> tuple[Factors, Candidate] | None:
    """The cheapest candidate of all methods within the error; None if none is cheaper than the original layer."""
    best: tuple[Factors, Candidate] | None = None
    for each in factors:
        for candidate in each.candidates:
            cheaper = candidate.flops < (best[1].flops if best else each.weights.flops)
            if candidate.error <= error and cheaper:
                best = (each, candidate)
    return best
