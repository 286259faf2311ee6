"""Products of matrices: fully connected layers, and BLAS for what has no kernel of its own.

fully_connected.py  what callers use: plans of the three products of a fully connected layer
structured.py       over kept rows and columns
loops.py, packing.py, microkernels.py
blas.py             products by NumPy's BLAS
"""
