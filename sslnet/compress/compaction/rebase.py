"""Adapts relative file names in a definition such that they are found from another folder."""

from __future__ import annotations

import os

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from sslnet import sslnet_pb2 as pb
from sslnet.errors import SslnetError
from sslnet.files import resolve

FILE_FIELDS = ("source", "mean_file", "root_folder")
"""String fields of layer parameters that name a file or a folder to read."""


def relocate(message: pb.NetParameter, old: str, new: str) -> None:
    """Changes the names of files in a NetParameter read from ``old`` where they would not be found from ``new``.

    A file found from the working directory, or not found at all, keeps its name.
    """
    for layer in message.layer:
        for field, value in layer.ListFields():
            if field.message_type is not None and field.name.endswith("_param"):
                _relocate_param(value, old, new)


def _relocate_param(param: Message, old: str, new: str) -> None:
    field: FieldDescriptor
    for field, name in param.ListFields():
        if field.name not in FILE_FIELDS or field.type != FieldDescriptor.TYPE_STRING:
            continue
        wanted, found = _find(name, old), _find(name, new)
        if wanted is not None and wanted != found:
            setattr(param, field.name, os.path.relpath(wanted, os.path.dirname(os.path.realpath(new))))


def _find(name: str, beside: str) -> str | None:
    try:
        return os.path.realpath(resolve(name, beside))
    except SslnetError:
        return None
