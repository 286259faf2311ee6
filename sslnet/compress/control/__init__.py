"""Adjusts the strengths of penalties while a net trains, so that the compacted net meets a target.

controller.py       raises and lowers the strengths along the schedule
schedule.py         the scheduled remaining cost at each time, and the change of a strength at a check
goals.py            a target, and the penalties that are adjusted for it
targets.py          the targets of a run: FLOPs, parameters or time
penalty_handles.py  handles to scale and end penalties, and to read the norms of their groups
shrinkage.py        rates at which groups shrink, to predict when they become zero
estimate.py         the remaining estimate: the cost of the net if its zero groups were removed now
latency_model.py    predicts the time of a net from a table of its layers; verifies it by an A/B benchmark
collapse_guard.py   keeps the last rows of essential layers
loss_watch.py       detects that the loss has risen too far

Knows: nets, sparsity, solvers, timing, compaction. Does not know: the pipeline. Begin with
``controller.StrengthController``.
"""
