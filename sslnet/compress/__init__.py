"""Methods that make nets smaller: compaction, pruning, low rank, distillation, and the pipeline of all of them.

    compaction/    removes zero and constant channels; the smaller net computes the same function
    pruning/       sets the groups of smallest norm to zero, without training
    low_rank/      replaces weights by products of smaller ones
    restructure/   replaces convolutions by cheaper structures, as separable ones
    distillation/  trains a small net towards the scores of a trained net
    control/       adjusts the strengths of the penalties during a run, so that a target is met
    pipeline/      runs all stages, from a net and a solver to a small net
    evaluation.py  measures error and loss of a net on its test data

Knows: nets, sparsity, solvers, timing. Each layer class declares how its channels may be removed
(``sslnet.layers.base``). Layer types are named only where a definition is written or layers are replaced: Bias for
constants, ``compaction.deploy`` and ``compaction.standard``, ``low_rank``, ``restructure``, ``distillation``. The names to start with:
``compaction.compact.compact``, ``pipeline.pipeline.Pipeline``, ``control.controller.StrengthController``. A new
method is a folder here with a function, and one in ``sslnet.api``.
"""
