"""Smaller nets, by every way there is.

    compaction/    zero or constant channels removed; the same function, smaller
    pruning/       groups removed by their size, without training
    low_rank/      weights as products of smaller ones
    distillation/  a trained net teaches a small one
    control/       strengths of penalties under control while a net trains, so that a target is met
    pipeline/      all of it in stages: from a net and a solver to a small net
    evaluation.py  how well a net does on its test data

Knows: nets, sparsity, solvers, timing. Nothing here knows a layer type but the Bias that carries constants and the tables of
``compaction.deploy`` and ``compaction.standard``: what a layer lets happen to its channels, it says itself.
The names to start with: ``compaction.compact.compact``, ``pipeline.pipeline.Pipeline``,
``control.controller.StrengthController``.
"""
