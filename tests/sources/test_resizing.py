"""Sizes of Caffe's forks: resize_param against OpenCV 4.10, random sizes against their definition."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import DataError, DefinitionError
from sslnet.sources.resizing import apply_resize, fitted_size, interpolate
from sslnet.sources.transformer import DataTransformer

with np.load(Path(__file__).parent.parent / "goldens" / "resizing" / "opencv.npz") as _stored:
    GOLDEN = dict(_stored)


def transform(text: str) -> pb.TransformationParameter:
    layer = prototxt.parse(f"transform_param {{ {text} }}", pb.LayerParameter).message
    return layer.transform_param


def make(text: str, shape: tuple[int, int, int], *, train: bool = True) -> DataTransformer:
    def error(message: str, *field: object) -> DefinitionError:
        return DefinitionError(message)

    return DataTransformer(transform(text), shape, train=train, dtype=np.float32, error=error)


def run(transformer: DataTransformer, image: np.ndarray, seed: int = 0) -> np.ndarray:
    out = np.full((1, *transformer.shape), np.nan, np.float32)
    transformer(image[None], out, transformer.draw(np.random.default_rng(seed), 1))
    return out[0]


@pytest.mark.parametrize("key", [key for key in GOLDEN if key.startswith(("bytes", "float"))])
def test_interpolation_is_that_of_opencv(key: str) -> None:
    kind, index, mode = key.split("/")
    image, wanted = GOLDEN[f"image/{index}"], GOLDEN[key]
    found = interpolate(image if kind == "bytes" else image.astype(np.float32), *wanted.shape[1:], int(mode))
    assert found.dtype == wanted.dtype
    limit = 0 if mode == "3" else 1 if kind == "bytes" else 2e-4
    assert np.abs(found.astype(np.float64) - wanted).max() <= limit


@pytest.mark.parametrize(("mode", "name"), [(1, "CONSTANT"), (2, "MIRRORED"), (3, "REPEAT_NEAREST")])
def test_image_that_fits_is_padded_to_its_middle(mode: int, name: str) -> None:
    text = f"height: 10 width: 10 resize_mode: FIT_LARGE_SIZE_AND_PAD pad_mode: {name} pad_value: 7 pad_value: 8 pad_value: 9"
    param = transform(f"resize_param {{ {text} }}").resize_param[0]
    np.testing.assert_allclose(apply_resize(GOLDEN["wide"], param), GOLDEN[f"padded/{mode}"], atol=1)


def test_image_covers_the_small_size() -> None:
    param = transform("resize_param { height: 10 width: 16 resize_mode: FIT_SMALL_SIZE }").resize_param[0]
    np.testing.assert_allclose(apply_resize(GOLDEN["wide"], param), GOLDEN["covered"], atol=1)


@pytest.mark.parametrize("train", [True, False])
def test_images_of_any_size_become_those_of_resize_param(train: bool) -> None:
    transformer = make("mean_value: 10 scale: 0.5 resize_param { height: 5 width: 7 }", (3, 9, 13), train=train)
    assert transformer.shape == (3, 5, 7)
    for index in (0, 5):
        image = GOLDEN[f"image/{index}"]
        wanted = (interpolate(image, 5, 7, 1).astype(np.float32) - 10) * 0.5
        np.testing.assert_allclose(run(transformer, image), wanted)
    assert transformer.bounds(0, 255) is None


def test_crop_of_another_height_than_width() -> None:
    image = GOLDEN["wide"]
    for fields in ("crop_h: 4 crop_w: 6", "crop_height: 4 crop_width: 6"):
        np.testing.assert_array_equal(run(make(fields, (3, 12, 20), train=False), image), image[:, 4:8, 7:13])
        found = run(make(fields, (3, 12, 20)), image, seed=3)
        places = [(y, x) for y in range(9) for x in range(15) if (image[:, y : y + 4, x : x + 6] == found).all()]
        assert len(places) == 1


def test_shorter_side_gets_a_random_size_and_in_test_the_mean_one() -> None:
    text = "random_resize_param { min_size: 6 max_size: 8 resize_param { interp_mode: CUBIC } } crop_size: 6"
    image = GOLDEN["wide"]
    wanted = interpolate(image, 7, 11, 4)[:, 0:6, 2:8]
    np.testing.assert_array_equal(run(make(text, (3, 12, 20), train=False), image), wanted)
    sizes = [(6, 10), (7, 11), (8, 13)]
    whole = {size: interpolate(image, *size, 4) for size in sizes}
    seen = set()
    for seed in range(30):
        found = run(make(text, (3, 12, 20)), image, seed)
        for size, big in whole.items():
            for y in range(size[0] - 5):
                for x in range(size[1] - 5):
                    if np.array_equal(big[:, y : y + 6, x : x + 6], found):
                        seen.add(size)
    assert seen == set(sizes)


def test_part_of_random_shape_fills_the_crop() -> None:
    text = (
        "random_aspect_ratio_param { min_area_ratio: 0.2 max_area_ratio: 0.5 aspect_ratio_change: 0.75 } crop_size: 4"
    )
    ramp = np.broadcast_to(np.arange(40, dtype=np.uint8), (1, 30, 40)).copy()  # the value of a pixel is its column
    widths = [np.ptp(run(make(text, (1, 30, 40)), ramp, seed)[0, 0]) / 3 * 4 for seed in range(40)]
    # columns of a part: sqrt(area) / change, change from 0.75 to 1 / 0.75, area 240 to 600 pixels
    assert min(widths) >= 10 and max(widths) <= 34 and np.std(widths) > 2
    found = run(make(text, (1, 30, 40), train=False), ramp)
    np.testing.assert_array_equal(found, interpolate(ramp, 4, 5, 1)[:, :, :4])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("resize_param { height: 4 }", "width must be from 1 to"),
        ("resize_param { height: 4 width: 5 resize_mode: FIT_SMALL_SIZE }", "needs crop_size"),
        ("random_resize_param { min_size: 3 }", "needs crop_size"),
        ("crop_size: 4 random_resize_param { min_size: 3 }", "smaller than crop_size"),
        ("crop_size: 4 random_resize_param { min_size: 9 max_size: 5 }", "min_size <= max_size"),
        ("crop_size: 4 random_resize_param { resize_param { height: 4 } }", "height has no effect"),
        ("crop_size: 4 random_aspect_ratio_param { min_area_ratio: 0 }", "min_area_ratio"),
        ("crop_size: 4 random_aspect_ratio_param { aspect_ratio_change: 2 }", "aspect_ratio_change"),
        ("crop_h: 4", "crop_h is given, crop_w is not"),
        ("crop_h: 4 crop_w: 4 crop_size: 4", "exclude another size"),
        ("crop_height: 90 crop_width: 4", "larger than the images"),
        ("resize_param { height: 4 width: 5 } crop_size: 6", "crop_size 6 is larger"),
        ("resize_param { height: 4 width: 5 } resize_shorter: 6 crop_size: 3", "resized twice"),
    ],
)
def test_sizes_without_a_meaning_are_refused(text: str, words: str) -> None:
    with pytest.raises(DefinitionError, match=words):
        make(text, (3, 12, 20))


def test_image_smaller_than_the_crop_after_it_was_resized_is_an_error() -> None:
    transformer = make("crop_size: 8 random_resize_param { }", (3, 12, 20), train=False)
    with pytest.raises(DataError, match="smaller than crop_size 8"):
        run(transformer, np.zeros((3, 3, 9), np.uint8))


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    mode=st.integers(1, 3),
    pad=st.integers(1, 3),
    interpolation=st.integers(1, 5),
    floats=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=120)
def test_any_image_is_resized_to_values_of_its_range(
    height: int, width: int, rows: int, columns: int, mode: int, pad: int, interpolation: int, floats: bool, seed: int
) -> None:
    param = pb.ResizeParameter(height=rows, width=columns, resize_mode=mode, pad_mode=pad, interp_mode=[interpolation])
    image = np.random.default_rng(seed).integers(0, 256, (2, height, width)).astype(np.float32 if floats else np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = apply_resize(image, param)
    assert found.dtype == image.dtype and np.isfinite(found).all()
    if mode == pb.ResizeParameter.FIT_SMALL_SIZE:
        assert found.shape[1:] == fitted_size((height, width), rows, columns, True)
        assert found.shape[1] == rows or found.shape[2] == columns
    else:
        assert found.shape[1:] == (rows, columns)
    if interpolation in (1, 2, 3) and (mode == 1 or pad > 1):
        assert image.min() - 1e-3 <= found.min() and found.max() <= image.max() + 1e-3
