"""What transform_param has beyond Caffe, against formulas in float64 and against Pillow's own results."""

from __future__ import annotations

import colorsys
import math

import numpy as np
import pytest
from PIL import Image

from sslnet import sslnet_pb2 as pb
from sslnet.errors import DataError, DefinitionError
from sslnet.sources.mean import write_mean
from sslnet.sources.transformer import (
    ALL_DRAWS,
    BASE_DRAWS,
    BOX_PLACE,
    BOX_SIZES,
    ERASE,
    HUE,
    ROTATION,
    SATURATION,
    DataTransformer,
)

RGB, BGR = pb.TransformationParameter.RGB, pb.TransformationParameter.BGR


def make(shape: tuple[int, ...], *, train: bool = True, order: int = BGR, **fields: object) -> DataTransformer:
    return DataTransformer(
        pb.TransformationParameter(**fields), shape, train=train, dtype=np.float64, order=order,
        error=lambda message, *field: DefinitionError(f"{'.'.join(field)}: {message}"),
    )  # fmt: skip


def run(transformer: DataTransformer, images: np.ndarray, draws: np.ndarray | None = None) -> np.ndarray:
    out = np.full((len(images), *transformer.shape), np.nan)
    transformer(images, out, np.full((len(images), ALL_DRAWS), 0.5) if draws is None else draws)
    return out


def photos(count: int = 3, shape: tuple[int, ...] = (3, 9, 13), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape)).astype(np.uint8)


def smooth(height: int, width: int) -> np.ndarray:
    """(3, height, width) uint8: waves, on which interpolation errors are small."""
    y, x = np.mgrid[:height, :width]
    return np.stack([127 + 120 * np.sin(0.2 * x + 0.1 * y + c) for c in range(3)]).astype(np.uint8)


# -- order, mean, std, presets -----------------------------------------------------------------------------------------


def test_std_and_order_of_the_channels() -> None:
    images = photos()
    out = run(make((3, 9, 13), channel_order=RGB, mean_value=[1, 2, 3], std_value=[4, 5, 6], scale=0.5), images)
    mean, std = np.array([1.0, 2, 3])[:, None, None], np.array([4.0, 5, 6])[:, None, None]
    np.testing.assert_allclose(out, (images[:, ::-1].astype(float) - mean) * 0.5 / std, rtol=1e-14)


def test_one_std_is_for_all_channels() -> None:
    images = photos()
    np.testing.assert_allclose(run(make((3, 9, 13), std_value=[8]), images), images / 8, rtol=1e-14)


@pytest.mark.parametrize("order", [BGR, RGB])
def test_preset_of_torch_is_its_formula(order: int) -> None:
    images = photos()
    rgb = images if order == RGB else images[:, ::-1]
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = (rgb / 255 - mean[:, None, None]) / std[:, None, None]
    out = run(make((3, 9, 13), preset=pb.TransformationParameter.IMAGENET_TORCH, order=order), images)
    np.testing.assert_allclose(out, expected, atol=1e-6)


@pytest.mark.parametrize("order", [BGR, RGB])
def test_presets_of_caffe_and_cifar10(order: int) -> None:
    images = photos()
    rgb = (images if order == RGB else images[:, ::-1]).astype(float)
    out = run(make((3, 9, 13), preset=pb.TransformationParameter.IMAGENET_CAFFE, order=order), images)
    np.testing.assert_allclose(out, rgb[:, ::-1] - np.array([104, 117, 123.0])[:, None, None])
    mean, std = np.array([0.4914, 0.4822, 0.4465]), np.array([0.2470, 0.2435, 0.2616])
    out = run(make((3, 9, 13), preset=pb.TransformationParameter.CIFAR10, order=order), images)
    np.testing.assert_allclose(out, (rgb / 255 - mean[:, None, None]) / std[:, None, None], atol=1e-6)


def test_mean_image_is_turned_with_the_stored_images(tmp_path) -> None:
    images, mean = photos(), np.random.default_rng(1).random((3, 9, 13)).astype(np.float32)
    write_mean(tmp_path / "mean.npy", mean)
    out = run(make((3, 9, 13), mean_file=str(tmp_path / "mean.npy"), channel_order=RGB), images)
    np.testing.assert_allclose(out, (images - mean.astype(float))[:, ::-1], rtol=1e-12)


# -- sizes and positions -----------------------------------------------------------------------------------------------


def triangle(size: int, new: int) -> np.ndarray:
    """(new, size): the weights of a bilinear filter that averages where the image shrinks."""
    step = size / new
    width = max(step, 1.0)
    weights = np.array(
        [[max(0.0, 1 - abs((j + 0.5 - (i + 0.5) * step) / width)) for j in range(size)] for i in range(new)]
    )
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("height", "width", "new"), [(40, 60, (20, 30)), (60, 31, (38, 20)), (9, 13, (20, 28))])
def test_resize_of_the_shorter_side_and_centre_crop(height: int, width: int, new: tuple[int, int]) -> None:
    image = photos(1, (3, height, width))
    expected = np.einsum("yh,chw,xw->cyx", triangle(height, new[0]), image[0].astype(float), triangle(width, new[1]))
    top, left = (new[0] - 16) // 2, (new[1] - 16) // 2
    expected = expected[:, top : top + 16, left : left + 16]
    transformer = make((3, height, width), train=False, resize_shorter=20, crop_size=16)
    assert np.abs(run(transformer, image)[0] - expected).max() <= 1.01  # bytes between the two passes
    np.testing.assert_allclose(run(transformer, image.astype(np.float32))[0], expected, atol=1e-3)


def test_resize_is_that_of_pillow() -> None:
    image = photos(1, (3, 40, 60))
    out = run(make((3, 40, 60), train=False, resize_shorter=16, crop_size=16), image)[0]
    picture = Image.fromarray(np.ascontiguousarray(image[0].transpose(1, 2, 0))).resize((24, 16), Image.BILINEAR)
    np.testing.assert_array_equal(out, np.asarray(picture).transpose(2, 0, 1)[:, :, 4:20])


def test_random_resized_crop_shows_the_drawn_part() -> None:
    random = np.random.default_rng(0)
    image = photos(1, (3, 40, 60))
    transformer = make((3, 40, 60), crop_size=16, random_resized_crop={"area_min": 0.1, "area_max": 0.4})
    seen = set()
    for _ in range(30):
        draws = random.random((1, ALL_DRAWS))
        sizes, place = draws[0, BOX_SIZES].reshape(-1, 2), draws[0, BOX_PLACE]
        for a, s in sizes:
            area, ratio = 2400 * (0.1 + a * 0.3), (0.75) ** (1 - s) * (4 / 3) ** s
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if w <= 60 and h <= 40:
                break
        top, left = int(place[0] * (41 - h)), int(place[1] * (61 - w))
        seen.add((top, left, h, w))
        part = image[0, :, top : top + h, left : left + w].astype(float)
        expected = np.einsum("yh,chw,xw->cyx", triangle(h, 16), part, triangle(w, 16))
        assert np.abs(run(transformer, image, draws)[0] - expected).max() <= 1.01
    assert len(seen) == 30


def test_random_resized_crop_of_a_narrow_image_is_the_largest_allowed_part() -> None:
    image = photos(1, (1, 4, 400))
    transformer = make((1, 4, 400), crop_size=8, random_resized_crop={"area_min": 1})
    part = image[0, :, :, 197:202].astype(float)  # 4 x round(4 * 4 / 3), in the middle
    expected = np.einsum("yh,chw,xw->cyx", triangle(4, 8), part, triangle(5, 8))
    assert np.abs(run(transformer, image)[0] - expected).max() <= 1.01


def test_images_of_any_size_are_resized_to_the_crop() -> None:
    transformer = make((3, 40, 60), crop_size=16, random_resized_crop={})
    assert run(transformer, photos(1, (3, 5, 7))).shape == (1, 3, 16, 16)
    transformer = make((3, 40, 60), train=False, crop_size=16, resize_shorter=16)
    assert run(transformer, photos(1, (3, 5, 7))).shape == (1, 3, 16, 16)
    with pytest.raises(DataError, match="is 1 x 5 x 7, but the first one is 3 x 40 x 60"):
        run(transformer, photos(1, (1, 5, 7)))


@pytest.mark.parametrize("angle", [-30.0, 12.5, 90.0])
def test_rotation_is_bilinear_about_the_centre(angle: float) -> None:
    image = smooth(31, 41)
    draws = np.full((1, ALL_DRAWS), 0.5)
    draws[0, ROTATION] = (angle / 180 + 1) / 2
    out = run(make((3, 31, 41), rotation=180, mean_value=[50, 60, 70]), image[None], draws)[0]
    out += np.array([50, 60, 70])[:, None, None]
    turn, checked = math.radians(angle), 0
    for y in range(31):
        for x in range(41):
            dx, dy = x - 20, y - 15
            sx, sy = 20 + dx * math.cos(turn) - dy * math.sin(turn), 15 + dx * math.sin(turn) + dy * math.cos(turn)
            if 1 <= sx <= 39 and 1 <= sy <= 29:
                i, j = min(29, int(sy)), min(39, int(sx))
                p, q = sy - i, sx - j
                f = image.astype(float)
                value = (f[:, i, j] * (1 - q) + f[:, i, j + 1] * q) * (1 - p)
                value += (f[:, i + 1, j] * (1 - q) + f[:, i + 1, j + 1] * q) * p
                assert np.abs(out[:, y, x] - value).max() <= 1.01, (y, x)
                checked += 1
            elif not (-1 <= sx <= 41 and -1 <= sy <= 31):
                np.testing.assert_array_equal(out[:, y, x], [50, 60, 70])
    assert checked > 500


def test_rotation_without_an_angle_changes_nothing() -> None:
    images = photos()
    np.testing.assert_array_equal(run(make((3, 9, 13), rotation=20), images), images)


@pytest.mark.parametrize(
    ("mode", "name"), [(pb.TransformationParameter.REFLECT, "reflect"), (pb.TransformationParameter.EDGE, "edge")]
)
def test_padding_by_the_image_itself(mode: int, name: str, tmp_path) -> None:
    images, mean = photos(shape=(2, 6, 6)), np.random.default_rng(2).random((2, 6, 6)).astype(np.float32)
    write_mean(tmp_path / "mean.npy", mean)
    transformer = make((2, 6, 6), pad=3, crop_size=7, pad_mode=mode, mean_file=str(tmp_path / "mean.npy"))
    draws = np.random.default_rng(3).random((3, ALL_DRAWS))
    padded = np.pad(images.astype(float) - mean.astype(float), [(0, 0), (0, 0), (3, 3), (3, 3)], mode=name)
    for found, image, (top, left) in zip(run(transformer, images, draws), padded, (draws[:, 1:3] * 6).astype(int)):
        np.testing.assert_allclose(found, image[:, top : top + 7, left : left + 7], rtol=1e-12)


# -- colours and erasing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [BGR, RGB])
@pytest.mark.parametrize("turn", [-0.4, 0.1, 0.25])
def test_hue_is_that_of_hsv(order: int, turn: float) -> None:
    image = photos(1)
    draws = np.full((1, ALL_DRAWS), 0.5)
    draws[0, HUE] = (turn / 0.5 + 1) / 2
    out = run(make((3, 9, 13), hue=0.5, order=order), image, draws)[0]
    rgb = image[0] / 255 if order == RGB else image[0, ::-1] / 255
    found = out / 255 if order == RGB else out[::-1] / 255
    for y in range(9):
        for x in range(13):
            h, s, v = colorsys.rgb_to_hsv(*rgb[:, y, x])
            np.testing.assert_allclose(found[:, y, x], colorsys.hsv_to_rgb((h + turn) % 1, s, v), atol=1e-9)


def test_saturation_and_mirror() -> None:
    image = photos(1)
    draws = np.full((1, ALL_DRAWS), 0.5)
    draws[0, SATURATION], draws[0, 0] = 0.9, 0.1
    out = run(make((3, 9, 13), saturation=0.5, mirror=True, mean_value=[10]), image, draws)[0]
    b, g, r = image[0].astype(float)
    grey = 0.114 * b + 0.587 * g + 0.299 * r
    expected = np.stack([grey + (c - grey) * 1.4 for c in (b, g, r)]) - 10
    np.testing.assert_allclose(out, expected[:, :, ::-1], rtol=1e-9)


def test_saturation_of_no_change_keeps_the_image() -> None:
    images = photos()
    np.testing.assert_array_equal(run(make((3, 9, 13), saturation=1, hue=0.5), images), images)


def test_erasing_sets_rectangles_of_the_drawn_sizes_to_zero() -> None:
    random = np.random.default_rng(4)
    images = np.full((400, 2, 30, 40), 100, np.uint8)
    transformer = make((2, 30, 40), mean_value=[10], erasing={"probability": 0.25, "area_min": 0.1, "area_max": 0.2})
    draws = transformer.draw(random, 400)
    erased = 0
    for image, numbers in zip(run(transformer, images, draws), draws):
        zero = image == 0
        assert set(np.unique(image)) <= {0.0, 90.0}
        assert zero.any() == (numbers[ERASE] < 0.25)
        if zero.any():
            erased += 1
            rows, columns = np.flatnonzero(zero[0].any(axis=1)), np.flatnonzero(zero[0].any(axis=0))
            assert zero[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
            assert len(rows) * len(columns) == zero[0].sum()
            assert 0.08 < zero[0].mean() < 0.22
            assert 0.25 < len(columns) / len(rows) < 3.9
    assert 65 < erased < 135  # 100 of 400; more than 4 standard deviations


# -- phases, draws, errors ---------------------------------------------------------------------------------------------


def test_test_phase_has_none_of_the_random_ones() -> None:
    images = photos()
    fields = {"rotation": 20, "hue": 0.2, "saturation": 0.5, "erasing": {}}
    transformer = make((3, 9, 13), train=False, **fields)
    assert not transformer.random
    np.testing.assert_array_equal(run(transformer, images), images)
    cropped = make((3, 9, 13), train=False, crop_size=7, random_resized_crop={})
    np.testing.assert_array_equal(run(cropped, images), images[:, :, 1:8, 3:10])


def test_more_draws_leave_the_earlier_ones() -> None:
    few = make((3, 9, 13), crop_size=5, mirror=True, brightness=3).draw(np.random.default_rng(5), 6)
    more = make((3, 9, 13), crop_size=5, mirror=True, hue=0.1).draw(np.random.default_rng(5), 6)
    assert few.shape == (6, BASE_DRAWS)
    assert more.shape == (6, ALL_DRAWS)
    np.testing.assert_array_equal(few, more[:, :BASE_DRAWS])


@pytest.mark.parametrize("order", [BGR, RGB])
@pytest.mark.parametrize("preset", ["IMAGENET_TORCH", "IMAGENET_CAFFE", "CIFAR10"])
def test_displayed_images_are_the_photos_again(order: int, preset: str) -> None:
    images = photos()
    transformer = make((3, 9, 13), preset=preset, order=order)
    shown = transformer.displayed(run(transformer, images))
    rgb = images if order == RGB else images[:, ::-1]
    np.testing.assert_array_equal(shown, rgb.transpose(0, 2, 3, 1))


def test_what_means_nothing_is_an_error(tmp_path) -> None:
    write_mean(tmp_path / "mean.npy", np.zeros((3, 9, 13), np.float32))
    cases: list[tuple[dict[str, object], str]] = [
        ({"preset": "CIFAR10", "mean_value": [1]}, "mean_value: preset CIFAR10 sets"),
        ({"preset": "CIFAR10", "scale": 0.5}, "scale: preset CIFAR10 sets"),
        ({"preset": "CIFAR10", "standardize": True}, "standardize: preset CIFAR10 sets"),
        ({"std_value": [0]}, "std_value: std_value must be above 0, not 0"),
        ({"std_value": [1, 2]}, "std_value: there are 2 std_value, but the images have 3 channels"),
        ({"std_value": [1], "standardize": True}, "std_value: standardize takes off"),
        ({"pad_mode": "REFLECT"}, "pad_mode: pad_mode has no effect without pad"),
        ({"pad_mode": "REFLECT", "pad": 9, "crop_size": 11}, "pad: pad 9 cannot reflect images of 9 x 13"),
        ({"random_resized_crop": {}}, "random_resized_crop: random_resized_crop needs crop_size"),
        ({"resize_shorter": 20}, "resize_shorter: resize_shorter needs crop_size"),
        ({"resize_shorter": 9000, "crop_size": 5}, "resize_shorter: resize_shorter must be at most 8192"),
        ({"resize_shorter": 20, "crop_size": 24}, "resize_shorter: resize_shorter 20 is smaller than crop_size 24"),
        ({"random_resized_crop": {}, "crop_size": 8, "pad": 2}, "pad: random_resized_crop fills the whole crop"),
        ({"random_resized_crop": {"area_min": 2}, "crop_size": 8}, "random_resized_crop: 0 < area_min <= area_max"),
        ({"random_resized_crop": {"ratio_min": 2}, "crop_size": 8}, "random_resized_crop: 0 < ratio_min <= ratio_max"),
        ({"random_resized_crop": {"area_max": math.nan}, "crop_size": 8}, "random_resized_crop: 0 < area_min"),
        ({"erasing": {"probability": 2}}, "erasing.probability: probability must be from 0 to 1"),
        ({"rotation": 200}, "rotation: rotation must be from 0 to 180"),
        ({"hue": 0.6}, "hue: hue must be from 0 to 0.5"),
        ({"saturation": -1}, "saturation: saturation must be from 0 to 1"),
        ({"resize_shorter": 9, "crop_size": 9, "mean_file": str(tmp_path / "mean.npy")}, "mean_file: a mean image does not"),
    ]  # fmt: skip
    for fields, message in cases:
        with pytest.raises(DefinitionError) as caught:
            make((3, 9, 13), **fields)
        assert message in str(caught.value), fields
    for fields, message in [
        ({"channel_order": RGB}, "channel_order: channel_order is for images of 3 channels; these have 1"),
        ({"preset": "CIFAR10"}, "preset: preset is for images of 3 channels; these have 1"),
        ({"hue": 0.1}, "hue: hue is for images of 3 channels"),
    ]:
        with pytest.raises(DefinitionError) as caught:
            make((1, 9, 13), **fields)
        assert message in str(caught.value), fields
