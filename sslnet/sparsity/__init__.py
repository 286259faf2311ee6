"""Groups of weights, and the penalties that make whole groups zero.

    groups.py                divides one weight blob into groups: filters, channels, shape fibres, ...
    penalty.py               Penalty: the interface of a penalty for solver, control, optimality, measure and snapshot
    group_penalty.py         GroupPenalty: a penalty on one kind of groups, which may lie in several parameters
    group_lasso.py, sparse_group_lasso.py, group_mcp.py   the penalties, one file each
    penalties.py             PENALTIES: the penalties by their names in a prototxt; chooses an implementation
    tiled_group_lasso.py     TiledGroupLasso: the group lassos of one parameter, with compiled kernels
    penalty_sum.py           PenaltySum: all other penalties; the prox of their sum
    channel_dependencies.py  finds the channels of a net that can only be removed together
    channel_parts.py         which slices of which parameters belong to each class of such channels
    optimality.py            the distance of the weights from a stationary point of loss plus penalties
    measure.py               counts the non-zero elements, filters, channels, columns and blocks

Knows: nets and their parameters, kernels. Does not know: solvers, compaction. The names to start with:
``groups.tilings_of``, ``penalty.Penalty``, ``penalties.PENALTIES``. docs/design.md says how to add a penalty.
"""
