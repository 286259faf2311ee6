"""Structures that replace a convolution: their layers, and the factors of the trained weights.

    separable    kh x kw for each channel alone, then 1 x 1 to all filters
    spatial      r filters of kh x 1, then all filters of 1 x kw over these
    bottleneck   1 x 1 to r channels, kh x kw from r to s, 1 x 1 to all filters
    inception    three branches that are concatenated: 1 x 1, and 3 x 3 and kh x kw behind 1 x 1 to r channels each (of a
                 3 x 3 kernel two branches)

r and s are a part (``ratio``) of the layer's channels and filters. Every structure has the window of the layer: its
stride, padding and dilation. Factors are the best in the Frobenius norm, bottleneck: a local optimum.

Ref: Sifre, Mallat 2014 (separable); Jaderberg et al. 2014, Alvarez, Petersson 2016, "DecomposeMe" (spatial); Kim et al. 2016,
De Lathauwer et al. 2000, "On the best rank-1 and rank-(R1, ..., RN) approximation" (bottleneck, by HOOI); Szegedy et al. 2015
(inception)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sslnet.compress.low_rank.factors import ONE, Spatial, Stage, Weights
from sslnet.errors import UsageError

SWEEPS = 10
"""Iterations of the bottleneck's factors; each lowers the error or keeps it."""


@dataclass(frozen=True)
class Structure:
    """The layers in place of a convolution.

    branches   chains of layers, each on the layer's bottom; the outputs of several are concatenated, in order
    error      norm of the change of the weights relative to their norm, with the factors as weights
    """

    branches: list[list[Stage]]
    error: float

    def flops(self, weights: Weights) -> int:
        """FLOPs of a forward pass over one image."""
        total = 0
        for stages in self.branches:
            size = weights.sizes
            for stage in stages:
                size = _out(stage, weights, size, 0), _out(stage, weights, size, 1)
                total += 2 * stage.array.size * size[0] * size[1]
        return total

    @property
    def parameters(self) -> int:
        """Parameters without biases."""
        return sum(stage.array.size for stages in self.branches for stage in stages)


def _out(stage: Stage, weights: Weights, size: tuple[int, int], axis: int) -> int:
    reach = stage.dilation[axis] * (stage.kernel[axis] - 1) + 1
    padding = 2 * stage.pad[axis]
    if stage.kernel[axis] == weights.kernel[axis]:  # one-sided padding
        padding += weights.pad_end[axis] - weights.pad[axis]
    return (size[axis] + padding - reach) // stage.stride[axis] + 1


def separable(weights: Weights, ratio: float) -> Structure:
    """One kernel for each channel, and 1 x 1; by an SVD of each channel's kernels of all filters, of rank one."""
    w, array = weights, weights.array.astype(np.float64)
    n, channels, kh, kw = array.shape
    u, s, v = np.linalg.svd(array.transpose(1, 0, 2, 3).reshape(channels, n, kh * kw), full_matrices=False)
    scale = np.sqrt(s[:, :1])
    depthwise = (scale * v[:, 0]).reshape(channels, 1, kh, kw)
    pointwise = (scale * u[:, :, 0]).T.reshape(n, channels, 1, 1)
    first = Stage(depthwise, w.kernel, w.stride, w.pad, w.dilation, group=channels)
    return Structure([[first, Stage(pointwise, group=1)]], _relative((s[:, 1:] ** 2).sum(), array))


def spatial(weights: Weights, ratio: float) -> Structure:
    """``ratio`` times as many filters of kh x 1 as the layer has, not more than an exact product needs; by an SVD."""
    factors = Spatial(weights)
    filters, group = len(weights.array), weights.group
    rank = min(_part(ratio, filters // group), factors.candidates[-1].rank[0])
    return Structure([factors.stages((rank,))], factors.candidates[rank - 1].error)


def bottleneck(weights: Weights, ratio: float) -> Structure:
    """1 x 1, the window, 1 x 1: Tucker's decomposition by higher-order orthogonal iteration, group by group."""
    w = weights
    groups = np.split(w.array.astype(np.float64), w.group)
    s, r = (min(_part(ratio, size), size) for size in groups[0].shape[:2])
    first, core, last, lost = [], [], [], 0.0
    for part in groups:
        outputs, inputs = _tucker(part, s, r)
        middle = np.einsum("nchw,ns,cr->srhw", part, outputs, inputs)
        lost += max((part**2).sum() - (middle**2).sum(), 0.0)
        first.append(inputs.T)
        core.append(middle)
        last.append(outputs)
    ends = (np.concatenate(arrays) for arrays in (first, last))
    before, behind = (array.reshape(*array.shape, 1, 1) for array in ends)
    window = Stage(np.concatenate(core), w.kernel, w.stride, w.pad, w.dilation)
    return Structure([[Stage(before), window, Stage(behind)]], _relative(lost, w.array))


def _tucker(part: np.ndarray, s: int, r: int) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal bases (filters, s) and (channels, r) of a part (filters, channels, kh, kw)."""
    inputs = _basis(part.swapaxes(0, 1), r)
    for _ in range(SWEEPS):
        outputs = _basis(np.einsum("nchw,cr->nrhw", part, inputs), s)
        inputs = _basis(np.einsum("nchw,ns->cshw", part, outputs), r)
    return outputs, inputs


def _basis(array: np.ndarray, rank: int) -> np.ndarray:
    """The first left singular vectors of the array as a matrix of its first axis by the others."""
    matrix = array.reshape(len(array), -1)
    return np.linalg.eigh(matrix @ matrix.T)[1][:, ::-1][:, :rank]


def inception(weights: Weights, ratio: float) -> Structure:
    """Branches of 1 x 1, 3 x 3 and the whole window; a quarter of the filters for each smaller one.

    The weights of a branch are the inner taps of its filters, with the channels behind 1 x 1 by an SVD.
    """
    w, array = weights, weights.array.astype(np.float64)
    n, channels, kh, kw = array.shape
    sides = [(1, 1), (3, 3), (kh, kw)] if min(kh, kw) > 3 else [(1, 1), (kh, kw)]
    counts = [n // 4] * (len(sides) - 1)
    counts = [*counts, n - sum(counts)]
    rank = min(_part(ratio, channels), channels)
    branches, lost, at = [], (array**2).sum(), 0
    for (height, width), count in zip(sides, counts):
        part = array[at : at + count, :, (kh - height) // 2 : (kh + height) // 2, (kw - width) // 2 : (kw + width) // 2]
        at += count
        pad = w.dilation[0] * (height - 1) // 2, w.dilation[1] * (width - 1) // 2
        stages = []
        if (height, width) != ONE:
            inputs = _basis(part.swapaxes(0, 1), rank)
            part = np.einsum("nchw,cr->nrhw", part, inputs)
            stages.append(Stage(inputs.T.reshape(rank, channels, 1, 1)))
        dilation = w.dilation if (height, width) != ONE else ONE
        branches.append([*stages, Stage(part, (height, width), w.stride, pad, dilation)])
        lost -= (part**2).sum()
    return Structure(branches, _relative(max(lost, 0.0), array))


def _part(ratio: float, size: int) -> int:
    return max(1, round(ratio * size))


def _relative(lost: float, array: np.ndarray) -> float:
    norm = float(np.linalg.norm(array.astype(np.float64)))
    return float(np.sqrt(lost)) / norm if norm else 0.0


FORMS: dict[str, Callable[[Weights, float], Structure]] = {
    "separable": separable,
    "spatial": spatial,
    "bottleneck": bottleneck,
    "inception": inception,
}
"""The structures by name."""


def unsuitable(form: str, weights: Weights) -> str:
    """Reason why a convolution cannot take a form; empty if it can."""
    kh, kw = weights.kernel
    if weights.kernel == ONE:
        return "its kernel is 1 x 1"
    if form == "spatial" and 1 in (kh, kw):
        return f"its kernel is {kh} x {kw}: it lies along one axis already"
    if form in ("separable", "inception") and weights.group > 1:
        return f"it has {weights.group} groups"
    if form == "inception":
        inner = tuple(d * (k - 1) // 2 for d, k in zip(weights.dilation, weights.kernel))
        if not (kh % 2 and kw % 2 and kh > 1 and kw > 1):
            return f"its kernel is {kh} x {kw}: branches are centred on odd kernels"
        if not weights.pad == weights.pad_end == inner:
            return f"its padding is not {inner[0]} x {inner[1]}, half its kernel: branches would differ in size"
        if len(weights.array) < 4:
            return "it has less than 4 filters"
    return ""


def check_form(form: str, ratio: float | None, word: Callable[[str], str]) -> float:
    """The ratio to use: half where none is given. raises UsageError for an unknown form and for a ratio that is out of
    range, or that the form does not have

    word   the name of an argument in messages
    """
    if form not in FORMS:
        raise UsageError(f"{word('form')} must be one of {', '.join(FORMS)}, not {form!r}")
    if ratio is not None and form == "separable":
        raise UsageError(f"{word('ratio')}: separable has no width to choose")
    if ratio is not None and not 0 < ratio <= 4:
        raise UsageError(f"{word('ratio')} must lie between 0 and 4, not {ratio:g}")
    return 0.5 if ratio is None else ratio
