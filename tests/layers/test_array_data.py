"""ArrayData: images and labels of .npz and .npy files, against NumPy's own reader."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import DataError, DefinitionError
from sslnet.net.net import Net
from sslnet.sources import npy

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (20, 6, 8, 3)).astype(np.uint8)
LABELS = RANDOM.integers(0, 5, 20)
NCHW = IMAGES.transpose(0, 3, 1, 2).astype(np.float32)


def net_of(folder: Path, param: str, transform: str = "", *, phase: int = pb.TEST, tops: int = 2, seed: int = 1) -> Net:
    names = " ".join(f'top: "{name}"' for name in ("data", "label")[:tops])
    text = (
        f'layer {{ name: "d" type: "ArrayData" {names}\n  transform_param {{ {transform} }}\n'
        f"  array_data_param {{ {param} }} }}\n"
    )
    definition = prototxt.parse(text, pb.NetParameter, path=str(folder / "net.prototxt"))
    return Net(definition, phase=phase, seed=seed)


def batches(net: Net, count: int) -> list[dict[str, np.ndarray]]:
    return [{name: np.array(array) for name, array in net.forward().items()} for _ in range(count)]


def notes(net: Net) -> list[str]:
    return list(net.layers[0].notes)  # type: ignore[attr-defined]


def check_all(net: Net, images: np.ndarray, labels: np.ndarray | None, size: int = 6, count: int = 7) -> None:
    """The net's batches are these rows in their order, over and over."""
    places = np.arange(size * count) % len(images)
    found = batches(net, count)
    np.testing.assert_array_equal(np.concatenate([batch["data"] for batch in found]), images[places])
    if labels is not None:
        np.testing.assert_array_equal(np.concatenate([batch["label"] for batch in found]), labels[places])


# -- files and arrays --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_npz_of_two_arrays_needs_no_names(tmp_path: Path, save, layout: str) -> None:
    images = IMAGES if layout == "NHWC" else np.ascontiguousarray(IMAGES.transpose(0, 3, 1, 2))
    save(tmp_path / "a.npz", photos=images, classes=LABELS)
    net = net_of(tmp_path, 'source: "a.npz" batch_size: 6')
    check_all(net, NCHW, LABELS)
    size = " x ".join(map(str, images.shape))
    text = f'a.npz: images "photos", {size} uint8, read as {layout}; labels "classes" from 0 to 4; channels RGB'
    assert notes(net) == [text]


@pytest.mark.parametrize("dtype", ["uint8", "<f4", ">f4", "f2", "f8", "i4", ">i2", "u2", "bool"])
def test_numbers_of_every_type(tmp_path: Path, dtype: str) -> None:
    images = (IMAGES[..., 0] % 2 if dtype == "bool" else IMAGES[..., 0]).astype(dtype)
    np.save(tmp_path / "a.npy", images)
    net = net_of(tmp_path, 'source: "a.npy" batch_size: 6', tops=1)
    check_all(net, images[:, None].astype(np.float32), None)


def test_npy_with_labels_beside_it(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", IMAGES)
    np.save(tmp_path / "b.npy", LABELS[:, None].astype(np.float64))
    net = net_of(tmp_path, 'source: "a.npy" label_source: "b.npy" batch_size: 6')
    check_all(net, NCHW, LABELS)
    with pytest.raises(DataError, match="there are no labels"):
        net_of(tmp_path, 'source: "a.npy" batch_size: 6')


def test_arrays_are_found_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "mnist.npz", x_train=IMAGES[:12], y_train=LABELS[:12], x_test=IMAGES[12:], y_test=LABELS[12:])
    net = net_of(tmp_path, 'source: "mnist.npz" images: "x_test" labels: "y_test" batch_size: 6')
    check_all(net, NCHW[12:], LABELS[12:])
    with pytest.raises(DataError, match="there are 2 arrays that may be the images") as caught:
        net_of(tmp_path, 'source: "mnist.npz" batch_size: 6')
    assert 'give images: "NAME"; arrays in it: x_train (12 x 6 x 8 x 3), y_train (12)' in str(caught.value)
    with pytest.raises(DataError, match='there is no array "x_tst"') as caught:
        net_of(tmp_path, 'source: "mnist.npz" images: "x_tst" batch_size: 6')
    assert "x_test" in str(caught.value)
    # of the two possible arrays of labels one has as many rows as there are images
    assert net_of(tmp_path, 'source: "mnist.npz" images: "x_test" batch_size: 6').blobs["label"].shape == (6,)


def test_rows_of_numbers_are_taken_as_channels(tmp_path: Path) -> None:
    rows = RANDOM.random((20, 7)).astype(np.float32)
    np.savez(tmp_path / "a.npz", x=rows, y=LABELS)
    check_all(net_of(tmp_path, 'source: "a.npz" batch_size: 6'), rows[:, :, None, None], LABELS)


def test_axes_that_are_not_clear_must_be_given(tmp_path: Path) -> None:
    unclear = IMAGES[:, :3, :4, :3]
    np.save(tmp_path / "a.npy", unclear)
    with pytest.raises(DataError, match="it is not clear which axis has the channels") as caught:
        net_of(tmp_path, 'source: "a.npy" batch_size: 6', tops=1)
    assert "give layout: NCHW or NHWC" in str(caught.value)
    for layout, expected in (("NCHW", unclear), ("NHWC", unclear.transpose(0, 3, 1, 2))):
        net = net_of(tmp_path, f'source: "a.npy" batch_size: 6 layout: {layout}', tops=1)
        check_all(net, expected.astype(np.float32), None)


# -- order, parts, resume ----------------------------------------------------------------------------------------------


def test_shuffling_shows_each_image_once_an_epoch(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=IMAGES, y=np.arange(20))
    found = batches(net_of(tmp_path, 'source: "a.npz" batch_size: 5 shuffle: true'), 8)
    labels = np.concatenate([batch["label"] for batch in found]).astype(int)
    np.testing.assert_array_equal(np.sort(labels[:20]), np.arange(20))
    np.testing.assert_array_equal(np.sort(labels[20:]), np.arange(20))
    assert (labels[:20] != labels[20:]).any()
    np.testing.assert_array_equal(np.concatenate([batch["data"] for batch in found]), NCHW[labels])


def test_parts_share_no_image_and_leave_none(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=IMAGES, y=np.arange(20))
    param = 'source: "a.npz" batch_size: 20 split { val_share: 0.25'
    train, val = (
        set(batches(net_of(tmp_path, param + " }", phase=phase), 1)[0]["label"].astype(int))
        for phase in (pb.TRAIN, pb.TEST)
    )
    assert len(val) == 5
    assert not train & val
    assert train | val == set(range(20))
    again = batches(net_of(tmp_path, param + " part: VALIDATION }", phase=pb.TRAIN, seed=9), 1)[0]["label"]
    assert set(again.astype(int)) == val
    other = batches(net_of(tmp_path, param + " seed: 3 }"), 1)[0]["label"]
    assert set(other.astype(int)) != val
    whole = batches(net_of(tmp_path, param + " part: ALL }"), 1)[0]["label"]
    np.testing.assert_array_equal(whole, np.arange(20))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_resumed_run_continues_with_the_same_pixels(tmp_path: Path, save) -> None:
    save(tmp_path / "a.npz", x=IMAGES, y=LABELS)
    transform = (
        "preset: CIFAR10 random_resized_crop { } crop_size: 5 mirror: true rotation: 20 saturation: 0.3 hue: 0.1 "
        "brightness: 10 contrast: 0.2 erasing { }"
    )
    made = {"phase": pb.TRAIN}
    param = 'source: "a.npz" batch_size: 7 shuffle: true split { val_share: 0.1 }'
    first = net_of(tmp_path, param, transform, **made)
    batches(first, 4)
    state = first.layers[0].state()
    rest = batches(first, 4)
    second = net_of(tmp_path, param, transform, **made)
    batches(second, 1)
    second.layers[0].set_state(state)
    for found, expected in zip(batches(second, 4), rest):
        for name in expected:
            np.testing.assert_array_equal(found[name], expected[name])
    assert len({batch["data"].tobytes() for batch in rest}) == 4


# -- channels and ranges -----------------------------------------------------------------------------------------------


def test_channels_come_in_the_order_of_the_file_or_as_asked(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", IMAGES)
    param = 'source: "a.npy" batch_size: 6'
    check_all(net_of(tmp_path, param, "channel_order: RGB", tops=1), NCHW, None)
    check_all(net_of(tmp_path, param, "channel_order: BGR", tops=1), NCHW[:, ::-1], None)
    check_all(net_of(tmp_path, param + " channel_order: BGR", "channel_order: RGB", tops=1), NCHW[:, ::-1], None)


def test_pixels_up_to_1_become_pixels_up_to_255(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", (IMAGES / 255).astype(np.float32))
    np.save(tmp_path / "b.npy", IMAGES)
    param = 'source: "{}.npy" batch_size: 6 {}'
    net = net_of(tmp_path, param.format("a", "max_value: 1"), "preset: IMAGENET_TORCH", tops=1)
    whole = net_of(tmp_path, param.format("b", ""), "preset: IMAGENET_TORCH", tops=1)
    for found, expected in zip(batches(net, 4), batches(whole, 4)):
        np.testing.assert_allclose(found["data"], expected["data"], atol=1e-5)
    with pytest.raises(
        DefinitionError, match=r"a preset is for pixels from 0 to 255, but those of a.npy run up to 1"
    ) as caught:
        net_of(tmp_path, param.format("a", ""), "preset: IMAGENET_TORCH", tops=1)
    assert "max_value: 1" in str(caught.value)
    assert (
        "mean_value or std_value are larger"
        in notes(net_of(tmp_path, param.format("a", ""), "mean_value: 120", tops=1))[1]
    )
    with pytest.raises(DefinitionError, match="max_value is 1, but there is a value of 255"):
        net_of(tmp_path, param.format("b", "max_value: 1"), tops=1)


# -- files that are damaged or hostile ---------------------------------------------------------------------------------


class Danger:
    """Whoever unpickles it makes a folder."""

    def __reduce__(self):
        return os.mkdir, ("unpickled",)


def test_objects_are_never_unpickled(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "a.npy", np.array([Danger()], object), allow_pickle=True)
    np.savez(tmp_path / "b.npz", x=np.array([Danger()], object), y=LABELS)
    for name in ("a.npy", "b.npz"):
        with pytest.raises(DataError, match="holds Python objects"):
            net_of(tmp_path, f'source: "{name}" batch_size: 6', tops=1)
    assert not (tmp_path / "unpickled").exists()


def test_every_cut_and_every_damaged_byte_is_one_error(tmp_path: Path) -> None:
    small = IMAGES[:3, :2, :2]
    for save, name in ((np.savez, "stored"), (np.savez_compressed, "packed")):
        save(tmp_path / f"{name}.npz", x=small, y=LABELS[:3])
    np.save(tmp_path / "plain.npy", small)
    random = np.random.default_rng(5)
    for path in sorted(tmp_path.glob("*.np?")):
        raw = path.read_bytes()
        target = tmp_path / f"bad{path.suffix}"
        for _ in range(150):
            broken = bytearray(raw)
            if random.random() < 0.5:
                del broken[int(random.integers(len(raw))) :]
            else:
                for _ in range(int(random.integers(1, 4))):
                    broken[int(random.integers(len(raw)))] = int(random.integers(256))
            target.write_bytes(broken)
            try:
                batches(net_of(tmp_path, f'source: "bad{path.suffix}" batch_size: 2', tops=1), 1)
            except DataError as error:
                assert "bad" in str(error)
        target.unlink()


def test_announced_values_must_be_there(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", IMAGES)
    raw = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(raw.replace(b"(20, 6, 8, 3)", b"(99, 6, 8, 3)"))
    with pytest.raises(
        DataError, match="is cut off: 99 x 6 x 8 x 3 values of type uint8 are announced, 14256 bytes, but 2880"
    ):
        net_of(tmp_path, 'source: "a.npy" batch_size: 6', tops=1)


def test_packed_arrays_are_unpacked_within_bounds(tmp_path: Path, monkeypatch) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((1000, 10, 10), np.uint8))
    monkeypatch.setattr(npy, "UNPACKED", 1000)
    monkeypatch.setattr(npy, "RATIO", 2)
    with pytest.raises(DataError, match=r'the compressed array "x" has 100000 bytes; at most [0-9]+ are unpacked'):
        net_of(tmp_path, 'source: "a.npz" batch_size: 6', tops=1)


def test_file_that_changes_ends_the_run(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", IMAGES)
    net = net_of(tmp_path, 'source: "a.npy" batch_size: 6', tops=1)
    net.forward()
    np.save(tmp_path / "a.npy", IMAGES + 1)
    with pytest.raises(DataError, match="has changed while it was read"):
        for _ in range(8):
            net.forward()


def test_other_files_and_settings_are_errors(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", IMAGES)
    np.save(tmp_path / "f.npy", np.asfortranarray(IMAGES))
    np.save(tmp_path / "one.npy", LABELS)
    np.save(tmp_path / "c.npy", IMAGES.astype(np.complex64))
    np.save(tmp_path / "half.npy", LABELS + 0.5)
    np.save(tmp_path / "hot.npy", np.eye(5)[LABELS])
    np.save(tmp_path / "few.npy", LABELS[:19])
    np.save(tmp_path / "none.npy", IMAGES[:0])
    (tmp_path / "text.npy").write_text("a,b")
    (tmp_path / "text.npz").write_text("a,b")
    (tmp_path / "a.txt").write_text("a,b")
    os.mkfifo(tmp_path / "fifo.npy")
    with zipfile.ZipFile(tmp_path / "empty.npz", "w") as file:
        file.writestr("readme.txt", "nothing")
    cases = [
        ('source: "fifo.npy"', "fifo.npy: cannot be read: it is a FIFO, not a file"),
        ('source: "f.npy"', "stored in the order of Fortran"),
        ('source: "one.npy"', "two to four axes are read"),
        ('source: "c.npy"', "holds values of type complex64"),
        ('source: "none.npy"', "there are no images in an array of 0 x 6 x 8 x 3"),
        ('source: "text.npy"', "is not an .npy file"),
        ('source: "text.npz"', "is not an .npz file"),
        ('source: "empty.npz"', "there are no arrays in it"),
        ('source: "a.txt"', "is neither .npz nor .npy by its name"),
        ('source: "gone.npy"', "gone.npy"),
        ('source: "a.npy" images: "x"', "images names an array of an .npz"),
        ('source: "a.npy" label_source: "half.npy"', "half.npy: label 1 is "),
        ('source: "a.npy" label_source: "hot.npy"', "labels must be one whole number per image, not 20 x 5"),
        ('source: "a.npy" label_source: "few.npy"', "there are 20 images, but 19 labels"),
        ('source: "a.npy" labels: "y" label_source: "one.npy"', "labels and label_source exclude each other"),
        ('source: "a.npy" max_value: 0', "max_value must be above 0"),
        ('source: "a.npy" split { val_share: 1 }', "val_share must be between 0 and 1"),
        ('source: "a.npy" split { val_share: 0.001 }', "val_share 0.001 of 20 images leaves none for this part"),
        ('source: "a.npy" split { part: VALIDATION }', "part has no effect without val_share"),
        ('source: "a.npy" split { seed: 2 }', "seed has no effect without val_share"),
        ('source: "a.npy" split { train: "x" }', "train names a folder of ImageFolderData"),
    ]
    for param, message in cases:
        with pytest.raises((DataError, DefinitionError)) as caught:
            net_of(tmp_path, f"{param} batch_size: 6", tops=1)
        assert message in str(caught.value), param
        assert caught.value.layer == "d" or caught.value.span is not None, param
