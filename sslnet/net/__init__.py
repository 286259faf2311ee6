"""A graph of layers that runs.

A definition in prototxt becomes a list of layers (``graph``), then layer objects with blobs between them
(``builder``), then a flat list of steps (``plan``) that a net runs forward and backward.

    net.py            Net: runs forward and backward, and gives access to blobs and params
    graph.py          the layers of one phase, in order: rules applied, inputs as layers, fan-out made explicit
    builder.py        creates layers and blobs
    layer_graph.py    LayerGraph: the record of the layers and the blobs between them, which the builder returns
    input_layers.py   replaces data layers by Input layers; copies or fills their data
    parameters.py     Param: a learnable blob, its names, its multipliers, the layers that share it
    backward.py       finds the layers and blobs that need gradients
    plan.py, steps/   the steps that run, and faster ways to run a layer
    taping.py         runs forward passes of phase TEST as tapes, without Python between layers
    plan_cache.py     keeps the plans for the last few shapes
    liveness.py, memory_planner.py, memory_estimate.py   lifetimes of data, their place in shared memory, memory use
    weights.py        reads and writes weights as caffemodel and HDF5 files
    debug_info.py     the output of ``debug_info: true``

Knows: layers, blobs, prototxt, kernels. Does not know: solvers, penalties, compaction. The names to start with:
``Net``, ``Param``, ``plan.Plan``. A faster way to run a layer is one file in ``steps/`` and one line in
``steps.FAST``.
"""
