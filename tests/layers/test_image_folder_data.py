"""ImageFolderData: folders and tables of image files, against the pixels that were written to them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import DataError, DefinitionError
from sslnet.net.net import Net
from sslnet.solver.solver import Solver


def pixels(key: int) -> np.ndarray:
    """(6, 8, 3) uint8, R, G, B; different for each key, which is pixel 0, 0."""
    image = np.random.default_rng(key).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    image[0, 0] = key
    return image


def write(path: Path, key: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(key)).save(path)


def make_folder(folder: Path, classes: tuple[str, ...] = ("dog", "cat", "owl"), each: int = 4, first: int = 0) -> None:
    for i, name in enumerate(classes):
        for k in range(each):
            write(folder / name / f"{k}.png", first + i * each + k)


def net_of(folder: Path, param: str, transform: str = "", *, phase: int = pb.TEST, seed: int = 1, tops: int = 2) -> Net:
    names = " ".join(f'top: "{name}"' for name in ("data", "label")[:tops])
    text = (
        f'layer {{ name: "d" type: "ImageFolderData" {names}\n  transform_param {{ {transform} }}\n'
        f"  image_folder_data_param {{ {param} }} }}\n"
    )
    definition = prototxt.parse(text, pb.NetParameter, path=str(folder / "net.prototxt"))
    return Net(definition, phase=phase, seed=seed)


def batch(net: Net) -> tuple[np.ndarray, np.ndarray]:
    out = net.forward()
    return np.array(out["data"]), np.array(out["label"])


def pairs(net: Net) -> set[tuple[int, int]]:
    """(key, label) of the images of one batch, after the pixels were compared."""
    data, labels = batch(net)
    keys = data[:, 0, 0, 0].astype(int)
    for image, key in zip(data, keys):
        np.testing.assert_array_equal(image, pixels(int(key)).transpose(2, 0, 1)[::-1])
    return set(zip(keys.tolist(), labels.astype(int).tolist()))


EXPECTED = {(i * 4 + k, {0: 1, 1: 0, 2: 2}[i]) for i in range(3) for k in range(4)}
"""dog 0-3 is class 1 of the sorted names, cat 4-7 class 0, owl 8-11 class 2."""


def test_folders_are_classes_in_the_order_of_their_names(tmp_path: Path) -> None:
    make_folder(tmp_path / "photos")
    (tmp_path / "photos" / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "photos" / ".hidden").mkdir()
    net = net_of(tmp_path, 'source: "photos" batch_size: 12')
    assert pairs(net) == EXPECTED
    assert net.layers[0].classes == ["cat", "dog", "owl"]  # type: ignore[attr-defined]
    text = "photos: 12 images in phase TEST; 3 classes: 0 cat, 1 dog, 2 owl; other files: 1"
    assert net.layers[0].notes == [text]  # type: ignore[attr-defined]


def test_images_of_folders_in_classes_are_of_the_class(tmp_path: Path) -> None:
    write(tmp_path / "photos" / "a" / "x" / "deep.png", 1)
    write(tmp_path / "photos" / "a" / "top.PNG", 2)
    write(tmp_path / "photos" / "b" / "other.bmp", 3)
    assert pairs(net_of(tmp_path, 'source: "photos" batch_size: 3')) == {(1, 0), (2, 0), (3, 1)}


@pytest.mark.parametrize("split", ["", 'split { train: "train" val: "val" }'])
def test_folders_train_and_val_are_read_by_phase(tmp_path: Path, split: str) -> None:
    make_folder(tmp_path / "photos" / "train")
    make_folder(tmp_path / "photos" / "val", ("owl", "cat"), 2, first=100)
    param = f'source: "photos" batch_size: 12 {split}'
    assert pairs(net_of(tmp_path, param, phase=pb.TRAIN)) == EXPECTED
    assert pairs(net_of(tmp_path, param)) == {(100, 2), (101, 2), (102, 0), (103, 0)}
    if split:
        return
    both = net_of(tmp_path, 'source: "photos" batch_size: 16 split { part: ALL }')
    assert pairs(both) == EXPECTED | {(100, 2), (101, 2), (102, 0), (103, 0)}


def test_share_for_validation_is_of_each_class_and_stays(tmp_path: Path) -> None:
    make_folder(tmp_path / "photos", each=10)
    param = 'source: "photos" batch_size: 30 split { val_share: 0.2 }'
    train, val = pairs(net_of(tmp_path, param, phase=pb.TRAIN)), pairs(net_of(tmp_path, param, seed=8))
    assert [sum(label == c for _, label in val) for c in range(3)] == [2, 2, 2]
    assert not train & val
    assert len(train | val) == 30
    os.rename(tmp_path / "photos", tmp_path / "moved")
    assert pairs(net_of(tmp_path, param.replace("photos", "moved"))) == val
    assert pairs(net_of(tmp_path, param.replace("photos", "moved").replace("0.2", "0.2 seed: 1"))) != val


def test_tables_of_names_and_labels(tmp_path: Path) -> None:
    make_folder(tmp_path / "photos")
    rows = [
        ("photos/dog/0.png", "dog"),
        ("photos/cat/1.png", "cat"),
        ("photos/owl/2.png", "owl"),
        ("photos/cat/0.png", "cat"),
    ]
    for heading in ("", "path,label\n", "\ufefffilename, class\r\n"):
        (tmp_path / "t.csv").write_text(
            heading + "".join(f'"{name}", {label}\n' for name, label in rows), encoding="utf-8"
        )
        net = net_of(tmp_path, 'source: "t.csv" batch_size: 4')
        assert pairs(net) == {(0, 1), (5, 0), (10, 2), (4, 0)}
        assert net.layers[0].classes == ["cat", "dog", "owl"]  # type: ignore[attr-defined]
    (tmp_path / "n.csv").write_text("photos/dog/0.png,7\nphotos/cat/1.png,-1\n")
    assert pairs(net_of(tmp_path, 'source: "n.csv" batch_size: 2')) == {(0, 7), (5, -1)}
    (tmp_path / "classes.txt").write_text("owl\ndog\nwolf\ncat\n")
    net = net_of(tmp_path, 'source: "t.csv" batch_size: 4 classes: "classes.txt"')
    assert pairs(net) == {(0, 1), (5, 3), (10, 0), (4, 3)}


def test_a_file_of_classes_sets_the_labels_of_folders(tmp_path: Path) -> None:
    make_folder(tmp_path / "photos")
    (tmp_path / "classes.txt").write_text("owl\ndog\nwolf\ncat\n")
    found = pairs(net_of(tmp_path, 'source: "photos" batch_size: 12 classes: "classes.txt"'))
    assert found == {(key, {0: 1, 1: 3, 2: 0}[key // 4]) for key in range(12)}
    (tmp_path / "classes.txt").write_text("owl\ndogs\ncat\n")
    with pytest.raises(DataError, match='"dog" is a class that the file of classes does not have') as caught:
        net_of(tmp_path, 'source: "photos" batch_size: 12 classes: "classes.txt"')
    assert "dogs" in str(caught.value)


def test_sizes_and_grey(tmp_path: Path) -> None:
    make_folder(tmp_path / "photos")
    param = 'source: "photos" batch_size: 12'
    assert batch(net_of(tmp_path, param + " new_height: 3 new_width: 5"))[0].shape == (12, 3, 3, 5)
    assert batch(net_of(tmp_path, param + " is_color: false"))[0].shape == (12, 1, 6, 8)
    write(tmp_path / "photos" / "cat" / "9.png", 3)
    Image.fromarray(np.zeros((20, 10, 3), np.uint8)).save(tmp_path / "photos" / "cat" / "8.png")
    with pytest.raises(DataError, match="is 3 x 20 x 10, but the first one is 3 x 6 x 8"):
        net_of(tmp_path, param).forward()
    assert batch(net_of(tmp_path, param, "resize_shorter: 8 crop_size: 8"))[0].shape == (12, 3, 8, 8)


def test_resumed_run_continues_with_the_same_pixels(tmp_path: Path) -> None:
    make_folder(tmp_path / "photos")
    transform = "preset: IMAGENET_TORCH random_resized_crop { } crop_size: 5 mirror: true hue: 0.1 erasing { }"
    param = 'source: "photos" batch_size: 5 shuffle: true'
    first = net_of(tmp_path, param, transform, phase=pb.TRAIN)
    for _ in range(3):
        first.forward()
    state, rest = first.layers[0].state(), [batch(first) for _ in range(3)]
    second = net_of(tmp_path, param, transform, phase=pb.TRAIN)
    second.layers[0].set_state(state)
    for expected in rest:
        for a, b in zip(batch(second), expected):
            np.testing.assert_array_equal(a, b)


def test_damaged_image_stops_the_run_or_is_skipped(tmp_path: Path) -> None:
    make_folder(tmp_path / "photos")
    raw = (tmp_path / "photos" / "dog" / "1.png").read_bytes()
    (tmp_path / "photos" / "dog" / "1.png").write_bytes(raw[: len(raw) // 2])
    net = net_of(tmp_path, 'source: "photos" batch_size: 4')
    net.forward()
    with pytest.raises(DataError, match=r"dog/1.png: the image cannot be decoded"):
        net.forward()
    text = (
        'layer { name: "d" type: "ImageFolderData" top: "data" top: "label"\n'
        f'  image_folder_data_param {{ source: "{tmp_path}/photos" batch_size: 4 }} transform_param {{ scale: 0.01 }} }}\n'
        'layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 3 } }\n'
        'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }\n'
    )
    (tmp_path / "net.prototxt").write_text(text)
    for policy in ("STOP", "SKIP"):
        (tmp_path / "solver.prototxt").write_text(
            f'net: "{tmp_path}/net.prototxt" base_lr: 0.01 lr_policy: "fixed" max_iter: 4 display: 0 on_data_error: {policy}\n'
            f'snapshot_prefix: "{tmp_path}/s" snapshot_after_train: false\n'
        )
        solver = Solver(str(tmp_path / "solver.prototxt"))
        if policy == "STOP":
            with pytest.raises(DataError, match=r"dog/1.png"):
                solver.solve()
        else:
            solver.solve()
            assert solver.iter == 4


def test_folders_and_settings_that_do_not_fit_are_errors(tmp_path: Path) -> None:
    make_folder(tmp_path / "photos")
    make_folder(tmp_path / "gap")
    (tmp_path / "gap" / "zebra").mkdir()
    make_folder(tmp_path / "parts" / "train")
    make_folder(tmp_path / "parts" / "val", ("wolf",))
    (tmp_path / "empty").mkdir()
    write(tmp_path / "flat" / "1.png", 1)
    for name, text in [
        ("a.csv", "one\n"),
        ("b.csv", '"x'),
        ("c.csv", "\n"),
        ("d.txt", "x 1\n"),
        ("e.csv", "gone.png,1\n"),
        ("twice.txt", "a\na\n"),
    ]:
        (tmp_path / name).write_text(text)
    os.mkfifo(tmp_path / "photos" / "cat" / "fifo.png")
    os.mkfifo(tmp_path / "f.csv")
    cases = [
        ('source: "gone"', "gone"),
        ('source: "empty"', "there are no folders of classes in it"),
        ('source: "flat"', "there are no folders of classes in it"),
        ('source: "gap"', 'there are no images in "zebra", which would be a class'),
        ('source: "parts"', '"val/wolf" is a class that "train" does not have'),
        ('source: "a.csv"', "a.csv:1:1: error: a line must be a file name, a comma and a label"),
        ('source: "b.csv"', "line 1 is no line of a table"),
        ('source: "c.csv"', "the table names no images"),
        ('source: "d.txt"', "is neither a folder nor a .csv file"),
        ('source: "e.csv"', "image 1 cannot be read: No such file"),
        ('source: "f.csv"', "it is a FIFO, not a file"),
        ('source: "photos" classes: "twice.txt"', 'class "a" is there twice'),
        ('source: "photos" new_height: 5', "new_height is given, new_width is not"),
        ('source: "photos" split { train: "cat" }', "train is given, val is not"),
        ('source: "photos" split { train: "cat" val: "cats" }', 'there is no folder "cats" in it'),
        ('source: "photos" split { train: "cat" val: "dog" val_share: 0.1 }', "val_share and folders exclude each other"),
        ('source: "photos" split { val_share: 2 }', "val_share must be between 0 and 1"),
        ('source: "photos" split { val_share: 0.01 }', "leaves none for this part"),
        ('source: "photos" split { part: VALIDATION }', "part has no effect: nothing divides the images"),
        ('source: "e.csv" split { train: "a" val: "b" }', "train and val are folders, but the source is a file"),
    ]  # fmt: skip
    for param, message in cases:
        with pytest.raises((DataError, DefinitionError)) as caught:
            net_of(tmp_path, f"{param} batch_size: 6")
        assert message in str(caught.value), param
    with pytest.raises(DataError, match=r"fifo.png: image 5 cannot be read: it is a FIFO, not a file"):
        net_of(tmp_path, 'source: "photos" batch_size: 6').forward()
