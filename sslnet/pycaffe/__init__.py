"""Compatibility with pycaffe: the functions and classes that scripts for pycaffe use, under the same names.

    module.py      solvers by name, modes, devices, seeds: the functions of the module ``caffe``
    io.py          images and their transformer (``sslnet.io``)
    classifier.py, detector.py  Classifier, Detector; image_input.py: their preprocessing of images
    coord_map.py   places of pixels between blobs of a NetSpec (``sslnet.coord_map``)

``import sslnet as caffe`` gives these names; ``NetSpec`` stands in ``sslnet.prototxt``, because layers offer it too.
Knows: nets, solvers, sources.
"""
