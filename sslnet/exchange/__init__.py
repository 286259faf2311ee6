"""Nets from and to the files of other frameworks: ONNX.

Knows: layers, nets, and compaction's comparison of nets. A layer's class declares its ONNX operators (``Layer.ONNX``,
``Layer.to_onnx``), so a new layer changes nothing here.

export.py       a net as an ONNX model, compared with onnxruntime   graph.py    the model while it is put together
importing.py    an ONNX model as a net, compared with onnxruntime   builder.py  the definition while it is put together
model_file.py   the model's file, read within bounds          source.py      what is known of a model before it runs
readers.py      what each operator becomes                    node.py        a node, checked where it is read
*_readers.py    operators with weights, windows, axes, shapes, arithmetic    chain.py  several layers for one node
attributes.py   attributes and the fields that hold them      limits.py      what a model from elsewhere may ask for
runtime.py      runs a model in onnxruntime, if it is installed, to compare outputs

Begin with ``to_onnx`` and ``from_onnx``. To read one more operator, write a function (builder, node) and a line in
``READERS``; if one layer is that operator, only a line in the layer's ``ONNX``.
"""
