"""Training: solver definitions, update rules, penalties during training, and snapshots.

    solver.py             Solver: forward and backward, update, prox, tests, snapshots
    solver_definition.py  checks the solver's prototxt, finds its nets and builds them
    parameter_update.py   Update: the base class of the update rules, for one parameter
    update_rules.py       SGD, Nesterov, AdaGrad, RMSProp, AdaDelta, Adam, AdamW: one class each
    update_settings.py    weight decay of one parameter; weights frozen at zero
    updates.py            the registry of update rules; makes one update for each parameter
    penalized_update.py   PenalizedUpdate: the parameters under one penalty and their common update
    coupled_groups.py     finds the groups that span several parameters of a net
    lr_policies.py        the learning rate at an iteration
    zero_group_test.py    finds groups that are non-zero only because of gradient noise, and zeroes them
    measure_training.py   measures the sparsity of a net while it trains, and its regularisation terms
    test_outputs.py       tests a net: mean outputs over its batches, mean average precision
    averaged_weights.py   the moving average of the weights, which tests use with ema_decay
    best_snapshot.py      finds the best test of a run, and when it no longer improves
    snapshots.py          when and where snapshots are written
    run_state.py          the state that a resumed run needs to continue bit for bit: saved from a solver and restored
    snapshot.py           reads and writes the files of a snapshot
    not_finite.py         errors for a loss or parameters that are not finite
    data_errors.py        skips batches that cannot be used, or stops the run
    callbacks.py          Monitor: methods called at displays, tests, snapshots and warnings of a run

Knows: nets and sparsity. Does not know: the command line, compaction.
The names to start with: ``Solver``, ``updates.UPDATES``, ``penalized_update.penalize``, ``callbacks.Monitor``. An
update rule is one class and one line in its registry; a policy one function and one line.
"""
