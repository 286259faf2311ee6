"""Pruning: sets weights, groups or whole channels to zero by a criterion, and repairs the net, without training.

prune_channels.py   ``prune_channels`` and Pruner: whole channels to a FLOPs target
channels.py         CoupledChannels: which channels may go, who makes and reads them, what they cost
importance/         the criteria, one module each;  compare_criteria.py: several side by side
selection.py, sensitivity.py   how many channels of each family go
calibration.py      the images that criteria and repairs see
linear_layer.py     a layer with weights as a linear regression;  repair/: least squares, means, statistics
other_phase.py      layers that run in phase TRAIN alone
magnitude.py        the smallest weights or groups of single layers

Knows: nets, sparsity, compaction. Begin with ``prune_channels`` and ``magnitude.prune``. docs/design.md says how to add a
criterion.
"""
