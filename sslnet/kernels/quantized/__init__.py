"""Operations on 8-bit activations (u8, NHWC) with weights of 2 to 8 bits.

    convolution.py   plans of convolutions and fully connected layers: integer sums, requantisation and ReLU in one pass
    pooling.py       maximum and mean
    elementwise.py   sums, copies between channels, tables, conversions between float NCHW and u8 NHWC

All integers are defined by formulas, without saturation of any sum, and are the same bits on every unit. A value q of an
array with ``scale`` and ``zero`` stands for (q - zero) * scale. Begin with ``convolution.plan_quantized``.

    dot.py           which instruction multiplies bytes on this machine
    microkernels.py  tiles;  packing.py: weights and windows in the order in which tiles read them
"""
