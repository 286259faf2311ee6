"""Groups of weights, and the penalties that make whole groups zero.

    groups.py                the ways to cut one weight blob into groups: filters, channels, shape fibres, ...
    penalty.py               Penalty: what solver, control, optimality, measure and snapshot ask of any penalty
    group_penalty.py         GroupPenalty: a penalty on one kind of groups, which may lie in several parameters
    group_lasso.py, sparse_group_lasso.py, group_mcp.py   the penalties, one file each
    penalties.py             PENALTIES: their names in a prototxt; which implementation applies them
    tiled_group_lasso.py     the group lassos of one parameter, compiled
    penalty_sum.py           all other penalties: the prox of a sum of them
    channel_dependencies.py  which channels of a net can only be removed together
    optimality.py            how far the weights are from a minimum of loss plus penalties
    measure.py               what is zero, group by group

Knows: nets and their parameters, kernels. Does not know: solvers, compaction. The names to start with:
``groups.tilings_of``, ``penalty.Penalty``, ``penalties.PENALTIES``. docs/design.md says how to add a penalty.
"""
