"""Python functions of the commands: each takes a net and returns a result, which ``save`` writes to files.

    small = sslnet.compact("train_test.prototxt", "pruned.caffemodel")
    small.save("small/lenet")

compact.py   low_rank.py   restructure.py   prune.py   teach.py   compress.py   evaluate.py   onnx.py   the functions, one file each
inputs.py                  reads and checks their arguments: models, weights, numbers
net_result.py              their return value: a definition, weights, and details

They have the names ``sslnet.compact``, ``sslnet.low_rank``, ..., and the commands call them as well. To add a function,
write one file here, add its name to ``sslnet/__init__.py``, and a section to docs/python.md, whose examples the tests run.
"""
