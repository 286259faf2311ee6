"""Vectors of the machine: what width it has, and what is written for it in LLVM's words.

vector.py  the vector unit, and emitters of loads, stores, multiply-adds, loops
tile.py    micro-kernels made of such emitters: ``@tile``
math.py    exp, log, tanh for vectors
"""
