"""Convolutions: forward, the gradient of the input, the gradient of the weights.

geometry.py    the sizes of one convolution
pattern.py     which rows and columns of the weight matrix are not zero
plan.py        what callers use: a plan checks arrays, packs the weights and runs
adaptive.py    a plan that follows the zeros of the weights
loop_nest.py   what a plan asks of a loop nest
choose.py, cost.py   which loop and which micro-kernel, by estimated cycles
packing.py, window.py, taps.py, transposes.py   what is laid out anew before the loops run
filters_loop.py, pixels_loop.py                 loops with the filters, or the pixels, side by side in a vector
weight_grad_filters.py, weight_grad_pixels.py   the same for the gradient of the weights
microkernels.py, weight_grad_microkernels.py    the innermost multiply-adds
im2col.py      the lowered matrix, for the plain code of layers
winograd/, depthwise/, sparse/                  other ways, for the shapes and weights that they suit
"""
