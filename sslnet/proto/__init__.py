"""``sslnet.proto.caffe_pb2``: the messages of definitions and weights under Caffe's name of their module."""

from sslnet import sslnet_pb2 as caffe_pb2

__all__ = ["caffe_pb2"]
