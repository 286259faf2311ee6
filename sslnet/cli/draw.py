"""``sslnet draw``: draws a net as an SVG picture."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sslnet.cli.options import add_rule_options
from sslnet.errors import UsageError, printable

if TYPE_CHECKING:
    from sslnet import sslnet_pb2 as pb

HELP = "Draws a net as an SVG picture: layers, blob shapes, numbers of parameters."
EXAMPLE = "sslnet draw models/lenet/train_test.prototxt lenet.svg --phase TRAIN"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="the net (train_test.prototxt or deploy.prototxt)")
    parser.add_argument(
        "target", nargs="?", type=Path, metavar="OUT", help="file to write (.svg); default: MODEL's name with .svg"
    )
    parser.add_argument("--phase", choices=("TRAIN", "TEST"), default="TEST", help="phase of the net; default TEST")
    parser.add_argument("--rankdir", choices=("TB", "LR"), default="TB",
        help="TB: from the top down; LR: from left to right; default TB")  # fmt: skip
    parser.add_argument("--shape", action="append", default=[], metavar="BLOB=N,C,H,W",
        help="shape of a data layer's top, for a net whose data are missing; may be repeated")  # fmt: skip
    add_rule_options(parser)


def run(args: argparse.Namespace) -> int:
    from sslnet import sslnet_pb2 as pb
    from sslnet.cli.notes import tell_notes
    from sslnet.cli.options import stages
    from sslnet.files import atomic_write
    from sslnet.net.graph import PhaseState, filter_layers
    from sslnet.prototxt import read_net
    from sslnet.report.drawing import draw_net

    target: Path = args.target or Path(args.model).with_suffix(".svg")
    if target.suffix != ".svg":
        raise UsageError(f"{target}: the name of the picture must end in .svg")
    definition = read_net(args.model)
    tell_notes(definition)
    state = PhaseState(pb.Phase.Value(args.phase), args.level, stages(args.stage))
    shapes = data_shapes(args.shape, [layer.param for layer in filter_layers(definition, state)])
    text, shown = draw_net(definition, state, rankdir=args.rankdir, shapes=shapes)
    atomic_write(target, text.encode())
    if shown.unknown is not None:
        layer = f' (layer "{shown.unknown.layer}")' if shown.unknown.layer else ""
        print(f"note: some shapes are not known: {printable(shown.unknown.message + layer)}", file=sys.stderr)
        print("  give them with --shape BLOB=N,C,H,W", file=sys.stderr)
    print(f"{target}: {shown.layers} layers")
    return 0


def data_shapes(options: list[str], layers: list[pb.LayerParameter]) -> dict[str, tuple[int, ...]]:
    """Reads ``--shape data=64,3,32,32``: shapes by blob. Other tops of the same layer get one number for each of the N.

    layers   the definitions of the layers that run
    """
    from sslnet.errors import suggestion
    from sslnet.net.input_layers import is_source

    tops = {top: list(layer.top) for layer in layers if is_source(layer) for top in layer.top}
    shapes: dict[str, tuple[int, ...]] = {}
    for option in options:
        name, _, sizes = option.partition("=")
        if name not in tops:
            hint = suggestion(name, tops) or f"data layers make {', '.join(tops) or 'nothing'}"
            raise UsageError(f'no data layer makes the blob "{name}"', hint=hint)
        try:
            shape = tuple(int(size) for size in sizes.split(","))
        except ValueError:
            shape = ()
        if not shape or min(shape) < 1:
            raise UsageError(f'--shape must be like {name}=64,3,32,32, not "{option}"')
        shapes[name] = shape
    for name in list(shapes):
        for other in tops[name]:
            shapes.setdefault(other, shapes[name][:1])
    return shapes
