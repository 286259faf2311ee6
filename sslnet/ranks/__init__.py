"""Ranks: several processes, started by an MPI launcher, that train one net, each on its part of every batch.

    whole batch    ``whole`` parts of batch_size records each; a rank computes ``parts`` of them, one after the other
    virtual ranks  the parts of the whole batch; they are summed by one binary tree, so that any number of ranks that
                   divides their number (a power of two) gives the same bits

``launcher`` tells from the environment alone whether a launcher has started the process. ``group`` exchanges values
between the processes, over MPI or alone in one process; ``window`` shares memory between those of one machine;
``sums`` adds arrays over all of them. ``place`` says which part of the whole batch a net computes, and is all that
layers know of the ranks. What a solver does with them is in ``sslnet.solver.rank_batches``.

Knows errors and kernels. mpi4py is imported by ``group`` alone, and only under a launcher.
"""
