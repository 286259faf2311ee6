"""How long a net takes, layer by layer, and how much faster it runs when zero weights are skipped.

    layerwise.py      the time of each layer, forward and backward, measured in turns with another net's
    sparse_forms.py   the ways in which one layer with zeros can run, timed against each other
    gemm_baseline.py  the matrix product of the same size, as a measure of what a layer could take
    roofline.py       the machine's peak: multiply-adds and bytes a second

Knows: nets and kernels. Does not know: solvers, compaction. The names to start with: ``layerwise.time_net``,
``sparse_forms``. A way to run a layer with zeros is one more form in ``sparse_forms``.
"""
