"""Strengths of penalties turned while a net trains, so that a target is met.

controller.py       raises and lowers the strengths along a schedule
targets.py          what a target means: FLOPs, parameters, time
penalty_handles.py  what the controller turns: a penalty, the groups it can zero, what each would save
estimate.py         what the net would cost if its zero groups were removed now
collapse_guard.py   keeps the last rows of a layer that the net cannot do without
latency_model.py    time a net would take, from a table of its layers
"""
