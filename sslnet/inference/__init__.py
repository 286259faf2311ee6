"""Scores of a trained net for images and arrays, from any number of threads.

    predictor.py   Predictor: a net for deployment behind one call

Knows: nets and compaction (it makes a definition for deployment from one for training).
"""
