"""How long a net takes, layer by layer, and what its zeros are worth.

    layerwise.py      the time of each layer, forward and backward, measured in turns with another net's
    sparse_forms.py   the ways in which one layer with zeros can run, timed against each other
    gemm_baseline.py  the matrix product of the same size, as a measure of what a layer could take
    roofline.py       the machine's peak: multiply-adds and bytes a second

Knows: nets and kernels. The names to start with: ``layerwise.time_net``.
"""
