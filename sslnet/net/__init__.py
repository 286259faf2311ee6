"""A graph of layers that runs.

A definition in prototxt becomes a list of layers (``graph``), then layer objects with blobs between them
(``builder``), then a flat list of steps (``plan``) that a net runs forward and backward.

    net.py            Net: what the user holds; runs, and gives access to blobs and params
    graph.py          the layers of one phase, in order: rules applied, inputs as layers, fan-out made explicit
    builder.py        creates layers and blobs
    layer_graph.py    LayerGraph: the record of the layers and the blobs between them, which the builder returns
    input_layers.py   nets whose inputs are data layers, and the other way round
    parameters.py     Param: a learnable blob, its names, its multipliers, who shares it
    backward.py       which layers and blobs need gradients
    plan.py, steps/   the steps that run, and the faster ways to run a layer
    plan_cache.py     the plans for the last few shapes
    liveness.py, memory_planner.py, memory_estimate.py   how long data are needed, and where; how much memory that takes
    weights.py        weights from and to caffemodel and HDF5 files
    debug_info.py     what ``debug_info: true`` prints

Knows: layers, blobs, prototxt, kernels. Does not know: solvers, penalties, compaction. The names to start with:
``Net``, ``Param``, ``plan.Plan``. A faster way to run a layer is one file in ``steps/`` and one line in
``steps.FAST``.
"""
