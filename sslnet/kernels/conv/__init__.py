"""Convolutions: forward, the gradient of the input, the gradient of the weights.

geometry.py    the sizes of one convolution
pattern.py     which rows and columns of the weight matrix are not zero
plan.py        what callers use: a plan checks arrays, packs the weights and runs
adaptive.py    a plan that follows the zeros of the weights
problem.py     one pass of a geometry on a vector unit, and the interface of the loop nests that compete for it
choose.py      the heuristic: the loop nest and tile with the fewest estimated cycles
cost.py        the machine model of the estimates, one table for all loop nests
candidates.py, weight_grad_candidates.py        tiles and estimates of the dense loop nests, also in each folder below
loop_nest.py   the interface between a plan and a loop nest (macro-kernel)
packing.py, window.py, taps.py, transposes.py   packing of weights and source rows, and the table of taps
filters_loop.py, pixels_loop.py                 loops with the filters, or the pixels, side by side in a vector
weight_grad_filters.py, weight_grad_pixels.py   the same for the gradient of the weights
microkernels.py, weight_grad_microkernels.py    the innermost multiply-adds
im2col.py      the lowered matrix, for the reference path of layers
winograd/, depthwise/, sparse/                  other loop nests, for the shapes and weights they suit

To add a loop nest: a PackedLoop or WeightGradLoop, its LoopCandidate (which problems it suits, in which tiles, at which
estimated cycles), and the candidate's name in choose.CANDIDATES.
"""
