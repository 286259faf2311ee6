"""What may become zero together, and the penalties that make it so.

    groups.py                the ways to cut one weight blob into groups: filters, channels, shape fibres, ...
    penalties.py             penalties on one parameter: value, norms, proximal operator
    coupled_penalty.py       penalties on groups that have parts in several parameters
    channel_dependencies.py  which channels of a net can only be removed together
    optimality.py            how far the weights are from a minimum of loss plus penalties
    measure.py               what is zero, group by group

Knows: nets and their parameters, kernels. Does not know: solvers, compaction.
The names to start with: ``groups.GROUPS``, ``penalties.Penalty``, ``coupled_penalty.CoupledPenalty``.
"""
