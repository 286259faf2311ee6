"""Caffe's name of the module of the messages: ``from sslnet.proto import caffe_pb2``.

It is ``sslnet.sslnet_pb2``, whose messages have Caffe's names, fields and numbers, and more. They stand in a protobuf package
of their own, so that Caffe's own caffe_pb2, or any other one, can be imported beside it.
"""

import sys

from sslnet import sslnet_pb2

sys.modules[__name__] = sslnet_pb2
