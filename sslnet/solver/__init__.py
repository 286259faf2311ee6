"""Training: a solver definition, the rules that change weights, and what is kept on disk.

    solver.py             Solver: forward and backward, update, prox, tests, snapshots
    solver_definition.py  the solver's prototxt checked, its nets found and made
    parameter_update.py   Update: what happens to one parameter in an iteration
    update_rules.py       SGD, Nesterov, AdaGrad, RMSProp, AdaDelta, Adam, AdamW: one class each
    update_settings.py    decay of one parameter; weights that are kept at zero
    updates.py            which rule each parameter gets
    penalized_update.py   PenalizedUpdate: the parameters under one penalty and their common update
    coupled_groups.py     groups that reach into several parameters, found in the net
    lr_policies.py        the learning rate at an iteration
    zero_group_test.py    finds groups that are non-zero only because of gradient noise, and zeroes them
    measure_training.py   the sparsity of a net while it trains, and what regularisation adds to the loss
    snapshots.py          when and where snapshots are written
    run_state.py          the state that a resumed run needs to continue bit for bit: saved from a solver and restored
    snapshot.py           the files of a snapshot
    not_finite.py         what is said where numbers are not finite
    data_errors.py        what happens when a batch cannot be read
    callbacks.py          Monitor: is called at displays, tests, snapshots and warnings of a run

Knows: nets and sparsity. Does not know: the command line, compaction.
The names to start with: ``Solver``, ``updates.UPDATES``, ``penalized_update.penalize``, ``callbacks.Monitor``. An
update rule is one class and one line in its registry; a policy one function and one line.
"""
