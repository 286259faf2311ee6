"""From a net and a solver to a small net, in stages that resume.

pipeline.py             the stages: baseline, sparsify, compact, finetune, test, time
task.py                 what is asked for
training.py             training within a stage: resumed at the last snapshot
schedule.py             a solver's definition for one of several trainings
state_file.py           which stages are done, and what they gave
fingerprint.py          marks of files, to see whether they have changed
default_groups.py       the groups that a net without any gets
merge_phases.py         a definition with the train and test nets in one
regularization_path.py  nets along a range of strengths

Knows: the other folders of ``compress``, solvers, timing. Begin with ``pipeline.Pipeline``, whose methods are the
stages.
"""
