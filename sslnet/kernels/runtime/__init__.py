"""What every kernel runs on: compilation, threads, memory.

jit.py              compiles, and keeps what was compiled
threads.py, cores.py   an index range spread over workers; how many cores there are
memory.py, fill.py  aligned arrays; their values set
counter_rng.py      random bits named by a counter
change_detector.py  whether an array has changed since it was packed
"""
