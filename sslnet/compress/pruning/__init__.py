"""Groups removed by their size, without training.

magnitude.py   the smallest groups set to zero
"""
