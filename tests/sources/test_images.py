"""Images: decoding and resizing against independent formulas; damaged files give one error."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sslnet.errors import DataError
from sslnet.sources.images import MAX_PIXELS, decode_image, resize_image

RGB = np.random.default_rng(0).integers(0, 256, (5, 4, 3)).astype(np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "PPM", "TIFF"])
def test_colour_images_become_planes_of_blue_green_red(kind: str) -> None:
    raw = encoded(Image.fromarray(RGB), kind)
    for color in (None, True):
        np.testing.assert_array_equal(decode_image(raw, color), RGB[:, :, ::-1].transpose(2, 0, 1))


def test_grey_of_colour_is_the_weighted_sum() -> None:
    gray = decode_image(encoded(Image.fromarray(RGB)), False)
    assert gray.shape == (1, 5, 4)
    assert np.abs(gray[0] - RGB @ [0.299, 0.587, 0.114]).max() < 0.51


def test_grey_images_have_one_plane_or_three_equal_ones() -> None:
    raw = encoded(Image.fromarray(RGB[:, :, 0]))
    for color, channels in ((None, 1), (False, 1), (True, 3)):
        image = decode_image(raw, color)
        assert image.shape == (channels, 5, 4)
        assert (image == RGB[:, :, 0]).all()


def test_transparency_is_a_fourth_plane_only_where_the_file_decides() -> None:
    rgba = np.dstack([RGB, RGB[:, :, :1]])
    raw = encoded(Image.fromarray(rgba))
    np.testing.assert_array_equal(decode_image(raw, None), rgba[:, :, [2, 1, 0, 3]].transpose(2, 0, 1))
    np.testing.assert_array_equal(decode_image(raw, True), RGB[:, :, ::-1].transpose(2, 0, 1))


def test_palettes_and_two_colour_images_are_expanded() -> None:
    flat = Image.fromarray((RGB[:, :, 0] > 127).astype(np.uint8) * 255)
    np.testing.assert_array_equal(decode_image(encoded(flat.convert("1")), None)[0], np.asarray(flat))
    palette = flat.convert("RGB").quantize(4)
    np.testing.assert_array_equal(
        decode_image(encoded(palette), None), np.asarray(palette.convert("RGB")).transpose(2, 0, 1)[::-1]
    )


def test_sixteen_bits_keep_their_upper_eight_or_are_refused() -> None:
    deep = np.array([[0, 255, 256, 65535]], np.uint16)
    raw = encoded(Image.fromarray(deep))
    assert decode_image(raw, False)[0, 0].tolist() == [0, 0, 1, 255]
    with pytest.raises(DataError, match="more than 8 bits"):
        decode_image(raw, None)


def test_upright_follows_the_exif_orientation() -> None:
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    raw = encoded(Image.fromarray(RGB), "PNG", exif=exif)
    plain = decode_image(raw, True)
    np.testing.assert_array_equal(decode_image(raw, True, upright=True), plain[:, ::-1, ::-1])


def png_of_size(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


def test_an_image_that_claims_to_be_huge_is_refused_before_it_is_read() -> None:
    side = int(MAX_PIXELS**0.5) + 1
    with pytest.raises(DataError, match="at most"):
        decode_image(png_of_size(side, side))


@settings(deadline=None, derandomize=True)
@given(st.data(), st.sampled_from(["PNG", "JPEG", "BMP", "PPM", "TIFF"]), st.sampled_from([None, True, False]))
def test_mutated_images_give_an_image_or_one_error(data, kind: str, color: bool | None) -> None:
    raw = bytearray(encoded(Image.fromarray(RGB), kind))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    del raw[data.draw(st.integers(0, len(raw))) :]
    try:
        image = decode_image(bytes(raw), color, upright=True)
        assert image.dtype == np.uint8
        assert image.ndim == 3
        assert image.shape[0] == {None: image.shape[0], True: 3, False: 1}[color]
    except DataError:
        pass


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_resize_is_bilinear_between_pixel_centres(height, width, new_height, new_width, seed) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (2, height, width)).astype(np.uint8)
    resized = resize_image(image, new_height, new_width)
    assert resized.shape == (2, new_height, new_width)
    for y in range(new_height):
        v = min(max((y + 0.5) * height / new_height - 0.5, 0), height - 1)
        for x in range(new_width):
            u = min(max((x + 0.5) * width / new_width - 0.5, 0), width - 1)
            i, j = int(v), int(u)
            below, beside = min(i + 1, height - 1), min(j + 1, width - 1)
            upper = image[:, i, j] * (1 - (u - j)) + image[:, i, beside] * (u - j)
            lower = image[:, below, j] * (1 - (u - j)) + image[:, below, beside] * (u - j)
            assert np.abs(resized[:, y, x] - (upper * (1 - (v - i)) + lower * (v - i))).max() <= 1


def test_resize_to_the_same_size_changes_nothing(tmp_path: Path) -> None:
    image = decode_image(encoded(Image.fromarray(RGB)))
    np.testing.assert_array_equal(resize_image(image, 5, 4), image)
