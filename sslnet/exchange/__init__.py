"""Nets from and to the files of other frameworks: ONNX.

Knows: layers, nets, and compaction's comparison of nets. A layer's class declares its ONNX operators (``Layer.ONNX``,
``Layer.to_onnx``), so a new layer changes nothing here.

export.py       writes a net as an ONNX model, compared with onnxruntime    graph.py    the model during export
simplify.py     joins nodes of an exported model, one operator for one layer
importing.py    reads an ONNX model as a net, compared with onnxruntime     builder.py  the definition during import
model_file.py   reads the model's file, within bounds         source.py      constants and shapes of a model, before it runs
readers.py      the layers for each operator                  node.py        a node, checked when it is read
*_readers.py    operators with weights, windows, axes, shapes, arithmetic, logic, normalisation, resizing
fusions.py      groups of operators that are one layer        unread.py      nodes without a counterpart, layers that nothing reads
channels_first.py   channels back to axis 1                   first_values.py    fillers for training from scratch
padding.py      padding that a window includes                names.py       names of layers: those of a PyTorch model's modules
chain.py        several layers for one node                   shapes.py      values of one shape along those of another
attributes.py   attributes and the fields with their values   limits.py      limits for a model of unknown origin
runtime.py      runs a model in onnxruntime, if it is installed, to compare outputs

The main functions are ``to_onnx`` and ``from_onnx``. To read one more operator, write a function (builder, node) and a line
in ``READERS``; if a single layer equals the operator, only a line in the layer's ``ONNX``.
"""
