"""Nets from and to the files of other frameworks.

export.py    a net as an ONNX model: the graph, names, metadata, the proof
operators.py what each layer type becomes in ONNX
"""
