"""Arrays in, arrays out: functions and plans that know nothing of nets, layers or blobs.

    simd/       vectors of the machine: their width, and the emitters that write LLVM IR for them
    runtime/    compilation, threads, memory
    conv/       convolutions
    matmul/     products of matrices
    pointwise/  activations, pooling, normalisation, softmax
    optim/      updates of weights, and proximal operators

Knows: errors, and the folder of compiled kernels. Does not know: nets, layers, blobs. A kernel is a serial Numba
function over an index range, which ``runtime.threads`` spreads over workers. Begin with README.md: the loop nest, the
words of other libraries for its parts, how to add a micro-kernel.
"""
