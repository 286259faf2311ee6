"""Reduces a solver's state to the weights that remain: each weight keeps its values in the update rule's arrays.

To find the original position of each remaining weight, the layers shrink arrays of positions as they shrink weights.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.blob import Blob
from sslnet.compress.compaction.build import shrink_layer
from sslnet.compress.compaction.channels import NetChannels
from sslnet.compress.compaction.constant_folding import Contribution
from sslnet.errors import RunError, WeightsError
from sslnet.layers.base import Layer
from sslnet.net.net import Net
from sslnet.net.parameters import Param
from sslnet.solver.snapshot import SolverState

Places = dict[str, list[np.ndarray]]
"""For each blob of each layer, the position of each weight in the flat original blob, plus 1; 0 for a new weight."""


def weight_places(
    views: Sequence[NetChannels], contributions: Mapping[int, Contribution], standard_only: bool
) -> Places:
    """The original positions of the smaller net's weights, for the layers of these views."""
    result: Places = {}
    for view in views:
        for i, layer in enumerate(view.net.layers):
            if layer.name not in result and layer.blobs and view.is_needed(i):
                added = contributions.get(i, Contribution()) if view is views[0] else Contribution()
                result[layer.name] = _places(view, i, added, standard_only)
    return result


def cut_state(state: SolverState, before: Net, after: Net, places: Places, path: str) -> SolverState:
    """Makes the state of a solver that trains ``after`` from that of one that trained ``before``, both in phase TRAIN.

    History, mean gradients, masks of frozen weights and dual variables are reduced like the weights; values of new
    weights are zero. Iteration, seed, losses and layer states are unchanged.

    raises WeightsError if the state does not belong to ``before``
    """
    old = before.learnable
    if not old or len(state.history) % len(old):
        raise WeightsError(f"it has {len(state.history)} history arrays, the net {len(old)} parameters", path=path)
    for k, array in enumerate(state.history):
        if array.size != old[k % len(old)].blob.count:
            message = f"history array {k} has {array.size} values, the net's parameter {old[k % len(old)].blob.count}"
            raise WeightsError(message, path=path, hint="it belongs to another net")
    number = {_key(param.layer, param.index): k for k, param in reversed(list(enumerate(old)))}
    sources = [number.get(_key(p.layer, p.index)) for p in after.learnable]
    history = []
    for first in range(0, len(state.history), len(old)):
        for param, source in zip(after.learnable, sources):
            old_array = None if source is None else state.history[first + source]
            history.append(_taken(old_array, param, _places_of(param, places)))
    arrays = {name: array for name, array in state.arrays.items() if not name.startswith(("mean/", "keep/", "dual/"))}
    for param, source in zip(after.learnable, sources):
        if source is not None:
            arrays |= _arrays_of(state, old[source].name, param, places)
    layers = {
        f"{net}/{name}" for net, name in (key.split("/", 1) for key in state.layer_states) if name in after.layer_names
    }
    return replace(
        state, history=history, arrays=arrays, layer_states={k: v for k, v in state.layer_states.items() if k in layers}
    )


def train_view(views: Sequence[NetChannels], path: str) -> NetChannels:
    """The view of phase TRAIN. raises RunError if there is none"""
    for view in views:
        if view.net.phase == pb.TRAIN:
            return view
    raise RunError("the net of phase TRAIN could not be built, so the solver's state cannot be compacted", path=path)


def _key(layer: Layer, index: int) -> tuple[str, int] | str:
    """The key of a parameter: its own name if it has one, because its first owner may have been removed."""
    specs = layer.param.param
    return specs[index].name if index < len(specs) and specs[index].name else (layer.name, index)


def _places_of(param: Param, places: Places) -> np.ndarray | None:
    blobs = places.get(param.layer.name, [])
    return blobs[param.index] if param.index < len(blobs) and blobs[param.index].any() else None


def _taken(array: np.ndarray | None, param: Param, places: np.ndarray | None) -> np.ndarray:
    """Values of an array at these positions, in the parameter's shape; zeros for new weights or a missing array."""
    if array is None or places is None:
        return np.zeros(param.blob.shape, param.blob.dtype)
    flat = np.concatenate([np.zeros(1, array.dtype), array.reshape(-1)])
    return flat[places.reshape(-1).astype(np.int64)].reshape(param.blob.shape)


def _arrays_of(state: SolverState, name: str, param: Param, places: Places) -> dict[str, np.ndarray]:
    """The arrays of one parameter. The last dual variable may be that of the biases in the groups."""
    own, result = _places_of(param, places), {}
    for kind in ("mean", "keep"):
        if f"{kind}/{name}" in state.arrays:
            result[f"{kind}/{param.name}"] = _taken(state.arrays[f"{kind}/{name}"], param, own)
    start = f"dual/{name}/"
    for key in (key for key in state.arrays if key.startswith(start)):
        dual = state.arrays[key].reshape(-1)
        if own is not None and param.blob.count and dual.size >= own.max():
            result[f"dual/{param.name}/{key.removeprefix(start)}"] = _taken(dual, param, own)
        elif len(param.layer.blobs) > 1:
            bias = places[param.layer.name][1].reshape(-1).astype(np.int64)
            result[f"dual/{param.name}/{key.removeprefix(start)}"] = dual[bias - 1]
    return result


def _places(view: NetChannels, i: int, added: Contribution, standard_only: bool) -> list[np.ndarray]:
    layer = view.net.layers[i]
    numbers: Any = copy.copy(layer)
    numbers.blobs = [Blob(blob.shape, name=blob.name, dtype=np.float64) for blob in layer.blobs]
    for blob in numbers.blobs:
        blob.data[...] = np.arange(1, blob.count + 1, dtype=np.float64).reshape(blob.shape)
    if view.refuses[i]:
        return [blob.data for blob in numbers.blobs]
    param, weights = shrink_layer(view, i, added, added.layer or layer)
    nothing = None if added.shift is None else np.zeros_like(added.shift)
    _, blobs = shrink_layer(view, i, replace(added, shift=nothing), numbers)
    if type(layer).shrink_columns is Layer.shrink_columns:
        return blobs
    # Which columns go is a matter of which are zero.
    group = param.convolution_param.group
    used = (weights[0].reshape(group, len(weights[0]) // group, -1) != 0).any(axis=1, keepdims=True)
    blobs[0] = np.where(used, blobs[0].reshape(group, len(blobs[0]) // group, -1), 0).reshape(blobs[0].shape)
    return layer.shrink_columns(param, blobs, standard_only=standard_only)
