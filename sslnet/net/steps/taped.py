"""Which layers' own forward passes a tape can take: those that run nothing but regions of compiled code.

Such a pass must decide nothing by the values of its arrays, compute nothing in NumPy, and change no attribute that the
backward pass reads, because a tape repeats the calls of one pass. A layer that is not listed runs in Python, between two
tapes. ``tests/net/test_tape.py`` runs every case of every listed layer both ways.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.blob import Blob
from sslnet.layers.axpy import Axpy
from sslnet.layers.bias import Bias
from sslnet.layers.concat import Concat
from sslnet.layers.dropout import Dropout
from sslnet.layers.elementwise import Elementwise
from sslnet.layers.eltwise import Eltwise
from sslnet.layers.flatten import Flatten
from sslnet.layers.input import Input
from sslnet.layers.interp import Interp
from sslnet.layers.lrn import LRN
from sslnet.layers.mvn import MVN
from sslnet.layers.permute import Permute
from sslnet.layers.pooling import Pooling
from sslnet.layers.prelu import PReLU
from sslnet.layers.relu import ReLU
from sslnet.layers.reshape import Reshape
from sslnet.layers.scale import Scale
from sslnet.layers.silence import Silence
from sslnet.layers.slice import Slice
from sslnet.layers.softmax import Softmax
from sslnet.layers.split import Split
from sslnet.layers.transpose import Transpose

Condition = Callable[[Any, Sequence[Blob], Sequence[Blob]], bool]


def _always(layer: Any, bottom: Sequence[Blob], top: Sequence[Blob]) -> bool:
    return True


def _in_place(layer: Any, bottom: Sequence[Blob], top: Sequence[Blob]) -> bool:
    return top[0] is bottom[0]


def _pools(layer: Any, bottom: Sequence[Blob], top: Sequence[Blob]) -> bool:
    """Without random places, and without a copy of the places."""
    return len(top) == 1 and layer.method != pb.PoolingParameter.STOCHASTIC


def _has_own_slopes(layer: Any, bottom: Sequence[Blob], top: Sequence[Blob]) -> bool:
    """Whether the kernel reads the slopes in their own place: one shared by all channels is spread by NumPy."""
    return np.may_share_memory(layer.by_channel(), layer.blobs[0].data)


def _drops_nothing(layer: Any, bottom: Sequence[Blob], top: Sequence[Blob]) -> bool:
    return not layer.samples and layer.factor == 1 and top[0] is bottom[0]


def _scales_its_bottom(layer: Any, bottom: Sequence[Blob], top: Sequence[Blob]) -> bool:
    return layer._given is None


TAPED: dict[type[Any], Condition] = {
    Axpy: _always,
    Bias: _in_place,
    Concat: _always,
    Dropout: _drops_nothing,
    Elementwise: _always,
    Eltwise: _always,
    Flatten: _always,
    Input: _always,
    Interp: _always,
    LRN: _always,
    MVN: _always,
    Permute: _always,
    Pooling: _pools,
    PReLU: _has_own_slopes,
    ReLU: _always,
    Reshape: _always,
    Scale: _scales_its_bottom,
    Silence: _always,
    Slice: _always,
    Softmax: _always,
    Split: _always,
    Transpose: _always,
}
"""Layer class -> whether the pass of one with these bottoms and tops runs only regions; derived classes included."""


def runs_only_regions(layer: Any, bottom: Sequence[Blob], top: Sequence[Blob]) -> bool:
    """Whether the layer's own forward pass can be taken by a tape."""
    return any(isinstance(layer, kind) and holds(layer, bottom, top) for kind, holds in TAPED.items())
