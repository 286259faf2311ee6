"""Quantisation after training: ``quantize`` makes a net that runs with whole numbers in phase TEST.

It knows nets, calibration images (``pruning.calibration``), evaluation and timing. Begin with ``quantize.py``.

    fold.py         BatchNorm, Scale and Bias into the weights of the layer before
    ranges.py       which values are bytes, and the ranges of values on calibration images
    rounding.py     weights as numbers: the nearest, or by second-order error
    bit_widths.py   the options --bits and --layers
    sensitivity.py  what each layer costs
"""
