"""Detector: classifies windows of images with a net, with the interface of pycaffe's ``caffe.Detector``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.errors import UsageError
from sslnet.net.net import Net
from sslnet.pycaffe import io
from sslnet.pycaffe.image_input import image_transformer


class Detector(Net):
    """A net with one input blob of square windows, and the preprocessing of windows for it.

    model_file     deploy prototxt; pretrained_file: its weights
    mean, input_scale, raw_scale, channel_swap   as for ``io.Transformer``
    context_pad    pixels of the input on each side that show the surroundings of a window; None: none

    Ref: Girshick et al. 2014, "Rich feature hierarchies for accurate object detection"
    """

    def __init__(
        self,
        model_file: str | os.PathLike[str],
        pretrained_file: str | os.PathLike[str],
        mean: np.ndarray | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
        context_pad: int | None = None,
    ) -> None:
        super().__init__(os.fspath(model_file), os.fspath(pretrained_file), pb.TEST)
        self.transformer = image_transformer(self, "detector", mean, input_scale, raw_scale, channel_swap)
        self.configure_crop(context_pad)

    def detect_windows(self, images_windows: Iterable[tuple[Any, Sequence[Sequence[float]]]]) -> list[dict[str, Any]]:
        """The net's first output for windows of images.

        images_windows  (image file, windows), each window ymin, xmin, ymax, xmax in pixels
        returns         for each window: "window", "prediction" (the output), "filename"
        """
        found: list[dict[str, Any]] = []
        crops = []
        name = self.inputs[0]
        for filename, windows in images_windows:
            image = io.load_image(filename)
            for window in windows:
                crops.append(self.transformer.preprocess(name, self.crop(image, window)))
                found.append({"window": window, "filename": filename})
        if not found:
            return found
        batch: dict[str, Any] = {name: np.stack(crops)}
        predictions = self.forward_all(**batch)[self.outputs[0]]
        return [{**each, "prediction": prediction} for each, prediction in zip(found, predictions)]

    def detect_selective_search(self, image_fnames: Sequence[str]) -> list[dict[str, Any]]:
        """As pycaffe's, with the windows of the package selective_search_ijcv_with_python (which needs MATLAB)."""
        try:
            import selective_search_ijcv_with_python as proposals
        except ImportError:
            raise UsageError(
                "selective search is not here: the package selective_search_ijcv_with_python, which needs MATLAB",
                hint="detect_windows takes windows from anywhere",
            ) from None
        names = [os.path.abspath(name) for name in image_fnames]
        return self.detect_windows(list(zip(names, proposals.get_windows(names, cmd="selective_search_rcnn"))))

    def crop(self, im: np.ndarray, window: Sequence[float]) -> np.ndarray:
        """A window of an image (H, W, K), without context; with context_pad of the size of the net's input, with the mean
        where the context is outside the image. raises UsageError for a window without pixels in the image"""
        top, left, bottom, right = (int(value) for value in window)
        part = im[max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
        if not part.size:
            raise UsageError(f"window {tuple(window)} has no pixels in an image of {im.shape[0]} x {im.shape[1]}")
        return self._with_context(im, (top, left, bottom, right)) if self.context_pad else part

    def _with_context(self, im: np.ndarray, window: tuple[int, int, int, int]) -> np.ndarray:
        size = int(self.crop_dims[1])
        assert self.context_pad is not None
        scale = size / (size - 2.0 * self.context_pad)
        half = np.array([window[2] - window[0] + 1, window[3] - window[1] + 1]) / 2
        centre = np.array(window[:2]) + half
        low, high = np.round(centre - scale * half), np.round(centre + scale * half)
        ratio = size / (high - low + 1)  # input pixels per image pixel
        pads = [round(float(value)) for value in np.maximum(0, -low) * ratio]
        low, high = np.clip(low, 0, im.shape[:2]), np.clip(high, 0, im.shape[:2])
        part = im[int(low[0]) : int(high[0]), int(low[1]) : int(high[1])]
        extent = [round(float(value)) for value in (high - low + 1) * ratio]
        extent = [max(1, min(length, size - pad)) for length, pad in zip(extent, pads)]
        result: np.ndarray = np.ones(self.crop_dims, np.float32) * self.crop_mean
        place = (slice(pads[0], pads[0] + extent[0]), slice(pads[1], pads[1] + extent[1]))
        result[place] = io.resize_image(part, (extent[0], extent[1]))
        return result

    def configure_crop(self, context_pad: int | None) -> None:
        """Sets the pixels of context, and the mean that replaces it outside an image. raises UsageError"""
        name = self.inputs[0]
        channels, height, width = self.blobs[name].shape[1:]
        self.crop_dims = np.array([height, width, channels])
        self.context_pad = context_pad
        if not context_pad:
            return
        if not 0 < 2 * context_pad < min(height, width):
            raise UsageError(f"context_pad {context_pad} leaves nothing of the net's input {height} x {width}")
        mean = self.transformer.mean.get(name)
        self.crop_mean = np.zeros(self.crop_dims, np.float32)
        if mean is not None:
            values = np.broadcast_to(mean, (channels, height, width)).transpose(1, 2, 0)
            swap = self.transformer.channel_swap.get(name)
            if swap is not None:
                values = values[:, :, np.argsort(swap)]
            self.crop_mean[...] = values / (self.transformer.raw_scale.get(name) or 1)
