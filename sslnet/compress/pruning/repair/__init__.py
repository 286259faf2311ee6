"""Repairs of a pruned net from a few images, without labels or training.

least_squares.py  refits the layers behind removed channels one after the other, or (only_bias) their means
fit.py            the regression of one layer;  put.py: puts its result into the layer
streams.py        targets behind residual sums;  walk.py: runs a net piece by piece
statistics.py     new means and variances of BatchNorm layers
"""
