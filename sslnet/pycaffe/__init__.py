"""What scripts written for pycaffe call, under the names that they know.

    module.py      solvers by name, modes, devices, seeds: the functions of the module ``caffe``
    io.py          images and their transformer (``sslnet.io``)
    classifier.py  Classifier

``import sslnet as caffe`` gives these names; ``NetSpec`` stands in ``sslnet.prototxt``, because layers offer it too.
Knows: nets, solvers, sources.
"""
