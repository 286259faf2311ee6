"""Runs a trained net on images and arrays, from any number of threads.

predictor.py       Predictor: a net for deployment as a function
class_metrics.py   ClassMetrics: the measures of a classifier on its test data

Knows: nets and compaction (which makes a definition for deployment from one for training).
"""
