"""Compaction: removes zero and constant channels; the smaller definition and weights compute the same function.

    compact.py           ``compact``: all steps in order
    channels.py          the channels of every blob, and dependencies between them
    needed_channels.py   finds the channels that must be kept, by a fixed-point iteration over the graph
    constant_folding.py  adds the contribution of removed constant channels to the layers that read them
    build.py             builds the smaller definition and its weights
    bypass.py            reconnects layers around removed ones
    rebase.py            adapts file paths in a definition that is written to another folder
    sizes.py             filters, parameters, FLOPs, bytes of each layer before and after
    standard.py          rewrites the smaller net in fields that Caffe 1.0 and programs like OpenCV read
    state.py             reduces a solver's state like the weights
    deploy.py            makes a definition for deployment from one for training and testing
    compare.py           the largest difference of outputs before and after compaction, on the same data
    check.py             ``sslnet check``: the difference of any two nets in each output, over batches of data

Knows: layers, nets, tiles of weights, a solver's state. Does not know: the other folders of ``compress``. Begin with
``compact.compact``. Each layer class declares how its channels may be removed (``sslnet.layers.base``); a new layer
requires no change here.
"""
