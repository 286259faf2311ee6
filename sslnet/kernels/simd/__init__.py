"""Vectors of the machine: their width, and the emitters that write LLVM IR for them.

vector.py  the vector unit, and emitters of loads, stores, multiply-adds, loops
tile.py    micro-kernels made of such emitters: ``@tile``
math.py    exp, log, tanh for vectors
"""
