"""Matrix products: fully connected layers, and BLAS for products without a kernel of their own.

fully_connected.py  the interface for callers: plans of the three products of a fully connected layer
structured.py       the product over kept rows and columns
loops.py, packing.py, microkernels.py   loop nests, packing, micro-kernels
blas.py             products by NumPy's BLAS
"""
