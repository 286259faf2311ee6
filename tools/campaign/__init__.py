"""The torture campaign of ``tools/torture``: kills, damaged files, full disks, signals and long runs.

A *part* is a module with

    HELP, UNIT             its description in one sentence; the unit of its counts ("kills", "inputs", "runs")
    LEAST                  minimum seconds for a useful run of a target: a short campaign omits some targets
    weights()              its targets and the fraction of the time for each
    run(job)               works on one target until ``job.over()``, and counts in ``job.count``

``parts.py`` lists them. Every target runs in a process of its own, forked from the command's process, which has created the
seed files and loaded the kernels before; what a part tests runs in children of that process. So no failure of sslnet in
a child can end the campaign, and a child costs milliseconds.

    command     options, schedule, progress, the table      job        the work of a part, the counting of findings
    children    forking, limits, how a child ended          outcome    the allowed reactions of sslnet to bad input
    seeds       undamaged files                             mutate     the damage to them
    record      the JSON file of counts                     page       their table in docs/reliability.md
    kills, fuzz, disk, signals, data, threads, soak         the parts; fuzz runs targets and nets
"""
