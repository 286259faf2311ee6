"""The vector unit of the machine: its width, and the emitters that write LLVM IR for it.

vector.py  the vector unit, and emitters of loads, stores, multiply-adds, loops
tile.py    ``@tile``, which makes a micro-kernel of an emitter
math.py    exp, log, tanh and others, which LLVM can vectorise
"""
