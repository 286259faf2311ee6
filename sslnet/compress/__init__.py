"""Methods that make nets smaller: compaction, pruning, low rank, distillation, and the pipeline of all of them.

    compaction/    zero or constant channels removed; the same function, smaller
    pruning/       groups removed by their size, without training
    low_rank/      weights as products of smaller ones
    distillation/  a small net trained towards the scores of a trained net
    control/       adjusts the strengths of the penalties during a run, so that a target is met
    pipeline/      all of it in stages: from a net and a solver to a small net
    evaluation.py  how well a net does on its test data

Knows: nets, sparsity, solvers, timing. What may be done to the channels of a layer, the layer's class declares
(``sslnet.layers.base``). Layer types are named only where a definition is written or layers are replaced: Bias for
constants, ``compaction.deploy`` and ``compaction.standard``, ``low_rank``, ``distillation``. The names to start with:
``compaction.compact.compact``, ``pipeline.pipeline.Pipeline``, ``control.controller.StrengthController``. A new
method is a folder here with a function, and one in ``sslnet.api``.
"""
