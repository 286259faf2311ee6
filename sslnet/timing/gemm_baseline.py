"""The matrix product of a layer alone, as libraries compute it: dense, without zero rows and columns, weight by weight.

Lowering is not timed. Of a large batch, only as many images are lowered as fit into ``LOWERED_BYTES``, and the time is
extrapolated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from scipy.sparse import csr_array

from sslnet.blob import Blob
from sslnet.kernels.conv.im2col import im2col
from sslnet.kernels.conv.pattern import SparsityPattern
from sslnet.kernels.matmul.blas import SMALL, multiply
from sslnet.kernels.runtime.memory import scratch
from sslnet.kernels.runtime.threads import num_threads, parallel
from sslnet.layers.convolution import Convolution

PRODUCTS = {"dense": "BLAS", "kept": "BLAS", "csr": "SciPy CSR"}
"""Form -> the library that multiplies."""
LOWERED_BYTES = 32 << 20
"""Memory that the lowered images may take, if it is more than one."""


@dataclass(frozen=True)
class LoweringTime:
    """How the right factor is made.

    images, all  how many images are lowered, and how many the layer runs on
    pixels       columns of the lowered matrix of one image
    fill         puts the lowered images into an array (images, groups, rows, pixels)
    """

    images: int
    all: int
    pixels: int
    fill: Callable[[np.ndarray], None]


def lowered(layer: Convolution, bottom: Sequence[Blob]) -> LoweringTime:
    """The lowered matrix of a convolution: the pixels that each weight multiplies, for all output pixels."""
    w, first = layer.window, bottom[0]
    batch = first.count_of(0, layer.axis)
    rows = layer.channels * prod(w.kernel)
    images = min(batch, max(1, LOWERED_BYTES // (4 * rows * layer.pixels)))

    def fill(out: np.ndarray) -> None:
        source = first.data.reshape(-1, *first.shape[layer.axis :])
        for image, col in zip(source[:images], out):
            im2col(image, *w.axes, out=col.reshape(rows, -1))

    return LoweringTime(images, batch * len(bottom), layer.pixels, fill)


def transposed(bottom: Blob, inputs: int) -> LoweringTime:
    """The lowered matrix of an InnerProduct: the inputs as rows, all images side by side."""

    def fill(out: np.ndarray) -> None:
        out[0, 0] = bottom.data.reshape(-1, inputs).T

    return LoweringTime(1, 1, bottom.count // inputs, fill)


class Products:
    """The products of a layer's weights and its lowered data, by form; ``load`` before they are timed.

    weights  (groups, filters of a group, columns) float32
    kept     their rows and columns that are not zero
    """

    def __init__(
        self, weights: np.ndarray, kept: SparsityPattern, forms: Sequence[str], lowering: LoweringTime
    ) -> None:
        self.forms = [form for form in forms if form in PRODUCTS]
        self.shape = weights.shape
        self.lowering = lowering
        self.kept = kept
        self.weights: dict[str, list[np.ndarray]] = {"dense": list(weights)}
        if "kept" in self.forms:
            self.weights["kept"] = [
                np.ascontiguousarray(matrix[np.ix_(*sides)])
                for matrix, *sides in zip(weights, kept.filters, kept.columns)
            ]
        self.csr = [csr_array(matrix) for matrix in weights] if "csr" in self.forms else []
        self.right: dict[str, list[list[np.ndarray]]] = {}
        """By form: for each image the right factor of each group."""
        self.results: list[np.ndarray] = []
        """The products, or the parts of their rows, of all groups of all images, that ``seconds`` made last."""

    @property
    def pixels(self) -> int:
        """Columns of the product over all images."""
        return self.lowering.all * self.lowering.pixels

    def load(self) -> None:
        """Lowers what the bottoms hold."""
        groups, _, rows = self.shape
        images, pixels = self.lowering.images, self.lowering.pixels
        col = scratch("products col", images * groups * rows * pixels).reshape(images, groups, rows, pixels)
        self.lowering.fill(col)
        self.right = {"dense": [list(image) for image in col]}
        self.right["csr"] = self.right["dense"]
        if "kept" in self.forms:
            sizes = [len(columns) for columns in self.kept.columns]
            ends = np.cumsum(sizes)
            some = scratch("products kept", images * sum(sizes) * pixels).reshape(images, sum(sizes), pixels)
            self.right["kept"] = [np.split(image, ends[:-1]) for image in some]
            for image, parts in zip(col, self.right["kept"]):
                for matrix, columns, part in zip(image, self.kept.columns, parts):
                    np.take(matrix, columns, axis=0, out=part, mode="clip")

    def seconds(self, form: str, now: Callable[[], float]) -> float:
        """Time of the products of all images.  now: a clock, in seconds"""
        run = self._sparse() if form == "csr" else self._dense(form)
        start = now()
        run()
        return (now() - start) * self.lowering.all / self.lowering.images

    def _dense(self, form: str) -> Callable[[], None]:
        weights, right, pixels = self.weights[form], self.right[form], self.lowering.pixels
        sizes = [len(a) * pixels for _ in right for a in weights]
        parts = np.split(scratch("products out", sum(sizes)), np.cumsum(sizes)[:-1])
        self.results = [part.reshape(-1, pixels) for part in parts]
        factors = [(a, b) for image in right for a, b in zip(weights, image)]
        triples = [(*pair, result) for pair, result in zip(factors, self.results)]

        def some(i0: int, i1: int, thread: int) -> None:
            for a, b, result in triples[i0:i1]:
                np.matmul(a, b, out=result)

        def one_by_one() -> None:
            for triple in triples:
                multiply(*triple)

        threads = self._threads(sum(a.size for a in weights))
        return one_by_one if len(triples) < threads else lambda: parallel(some, len(triples), most=threads)

    def _sparse(self) -> Callable[[], None]:
        """SciPy multiplies on one thread: rows are shared out where there are fewer products than threads."""
        right = self.right["csr"]
        threads = self._threads(sum(matrix.nnz for matrix in self.csr))
        parts = -(-threads // (len(right) * self.shape[0]))
        pieces = [[matrix[rows] for rows in _parts(matrix.shape[0], parts)] for matrix in self.csr]
        pairs = [(rows, b) for image in right for matrix, b in zip(pieces, image) for rows in matrix]
        self.results = [np.empty(0)] * len(pairs)

        def some(i0: int, i1: int, thread: int) -> None:
            for i in range(i0, i1):
                rows, b = pairs[i]
                self.results[i] = rows @ b

        return lambda: parallel(some, len(pairs), most=threads)

    def _threads(self, weights: int) -> int:
        """Number of threads: 1 for products so small that starting another thread does not pay."""
        return num_threads() if weights * self.lowering.images * self.lowering.pixels >= SMALL else 1


def _parts(rows: int, parts: int) -> list[slice]:
    return [slice(rows * k // parts, rows * (k + 1) // parts) for k in range(parts)]
