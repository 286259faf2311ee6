"""What ``debug_info`` tells of a net: the mean magnitude of each blob, when its layer has run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from sslnet.net import Net

Tell = Callable[[str], None]


def tell_forward(net: Net, i: int, tell: Tell) -> None:
    """Of layer number i, right after its forward pass."""
    start = f"    [Forward] Layer {net.layer_names[i]}, "
    for name, blob in zip(net.top_names[i], net.tops[i]):
        tell(f"{start}top blob {name} data: {_mean_abs(blob.data):g}")
    for j, blob in enumerate(net.layers[i].blobs):
        tell(f"{start}param blob {j} data: {_mean_abs(blob.data):g}")


def tell_backward(net: Net, i: int, tell: Tell) -> None:
    """Of layer number i, right after its backward pass."""
    start = f"    [Backward] Layer {net.layer_names[i]}, "
    for name, blob, need in zip(net.bottom_names[i], net.bottoms[i], net.bottom_need_backward[i]):
        if need:
            tell(f"{start}bottom blob {name} diff: {_mean_abs(blob.diff):g}")
    for j, blob in enumerate(net.layers[i].blobs):
        if net.layers[i].param_propagate_down[j]:
            tell(f"{start}param blob {j} diff: {_mean_abs(blob.diff):g}")


def _mean_abs(array: np.ndarray) -> float:
    return float(np.abs(array).mean()) if array.size else 0.0
