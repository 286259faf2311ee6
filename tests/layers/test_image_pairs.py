"""Layers that read images with a class for each pixel, compared with the files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sslnet
from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import SslnetError
from sslnet.net.net import Net
from sslnet.solver.file_check import check_file

SIZES = [(6, 8), (6, 8), (6, 8)]


def write(folder: Path, sizes: list[tuple[int, int]], values: int = 5) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Writes images and label maps, and list.txt; returns them as (3, H, W) B, G, R and (H, W)."""
    random = np.random.default_rng(0)
    images, labels, lines = [], [], []
    for n, size in enumerate(sizes):
        image = random.integers(0, 256, (*size, 3)).astype(np.uint8)
        label = random.integers(0, values, size).astype(np.uint8)
        Image.fromarray(image).save(folder / f"i{n}.png")
        Image.fromarray(label).save(folder / f"l{n}.png")
        images.append(image.transpose(2, 0, 1)[::-1].astype(np.float32))
        labels.append(label.astype(np.float32))
        lines.append(f"i{n}.png l{n}.png")
    (folder / "list.txt").write_text("\n".join(lines) + "\n")
    return images, labels


def make(folder: Path, type_: str, param: str, *, transform: str = "", tops: int = 2, phase: int = pb.TRAIN) -> Net:
    block = "dense_image_data_param" if type_ == "DenseImageData" else "image_data_param"
    names = "".join(f' top: "{name}"' for name in ("data", "label", "size")[:tops])
    text = (
        f'layer {{ name: "d" type: "{type_}"{names} transform_param {{ {transform} }}'
        f' {block} {{ source: "{folder}/list.txt" {param} }} }}'
    )
    return Net(prototxt.parse(text, pb.NetParameter, path=str(folder / "net.prototxt")), phase=phase, seed=4)


def test_images_and_labels_are_those_of_the_list(tmp_path: Path) -> None:
    images, labels = write(tmp_path, SIZES)
    net = make(tmp_path, "DenseImageData", "batch_size: 2", transform="mean_value: 100 scale: 0.5")
    for batch in range(3):
        net.forward()
        for i in range(2):
            n = (2 * batch + i) % 3
            np.testing.assert_allclose(net.blobs["data"].data[i], (images[n] - 100) * 0.5)
            np.testing.assert_array_equal(net.blobs["label"].data[i, 0], labels[n])


@pytest.mark.parametrize("crop", ["crop_height: 3 crop_width: 4 mirror: true", "mirror: true"])
def test_crop_and_mirror_act_on_both_alike(tmp_path: Path, crop: str) -> None:
    images, labels = write(tmp_path, SIZES, values=200)
    net = make(tmp_path, "DenseImageData", f"batch_size: 3 {crop}")
    height, width = (3, 4) if "crop" in crop else SIZES[0]
    seen = set()
    for _ in range(12):
        net.forward()
        for n in range(3):
            found = []
            for top in range(7 - height):
                for left in range(9 - width):
                    for flip in (False, True):
                        part = images[n][:, top : top + height, left : left + width]
                        other = labels[n][top : top + height, left : left + width]
                        part, other = (part[..., ::-1], other[:, ::-1]) if flip else (part, other)
                        if (part == net.blobs["data"].data[n]).all():
                            np.testing.assert_array_equal(net.blobs["label"].data[n, 0], other)
                            found.append((top, left, flip))
            assert len(found) == 1
            seen.add(found[0])
    assert len(seen) > (8 if "crop" in crop else 1)
    centre = make(tmp_path, "DenseImageData", "batch_size: 3 crop_height: 3 crop_width: 4", phase=pb.TEST)
    centre.forward()
    np.testing.assert_array_equal(centre.blobs["label"].data[0, 0], labels[0][1:4, 2:6])


def test_each_image_of_a_batch_of_one_may_have_its_own_size(tmp_path: Path) -> None:
    sizes = [(6, 8), (8, 6), (5, 5)]
    images, labels = write(tmp_path, sizes, values=255)
    net = make(tmp_path, "ImageLabelmapData", "batch_size: 1")
    for n in (0, 1, 2, 0):
        net.forward()
        np.testing.assert_array_equal(net.blobs["data"].data[0], images[n])
        np.testing.assert_array_equal(net.blobs["label"].data[0, 0], labels[n] >= 128)
    state = net.layer_states()
    net.forward()
    last = net.blobs["data"].data.copy()
    net.set_layer_states(state)
    net.forward()
    np.testing.assert_array_equal(net.blobs["data"].data, last)


def test_labels_are_resized_by_the_nearest_pixel(tmp_path: Path) -> None:
    _, labels = write(tmp_path, SIZES)
    net = make(tmp_path, "DenseImageData", "batch_size: 1 new_height: 3 new_width: 4")
    net.forward()
    np.testing.assert_array_equal(net.blobs["label"].data[0, 0], labels[0][::2, ::2])
    assert net.blobs["data"].shape == (1, 3, 3, 4)


def test_images_smaller_than_the_crop_are_padded(tmp_path: Path) -> None:
    images, labels = write(tmp_path, [(6, 8), (3, 9)])
    param = "batch_size: 2 label_type: PIXEL"
    net = make(tmp_path, "ImageSegData", param, transform="crop_size: 7 mean_value: 9", tops=3, phase=pb.TEST)
    net.forward()
    assert net.blobs["size"].data.reshape(2, 2).tolist() == [[6, 7], [3, 7]]
    np.testing.assert_array_equal(net.blobs["data"].data[0, :, :6], images[0][:, :, :7] - 9)
    assert (net.blobs["data"].data[0, :, 6:] == 0).all() and (net.blobs["label"].data[0, 0, 6:] == 255).all()
    np.testing.assert_array_equal(net.blobs["label"].data[1, 0, :3], labels[1][:, 1:8])


@pytest.mark.parametrize(("kind", "value"), [("IMAGE", 3), ("NONE", 7)])
def test_one_class_for_all_pixels_or_none(tmp_path: Path, kind: str, value: int) -> None:
    write(tmp_path, SIZES)
    (tmp_path / "list.txt").write_text("i0.png 3\n")
    net = make(tmp_path, "ImageSegData", f"batch_size: 1 label_type: {kind} ignore_label: 7")
    net.forward()
    assert (net.blobs["label"].data == value).all()


@pytest.mark.parametrize(
    ("lines", "param", "transform", "words"),
    [
        ("i0.png", "", "", "an image file, a blank and a label"),
        ("\n", "", "", "names no images"),
        ("i0.png none.png", "", "", "none.png"),
        ("i0.png l0.png\ni1.png small.png", "", "", "small.png is 2 x 2, its image 6 x 8"),
        ("i0.png l0.png", "new_height: 3", "", "new_width is not"),
        ("i0.png l0.png", "", "rotation: 5", "must stay together"),
        ("i0.png l0.png", "crop_height: 9 crop_width: 9", "", "larger than the images"),
        ("i0.png l0.png", 'mean_file: "x"', "", "mean_file has no effect"),
    ],
)
def test_what_cannot_be_read_is_one_error(tmp_path: Path, lines: str, param: str, transform: str, words: str) -> None:
    write(tmp_path, SIZES)
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / "small.png")
    (tmp_path / "list.txt").write_text(lines + "\n")
    with pytest.raises(SslnetError, match=words):
        make(tmp_path, "DenseImageData", f"batch_size: 2 {param}", transform=transform).forward()


def test_shapes_are_assumed_without_the_files(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(
        'layer { name: "d" type: "DenseImageData" top: "data" top: "label"'
        ' dense_image_data_param { source: "none.txt" batch_size: 4 } }'
    )
    found = check_file(tmp_path / "net.prototxt", {})
    assert found.accepted and found.shapes["TRAIN"] == {"data": (4, 3, 360, 480), "label": (4, 1, 360, 480)}
    assert any("CamVid" in note for note in found.notes)


def test_images_are_resized_by_new_dim_and_bicubic(tmp_path: Path) -> None:
    write(tmp_path, [(6, 9), (9, 6)])
    (tmp_path / "list.txt").write_text("i0.png 1\ni1.png 2\n")
    net = make(tmp_path, "ImageData", "batch_size: 2 new_dim: 4 bicubic: true", transform="crop_size: 4", phase=pb.TEST)
    net.forward()
    from sslnet.sources.resizing import CUBIC, interpolate

    image = np.asarray(Image.open(tmp_path / "i1.png")).transpose(2, 0, 1)[::-1]
    np.testing.assert_array_equal(
        net.blobs["data"].data[1], interpolate(np.ascontiguousarray(image), 6, 4, CUBIC)[:, 1:5]
    )
    with pytest.raises(sslnet.SslnetError, match="bicubic has no effect"):
        make(tmp_path, "ImageData", "batch_size: 2 bicubic: true")
