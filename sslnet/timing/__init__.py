"""Timing: the time of a net layer by layer, and the speedup from skipping zero weights.

    layerwise.py      the time of each layer, forward and backward, of one net or of two alternately
    sparse_forms.py   compares the methods to run a layer with zero weights
    gemm_baseline.py  times the matrix product of a layer alone, as a baseline
    roofline.py       measures the machine's peak rate in floating-point operations per second

Knows: nets and kernels. Does not know: solvers, compaction. The names to start with: ``layerwise.time_net``,
``sparse_forms``. A way to run a layer with zeros is one more form in ``sparse_forms``.
"""
