"""Runs a trained net on images and arrays, from any number of threads.

predictor.py   Predictor: a net for deployment as a function

Knows: nets and compaction (which makes a definition for deployment from one for training).
"""
