"""Writes the .npz files of this folder: what OpenCV's dnn computes for each .prototxt beside it.

Run in an environment with opencv-python-headless 4.10.0 and numpy, without sslnet: python make_opencv.py
"""

from pathlib import Path

import cv2
import numpy as np

FOLDER = Path(__file__).parent


def corners(random, count, width, height):
    x, y = random.uniform(-4, width, (2, count)), random.uniform(-4, height, (2, count))
    left, top = x[0], y[0] * height / max(height, 1)
    return left, top, left + random.uniform(0, width / 1.5, count), top + random.uniform(0, height / 1.5, count)


def regions(random, images, count, width, height):
    left, top, right, bottom = corners(random, count, width, height)
    table = np.stack([random.integers(0, images, count), left, top, right, bottom], axis=1)
    return np.round(table).astype(np.float32)


def scores(random, images, priors, classes):
    raw = random.normal(size=(images, priors, classes)) * 2
    raw = np.exp(raw) / np.exp(raw).sum(axis=2, keepdims=True)
    return raw.reshape(images, -1).astype(np.float32)


def priors_of(random, count):
    center, size = random.uniform(0.1, 0.9, (count, 2)), random.uniform(0.1, 0.4, (count, 2))
    boxes = np.concatenate([center - size / 2, center + size / 2], axis=1).reshape(-1)
    return np.stack([boxes, np.tile([0.1, 0.1, 0.2, 0.2], count)])[None, :, :, None].astype(np.float32)


def inputs(name, random):
    if name == "roi_pooling":
        return {"x": random.normal(size=(2, 3, 12, 16)).astype(np.float32), "rois": regions(random, 2, 9, 256, 192)}
    if name == "psroi_pooling":
        return {"x": random.normal(size=(1, 18, 12, 16)).astype(np.float32), "rois": regions(random, 1, 9, 250, 180)}
    if name == "reorg":
        return {"x": random.normal(size=(2, 8, 6, 4)).astype(np.float32)}
    if name.startswith("prior_box"):
        return {"x": np.zeros((1, 2, 3, 4), np.float32), "data": np.zeros((1, 3, 60, 100), np.float32)}
    if name == "proposal":
        return {
            "score": random.uniform(size=(1, 12, 6, 8)).astype(np.float32),
            "delta": random.normal(size=(1, 24, 6, 8)).astype(np.float32) * 0.2,
            "im_info": np.array([[96, 128, 1]], np.float32),
        }
    boxes = 3 if name == "detection_output_apart" else 1
    return {
        "loc": random.normal(size=(2, 30 * 4 * boxes)).astype(np.float32) * 0.5,
        "conf": scores(random, 2, 30, 3),
        "priors": priors_of(random, 30),
    }


def region_net():
    """OpenCV has Region only for Darknet's files: a convolution that changes nothing, then the layer."""
    config = """
[net]
width=4
height=5
channels=16
[convolutional]
filters=16
size=1
stride=1
activation=linear
[region]
anchors=1.1,0.9,2.3,3.1
classes=3
num=2
coords=4
softmax=1
"""
    numbers = np.concatenate([np.zeros(16), np.eye(16).ravel()]).astype("<f4")
    head = np.array([0, 2, 0], "<i4").tobytes() + np.array([0], "<i8").tobytes()
    return cv2.dnn.readNetFromDarknet(
        np.frombuffer(config.encode(), np.uint8), np.frombuffer(head + numbers.tobytes(), np.uint8)
    )


for index, path in enumerate(sorted(FOLDER.glob("*.prototxt"))):
    random = np.random.default_rng(index)
    if path.stem == "region":
        x = random.normal(size=(1, 5, 4, 16)).astype(np.float32)
        net = region_net()
        net.setInput(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
        np.savez_compressed(path.with_suffix(".npz"), out=net.forward(), x=x)
        print(path.stem, net.forward().shape)
        continue
    arrays = inputs(path.stem, random)
    net = cv2.dnn.readNetFromCaffe(str(path))
    for key, array in arrays.items():
        net.setInput(array, key)
    np.savez_compressed(path.with_suffix(".npz"), out=net.forward("l"), **arrays)
    print(path.stem, net.forward("l").shape)
