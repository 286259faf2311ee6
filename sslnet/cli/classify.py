"""``sslnet classify``: images in, the most likely classes out, in the spirit of Caffe's classification examples."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from sslnet.errors import DataError, DefinitionError, ShapeError, UsageError, WeightsError, printable

if TYPE_CHECKING:
    import numpy as np

    from sslnet.pycaffe.classifier import Classifier

HELP = "Classifies images with a trained net: prints the most likely classes of each."
EXAMPLE = "sslnet classify deploy.prototxt net.caffemodel cat.jpg --mean 104,117,123 --labels synset_words.txt"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="the net, with one input of images (deploy.prototxt)")
    parser.add_argument("weights", metavar="WEIGHTS", help="its weights (.caffemodel or .caffemodel.h5)")
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="PNG, JPEG and other image files")
    parser.add_argument("--mean", metavar="MEAN",
        help="mean to subtract: a .binaryproto or .npy file, or one number per channel in the net's order, as 104,117,123")  # fmt: skip
    parser.add_argument("--labels", metavar="FILE", help="text file with one class name per line")
    parser.add_argument("--top", type=int, default=5, metavar="N", help="number of classes to print; default 5")
    parser.add_argument("--raw-scale", type=float, default=255.0, metavar="X",
        help="scale pixels to the range 0 to X before the mean is subtracted; default 255")  # fmt: skip
    parser.add_argument(
        "--input-scale", type=float, metavar="X", help="factor applied after the mean is subtracted; default 1"
    )
    parser.add_argument("--channel-swap", metavar="C,C,C",
        help="the net's channel order, with 0 red, 1 green, 2 blue; default 2,1,0")  # fmt: skip
    parser.add_argument("--image-dims", metavar="H,W",
        help="resize images to this size, then crop the centre to the input size; default: resize to the input size")  # fmt: skip
    parser.add_argument(
        "--oversample",
        action="store_true",
        help="average over ten crops: the corners, the centre and their mirror images",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="number of threads; default: one per physical core")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")


def run(args: argparse.Namespace) -> int:
    from sslnet.cli.options import read_labels, use_threads

    use_threads(args.threads)
    if args.top < 1:
        raise UsageError(f"--top must be at least 1, not {args.top}")
    if args.oversample and args.image_dims is None:
        raise UsageError(
            "--oversample takes crops of a larger image: give --image-dims too", hint="--image-dims 256,256"
        )
    labels = read_labels(args.labels) if args.labels else None
    net = load(args)
    results = []
    for start in range(0, len(args.images), IMAGES_AT_ONCE):
        names = args.images[start : start + IMAGES_AT_ONCE]
        for name, scores in zip(names, predict(net, names, args.oversample)):
            if labels is not None and len(labels) != len(scores):
                raise DataError(
                    f"there are {len(labels)} class names, but the net has {len(scores)} classes", path=args.labels
                )
            results.append({"image": name, "top": best(scores, args.top, labels)})
            if not args.json:
                print("\n".join(map(printable, lines(results[-1]))), flush=True)
    if args.json:
        from sslnet.report import dump_json

        print(dump_json({"model": args.model, "weights": args.weights, "predictions": results}))
    return 0


IMAGES_AT_ONCE = 64
"""Number of images in memory at the same time, resized to the net's input."""


def load(args: argparse.Namespace) -> Classifier:
    """Loads the net with its weights, and the transformation of image files to its input."""
    from sslnet.cli.log import RunLog
    from sslnet.cli.notes import tell_notes
    from sslnet.cli.options import tell_copied
    from sslnet.pycaffe.classifier import Classifier

    dims = None if args.image_dims is None else _whole_numbers("--image-dims", args.image_dims, 2)
    scales = {"raw_scale": args.raw_scale, "input_scale": args.input_scale}
    net = Classifier(args.model, args.weights, image_dims=dims, **scales, lean=True)
    tell_notes(net.definition)
    assert net.copied is not None
    tell_copied(net, args.weights, net.copied, RunLog())
    name = net.inputs[0]
    channels = net.blobs[name].shape[1]
    if channels not in (1, 3):
        raise DefinitionError(
            f'the input "{name}" has {channels} channels; images have 3, or 1 when they are grey', path=args.model
        )
    if args.channel_swap is not None:
        net.transformer.set_channel_swap(name, _whole_numbers("--channel-swap", args.channel_swap, channels))
    elif channels == 3:
        net.transformer.set_channel_swap(name, (2, 1, 0))
    if args.mean is not None:
        net.transformer.set_mean(name, read_mean_option(args.mean, net.blobs[name].shape[1:]))
    _resize_batch(net, min(len(args.images), IMAGES_AT_ONCE) * (10 if args.oversample else 1))
    return net


def predict(net: Classifier, names: list[str], oversample: bool) -> np.ndarray:
    """(images, classes): the net's first output."""
    from sslnet.pycaffe.io import load_image, resize_image

    color = net.blobs[net.inputs[0]].shape[1] == 3
    size = tuple(net.image_dims)  # at once: there is never more than one image in memory in its own size
    return net.predict([resize_image(load_image(name, color=color), size) for name in names], oversample=oversample)


def best(scores: np.ndarray, count: int, labels: list[str] | None) -> list[dict[str, Any]]:
    """The classes with the highest scores, the highest first."""
    import numpy as np

    order = np.argsort(-scores, kind="stable")[:count]
    return [
        {"class": int(i), "score": float(scores[i]), **({} if labels is None else {"label": labels[i]})} for i in order
    ]


def lines(result: dict[str, Any]) -> list[str]:
    """Formats a result as Caffe's cpp_classification prints it."""
    found = [f"---------- Prediction for {result['image']} ----------"]
    for item in result["top"]:
        name = f'"{item["label"]}"' if "label" in item else str(item["class"])
        found.append(f"{item['score']:.4f} - {name}")
    return found


def read_mean_option(text: str, shape: tuple[int, ...]) -> np.ndarray:
    """Reads ``--mean``: an image of the input's size, or one number per channel (C), also the channel means of another size.

    shape   of the input, (C, H, W)
    """
    import numpy as np

    from sslnet.sources.base import size_text
    from sslnet.sources.mean import read_mean

    try:
        values = np.array([float(word) for word in text.split(",")], np.float32)
    except ValueError:
        mean = read_mean(text)
        if len(mean) != shape[0]:
            raise WeightsError(
                f"the mean image is {size_text(mean.shape)}, but the net's input {size_text(shape)}", path=text
            ) from None
        return mean if mean.shape == shape else mean.mean(axis=(1, 2))
    if len(values) not in (1, shape[0]):
        raise UsageError(f"--mean has {len(values)} numbers, but the net's input {shape[0]} channels")
    return values


def _whole_numbers(option: str, text: str, count: int) -> tuple[int, ...]:
    try:
        values = tuple(int(word) for word in text.split(","))
    except ValueError:
        values = ()
    limits = range(count) if option == "--channel-swap" else range(1, 1 << 14)
    if len(values) != count or any(value not in limits for value in values):
        example = "256,256" if option == "--image-dims" else ",".join(map(str, reversed(range(count))))
        raise UsageError(f'{option} must be {count} whole numbers like {example}, not "{text}"')
    return values


def _resize_batch(net: Classifier, count: int) -> None:
    """Sets the batch size to the number of images, if the net allows it."""
    blob = net.blobs[net.inputs[0]]
    shape = blob.shape
    if count >= shape[0]:
        return
    try:
        blob.reshape(count, *shape[1:])
        net.reshape()
    except ShapeError:
        blob.reshape(shape)
        net.reshape()
