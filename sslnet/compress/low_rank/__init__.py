"""Low-rank factorisation: replaces weights by products of smaller ones.

factors.py    the factorisations of one layer's weights
chains.py     chains of layers in a definition
speedup.py    ranks for a measured speedup
low_rank.py   makes a net with factorised layers

Knows: definitions, layers, nets, compaction. Begin with ``low_rank.low_rank``. A factorisation is a class in
``factors``.
"""
