"""Training: a solver definition, the rules that change weights, and what is kept on disk.

    solver.py             Solver: forward and backward, update, prox, tests, snapshots
    solver_definition.py  the solver's prototxt checked, its nets found
    update_rules.py       SGD, Nesterov, AdaGrad, RMSProp, AdaDelta, Adam, AdamW: one class each
    update_settings.py    rate, decay and penalty of one parameter
    updates.py            which rule and which penalty each parameter gets
    lr_policies.py        the learning rate at an iteration
    coupled_groups.py     groups that reach into several parameters, found in the net
    zero_group_test.py    whether a group that is zero should stay so on the whole data
    snapshot.py           what a run needs to go on, bit for bit
    data_errors.py        what happens when a batch cannot be read
    callbacks.py          what may look on while a solver runs

Knows: nets and sparsity. Does not know: the command line, compaction.
The names to start with: ``Solver``, ``update_rules.UPDATE_RULES``, ``callbacks.Monitor``. An update rule is one class and one line
in its registry; a policy one function and one line.
"""
