"""Weights as products of smaller ones.

factors.py    the factorisations of one weight
low_rank.py   a net with factorised layers
"""
