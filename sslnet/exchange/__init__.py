"""Nets from and to the files of other frameworks.

export.py     a net as an ONNX model, with the proof     graph.py     the model while it is put together
operators.py  what each layer type becomes in ONNX
importing.py  an ONNX model as a net, with the proof     source.py    what is known of a model before it runs
readers.py    what each operator of ONNX becomes         builder.py   the definition while it is put together
window_readers.py, shape_readers.py   those that look through windows, those that only move values
node.py       a node, checked where it is read           limits.py    what a model from elsewhere may ask for
"""
