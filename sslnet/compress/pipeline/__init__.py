"""From a net and a solver to a small net, in stages that resume.

pipeline.py             the stages: baseline, sparsify or prune, compact, finetune, test, controls, time
pipeline_base.py        names of files, numbers of iterations, definitions, training within a stage
method.py               the three methods, and the choice between them
pruning_rounds.py       a round of the prune stage
controls.py             two nets to compare with, trained for as long
task.py                 the settings of a pipeline
training.py             training within a stage, resumed at the last snapshot
schedule.py             adapts a solver's definition to one of several trainings
state_file.py           the completed stages and their results
fingerprint.py          fingerprints of files, to detect changes
default_groups.py       adds groups to a net that declares none
merge_phases.py         merges the train and test nets into one definition
regularization_path.py  trains nets along a range of strengths

Knows: the other folders of ``compress``, solvers, timing. Begin with ``pipeline.Pipeline``, whose methods are the
stages.
"""
