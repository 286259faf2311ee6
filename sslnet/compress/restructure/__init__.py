"""Restructuring: replaces convolutions by cheaper structures, to be trained or fine-tuned.

forms.py        the structures for one layer's weights, with the best factors of them
restructure.py  makes a net with such structures

Knows: definitions, layers, nets, compaction, chains of ``low_rank``. Begin with ``restructure.restructure``. A structure is
a function in ``forms``.
"""
