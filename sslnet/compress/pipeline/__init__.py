"""From a net and a solver to a small net, in phases that resume.

pipeline.py             baseline, sparsify, compact, finetune
default_groups.py       the groups that a net without any gets
merge_phases.py         a definition with the train and test nets in one
regularization_path.py  nets along a range of strengths
evaluation.py           a net trained or tested for a comparison
"""
