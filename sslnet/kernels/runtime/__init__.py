"""The runtime of all kernels: compilation, threads, memory.

compiler.py         the compiler options of kernels, and the cache of compiled kernels
jit.py              the decorator of layers' kernels, and the call that spreads a kernel over the threads
denormals.py        flushing denormals to zero
spin_wait.py        waiting without sleeping
threads.py, cores.py   an index range spread over worker threads; the number of usable cores
memory.py, fill.py  aligned arrays and scratch memory; setting arrays to zero
counter_rng.py      random bits as a function of a counter
change_detector.py  whether an array has changed since it was packed
plan.py             the base of all plans, which checks arrays

Knows: errors, the folder of compiled kernels, the vector unit. Begin with ``threads.parallel`` and
``compiler.kernel``.
"""
