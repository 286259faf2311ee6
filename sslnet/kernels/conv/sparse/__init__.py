"""Convolutions whose weights have zeros: whole rows and columns of the weight matrix, or single weights.

candidates.py    tiles and estimated cycles of the loops over kept rows and columns
structured_filters.py, structured_pixels.py   loops over kept rows and columns
unstructured.py  one weight at a time
grads.py         gradients
packing.py, lowering.py, microkernels.py
"""
