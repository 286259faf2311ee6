"""Zero or constant channels removed: a smaller definition and smaller weights that are the same function.

    compact.py           all steps in order: ``compact``
    channels.py          the channels of every blob, and what ties them together
    needed_channels.py   which of them must be kept: found over the whole graph, until nothing changes
    constant_folding.py  what removed channels still emitted, as a shift of the layers that read them
    build.py             the smaller definition and its weights
    bypass.py            the connections around removed layers
    rebase.py            paths in a definition that is written to another folder
    sizes.py             filters, parameters, FLOPs, bytes of each layer before and after
    standard.py          the smaller net in fields that Caffe 1.0 and its readers know
    state.py             a solver's state, cut as the weights were
    deploy.py            a definition for deployment from one for training and testing
    compare.py           the net before and after compaction on the same data: the largest difference of outputs
    check.py             ``sslnet check``: the difference of any two nets in each output, over batches of data

Knows: layers, nets, tiles of weights, a solver's state. Does not know: the other folders of ``compress``. Begin with
``compact.compact``. What may be done to the channels of a layer, its class declares (``sslnet.layers.base``); a new
layer changes nothing here.
"""
