"""The sparse group lasso: a group lasso plus the l1 norm, so that non-zero groups become sparse, too.

    p(w) = strength * (1 - l1_ratio) * ||w|| + strength / unit * l1_ratio * sum of |w_i|

``unit`` is the square root of the group's size if ``group_lasso_scale_by_size`` multiplied the strength by it, else 1, so
that the size scales only the norm. The prox, in every metric: soft thresholding of each value, then the prox of the norm,

    u_i = sign(x_i) * max(0, |x_i| - t_i * strength / unit * l1_ratio)
    z = prox of strength * (1 - l1_ratio) * ||.|| at u

Ref: Friedman, Hastie, Tibshirani 2010, "A note on the group lasso and a sparse group lasso"; Simon, Friedman, Hastie,
Tibshirani 2013, "A Sparse-Group Lasso", eq. 2 (the weights)
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from sslnet.sparsity.group_lasso import shrink_groups
from sslnet.sparsity.group_penalty import GroupPart, GroupPenalty, Matrices, Steps


class SparseGroupLasso(GroupPenalty):
    SETTINGS: ClassVar = {"l1_ratio": (0.0, 1.0)}
    BY_NORM = False
    _frozen: list[np.ndarray] | None = None
    """Masks of the values that ``freeze`` found zero, in the shape of each part's tiles; None before ``freeze``."""

    @property
    def group_strengths(self) -> np.ndarray:
        """(groups) coefficients of the Euclidean norms."""
        return self.strengths * (1 - self.settings["l1_ratio"])

    @property
    def l1_strengths(self) -> np.ndarray:
        """(groups) coefficients of the absolute values."""
        return self.strengths / self.unit * self.settings["l1_ratio"]

    def value_at(self, norms: np.ndarray, matrices: Matrices) -> float:
        return float(self.group_strengths @ norms + self.l1_strengths @ self._sizes(matrices))

    def _sizes(self, matrices: Matrices) -> np.ndarray:
        """Sum of the absolute values of each group: (groups)."""
        sums = np.zeros(self.count)
        for part in self.parts:
            tiles = np.abs(part.tiles(matrices[part.index]))
            sums += part.sums(tiles.sum(axis=(1, 3), dtype=np.float64).reshape(-1), self.count)
        return sums

    def prox(self, matrices: Matrices, steps: Steps) -> list[np.ndarray]:
        if self._frozen is not None:
            for part, flags in zip(self.parts, self._frozen):
                part.tiles(matrices[part.index])[flags] = 0
            return self._frozen
        for part in self.parts:
            tiles = part.tiles(matrices[part.index])
            np.copyto(tiles, self._soft(part, tiles, steps[part.index]))
        inside = [part.tiles(matrices[part.index]) == 0 for part in self.parts]
        zero = shrink_groups(self.parts, self.group_strengths, matrices, steps)
        return [small | gone for small, gone in zip(inside, zero)]

    def _soft(self, part: GroupPart, tiles: np.ndarray, step: float | np.ndarray) -> np.ndarray:
        """Soft thresholding of each value by step * l1 strength."""
        thresholds = part.by_tile(self.l1_strengths, 0.0, tiles)
        thresholds = thresholds * (step if isinstance(step, float) else part.tiles(step))
        soft: np.ndarray = tiles - np.clip(tiles, -thresholds, thresholds)
        return soft

    def pulls(self, matrices: Matrices) -> np.ndarray:
        norms, sizes = self.norms(matrices), self._sizes(matrices)
        ratios = np.divide(sizes, norms, out=np.ones_like(norms), where=norms > 0)
        pulls: np.ndarray = self.group_strengths + self.l1_strengths * ratios
        return pulls

    def freeze(self, matrices: Matrices) -> None:
        self._frozen = [part.tiles(matrices[part.index]) == 0 for part in self.parts]
        for part, zero in zip(self.parts, self._frozen):
            zero &= part.by_tile(np.ones(self.count), 0.0, zero.astype(np.float64)) > 0
        self.strengths = self.base = np.zeros(self.count)
