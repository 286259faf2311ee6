"""Compatibility with pycaffe: the functions and classes that scripts for pycaffe use, under the same names.

    module.py      solvers by name, modes, devices, seeds: the functions of the module ``caffe``
    io.py          images and their transformer (``sslnet.io``)
    classifier.py  Classifier

``import sslnet as caffe`` gives these names; ``NetSpec`` stands in ``sslnet.prototxt``, because layers offer it too.
Knows: nets, solvers, sources.
"""
