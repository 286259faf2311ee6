"""Functions and plans that compute on arrays; they know nothing of nets, layers or blobs.

    simd/       the vector unit of the machine: its width, and the emitters that write LLVM IR for it
    runtime/    compilation, threads, memory
    conv/       convolutions
    matmul/     matrix products
    pointwise/  activations, pooling, normalisation, softmax
    optim/      updates of weights, and proximal operators

Knows: errors, and the folder of compiled kernels. Does not know: nets, layers, blobs. A kernel is a serial Numba
function over an index range, which ``runtime.threads`` spreads over workers. Begin with README.md: the loop nest, the
words of other libraries for its parts, how to add a micro-kernel.
"""
