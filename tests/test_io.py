"""sslnet.io: what goes in comes out; the transformer against the same steps written out by hand."""

import numpy as np
import pytest
from PIL import Image

from sslnet import io
from sslnet.errors import DataError, UsageError


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
    with pytest.raises(DataError, match="cannot read the image"):
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
