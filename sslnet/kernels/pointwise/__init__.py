"""One value from one value, or from a few neighbours.

elementwise.py         sums and products of several arrays
channel_reductions.py  sums over all but the channels
pooling.py, softmax.py, batch_norm.py
"""
