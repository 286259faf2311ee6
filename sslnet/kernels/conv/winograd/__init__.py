"""Convolutions of 3 x 3, 5 x 5, 3 x 1, 5 x 1, 1 x 3 and 1 x 5 with stride 1 by Winograd's method: fewer multiplications,
for more additions.

    matrices.py      the transforms
    candidates.py    the geometries and tiles it suits, and estimated cycles
    loop.py          the forward pass and the gradient of the input
    weight_grad.py   the gradient of the weights
    microkernels.py  the transforms of a tile

Ref: Lavin, Gray 2016, "Fast algorithms for convolutional neural networks"
"""
