"""`sslnet data show`: the picture has the images that the layer gives the net, in the right colours; the labels are right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sslnet.cli import main

COLORS = {"blue": (20, 40, 230), "green": (10, 200, 30), "red": (240, 30, 20)}
LAYER = """
layer {{ name: "data" type: "ImageFolderData" top: "data" top: "label"
  image_folder_data_param {{ source: "photos" batch_size: 2 }} transform_param {{ {transform} }} }}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six pictures of 48 x 48, two of each colour, in a folder per colour."""
    monkeypatch.chdir(tmp_path)
    for name, color in COLORS.items():
        (tmp_path / "photos" / name).mkdir(parents=True)
        for k in range(2):
            Image.new("RGB", (48, 48), color).save(tmp_path / "photos" / name / f"{k}.png")
    return tmp_path


@pytest.mark.parametrize(
    "transform",
    ["", "preset: IMAGENET_TORCH", "preset: IMAGENET_CAFFE", "preset: CIFAR10 crop_size: 48 random_resized_crop { }"],
)  # fmt: skip
def test_sheet_shows_the_images_in_their_colours(folder: Path, capsys, transform: str) -> None:
    (folder / "net.prototxt").write_text(LAYER.format(transform=transform))
    assert main(["data", "show", "net.prototxt", "--images", "5", "--write-labels", "names.txt"]) == 0
    out, err = capsys.readouterr()
    assert 'sheet.png: 5 images of layer "data" in phase TRAIN, each 3 x 48 x 48' in out
    assert "photos: 6 images in phase TRAIN; 3 classes: 0 blue, 1 green, 2 red" in err
    assert (folder / "names.txt").read_text() == "blue\ngreen\nred\n"
    sheet = np.asarray(Image.open(folder / "sheet.png"))
    for color, count in zip(COLORS.values(), (2, 2, 1)):
        assert (np.abs(sheet.astype(int) - color).max(axis=2) <= 1).sum() == count * 96 * 96


def test_values_that_the_net_gets_are_told(folder: Path, capsys) -> None:
    np.save(folder / "a.npy", np.repeat(np.array([0, 255], np.uint8), 4 * 5 * 5).reshape(8, 5, 5))
    (folder / "net.prototxt").write_text(
        'layer { name: "x" type: "ArrayData" top: "x" array_data_param { source: "a.npy" batch_size: 8 } '
        "transform_param { mean_value: 127.5 std_value: 127.5 } }"
    )
    assert main(["data", "show", "net.prototxt", "--images", "8", "--phase", "TEST"]) == 0
    assert (
        "values that the net gets: -1 to 1; mean (standard deviation) of the channels: 0 (1)" in capsys.readouterr().out
    )
    sheet = np.asarray(Image.open(folder / "sheet.png"))
    assert (sheet == 0).all(axis=2).sum() >= 4 * 100 * 100 - 4


def test_what_cannot_be_shown_is_an_error(folder: Path, capsys) -> None:
    (folder / "net.prototxt").write_text(LAYER.format(transform=""))
    (folder / "none.prototxt").write_text(
        'layer { name: "x" type: "DummyData" top: "x" dummy_data_param { shape { dim: 1 dim: 2 } } }'
    )
    cases = [
        (["show"], 2, "sslnet data show needs a net"),
        (["show", "none.prototxt"], 2, "no layer of phase TRAIN reads images"),
        (["show", "net.prototxt", "--layer", "dta"], 2, '"dta" is not a layer that reads images'),
        (["show", "net.prototxt", "--images", "0"], 2, "--images must be from 1 to 2000"),
        (["show", "net.prototxt", "--output", "sheet.doc"], 2, "must end in .png"),
        (["list", "--images", "3"], 2, "--images belongs to `sslnet data show NET`"),
        (["mnist", "net.prototxt"], 2, "net.prototxt belongs to `sslnet data show NET`"),
    ]
    for arguments, code, message in cases:
        assert main(["data", *arguments]) == code, arguments
        assert message in capsys.readouterr().err, arguments
    assert not (folder / "sheet.png").exists()
