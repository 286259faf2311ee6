"""Pruning: sets weights or groups to zero by a criterion, without training.

magnitude.py   the smallest groups set to zero

Knows: nets, sparsity. Begin with ``magnitude.prune``. docs/design.md says how to add a criterion.
"""
