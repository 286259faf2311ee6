"""sslnet.io: what goes in comes out; the transformer against the same steps written out by hand."""

import io as memory
import resource
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile, features

from sslnet import sslnet_pb2 as pb
from sslnet.errors import DataError, UsageError
from sslnet.pycaffe import io
from sslnet.sources import images


def image(height=6, width=8, seed=0):
    return np.random.default_rng(seed).random((height, width, 3), dtype=np.float32)


def transformer(size=(6, 8)):
    t = io.Transformer({"data": (1, 3, *size)})
    t.set_transpose("data", (2, 0, 1))
    t.set_channel_swap("data", (2, 1, 0))
    t.set_raw_scale("data", 255)
    t.set_mean("data", np.array([10.0, 20.0, 30.0]))
    t.set_input_scale("data", 0.5)
    return t


def test_transformer_does_the_steps_in_caffes_order():
    pixels = image()
    expected = (pixels.transpose(2, 0, 1)[::-1] * 255 - np.array([10, 20, 30]).reshape(3, 1, 1)) * 0.5
    np.testing.assert_allclose(transformer().preprocess("data", pixels), expected, rtol=1e-5)


def test_transformer_deprocess_undoes_preprocess():
    pixels, t = image(), transformer()
    np.testing.assert_allclose(t.deprocess("data", t.preprocess("data", pixels)), pixels, atol=1e-5)


def test_transformer_resizes_to_the_input():
    assert transformer((12, 4)).preprocess("data", image()).shape == (3, 12, 4)


def test_transformer_unknown_input_is_named():
    with pytest.raises(UsageError, match='"dat" is not an input') as caught:
        transformer().set_raw_scale("dat", 1)
    assert "data" in str(caught.value)


def test_resize_keeps_a_linear_ramp_inside():
    ramp = np.tile(np.arange(8, dtype=np.float32)[None, :, None], (4, 1, 1))
    wide = io.resize_image(ramp, (4, 16))
    np.testing.assert_allclose(wide[0, 2:-2, 0], (np.arange(16)[2:-2] + 0.5) / 2 - 0.5, atol=1e-5)


def test_oversample_gives_corners_centre_and_mirrors():
    pixels = image()
    crops = io.oversample([pixels], (4, 4))
    assert crops.shape == (10, 4, 4, 3)
    np.testing.assert_array_equal(crops[0], pixels[:4, :4])
    np.testing.assert_array_equal(crops[4], pixels[1:5, 2:6])
    np.testing.assert_array_equal(crops[5:], crops[:5, :, ::-1])


def test_load_image_gives_rgb_in_unit_range(tmp_path):
    pixels = (image() * 255).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.testing.assert_allclose(io.load_image(tmp_path / "a.png"), pixels / 255, atol=1e-6)
    assert io.load_image(tmp_path / "a.png", color=False).shape == (6, 8, 1)


def test_load_image_of_no_image_says_so(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG but not really")
    with pytest.raises(DataError, match="the image cannot be decoded"):
        io.load_image(tmp_path / "a.png")


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_datum_round_trip(dtype):
    array = (image() * 200).transpose(2, 0, 1).astype(dtype)
    datum = io.array_to_datum(array, label=3)
    assert datum.label == 3
    np.testing.assert_array_equal(io.datum_to_array(datum), array)


def test_blobproto_round_trip():
    array = image()
    np.testing.assert_array_equal(io.blobproto_to_array(io.array_to_blobproto(array)), array)


def test_blobproto_of_the_wrong_size_is_an_error():
    blob = io.array_to_blobproto(image())
    blob.data.pop()
    with pytest.raises(DataError, match="143 values"):
        io.blobproto_to_array(blob)


# -- images that claim more than they hold -----------------------------------------------------------------------------------


def png_of(width: int, height: int) -> bytes:
    """An image of one colour, as small as PNG makes it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + (width + 7) // 8)) for _ in range(height)) + packer.flush()
    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", size + bytes([1, 0, 0, 0, 0])), chunk(b"IDAT", rows), chunk(b"IEND", b"")]
    )


@pytest.mark.parametrize("side", [8200, 10_000, 14_000])  # Pillow says nothing, warns, refuses
def test_images_of_too_many_pixels_are_refused_by_every_reader(side, tmp_path):
    raw = png_of(side, side)
    (tmp_path / "a.png").write_bytes(raw)
    assert len(raw) < 50_000
    message = f"the image has {side} x {side} pixels; at most 67108864 are read"
    for read in (io.load_image, lambda path: images.decode_image(raw), lambda path: images.file_form(raw)):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(DataError, match=message):
            read(tmp_path / "a.png")
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 15  # KiB


def test_images_of_every_format_are_recognised(tmp_path):
    picture = Image.fromarray((image() * 255).astype(np.uint8))
    for form in images.FORMATS:
        picture.save(tmp_path / "a", form)
        assert io.load_image(tmp_path / "a").shape == (6, 8, 3)


@pytest.mark.parametrize("form", ["JPEG2000", "DIB", "PCX", "SGI", "ICO", "TGA"])
def test_a_single_image_may_be_of_more_formats(form, tmp_path):
    if form == "JPEG2000" and not features.check("jpg_2000"):
        pytest.skip("Pillow was built without it")
    pixels = np.full((16, 16, 3), [250, 130, 10], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a", form)
    np.testing.assert_allclose(io.load_image(tmp_path / "a") * 255, pixels, atol=1)
    with pytest.raises(DataError, match="of no format that is read"):
        images.decode_image((tmp_path / "a").read_bytes())


def test_every_format_is_refused_before_too_many_pixels_are_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 255)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: pytest.fail("is decoded"))
    for form in images.MORE_FORMATS:
        if form != "JPEG2000" or features.check("jpg_2000"):
            with open(tmp_path / "a", "wb") as file:
                Image.new("RGB", (16, 16)).save(file, form)
            with pytest.raises(DataError, match="the image has 16 x 16 pixels; at most 255 are read"):
                io.load_image(tmp_path / "a")


@pytest.mark.parametrize("form", ["PNG", "DIB"])
def test_an_icon_is_as_large_as_the_image_in_it(form, tmp_path):
    large = memory.BytesIO()
    if form == "PNG":
        large.write(png_of(9000, 9000))
    else:
        Image.new("1", (9000, 9000)).save(large, form)
    head = bytes([0, 0, 1, 0, 1, 0]) + bytes([16, 16, 0, 0, 1, 0, 1, 0]) + large.tell().to_bytes(4, "little")
    (tmp_path / "a.ico").write_bytes(head + (22).to_bytes(4, "little") + large.getvalue())
    with pytest.raises(DataError, match="the image has 9000 x 9000 pixels"):
        io.load_image(tmp_path / "a.ico")
    (tmp_path / "a.ico").write_bytes(head[:4] + b"\xff\xff" + bytes(16 * 65535))
    with pytest.raises(DataError):
        io.load_image(tmp_path / "a.ico")


def test_shapes_beyond_any_number_are_refused():
    blob = pb.BlobProto()
    blob.shape.dim.extend([1 << 32, 1 << 32])
    with pytest.raises(DataError, match="holds 0 values for shape"):
        io.blobproto_to_array(blob)
    with pytest.raises(DataError, match="holds 4 values"):
        io.datum_to_array(pb.Datum(channels=-1, height=-1, width=4, data=b"abcd"))
