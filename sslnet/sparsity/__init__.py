"""What may become zero together, and the penalties that make it so.

    groups.py                the ways to cut one weight blob into groups: filters, channels, shape fibres, ...
    penalty.py               Penalty: what solver, control, optimality, measure and snapshot ask of any penalty
    group_penalty.py         GroupPenalty: a penalty on one kind of groups, which may lie in several parameters
    group_lasso.py           the penalties, one file each
    sparse_group_lasso.py
    group_mcp.py
    penalties.py             PENALTIES: their names in a prototxt; which implementation applies them
    tiled_group_lasso.py     the group lassos of one parameter, compiled
    penalty_sum.py           all else
    channel_dependencies.py  which channels of a net can only be removed together
    optimality.py            how far the weights are from a minimum of loss plus penalties
    measure.py               what is zero, group by group

Knows: nets and their parameters, kernels. Does not know: solvers, compaction.
The names to start with: ``groups.tilings_of``, ``penalty.Penalty``, ``penalties.PENALTIES``. A penalty is one file with
a subclass of ``GroupPenalty`` and one line in ``PENALTIES``; its name, and the fields that it needs, stand in
GroupLassoSpec of ``protos/sslnet.proto``.
"""
