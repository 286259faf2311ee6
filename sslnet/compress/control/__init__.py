"""Adjusts the strengths of penalties while a net trains, so that the compacted net meets a target.

controller.py       raises and lowers the strengths along the schedule
schedule.py         what should remain when, and how far a strength moves to get there
goals.py            a target, and the penalties that are adjusted for it
targets.py          what a target means: FLOPs, parameters, time
penalty_handles.py  what the controller adjusts: a penalty, the groups it can zero, what each would save
shrinkage.py        how fast groups shrink, which predicts when they become zero
estimate.py         the remaining estimate: what the net would cost if its zero groups were removed now
latency_model.py    the time that a net would take, from a table of its layers, verified by an A/B benchmark
collapse_guard.py   keeps the last rows of a layer that the net cannot do without
loss_watch.py       whether the loss has risen too far

Knows: nets, sparsity, solvers, timing, compaction. Does not know: the pipeline. Begin with
``controller.StrengthController``.
"""
