"""The runtime of all kernels: compilation, threads, memory.

compiler.py         the compiler options of kernels, and the cache of compiled kernels
jit.py              the decorator of layers' kernels, and the call that spreads a kernel over the threads
denormals.py        flushing denormals to zero
spin_wait.py        waiting without sleeping
threads.py, cores.py   an index range spread over worker threads; the number of usable cores
affinity.py         keeps workers off their caller's core
recording.py        which tape the calling thread appends regions to; scratch memory as an argument of a region
tape.py, workspace.py   regions recorded once and run many times without Python; their scratch memory
native.py           the machine code of a kernel, to be called without Python
walk.py, team.py    the native code that runs a tape; the workers that live in it
pace.py             whether several threads are faster than one
atomics.py          atomic loads and stores, calls by address
copying.py          copies of rows
memory.py, fill.py  aligned arrays and scratch memory; setting arrays to zero
counter_rng.py      random bits as a function of a counter
change_detector.py  whether an array has changed since it was packed
plan.py             the base of all plans, which checks arrays

Knows: errors, the folder of compiled kernels, the vector unit. Begin with ``threads.parallel`` and
``compiler.kernel``.
"""
