"""Operations on single values, windows or channels of activations.

elementwise.py         sums, products and maxima of several arrays
channel_reductions.py  sums over all axes but the channels
pooling.py, softmax.py, batch_norm.py
"""
