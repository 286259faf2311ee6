"""Drawings of nets under pycaffe's names: ``draw_net`` and ``draw_net_to_file``. Pictures are SVG."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sslnet import sslnet_pb2 as pb
from sslnet.errors import UsageError
from sslnet.files import atomic_write
from sslnet.net.graph import PhaseState
from sslnet.prototxt import Definition, parse, write
from sslnet.report import drawing


def draw_net(caffe_net: Any, rankdir: str = "TB", ext: str = "svg", phase: int | None = None) -> bytes:
    """The picture of a net, as bytes of an SVG file.

    caffe_net  a NetParameter, of ``sslnet.proto.caffe_pb2`` or of Caffe's own module, in today's form or an older one
    rankdir    LR: to the right; TB: downwards
    phase      the layers of this phase; None: TEST, and TRAIN if no layer runs in TEST
    raises     UsageError for another kind of picture
    """
    if ext != "svg":
        raise UsageError(f'pictures are SVG, not "{ext}"', hint='ext="svg"')
    text = write(caffe_net) if isinstance(caffe_net, pb.NetParameter) else str(caffe_net)
    definition = parse(text, pb.NetParameter)
    return _picture(definition, rankdir, phase).encode()


def _picture(definition: Definition, rankdir: str, phase: int | None) -> str:
    phases = [pb.TEST, pb.TRAIN] if phase is None else [phase]
    for index, each in enumerate(phases):
        text, shown = drawing.draw_net(definition, PhaseState(each), rankdir="TB" if rankdir == "BT" else rankdir)
        if shown.layers or index == len(phases) - 1:
            break
    return text


def draw_net_to_file(
    caffe_net: Any, filename: str | os.PathLike[str], rankdir: str = "LR", phase: int | None = None
) -> None:
    """Draws a net to a file, whose name must end in .svg.  The other arguments are those of ``draw_net``."""
    path = Path(filename)
    atomic_write(path, draw_net(caffe_net, rankdir, path.suffix.lstrip("."), phase))
