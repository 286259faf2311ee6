"""What every kernel runs on: compilation, threads, memory.

compiler.py         how kernels are compiled, and where what was compiled is kept
jit.py              what a layer's kernel needs: its decorator, and the call that spreads it over the threads
denormals.py        numbers too small to be normal count as zero
spin_wait.py        a thread waits a moment without sleeping
threads.py, cores.py   an index range spread over workers; how many cores there are
memory.py, fill.py  aligned arrays; their values set
counter_rng.py      random bits named by a counter
change_detector.py  whether an array has changed since it was packed
plan.py             the checks of arrays that the plans of all operations share

Knows: errors, the folder of compiled kernels, the vector unit. Begin with ``threads.parallel`` and
``compiler.kernel``.
"""
