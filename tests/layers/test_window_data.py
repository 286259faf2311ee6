"""WindowData: windows of images that are ramps, so that a pixel tells where it comes from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import DataError, DefinitionError
from sslnet.net.net import Net
from sslnet.sources.mean import write_mean
from sslnet.sources.windows import crop_window, read_windows

HEIGHT, WIDTH = 90, 120
LIST = """\
# 0
ramp.png
3 90 120
4
7 0.9 10 20 29 49
0 0.2 0 0 19 29
3 0.5 60 40 79 69
9 0.4 1 1 5 5
# 1
flat.png
3 90 120
2
0 0.05 30 30 49 59
0 0.3999 40 40 59 69
"""


def ramp() -> np.ndarray:
    """(3, H, W): x, y and 2 y + 10, in blue, green and red."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([x, y, 2 * y + 10]).astype(np.uint8)


def save(path: Path, image: np.ndarray) -> None:
    Image.fromarray(image[::-1].transpose(1, 2, 0)).save(path)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "ramp.png", ramp())
    save(tmp_path / "flat.png", np.full((3, HEIGHT, WIDTH), 200, np.uint8))
    (tmp_path / "list.txt").write_text(LIST)
    return tmp_path


def layer(more: str = "", transform: str = "crop_size: 20", size: int = 8, fraction: str = "0.25") -> str:
    return (
        'layer { name: "w" type: "WindowData" top: "data" top: "label"\n'
        f"  transform_param {{ {transform} }}\n"
        f'  window_data_param {{ source: "list.txt" batch_size: {size} bg_threshold: 0.4 fg_fraction: {fraction} {more} }} }}\n'
    )


def net_of(text: str, seed: int = 1, phase: int = pb.TRAIN) -> Net:
    return Net(prototxt.parse(text, pb.NetParameter, path="net.prototxt"), phase=phase, seed=seed)


def batches(net: Net, count: int) -> list[dict[str, np.ndarray]]:
    return [{name: np.array(value) for name, value in net.forward().items()} for _ in range(count)]


def sampled(first: float, last: float, size: int) -> np.ndarray:
    """Where the centres of `size` pixels lie that cover the pixels first .. last."""
    return first - 0.5 + (np.arange(size) + 0.5) * (last - first + 1) / size


# -- one window ------------------------------------------------------------------------------------------------------


def test_window_of_its_own_size_is_cut_out():
    pixels, top, left = crop_window(ramp(), (10, 20, 29, 39), 20)
    assert (top, left) == (0, 0)
    np.testing.assert_array_equal(pixels, ramp()[:, 20:40, 10:30])


def test_window_is_warped_to_its_size():
    pixels, _, _ = crop_window(ramp(), (10, 20, 49, 39), 20)
    np.testing.assert_allclose(pixels[0, 0], sampled(10, 49, 20), atol=1)
    np.testing.assert_allclose(pixels[1, :, 0], sampled(20, 39, 20), atol=1)


@pytest.mark.parametrize("context", [1, 4, 8])
def test_window_with_context_lies_in_the_middle(context):
    """The window itself fills what the context leaves: its first pixel is `context` pixels from the border."""
    size = 40
    pixels, top, left = crop_window(ramp(), (40, 30, 79, 59), size, context=context)
    assert (top, left, pixels.shape) == (0, 0, (3, size, size))
    inside = size - 2 * context
    expected = 40 + np.arange(-context, inside + context) * (40 / inside)
    np.testing.assert_allclose(pixels[0, 0], expected, atol=2)
    np.testing.assert_allclose(pixels[1, :, 0], 30 + np.arange(-context, inside + context) * (30 / inside), atol=2)


def test_square_window_keeps_proportions():
    pixels, top, left = crop_window(ramp(), (40, 30, 79, 49), 20, square=True)
    assert (top, left) == (0, 0)
    across, down = np.diff(pixels[0, 0].astype(int)), np.diff(pixels[1, :, 0].astype(int))
    assert across.mean() == pytest.approx(2, abs=0.1)
    assert down.mean() == pytest.approx(2, abs=0.1)
    assert float(pixels[1, 9:11, 0].mean()) == pytest.approx(40, abs=1)  # its middle is that of the window


def test_context_beyond_the_image_is_left_out():
    pixels, top, left = crop_window(ramp(), (0, 0, 19, 19), 20, context=5)
    assert (top, left) == (5, 5)  # half of the window's size again at each side; above and left there is nothing
    assert pixels.shape[1:] == (15, 15)
    assert pixels[0, 0, 0] <= 1
    assert pixels[1, 0, 0] <= 1


def test_mirrored_window_is_the_window_turned_round():
    plain, top, left = crop_window(ramp(), (0, 10, 19, 39), 20, context=4)
    turned, turned_top, turned_left = crop_window(ramp(), (0, 10, 19, 39), 20, context=4, mirror=True)
    assert (turned_top, turned_left) == (top, 0)
    assert left + plain.shape[2] == 20
    np.testing.assert_allclose(turned[:, :, ::-1], plain)


@pytest.mark.parametrize("box", [(0, 0, WIDTH, 5), (0, 0, 5, HEIGHT), (-1, 0, 5, 5), (5, 0, 4, 5), (0, 5, 5, 4)])
def test_window_outside_the_image_is_an_error(box):
    with pytest.raises(DataError, match="is not in the image, which is 90 x 120"):
        crop_window(ramp(), box, 10)


def test_window_wholly_outside_is_an_error_with_context_too():
    with pytest.raises(DataError, match="is not in the image"):
        crop_window(ramp(), (500, 500, 520, 520), 10, context=2)


@pytest.mark.parametrize("size", [4, 7, 16])
def test_any_window_near_the_image_fits_into_its_size(size):
    random = np.random.default_rng(0)
    for _ in range(300):
        x1, y1 = random.integers(-3, [WIDTH, HEIGHT])
        box = (int(x1), int(y1), int(x1 + random.integers(0, 60)), int(y1 + random.integers(0, 60)))
        how = {"context": int(random.integers(0, (size + 1) // 2)), "square": bool(random.integers(2))}
        for mirror in (False, True):
            try:
                pixels, top, left = crop_window(ramp(), box, size, mirror=mirror, **how)
            except DataError:
                continue
            assert top >= 0 and left >= 0
            assert top + pixels.shape[1] <= size
            assert left + pixels.shape[2] <= size


# -- batches ---------------------------------------------------------------------------------------------------------


def test_batch_has_its_share_of_objects_after_the_background(folder):
    labels = np.concatenate([batch["label"] for batch in batches(net_of(layer()), 20)]).reshape(20, 8)
    assert not labels[:, :6].any()
    assert set(labels[:, 6:].ravel()) == {3, 7}  # both windows of objects; 9, between the thresholds, is not used


@pytest.mark.parametrize(("fraction", "objects"), [("0", 0), ("0.24", 1), ("1", 8)])
def test_share_of_objects_is_rounded_down(folder, fraction, objects):
    assert np.count_nonzero(batches(net_of(layer(fraction=fraction)), 1)[0]["label"]) == objects


def test_batch_holds_the_pixels_of_its_windows(folder):
    data = np.concatenate(
        [batch["data"] for batch in batches(net_of(layer(fraction="1", transform="crop_size: 20")), 5)]
    )
    corners = {(round(float(image[0, 0, 0])), round(float(image[1, 0, 0]))) for image in data}
    assert corners == {(10, 20), (60, 40)}


def test_every_window_is_drawn_about_as_often(folder):
    data = np.concatenate([batch["data"] for batch in batches(net_of(layer(fraction="0", size=64)), 25)])
    on_ramp = np.mean(data[:, 0, 0, 0] != 200)
    assert 0.28 < on_ramp < 0.39  # one of three windows of background, 1600 draws


def test_mirror_turns_about_half(folder):
    text = layer(transform="crop_size: 20 mirror: true", fraction="1", size=64)
    data = np.concatenate([batch["data"] for batch in batches(net_of(text), 10)])
    turned = np.mean(data[:, 0, 0, 0] > data[:, 0, 0, -1])
    assert 0.4 < turned < 0.6


def test_windows_are_centred_on_the_mean_and_scaled(folder):
    (plain,) = batches(net_of(layer()), 1)
    (changed,) = batches(net_of(layer("scale: 2", "crop_size: 20 mean_value: [1, 2, 3] scale: 0.25")), 1)
    np.testing.assert_allclose(changed["data"], (plain["data"] - np.float32([[[1]], [[2]], [[3]]])) * 0.5)


def test_mean_image_is_cut_to_its_centre(folder):
    mean = np.arange(3 * 24 * 24, dtype=np.float32).reshape(3, 24, 24)
    write_mean("mean.binaryproto", mean)
    (plain,) = batches(net_of(layer()), 1)
    (changed,) = batches(net_of(layer(transform='crop_size: 20 mean_file: "mean.binaryproto"')), 1)
    np.testing.assert_allclose(changed["data"], plain["data"] - mean[:, 2:22, 2:22])


def test_what_lies_beyond_the_image_is_zero_whatever_the_mean(folder):
    (folder / "list.txt").write_text("# 0 flat.png 3 90 120 1 0 0 0 0 29 29\n")
    (batch,) = batches(net_of(layer("context_pad: 5", "crop_size: 20 mean_value: 50", size=1, fraction="0")), 1)
    image = batch["data"][0]
    assert (image[:, :5] == 0).all()
    assert (image[:, :, :5] == 0).all()
    assert (image[:, 5:, 5:] == 150).all()


@pytest.mark.parametrize("keep", ["true", "false"])
def test_run_goes_on_where_it_was_saved(folder, keep):
    text = layer(f"cache_images: {keep}", "crop_size: 20 mirror: true")
    net = net_of(text)
    batches(net, 3)
    saved = net.layer_states()
    expected = batches(net, 3)
    resumed = net_of(text)
    resumed.set_layer_states(saved)
    for found, wanted in zip(batches(resumed, 3), expected):
        for name in wanted:
            np.testing.assert_array_equal(found[name], wanted[name])


def test_another_seed_draws_other_windows(folder):
    first, second = (batches(net_of(layer(size=32), seed=seed), 1)[0] for seed in (1, 2))
    assert (first["data"] != second["data"]).any()


def test_images_are_found_beside_the_list_and_under_the_root_folder(folder, monkeypatch):
    (folder / "images").mkdir()
    for name in ("ramp.png", "flat.png"):
        (folder / name).rename(folder / "images" / name)
    monkeypatch.chdir("/")
    text = layer('root_folder: "images/"').replace("list.txt", str(folder / "list.txt"))
    assert batches(net_of(text), 1)[0]["data"].any()


# -- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the list names no images"),
        ("image.png 3 1 1 0", 'an image must begin with "# 0", not "image.png"'),
        ("# 1", "images must be numbered from 0; this is number 0"),
        ("# 0", "the file name of the image is missing: the file ends here"),
        ("# 0\na.png\n3 x 5", 'the height of the image must be a whole number, not "x"'),
        ("# 0\na.png\n1 4 5", "images must have 3 channels, not 1"),
        ("# 0\na.png\n3 4 5\n-1", "the number of windows cannot be -1"),
        ("# 0\na.png\n3 4 5\n99999999999\n1 0.5 1 1 2 2", "a window is missing: the file ends here"),
        ("# 0\na.png\n3 4 5\n1\n1 0.5 1 one 2 2", 'a window must be six numbers, not "one"'),
        ("# 0\na.png\n3 4 5\n1\n1 nan 1 1 2 2", 'a window must be six numbers below 2^24, not "nan"'),
        ("# 0\na.png\n3 4 5\n1\n1 0.5 1e30 1 2 2", 'a window must be six numbers below 2^24, not "1e30"'),
    ],
)
def test_list_that_cannot_be_is_told_with_its_line(tmp_path, text, message):
    path = tmp_path / "list.txt"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_windows(path)
    assert caught.value.message == message
    assert caught.value.path == str(path)
    assert caught.value.line == (len(text.splitlines()) or None)


@pytest.mark.parametrize(
    ("more", "transform", "message"),
    [
        ("", "", "crop_size must be given"),
        ("context_pad: 10", "crop_size: 20", "context_pad 10 at both sides leaves nothing of crop_size 20"),
        ('crop_mode: "round"', "crop_size: 20", 'crop_mode must be "warp" or "square", not "round"'),
        ("", "crop_size: 20 force_gray: true", "force_gray has no effect on windows"),
        ("", 'crop_size: 20 mean_value: 1 mean_file: "m"', "mean_file and mean_value exclude each other"),
        ("", "crop_size: 20 mean_value: 1 mean_value: 2", "there are 2 mean_value"),
        ("mirror: true", "crop_size: 20", "mirror has no effect here"),
        ("crop_size: 20", "", "crop_size has no effect here"),
    ],
)
def test_definition_that_cannot_be_is_told_with_its_place(folder, more, transform, message):
    with pytest.raises(DefinitionError) as caught:
        net_of(layer(more, transform))
    assert message in caught.value.message
    assert caught.value.span is not None
    assert caught.value.layer == "w"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("fg_threshold: 0.95", ""), "no window has an overlap of fg_threshold, 0.95, or more"),
        (("", "0.4 1 1 5 5", "0.4 1 1 5 500"), None),
        (("fg_threshold: 0.2", ""), "a window of an object has class 0, that of background"),
    ],
)
def test_list_without_what_is_asked_for_is_an_error(folder, change, message):
    if message is None:
        assert net_of(layer()).forward()  # a window that is not used may be anywhere
        return
    with pytest.raises(DataError, match=message):
        net_of(layer(change[0]))


def test_window_outside_its_image_names_the_image(folder):
    (folder / "list.txt").write_text("# 0 flat.png 3 90 120 1 0 0 0 0 200 29\n")
    with pytest.raises(DataError, match=r"flat.png: the window 0 0 200 29 is not in the image, which is 90 x 120"):
        net_of(layer(size=1, fraction="0")).forward()


def test_image_that_is_missing_is_named(folder):
    (folder / "flat.png").unlink()
    (folder / "list.txt").write_text("# 0 flat.png 3 90 120 1 0 0 0 0 20 29\n")
    with pytest.raises(DataError, match=r"flat.png: cannot be read: No such file"):
        net_of(layer(size=1, fraction="0")).forward()


def test_image_that_changes_its_size_in_a_run_is_one_error(folder):
    (folder / "list.txt").write_text("# 0 flat.png 3 90 120 1 0 0 0 0 20 29\n")
    net = net_of(layer(size=1, fraction="0"))
    net.forward()
    Image.new("RGB", (60, 60)).save(folder / "flat.png")
    with pytest.raises(DataError, match=r"flat.png: has changed while it was read"):
        for _ in range(8):  # some batches are made ahead
            net.forward()
