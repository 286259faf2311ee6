"""The transformation of records against its formula, element by element in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sslnet import sslnet_pb2 as pb
from sslnet.errors import DataError, DefinitionError
from sslnet.sources.mean import write_mean
from sslnet.sources.transformer import DataTransformer


def make(param: object, shape: tuple[int, ...], *, train: bool = True, dtype: type = np.float32) -> DataTransformer:
    return DataTransformer(
        param, shape, train=train, dtype=dtype, error=lambda message, *field: DefinitionError(message)
    )


def naive(
    image: np.ndarray, top: int, left: int, size: tuple[int, int], flip: bool, mean: np.ndarray, scale: float
) -> np.ndarray:
    out = np.empty((len(image), *size))
    for c in range(out.shape[0]):
        for y in range(size[0]):
            for x in range(size[1]):
                m = mean[c, top + y, left + x]
                out[c, y, size[1] - 1 - x if flip else x] = (float(image[c, top + y, left + x]) - m) * scale
    return out


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    channels=st.integers(1, 4),
    height=st.integers(1, 7),
    width=st.integers(1, 7),
    crop=st.booleans(),
    mirror=st.booleans(),
    train=st.booleans(),
    mean=st.sampled_from(["none", "one", "channels"]),
    floats=st.booleans(),
)
def test_transformer_computes_its_formula(seed, channels, height, width, crop, mirror, train, mean, floats) -> None:
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (3, channels, height, width)).astype(np.float32 if floats else np.uint8)
    size = int(random.integers(1, min(height, width) + 1)) if crop else 0
    values = {"none": [], "one": [100.0], "channels": list(range(100, 100 + channels))}[mean]
    param = pb.TransformationParameter(scale=0.25, mirror=mirror, crop_size=size, mean_value=values)
    transform = make(param, images.shape[1:], train=train, dtype=np.float64)
    draws = random.random((3, 5))
    out = np.full((3, *transform.shape), np.nan)
    before = images.copy()
    transform(images, out, draws)
    np.testing.assert_array_equal(images, before)
    full = np.broadcast_to(np.array(values or [0.0]).reshape(-1, 1, 1), (channels, height, width))
    for i in range(3):
        h, w = transform.shape[1:]
        top, left = (height - h) // 2, (width - w) // 2
        if train and size:
            top, left = int(draws[i, 1] * (height - h + 1)), int(draws[i, 2] * (width - w + 1))
        flip = mirror and draws[i, 0] < 0.5
        np.testing.assert_array_equal(out[i], naive(images[i], top, left, (h, w), flip, full, 0.25))


@pytest.mark.parametrize("kind", ["binaryproto", "npy", "npy_of_channels"])
def test_mean_files_of_every_kind_are_taken_off(kind: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    mean = random.random((2, 3, 4)).astype(np.float32)
    path = tmp_path / ("mean.binaryproto" if kind == "binaryproto" else "mean.npy")
    if kind == "binaryproto":
        write_mean(path, mean)
    elif kind == "npy":
        np.save(path, mean[None])
    else:
        mean = np.broadcast_to(mean[:, :1, :1], mean.shape)
        np.save(path, mean[:, 0, 0])
    images = random.integers(0, 256, (5, 2, 3, 4)).astype(np.uint8)
    transform = make(pb.TransformationParameter(mean_file=str(path)), (2, 3, 4))
    out = np.empty((5, 2, 3, 4), np.float32)
    transform(images, out, np.zeros((5, 5)))
    np.testing.assert_array_equal(out, images.astype(np.float32) - mean)


def test_random_says_whether_draws_matter() -> None:
    def random(train: bool, **fields: object) -> bool:
        return make(pb.TransformationParameter(**fields), (1, 8, 8), train=train).random

    assert not random(True, scale=2)
    assert random(True, crop_size=3)
    assert not random(False, crop_size=3)
    assert random(False, mirror=True)
    assert random(True, brightness=1)
    assert random(True, contrast=0.5)
    assert not random(False, brightness=1, contrast=0.5)
    assert not random(True, standardize=True)


def test_images_of_another_size_are_refused_unless_they_are_cropped() -> None:
    out = np.empty((1, 1, 4, 4), np.float32)
    whole = make(pb.TransformationParameter(), (1, 4, 4))
    with pytest.raises(DataError, match="is 1 x 4 x 5, but the first one is 1 x 4 x 4"):
        whole(np.zeros((1, 1, 4, 5), np.uint8), out, np.zeros((1, 5)))
    cropped = make(pb.TransformationParameter(crop_size=4), (1, 6, 6))
    cropped(np.zeros((1, 1, 4, 9), np.uint8), out, np.full((1, 5), 0.999))
    with pytest.raises(DataError, match="smaller than crop_size 4"):
        cropped(np.zeros((1, 1, 3, 9), np.uint8), out, np.zeros((1, 5)))
    with pytest.raises(DataError, match="but the first one is"):
        cropped(np.zeros((1, 2, 6, 6), np.uint8), out, np.zeros((1, 5)))


def test_cropped_image_must_have_the_size_of_a_mean_image(tmp_path: Path) -> None:
    write_mean(tmp_path / "mean", np.zeros((1, 6, 6), np.float32))
    transform = make(pb.TransformationParameter(crop_size=4, mean_file=str(tmp_path / "mean")), (1, 6, 6))
    with pytest.raises(DataError, match="but the mean image 1 x 6 x 6"):
        transform(np.zeros((1, 1, 7, 6), np.uint8), np.empty((1, 1, 4, 4), np.float32), np.zeros((1, 5)))
    with pytest.raises(DefinitionError, match="the mean image is 1 x 6 x 6, but the images are 1 x 5 x 6"):
        make(pb.TransformationParameter(mean_file=str(tmp_path / "mean")), (1, 5, 6))


# -- augmentation ------------------------------------------------------------------------------------------------------


def restated(image: np.ndarray, param: object, draws: np.ndarray, mean: np.ndarray | None, train: bool) -> np.ndarray:
    """One image by the comments of the schema, step after step on whole arrays, float64."""
    x = image.astype(np.float64)
    shape, pad = x.shape, param.pad
    channels = np.zeros(shape[0]) if mean is None else mean.mean(axis=(1, 2))
    mean = np.zeros(shape) if mean is None else np.broadcast_to(mean, shape)
    around = ((0, 0), (pad, pad), (pad, pad))
    x = np.stack([np.pad(plane, around[1:], constant_values=v) for plane, v in zip(x, channels)])
    m = np.stack([np.pad(plane, around[1:], constant_values=v) for plane, v in zip(mean, channels)])
    size = param.crop_size or None
    if size:
        room = np.array(x.shape[1:]) - size
        top, left = np.floor(draws[1:3] * (room + 1)).astype(int) if train else room // 2
        x, m = x[:, top : top + size, left : left + size], m[:, top : top + size, left : left + size]
    if param.mirror and draws[0] < 0.5:
        x, m = x[:, :, ::-1], m[:, :, ::-1]
    if train:
        x = x + (2 * draws[3] - 1) * param.brightness
        level = x.mean(axis=(1, 2), keepdims=True)
        x = (x - level) * (1 + (2 * draws[4] - 1) * param.contrast) + level
    if param.standardize:
        x = (x - x.mean()) / max(x.std(), 1 / np.sqrt(x.size))
    else:
        x = x - m
    return x * param.scale


@settings(deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 2**32 - 1),
    fields=st.fixed_dictionaries(
        {},
        optional={
            "pad": st.integers(0, 3),
            "mirror": st.booleans(),
            "brightness": st.floats(0, 80, width=32),
            "contrast": st.floats(0, 1, width=32),
            "standardize": st.booleans(),
            "scale": st.sampled_from([1.0, 0.25]),
        },
    ),
    mean=st.sampled_from(["none", "value", "file"]),
    train=st.booleans(),
    flat=st.booleans(),
    single=st.booleans(),
)
def test_augmentation_is_what_the_schema_says(tmp_path_factory, seed, fields, mean, train, flat, single) -> None:
    random = np.random.default_rng(seed)
    shape = (int(random.integers(1, 4)), int(random.integers(4, 8)), int(random.integers(4, 8)))
    images = random.integers(0, 256, (3, *shape)).astype(np.uint8)
    if flat:  # without contrast of its own, which standardize must not divide by
        images[...] = 7
    param = pb.TransformationParameter(**fields)
    if param.pad or random.random() < 0.5:
        param.crop_size = int(random.integers(param.pad + 1, min(shape[1:]) + 2 * param.pad + 1))
    values = None
    if not param.standardize and mean == "value":
        values = np.arange(100, 100 + shape[0], dtype=np.float64).reshape(-1, 1, 1)
        param.mean_value.extend(values.ravel())
    elif not param.standardize and mean == "file":
        values = random.integers(0, 256, shape).astype(np.float64)
        param.mean_file = str(tmp_path_factory.mktemp("mean") / "mean.binaryproto")
        write_mean(param.mean_file, values)
    transform = make(param, shape, train=train, dtype=np.float32 if single else np.float64)
    draws = random.random((3, 5))
    out = np.full((3, *transform.shape), np.nan, np.float32 if single else np.float64)
    before = images.copy()
    transform(images, out, draws)
    np.testing.assert_array_equal(images, before)
    expected = np.stack([restated(*pair, values, train) for pair in [(images[i], param, draws[i]) for i in range(3)]])
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-3 if single else 1e-10)


def test_padded_crop_in_test_is_the_image_itself() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8)).astype(np.uint8)
    param = pb.TransformationParameter(pad=4, crop_size=8, brightness=50, contrast=0.5, mean_value=[9])
    out = np.empty((2, 3, 8, 8), np.float32)
    make(param, (3, 8, 8), train=False)(images, out, np.full((2, 5), 0.9))
    np.testing.assert_array_equal(out, images.astype(np.float32) - 9)


def test_padding_is_zero_once_the_mean_is_off() -> None:
    images = np.full((1, 1, 4, 4), 200, np.uint8)
    param = pb.TransformationParameter(pad=3, crop_size=4, mean_value=[100])
    out = np.empty((1, 1, 4, 4), np.float32)
    make(param, (1, 4, 4))(images, out, np.zeros((1, 5)))  # the crop at the upper left: one pixel of the image is in it
    expected = np.zeros((4, 4))
    expected[3, 3] = 100
    np.testing.assert_array_equal(out[0, 0], expected)


def test_draws_reach_both_ends_of_brightness_and_contrast() -> None:
    images = np.array([10, 30], np.uint8).reshape(1, 1, 1, 2)
    out = np.empty((1, 1, 1, 2))
    for draw, expected in ((0.0, [-5, 5]), (0.5, [10, 30]), (1.0, [25, 55])):
        brightness = pb.TransformationParameter(brightness=20, contrast=0.5)
        make(brightness, (1, 1, 2), dtype=np.float64)(images, out, np.array([[0.9, 0, 0, draw, draw]]))
        np.testing.assert_allclose(out.ravel(), expected)


def test_draws_of_mirror_and_crop_are_those_without_augmentation() -> None:
    plain = make(pb.TransformationParameter(crop_size=3, mirror=True), (1, 8, 8))
    augmented = make(pb.TransformationParameter(crop_size=3, mirror=True, brightness=1, contrast=0.1), (1, 8, 8))
    first, second = (t.draw(np.random.default_rng(5), 6) for t in (plain, augmented))
    np.testing.assert_array_equal(first[:, :3], second[:, :3])
    assert (first[:, 3:] == 0).all()
    assert len(np.unique(second)) == second.size


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        ({"pad": 2}, "pad", "pad is for crops that are taken at random: give crop_size too"),
        ({"pad": 4, "crop_size": 4}, "pad", "pad must be smaller than crop_size, 4, not 4: a crop would show no image"),
        ({"pad": 9, "crop_size": 10}, "pad", "pad 9 is larger than the images, which are 8 x 8"),
        (
            {"pad": 1, "crop_size": 11},
            "crop_size",
            "crop_size 11 is larger than the images, which are 8 x 8, with pad 1 at each side",
        ),
        ({"brightness": -1}, "brightness", "brightness must be 0 or more, not -1"),
        ({"brightness": float("inf")}, "brightness", "brightness must be 0 or more, not inf"),
        ({"contrast": 1.5}, "contrast", "contrast must be from 0 to 1, not 1.5"),
        ({"contrast": float("nan")}, "contrast", "contrast must be from 0 to 1, not nan"),
        (
            {"standardize": True, "mean_value": [1]},
            "mean_value",
            "standardize takes off each image's own mean: mean_value has no effect beside it",
        ),
        (
            {"standardize": True, "mean_file": "mean"},
            "mean_file",
            "standardize takes off each image's own mean: mean_file has no effect beside it",
        ),
    ],
)
def test_augmentation_that_cannot_be_names_the_field(fields: dict[str, object], field: str, message: str) -> None:
    asked: list[tuple[str, ...]] = []

    def error(text: str, *place: str) -> DefinitionError:
        asked.append(place)
        return DefinitionError(text)

    with pytest.raises(DefinitionError) as raised:
        DataTransformer(pb.TransformationParameter(**fields), (1, 8, 8), train=True, dtype=np.float32, error=error)
    assert raised.value.message == message
    assert asked == [(field,)]
