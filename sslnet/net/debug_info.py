"""``debug_info``: the mean magnitude of each blob, printed when its layer has run."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sslnet.net.layer_graph import LayerGraph

Tell = Callable[[str], None]


def tell_forward(graph: LayerGraph, i: int, tell: Tell) -> None:
    """Prints the tops and parameters of layer number i, right after its forward pass."""
    start = f"    [Forward] Layer {graph.layer_names[i]}, "
    for name, blob in zip(graph.top_names[i], graph.tops[i]):
        tell(f"{start}top blob {name} data: {_mean_abs(blob.data):g}")
    for j, blob in enumerate(graph.layers[i].blobs):
        tell(f"{start}param blob {j} data: {_mean_abs(blob.data):g}")


def tell_backward(graph: LayerGraph, i: int, tell: Tell) -> None:
    """Prints the diffs of layer number i, right after its backward pass."""
    start = f"    [Backward] Layer {graph.layer_names[i]}, "
    for name, blob, need in zip(graph.bottom_names[i], graph.bottoms[i], graph.bottom_need_backward[i]):
        if need:
            tell(f"{start}bottom blob {name} diff: {_mean_abs(blob.diff):g}")
    for j, blob in enumerate(graph.layers[i].blobs):
        if graph.layers[i].param_propagate_down[j]:
            tell(f"{start}param blob {j} diff: {_mean_abs(blob.diff):g}")


def _mean_abs(array: np.ndarray) -> float:
    return float(np.abs(array).mean()) if array.size else 0.0
