"""Convolutions with zero weights: whole zero rows and columns of the weight matrix, or single zero weights.

candidates.py    tiles and estimated cycles of the loop nests over kept rows and columns
structured_filters.py, structured_pixels.py   the loop nests over kept rows and columns
unstructured.py  the loop nests over single non-zero weights
grads.py         the loop nests of the gradients
packing.py, lowering.py, microkernels.py      packing of weights, packing of pixels, micro-kernels
"""
