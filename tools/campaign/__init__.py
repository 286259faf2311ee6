"""The torture campaign of ``tools/torture``: kills, damaged files, full disks, signals and long runs.

A *part* is a module with

    HELP, UNIT             what it does, in a sentence; what it counts ("kills", "inputs", "runs")
    LEAST                  seconds in which a target shows something: a short campaign leaves some targets out
    weights()              its targets and the share of the time that each gets
    run(job)               works on one target until ``job.over()``, and counts in ``job.count``

``parts.py`` lists them. Every target runs in a process of its own, forked from the command's, which has made the seed
files and loaded the kernels by then; what a part tortures are children of that process. So nothing that sslnet does
there can end the campaign, and a child costs milliseconds.

    command     options, schedule, progress, the table      job        what a part is given, the counting of findings
    children    forking, limits, how a child ended          outcome    what sslnet may say and do with bad input
    seeds       whole files to begin with                   mutate     how they are damaged
    record      the JSON file of counts                     page       their table in docs/reliability.md
    kills, fuzz, disk, signals, data, threads, soak         the parts; targets and nets are what fuzz runs
"""
