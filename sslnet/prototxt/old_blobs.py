"""Blobs of before 2015, which have four sizes in place of a shape."""

from __future__ import annotations

from sslnet import sslnet_pb2 as pb
from sslnet.prototxt.old_forms import BLOB_AXES

_SIZES = ("num", "channels", "height", "width")


def has_four_sizes(blob: pb.BlobProto) -> bool:
    """Whether a blob has the sizes of old files and no shape."""
    return not blob.HasField("shape") and any(blob.HasField(name) for name in _SIZES)


def shape_old_blobs(net: pb.NetParameter) -> int:
    """Gives each such blob of a net the shape that it has today; returns how many there were."""
    count = 0
    for layer in net.layer:
        for index, blob in enumerate(layer.blobs):
            if has_four_sizes(blob):
                sizes = [blob.num, blob.channels, blob.height, blob.width]
                axes = (*BLOB_AXES.get(layer.type, ()), 4, 4, 4)[index] if index < 4 else 4
                drop = 4 - axes if sizes[: 4 - axes] == [1] * (4 - axes) else 0
                blob.shape.dim.extend(sizes[drop:])
                for name in _SIZES:
                    blob.ClearField(name)
                count += 1
    return count
