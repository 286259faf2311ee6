"""Smaller nets from sparse ones.

    channels.py    which channels of every blob may go, over the whole graph
    constants.py   what removed channels still emitted, as a shift of the layers that read them
    build.py       the smaller definition and its weights
    copies.py      the wires around layers that went
    deploy.py      a definition for deployment from one for training and testing
    standard.py    the smaller net in words that Caffe 1.0 and its readers know
    compare.py     the two nets on the same data
    sizes.py       filters, parameters, FLOPs, bytes of each layer before and after
    state.py       a solver's state, cut as the weights were
    recipe.py      all of it in order: ``compact``
    check.py       two nets on the same data, batch by batch
    factors.py, low_rank.py   weights as products of smaller ones

Nothing here knows a layer type but the Bias that carries constants, the table of ``deploy`` and ``standard``: what a layer
lets happen to its channels, it says itself (``sslnet.layers.base``).
"""

from sslnet.compress.recipe import Compaction, compact

__all__ = ["Compaction", "compact"]
