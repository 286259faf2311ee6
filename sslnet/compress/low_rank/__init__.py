"""Weights as products of smaller ones.

factors.py    the factorisations of one weight
low_rank.py   a net with factorised layers

Knows: definitions, layers, nets, compaction. Begin with ``low_rank.low_rank``. A factorisation is a class in
``factors``.
"""
