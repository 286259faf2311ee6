"""The matrices of Winograd's minimal convolutions, and the vector instructions that apply them.

F(m, r) makes m outputs of a filter of r taps from n = m + r - 1 inputs with n products instead of m r; in two dimensions

    y = A^T [(G w G^T) * (B^T x B)] A            y (m, m), w (r, r), x (n, n), * element by element

Each axis has an m and r of its own; F(1, 1) is the identity, so a kernel of one row or one column is transformed along
one axis alone. The same matrices give the gradient of w: G^T [(B^T x B) * (A dy A^T)] G.

Ref: Lavin and Gray 2016, eq. 8; the matrices by Cook and Toom's interpolation at the points of POINTS and infinity.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import prod

from llvmlite import ir

from sslnet.kernels.simd import vector as vec
from sslnet.kernels.simd.vector import Builder, Value

Matrix = list[list[Fraction]]

POINTS = [Fraction(p) for p in ("0", "1", "-1", "2", "-2", "1/2", "-1/2", "2/3", "-2/3", "3/2", "-3/2")]
"""The interpolation points besides infinity: pairs p and -p, whose rows share terms; small, to keep rounding errors
small."""

INPUT, OUTPUT, WEIGHTS, GRADIENT, WEIGHT_GRADIENT = range(5)
"""Kinds of transforms: x by B^T, products to y by A^T, w by G, dy by A, products to dw by G^T."""


@dataclass(frozen=True)
class TileShape:
    """F(m_h x m_w, r_h x r_w): tiles of m_h rows by m_w columns of outputs of a kernel of r_h by r_w."""

    m_h: int
    m_w: int
    r_h: int
    r_w: int

    @property
    def n_h(self) -> int:
        return self.m_h + self.r_h - 1

    @property
    def n_w(self) -> int:
        return self.m_w + self.r_w - 1

    @property
    def positions(self) -> int:
        """Products of a tile, for one channel and filter."""
        return self.n_h * self.n_w

    @property
    def name(self) -> str:
        return f"winograd {self.m_h}x{self.m_w}"


def matrix_of(kind: int, m: int, r: int) -> Matrix:
    """The matrix M of the transform ``kind`` of F(m, r); a tile X becomes M X N^T, with the matrix N of its rows."""
    points = POINTS[: m + r - 2]
    if kind == INPUT:
        rows = [[*_polynomial([q for q in points if q != p]), Fraction(0)] for p in points]
        return [*rows, _polynomial(points)]
    of_weights = kind in (WEIGHTS, WEIGHT_GRADIENT)
    powers = r if of_weights else m
    matrix = [[p**j for j in range(powers)] for p in points] + [[Fraction(int(j == powers - 1)) for j in range(powers)]]
    if of_weights:
        for row, p in zip(matrix, points):
            scale = prod((p - q for q in points if q != p), start=Fraction(1))
            row[:] = [value / scale for value in row]
    return [list(column) for column in zip(*matrix)] if kind in (OUTPUT, WEIGHT_GRADIENT) else matrix


def apply(builder: Builder, matrix: Matrix, values: list[Value]) -> list[Value]:
    """The matrix times a list of vectors; two rows that differ only in signs share their sums."""
    results: list[Value] = [None] * len(matrix)
    for i, row in enumerate(matrix):
        if results[i] is not None:
            continue
        twin = next((k for k in range(i + 1, len(matrix)) if _differ_in_signs(row, matrix[k])), None)
        if twin is None:
            results[i] = _sum(builder, row, values)
            continue
        same = [a if a == b else Fraction(0) for a, b in zip(row, matrix[twin])]
        other = [a if a != b else Fraction(0) for a, b in zip(row, matrix[twin])]
        first, second = _sum(builder, same, values), _sum(builder, other, values)
        results[i], results[twin] = builder.fadd(first, second), builder.fsub(first, second)
    return results


def _polynomial(roots: list[Fraction]) -> list[Fraction]:
    """Coefficients of the product of (z - root), the constant first."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *coefficients]
        coefficients = [a - root * b for a, b in zip(shifted, [*coefficients, Fraction(0)])]
    return coefficients


def _differ_in_signs(a: list[Fraction], b: list[Fraction]) -> bool:
    """Whether both rows have the same magnitudes, with some signs equal and some not, so that they can share sums."""
    pairs = [(p, q) for p, q in zip(a, b) if p or q]
    signs = {p == q for p, q in pairs}
    return all(abs(p) == abs(q) for p, q in pairs) and len(signs) == 2


def _sum(builder: Builder, row: list[Fraction], values: list[Value]) -> Value:
    """The sum of the values times their factors; values of factor 1 are added first."""
    terms = sorted(((f, v) for f, v in zip(row, values) if f), key=lambda term: (term[0] != 1, abs(term[0]) != 1))
    total = None
    for factor, value in terms:
        if total is None:
            total = value if factor == 1 else builder.fmul(_constant(value, factor), value)
        elif factor == 1:
            total = builder.fadd(total, value)
        elif factor == -1:
            total = builder.fsub(total, value)
        else:
            total = vec.multiply_add(builder, _constant(value, factor), value, total)
    assert total is not None  # no row is empty
    return total


def _constant(like: Value, factor: Fraction) -> Value:
    return ir.Constant(like.type, [float(factor)] * like.type.count)
