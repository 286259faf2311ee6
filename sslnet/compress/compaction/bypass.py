"""Reconnects a net after layers were removed.

Layers that only copy, such as a sum or a Concat with one bottom, are bypassed if blob names allow it. A blob that has lost
all its readers gets a Silence layer, so that it does not become an output.
"""

from __future__ import annotations

from collections.abc import Sequence

from sslnet import sslnet_pb2 as pb
from sslnet.net.graph import PhaseState, filter_layers
from sslnet.prototxt import Definition


def copy_layer(layer: pb.LayerParameter, factor: float) -> pb.LayerParameter:
    """A Power layer with the name, blobs and rules of a layer, which multiplies its bottom by a factor."""
    copy = pb.LayerParameter(name=layer.name, type="Power", bottom=layer.bottom, top=layer.top)
    copy.include.extend(layer.include)
    copy.exclude.extend(layer.exclude)
    copy.propagate_down.extend(layer.propagate_down)
    if factor != 1:
        copy.power_param.scale = factor
    return copy


def remove_copies(message: pb.NetParameter, origin: list[int], places: Sequence[int], watched: set[str]) -> None:
    """Removes copying layers from a message; readers of the copy then read the copied blob.

    origin   index of each layer in the original message; updated with the message
    places   indices in the original message of the copying layers
    watched  names of blobs that must not be renamed
    """
    for place in sorted(places):
        k = origin.index(place)
        if _bypass(message.layer, k, watched):
            del message.layer[k], origin[k]


def silence_unread(
    before: Definition, message: pb.NetParameter, origin: list[int], states: Sequence[PhaseState]
) -> None:
    """Adds a Silence layer for each blob that has no reader in one of the states, but had one before."""
    after = Definition(message)
    unread = [sorted(_unread(after, state) - _unread(before, state)) for state in states]
    for name in dict.fromkeys(name for found in unread for name in found):
        silence = message.layer.add(name=f"{name}_unread", type="Silence", bottom=[name])
        phases = [state.phase for state, found in zip(states, unread) if name in found]
        if len(phases) < len(states):
            silence.include.add(phase=phases[0])
        origin.append(-1)


def _unread(definition: Definition, state: PhaseState) -> set[str]:
    result: set[str] = set()
    for layer in filter_layers(definition, state):
        result.difference_update(layer.param.bottom)
        result.update(layer.param.top)
    return result


def _bypass(layers: Sequence[pb.LayerParameter], k: int, watched: set[str]) -> bool:
    """Makes the readers of layer k's top read its bottom; returns False, and changes nothing, if blob names prevent it."""
    old, new = layers[k].top[0], layers[k].bottom[0]
    if _has_rules(layers[k]):
        return False
    readers, overwritten = [], False
    for layer in layers[k + 1 :]:
        if old in layer.bottom:
            if overwritten:
                return False
            readers.append(layer)
        writes = old in layer.top or new in layer.top
        if writes and _has_rules(layer):
            return False
        overwritten |= new in layer.top
        if old in layer.top:
            break
    else:
        if old in watched:
            return False
    for layer in readers:
        layer.bottom[:] = [new if name == old else name for name in layer.bottom]
    return True


def _has_rules(layer: pb.LayerParameter) -> bool:
    return bool(layer.include or layer.exclude)
