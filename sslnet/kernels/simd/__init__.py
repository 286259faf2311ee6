"""Vectors of the machine: what width it has, and what is written for it in LLVM's words.

vector.py      the vector unit, and emitters of loads, stores, multiply-adds
math.py        exp, log, tanh for vectors
denormals.py   numbers too small to be normal count as zero
spin_wait.py   a thread waits a moment without sleeping
"""
