"""``sslnet detect``: images in, the boxes that a detection net finds out, as text and drawn on the images."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

from sslnet.errors import DataError, DefinitionError, UsageError, printable

if TYPE_CHECKING:
    from sslnet.inference.predictor import Predictor
    from sslnet.report.boxes import Detection

HELP = "Finds objects in images with a trained detection net: prints their boxes and draws them."
EXAMPLE = (
    "sslnet detect models/mobilenet_ssd/deploy.prototxt mobilenet_ssd.caffemodel photo.jpg --mean 127.5 "
    "--input-scale 0.007843 --output found.png"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="the net, with one input of images and an output of detections")
    parser.add_argument("weights", metavar="WEIGHTS", help="its weights (.caffemodel or .caffemodel.h5)")
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="PNG, JPEG and other image files")
    parser.add_argument("--mean", metavar="MEAN",
        help="mean to subtract: a .binaryproto or .npy file, or one number per channel in the order blue, green, red")  # fmt: skip
    parser.add_argument("--input-scale", type=float, default=1.0, metavar="X",
        help="factor applied after the mean is subtracted; default 1")  # fmt: skip
    parser.add_argument(
        "--rgb", action="store_true", help="the net's channels are red, green, blue, not blue, green, red"
    )
    parser.add_argument("--labels", metavar="FILE", help="names of the classes: a label map (labelmap.prototxt)")
    parser.add_argument("--threshold", type=float, default=0.5, metavar="X", help="least score of a box; default 0.5")
    parser.add_argument("-o", "--output", metavar="PATH",
        help="draw the boxes: an image file, or for several images a folder; default: nothing is drawn")  # fmt: skip
    parser.add_argument("--threads", type=int, metavar="N", help="number of threads; default: one per physical core")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")


def run(args: argparse.Namespace) -> int:
    from sslnet.cli.options import use_threads
    from sslnet.inference.predictor import Predictor

    use_threads(args.threads)
    names = read_names(args.labels) if args.labels else {}
    predict = Predictor(args.model, args.weights, max_batch=1)
    check(predict, args.model)
    targets = targets_of(args.output, args.images)
    results = []
    for path, target in zip(args.images, targets):
        found = detect(predict, path, args, names, target)
        results.append(
            {"image": path, "boxes": [as_json(each) for each in found], **({"drawn": target} if target else {})}
        )
        if not args.json:
            print("\n".join(map(printable, lines(path, found, target))), flush=True)
    if args.json:
        from sslnet.report import dump_json

        print(dump_json({"model": args.model, "weights": args.weights, "detections": results}))
    return 0


def check(predict: Predictor, model: str) -> None:
    """Raises DefinitionError unless the net has one input of images and one output of detections."""
    if len(predict.inputs) != 1 or len(next(iter(predict.inputs.values()))) != 3:
        raise DefinitionError(
            f"the net has the inputs {', '.join(predict.inputs)}: one of images is needed", path=model
        )
    channels = next(iter(predict.inputs.values()))[0]
    if channels not in (1, 3):
        raise DefinitionError(f"the input has {channels} channels; images have 3, or 1 when they are grey", path=model)
    if len(predict.outputs) != 1:
        raise DefinitionError(
            f"the net has the outputs {', '.join(predict.outputs)}: one of detections is needed",
            path=model,
            hint="DetectionOutput, YoloDetectionOutput and Yolov3DetectionOutput make one",
        )


def detect(
    predict: Predictor, path: str, args: argparse.Namespace, names: dict[int, str], target: str | None
) -> list[Detection]:
    """The boxes of one image file, which are drawn into the target."""
    import numpy as np

    from sslnet.cli.classify import read_mean_option
    from sslnet.files import MOST_IMAGE, atomic_path, read_bytes
    from sslnet.report.boxes import draw_boxes, read_detections
    from sslnet.sources.images import decode_image, resize_image

    shape = next(iter(predict.inputs.values()))
    try:
        image = decode_image(read_bytes(path, limit=MOST_IMAGE), shape[0] == 3, upright=True)
    except DataError as error:
        raise DataError(error.message, path=path) from error
    pixels = resize_image(image, shape[1], shape[2]).astype(np.float32)
    if args.mean is not None:
        mean = read_mean_option(args.mean, shape)
        pixels -= mean if mean.ndim == 3 else mean[:, None, None]
    pixels *= np.float32(args.input_scale)
    if args.rgb:
        pixels = pixels[::-1]
    rows = predict(pixels[None])[predict.outputs[0]]
    if rows.shape[-1] != 7:
        raise DefinitionError(
            f'the output "{predict.outputs[0]}" has shape {rows.shape}: seven numbers a box are needed', path=args.model
        )
    size = (image.shape[2], image.shape[1])
    found = [each for each in read_detections(rows, 0, size, names) if each.score >= args.threshold]
    if target is not None:
        shown = np.repeat(image, 3, axis=0) if len(image) == 1 else image[::-1]
        picture = draw_boxes(shown.transpose(1, 2, 0), found)
        with atomic_path(target) as temporary:
            picture.save(temporary)
    return found


def targets_of(output: str | None, images: list[str]) -> list[str | None]:
    """The file that each image is drawn into; None: none."""
    from sslnet.files import make_folder

    if output is None:
        return [None] * len(images)
    if len(images) == 1 and not os.path.isdir(output) and not output.endswith(os.sep):
        if not os.path.splitext(output)[1]:
            raise UsageError(f"{output} has no ending that says the format", hint="as found.png or found.jpg")
        return [output]
    names = [os.path.splitext(os.path.basename(path))[0] + ".png" for path in images]
    if len(set(names)) < len(names):
        raise UsageError("two images have the same name: their drawings would overwrite each other")
    targets = [os.path.join(output, name) for name in names]
    for target, path in zip(targets, images):
        if os.path.exists(target) and os.path.samefile(target, path):
            raise UsageError(f"the drawing would overwrite the image {path}", hint="give another folder with --output")
    make_folder(targets[0])
    return list(targets)


def read_names(path: str) -> dict[int, str]:
    """Class -> name, from a label map."""
    from sslnet import prototxt
    from sslnet import sslnet_pb2 as pb

    items: Any = prototxt.read(path, pb.LabelMap).message.item
    return {item.label: item.display_name or item.name for item in items}


def as_json(each: Detection) -> dict[str, Any]:
    """A box for programs; corners in pixels of the image."""
    return {"class": each.label, "name": each.name, "score": each.score, "box": list(each.box)}


def lines(path: str, found: list[Detection], target: str | None) -> list[str]:
    """The boxes of an image as text."""
    text = [f"{path}: {len(found)} {'box' if len(found) == 1 else 'boxes'}{f', drawn in {target}' if target else ''}"]
    for each in found:
        left, top, right, bottom = each.box
        text.append(f"  {each.score:.4f} {each.name}  x {left:.0f} to {right:.0f}, y {top:.0f} to {bottom:.0f}")
    return text
