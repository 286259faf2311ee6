"""Classifier: classifies images with a net, with the interface of pycaffe's ``caffe.Classifier``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.errors import UsageError
from sslnet.net.net import Net
from sslnet.pycaffe import io
from sslnet.pycaffe.image_input import image_transformer


class Classifier(Net):
    """A net with one input blob of images, and the preprocessing of images for it.

    model_file       deploy prototxt; pretrained_file: its weights
    image_dims       (height, width) to which images are resized before cropping; None: those of the input blob
    mean, input_scale, raw_scale, channel_swap   as for ``io.Transformer``
    lean             whether to save memory, and keep only the inputs and outputs (Net)
    """

    def __init__(
        self,
        model_file: str | os.PathLike[str],
        pretrained_file: str | os.PathLike[str],
        image_dims: Sequence[int] | None = None,
        mean: np.ndarray | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
        *,
        lean: bool = False,
    ) -> None:
        super().__init__(os.fspath(model_file), os.fspath(pretrained_file), pb.TEST, lean=lean)
        self.transformer = image_transformer(self, "classifier", mean, input_scale, raw_scale, channel_swap)
        shape = self.blobs[self.inputs[0]].shape
        self.crop_dims = np.array(shape[2:])
        self.image_dims = self.crop_dims if image_dims is None else np.array(image_dims)
        if (self.image_dims < self.crop_dims).any():
            wanted, least = (" x ".join(map(str, dims)) for dims in (self.image_dims, self.crop_dims))
            raise UsageError(f"image_dims {wanted} are smaller than the net's input {least}")

    def predict(self, inputs: Sequence[np.ndarray], oversample: bool = True) -> np.ndarray:
        """Class probabilities of images (the first output of the net), averaged over ten crops or of the centre crop.

        inputs   images (H, W, K) float, as io.load_image gives them
        returns  (images, classes) float32
        """
        if not len(inputs):
            raise UsageError("predict needs at least one image")
        resized = [io.resize_image(np.asarray(image), tuple(self.image_dims)) for image in inputs]
        if oversample:
            crops = io.oversample(resized, tuple(self.crop_dims))
        else:
            top, left = (self.image_dims - self.crop_dims) // 2
            h, w = self.crop_dims
            crops = np.stack([image[top : top + h, left : left + w] for image in resized])
        name = self.inputs[0]
        self.plan(fused=True).hold_weights(True)  # for the duration of this call
        batch: dict[str, Any] = {name: np.stack([self.transformer.preprocess(name, crop) for crop in crops])}
        try:
            scores = self.forward_all(**batch)[self.outputs[0]].reshape(len(crops), -1)
        finally:
            self.plan(fused=True).hold_weights(False)
        return scores.reshape(len(inputs), -1, scores.shape[1]).mean(axis=1) if oversample else scores
