"""Python functions of the commands: each takes a net and returns a result, which ``save`` writes to files.

    small = sslnet.compact("train_test.prototxt", "pruned.caffemodel")
    small.save("small/lenet")

compact.py   low_rank.py   restructure.py   prune.py   teach.py   compress.py   onnx.py   the functions, one file each
inputs.py                  what they take as a model and as weights
net_result.py              what they return: a definition, weights, and what was found out on the way

They are the names ``sslnet.compact``, ``sslnet.low_rank``, ..., and the commands call them as well. A function more is
one file here, its name in ``sslnet/__init__.py``, and a section in docs/python.md, whose examples the tests run.
"""
