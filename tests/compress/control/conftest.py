"""A handle whose groups are the rows of one array, and a small net, for tests that compute by hand."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.net.net import Net

NET = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 3 } } }
layer { name: "a" type: "InnerProduct" bottom: "x" top: "a" inner_product_param { num_output: 4 } }
layer { name: "b" type: "InnerProduct" bottom: "a" top: "b" inner_product_param { num_output: 2 } }
"""


class RowsHandle:
    """Groups are the rows of a matrix, of kinds of so many groups each."""

    def __init__(self, matrix: np.ndarray, strengths: Any, sizes: list[int], *layers: str, update: Any = None) -> None:
        self.matrix, self.given, self.sizes, self.layers = matrix, np.asarray(strengths, float), sizes, set(layers)
        self.updates = self.makers = [] if update is None else [update]
        self.count, self.ended, self.factor = len(matrix), False, 1.0

    def norms(self) -> np.ndarray:
        return np.linalg.norm(self.matrix.astype(float), axis=1)

    def strengths(self) -> np.ndarray:
        return self.given

    def speeds(self, rate: float) -> np.ndarray:
        return rate * self.given

    def clear(self, gone: np.ndarray) -> None:
        self.matrix[gone] = 0

    def end(self, solver: Any) -> None:
        self.ended = True

    @contextlib.contextmanager
    def without(self, gone: np.ndarray) -> Iterator[None]:
        before = self.matrix.copy()
        self.clear(gone)
        yield
        self.matrix[...] = before


@pytest.fixture
def rows_handle() -> Callable[..., RowsHandle]:
    return RowsHandle


@pytest.fixture
def net() -> Net:
    """3 -> 4 -> 2 by two InnerProduct layers, all weights 1, all biases 0."""
    made = Net(prototxt.parse(NET, pb.NetParameter), seed=0)
    for param in made.learnable:
        param.blob.data[...] = 1 if param.index == 0 else 0
    return made


@pytest.fixture
def update_of(net: Net) -> Callable[[str], Any]:
    """update_of(layer): what an update knows of the layer's weights, with one array of history."""

    def find(layer: str) -> Any:
        param = next(p for p in net.learnable if p.layer.name == layer and p.index == 0)
        return SimpleNamespace(param=param, history=[np.full(param.blob.count, 5.0)])

    return find
