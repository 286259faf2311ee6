"""Layers of phase TRAIN alone, such as auxiliary classifiers: the removed channels that they read are cleared, too."""

from __future__ import annotations

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.compress.pruning.channels import CoupledChannels
from sslnet.errors import SslnetError
from sslnet.net.graph import PhaseState, filter_layers
from sslnet.net.input_layers import source_shapes, with_inputs
from sslnet.net.net import Net
from sslnet.net.weights import WeightSource, copy_all_weights
from sslnet.prototxt import Definition


def weights_of_all_phases(
    definition: Definition, weights: WeightSource, channels: CoupledChannels, gone: np.ndarray
) -> pb.NetParameter:
    """The weights of a pruned net, and those of the layers that run in phase TRAIN alone.

    definition, weights  of the net before pruning
    channels             of the pruned net, in phase TEST;  gone: (units) bool, the removed ones
    """
    net = channels.net
    result: pb.NetParameter = net.to_proto()
    state = PhaseState(pb.TRAIN, net.state.level, net.state.stages)
    if not {layer.param.name for layer in filter_layers(definition, state)} - set(net.layer_names):
        return result
    try:
        train = Net(
            with_inputs(definition, source_shapes(net)),
            phase=pb.TRAIN,
            level=net.state.level,
            stages=net.state.stages,
            seed=net.seed,
        )
        copy_all_weights(train.params, weights)
    except SslnetError:  # compaction says so, and leaves these layers unchanged
        return result
    more = set(train.params) - set(net.params)
    if more:
        _clear_readers(channels, gone, CoupledChannels(train), more)
        result.layer.extend(layer for layer in train.to_proto().layer if layer.name in more)
    return result


def _clear_readers(channels: CoupledChannels, gone: np.ndarray, train: CoupledChannels, layers: set[str]) -> None:
    """Sets the weights of these layers of the TRAIN net that read removed units to zero."""
    places = {name: i for i, name in enumerate(train.net.layer_names)}
    flags = np.zeros(train.count + 1, np.bool_)
    for i in channels.makers:
        j = places.get(channels.net.layer_names[i], -1)
        if j >= 0 and len(train.tops[j]) == len(channels.tops[i]):
            flags[train.tops[j][np.append(gone, False)[channels.tops[i]]]] = True
    flags[-1] = False
    for part in train.parts:
        if train.net.layer_names[part.layer] in layers and flags[part.units].any():
            part.part.clear(flags[part.units])
