"""``sslnet data show NET``: a contact sheet of the images that a data layer gives the net."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sslnet.errors import UsageError, printable, suggestion

if TYPE_CHECKING:
    import numpy as np

    from sslnet.layers.prefetched import PrefetchedLayer
    from sslnet.net.net import Net

MOST_IMAGES = 2000
FORMATS = (".png", ".jpg", ".jpeg", ".webp")


def add_show_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``sslnet data show``."""
    parser.add_argument("model", metavar="NET", nargs="?", help="show: net definition (.prototxt) with a data layer")
    parser.add_argument("--layer", metavar="NAME", help="show: data layer; default: the first one")
    parser.add_argument(
        "--phase", choices=("TRAIN", "TEST"), help="show: phase of the net, which selects layers and turns random "
        "changes of images on or off; default TRAIN",
    )  # fmt: skip
    parser.add_argument("--images", type=int, metavar="N", help="show: number of images; default 36")
    parser.add_argument("--seed", type=int, metavar="N", help="show: seed of the random changes; default 1")
    parser.add_argument("--output", metavar="FILE", help="show: the picture, .png, .jpg or .webp; default sheet.png")
    parser.add_argument(
        "--labels", metavar="FILE", help="show: text file with one class name per line, for the captions"
    )
    parser.add_argument(
        "--write-labels", metavar="FILE", help="show: write the class names of an ImageFolderData layer, one per line"
    )


def show(args: argparse.Namespace) -> int:
    """Draws the sheet, and prints what the layer gives the net. raises UsageError for a net without such a layer"""
    import numpy as np

    from sslnet import sslnet_pb2 as pb
    from sslnet.cli.notes import tell_data, tell_notes
    from sslnet.cli.options import read_labels
    from sslnet.files import atomic_write
    from sslnet.net.net import Net
    from sslnet.report.contact_sheet import contact_sheet, write_sheet
    from sslnet.sources.record_reader import RecordReader

    count, output, phase = (
        args.images if args.images is not None else 36,
        args.output or "sheet.png",
        args.phase or "TRAIN",
    )
    _check(args, output)
    names = read_labels(args.labels) if args.labels else None
    net = Net(args.model, phase=pb.Phase.Value(phase), seed=1 if args.seed is None else args.seed)
    layer, tops = _layer(net, args.layer, args.model, phase)
    tell_notes(net.definition)
    tell_data(net)
    reader = layer.reader
    assert isinstance(reader, RecordReader)
    classes = names or getattr(layer, "classes", None) or []
    if args.write_labels and not getattr(layer, "classes", None):
        raise UsageError(f'layer "{layer.name}" ({layer.type}) has no class names', hint="ImageFolderData has")
    shown: list[np.ndarray] = []
    captions: list[str] = []
    values: list[np.ndarray] = []
    while len(captions) < count:
        layer.forward([], tops)
        left = count - len(captions)
        data = np.array(tops[0].data[:left])
        shown.append(reader.transformer.displayed(data))
        values.append(data)
        if len(tops) > 1:
            captions += [_caption(int(label), classes) for label in tops[1].data.reshape(-1)[:left]]
        else:
            captions += [""] * len(data)
    columns = min(count, max(1, round((1.5 * count) ** 0.5)))
    write_sheet(output, contact_sheet(np.concatenate(shown), captions, columns))
    if args.write_labels:
        atomic_write(args.write_labels, "".join(f"{name}\n" for name in layer.classes).encode(errors="surrogateescape"))  # type: ignore[attr-defined]
        print(f"{printable(args.write_labels)}: {len(layer.classes)} class names")  # type: ignore[attr-defined]
    shape = " x ".join(map(str, tops[0].shape[1:]))
    print(f'{printable(output)}: {count} images of layer "{printable(layer.name)}" in phase {phase}, each {shape}')
    print(f"values that the net gets: {_range(np.concatenate(values))}")
    return 0


def _check(args: argparse.Namespace, output: str) -> None:
    if not args.model:
        raise UsageError("sslnet data show needs a net", hint="sslnet data show train_test.prototxt")
    if args.images is not None and not 1 <= args.images <= MOST_IMAGES:
        raise UsageError(f"--images must be from 1 to {MOST_IMAGES}, not {args.images}")
    if Path(output).suffix.lower() not in FORMATS:
        raise UsageError(f"--output {printable(output)} must end in {', '.join(FORMATS)}")


def _layer(net: Net, name: str | None, model: str, phase: str) -> tuple[PrefetchedLayer, Any]:
    """The data layer to show, and its tops."""
    from sslnet.layers.prefetched import PrefetchedLayer
    from sslnet.sources.record_reader import RecordReader

    found = {
        layer.name: (layer, tops)
        for layer, tops in zip(net.layers, net.tops)
        if isinstance(layer, PrefetchedLayer) and isinstance(layer.reader, RecordReader)
    }
    if not found:
        raise UsageError(
            f"{printable(model)}: no layer of phase {phase} reads images",
            hint="Data, ImageData, ImageFolderData and ArrayData can be shown",
        )
    if name is not None and name not in found:
        hint = suggestion(name, found) or f"data layers of phase {phase}: {', '.join(found)}"
        raise UsageError(f'{printable(model)}: "{printable(name)}" is not a layer that reads images', hint=hint)
    return found[name if name is not None else next(iter(found))]


def _caption(label: int, classes: list[str]) -> str:
    return f"{label} {classes[label]}" if 0 <= label < len(classes) else str(label)


def _range(values: np.ndarray) -> str:
    """The range of the values, of each channel where there are few, in words."""
    import numpy as np

    text = f"{values.min():.4g} to {values.max():.4g}"
    if values.shape[1] > 4:
        return text
    flat = values.swapaxes(0, 1).reshape(values.shape[1], -1).astype(np.float64)
    parts = [f"{mean:.4g} ({std:.4g})" for mean, std in zip(flat.mean(axis=1), flat.std(axis=1))]
    return f"{text}; mean (standard deviation) of the channels: {', '.join(parts)}"
