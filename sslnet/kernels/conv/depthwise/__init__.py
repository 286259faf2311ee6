"""Depthwise convolutions: few filters for each channel, no sum over channels, so that loads take most of the time.

candidates.py    the geometries they suit, and estimated cycles
layout.py        how planes are read and cut into tiles
loop.py          the loop nests of the forward pass and the gradients
window.py        packing of planes into padded windows
stencil.py, loads.py   the taps of a tile of outputs, and how a tile loads its inputs
microkernels.py  the micro-kernels
"""
