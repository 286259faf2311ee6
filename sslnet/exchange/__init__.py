"""Nets from and to the files of other frameworks: ONNX.

It knows of nets, of compaction's comparison, and of layers: what a layer is in ONNX stands at its class (``Layer.ONNX``,
``Layer.to_onnx``), so a new layer changes nothing here.

export.py       a net as an ONNX model, with the proof        graph.py       the model while it is put together
importing.py    an ONNX model as a net, with the proof        builder.py     the definition while it is put together
model_file.py   the model's file, read within bounds          source.py      what is known of a model before it runs
readers.py      what each operator becomes                    node.py        a node, checked where it is read
*_readers.py    operators with weights, windows, axes, shapes, arithmetic    chain.py  several layers for one node
attributes.py   attributes and the fields that hold them      limits.py      what a model from elsewhere may ask for

Begin with ``to_onnx`` and ``from_onnx``. To read one more operator: a function (builder, node) and a line in ``READERS``;
where a layer is that operator, alone, a line in the layer's ``ONNX`` instead.
"""
