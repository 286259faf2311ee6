"""Convolutions with one filter for each channel: there is nothing to sum over channels, so all is loads.

candidates.py    which geometries suit, and estimated cycles
layout.py        how planes are read, and which rows go together
loop.py          forward and gradients
window.py        the rows of an image that a piece of work reads
stencil.py, loads.py   what is written for one row of outputs, and how it reads its inputs
microkernels.py  the compiled pieces
"""
