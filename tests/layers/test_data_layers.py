"""The layers that bring data in: what Caffe delivers, resume, errors that say where, threads that end."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import DataError, DefinitionError, RunError, ShapeError, UsageError, WeightsError
from sslnet.net.net import Net
from sslnet.output_rule import OutputRule, layers_write, set_output_rule
from sslnet.sources.lmdb import write_lmdb

GOLDENS = Path(__file__).parent.parent / "goldens" / "data"
RANDOM = {"raw_crop5_mirror_train"}
CASES = sorted(path.stem for path in GOLDENS.glob("*.npz") if path.with_suffix(".prototxt").exists())


def net_of(text: str, *, phase: int = pb.TEST, folder: Path = GOLDENS, seed: int = 1, **options) -> Net:
    path = folder / "net.prototxt"
    definition = prototxt.parse(text, pb.NetParameter, path=str(path))
    return Net(definition, phase=phase, seed=seed, **options)


def data_layer(
    source: str, size: int = 7, *, tops: int = 2, transform: str = "", more: str = "", backend: str = "LMDB"
) -> str:
    names = " ".join(f'top: "{name}"' for name in ("data", "label")[:tops])
    return (
        f'layer {{ name: "d" type: "Data" {names}\n  transform_param {{ {transform} }}\n'
        f'  data_param {{ source: "{source}" backend: {backend} batch_size: {size} {more} }} }}\n'
    )


def images_layer(more: str = "", size: int = 4) -> str:
    return (
        'layer { name: "d" type: "ImageData" top: "data" top: "label"\n'
        f'  image_data_param {{ source: "img_list.txt" batch_size: {size} {more} }} }}\n'
    )


def hdf5_layer(size: int = 6, more: str = "", source: str = "h5_list.txt") -> str:
    return (
        'layer { name: "d" type: "HDF5Data" top: "data" top: "label" top: "extra"\n'
        f'  hdf5_data_param {{ source: "{source}" batch_size: {size} {more} }} }}\n'
    )


def batches(net: Net, count: int) -> list[dict[str, np.ndarray]]:
    """The next batches, copied: the arrays themselves are used again."""
    return [{name: np.array(array) for name, array in net.forward().items()} for _ in range(count)]


def assert_equal(found: list[dict[str, np.ndarray]], expected: list[dict[str, np.ndarray]]) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


def datum(image: np.ndarray, label: int | None = 0) -> bytes:
    channels, height, width = image.shape
    record = pb.Datum(channels=channels, height=height, width=width, data=image.astype(np.uint8).tobytes())
    if label is not None:
        record.label = label
    return record.SerializeToString()


def database(path: Path, records: list[bytes]) -> None:
    write_lmdb(path, ((f"{i:08d}".encode(), record) for i, record in enumerate(records)))


# -- what Caffe delivers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [case for case in CASES if case not in RANDOM])
def test_data_layers_deliver_what_caffe_delivers(case: str) -> None:
    net = Net(GOLDENS / f"{case}.prototxt", phase=pb.TEST, seed=1)
    with np.load(GOLDENS / f"{case}.npz") as golden:
        keys = {key.split("/")[0] for key in golden.files}
        for k in range(len(keys)):
            out = net.forward()
            for name, array in out.items():
                np.testing.assert_array_equal(array, golden[f"batch{k}/{name}"])


def crops(image: np.ndarray, size: int) -> dict[bytes, tuple[int, int, bool]]:
    """All crops of an image, mirrored or not, as float32 minus 100."""
    found = {}
    for y in range(image.shape[1] - size + 1):
        for x in range(image.shape[2] - size + 1):
            part = image[:, y : y + size, x : x + size].astype(np.float32) - 100
            found[part.tobytes()] = (y, x, False)
            found[part[:, :, ::-1].tobytes()] = (y, x, True)
    return found


def test_random_crop_and_mirror_draw_from_the_same_crops_as_caffe() -> None:
    with np.load(GOLDENS / "raw.npz") as raw, np.load(GOLDENS / "raw_crop5_mirror_train.npz") as golden:
        images, labels = raw["images"], raw["labels"]
        caffe = np.concatenate([golden["batch0/data"], golden["batch1/data"]])
    net = Net(GOLDENS / "raw_crop5_mirror_train.prototxt", phase=pb.TRAIN, seed=3)
    ours = batches(net, 4)
    drawn = np.concatenate([batch["data"] for batch in ours])
    np.testing.assert_array_equal(np.concatenate([batch["label"] for batch in ours]), labels)
    for i, crop in enumerate(caffe):
        assert crop.tobytes() in crops(images[i], 5)
    places = [crops(images[i], 5)[crop.tobytes()] for i, crop in enumerate(drawn)]
    assert {place[0] for place in places} == {0, 1, 2, 3} == {place[1] for place in places}
    assert 70 < sum(place[2] for place in places) < 130  # of 200; binomial, more than 4 standard deviations


def test_data_goes_on_at_the_beginning_in_the_middle_of_a_batch() -> None:
    with np.load(GOLDENS / "raw.npz") as raw:
        images, labels = raw["images"], raw["labels"]
    net = net_of(data_layer("raw_lmdb", 150))
    places = np.arange(450) % 200
    found = batches(net, 3)
    np.testing.assert_array_equal(np.concatenate([batch["label"] for batch in found]), labels[places])
    np.testing.assert_array_equal(np.concatenate([batch["data"] for batch in found]), images[places])


def test_a_batch_may_be_larger_than_the_database() -> None:
    with np.load(GOLDENS / "raw.npz") as raw:
        labels = raw["labels"]
    assert_equal(
        [{"label": batches(net_of(data_layer("raw_lmdb", 450)), 1)[0]["label"]}],
        [{"label": labels[np.arange(450) % 200]}],
    )


def test_force_gray_and_force_color_decode_to_one_and_three_channels() -> None:
    with np.load(GOLDENS / "encoded_rgb_source.npz") as source:
        rgb = source["rgb"].astype(np.float64)
    gray = batches(net_of(data_layer("encoded_png_lmdb", 20, transform="force_gray: true")), 1)[0]["data"]
    assert gray.shape == (20, 1, 12, 10)
    assert np.abs(gray[:, 0] - rgb @ [0.299, 0.587, 0.114]).max() < 0.51
    color = batches(net_of(data_layer("encoded_png_lmdb", 20, transform="force_color: true")), 1)[0]["data"]
    np.testing.assert_array_equal(color, rgb.transpose(0, 3, 1, 2)[:, ::-1])


def test_crop_of_a_mean_file_is_that_of_the_image() -> None:
    with np.load(GOLDENS / "raw.npz") as raw, np.load(GOLDENS / "raw_mean.npz") as mean:
        images, average = raw["images"], mean["mean"]
    transform = 'mean_file: "raw_mean.binaryproto" crop_size: 6 scale: 0.5'
    found = batches(net_of(data_layer("raw_lmdb", 5, transform=transform)), 1)[0]["data"]
    np.testing.assert_array_equal(found, (images[:5].astype(np.float32) - average)[:, :, 1:7, 1:7] * np.float32(0.5))


def test_builtin_digits_are_there_and_whole() -> None:
    train = batches(net_of(data_layer("digits/train", 1438, backend="BUILTIN", transform="scale: 0.0625")), 1)[0]
    test = batches(net_of(data_layer("digits/test", 359, backend="BUILTIN")), 1)[0]
    assert train["data"].shape == (1438, 1, 8, 8)
    assert train["data"].max() == 1
    assert test["data"].max() == 16
    np.testing.assert_array_equal(np.bincount(test["label"].astype(int)), [27, 21, 34, 52, 34, 28, 31, 43, 47, 42])
    assert train["label"][:4].tolist() == [0, 1, 2, 3]
    assert test["label"][:2].tolist() == [4, 9]  # images 4 and 9 of the set, which begins 0 1 2 3 4 5 6 7 8 9


def test_hdf5_data_goes_through_all_files_across_their_borders() -> None:
    expected = {}
    for name in ("data", "label", "extra"):
        parts = []
        for i in range(3):
            with h5py.File(GOLDENS / f"h{i}.h5") as file:
                parts.append(file[name][...].astype(np.float32))
        expected[name] = np.concatenate(parts)
    found = batches(net_of(hdf5_layer(6)), 7)
    places = np.arange(42) % 20
    for name in expected:
        np.testing.assert_array_equal(np.concatenate([batch[name] for batch in found]), expected[name][places])


def test_hdf5_shuffle_gives_every_row_once_an_epoch_and_keeps_files_together() -> None:
    found = batches(net_of(hdf5_layer(10, "shuffle: true")), 4)
    extra = np.concatenate([batch["extra"] for batch in found])
    everything = np.sort(np.concatenate([batch["extra"] for batch in batches(net_of(hdf5_layer(10)), 2)]))
    np.testing.assert_array_equal(np.sort(extra[:20]), everything)
    np.testing.assert_array_equal(np.sort(extra[20:]), everything)
    assert (extra[:20] != extra[20:]).any()
    sizes = []
    with h5py.File(GOLDENS / "h0.h5") as a, h5py.File(GOLDENS / "h1.h5") as b, h5py.File(GOLDENS / "h2.h5") as c:
        files = [set(file["extra"][...].astype(np.float32).tolist()) for file in (a, b, c)]
    owner = [next(i for i in range(3) if value in files[i]) for value in extra[:20].tolist()]
    sizes = [owner.count(i) for i in dict.fromkeys(owner)]
    assert [len(list(run)) for run in np.split(owner, np.flatnonzero(np.diff(owner)) + 1)] == sizes


def test_image_data_shuffle_gives_every_image_once_an_epoch() -> None:
    labels = np.concatenate([batch["label"] for batch in batches(net_of(images_layer("shuffle: true", 4)), 9)]).reshape(
        6, 6
    )
    for epoch in labels:
        assert sorted(epoch) == [0, 3, 6, 9, 12, 15]
    assert len({tuple(epoch) for epoch in labels}) > 1


def test_image_data_gray_has_one_channel() -> None:
    color = batches(net_of(images_layer()), 1)[0]["data"].astype(np.float64)
    gray = batches(net_of(images_layer("is_color: false")), 1)[0]["data"]
    assert gray.shape == (4, 1, 12, 10)
    assert np.abs(gray[:, 0] - np.einsum("nchw,c->nhw", color, [0.114, 0.587, 0.299])).max() < 0.51


def test_rand_skip_starts_below_it_and_only_there() -> None:
    with np.load(GOLDENS / "raw.npz") as raw:
        labels = raw["labels"]
    starts = set()
    for seed in range(30):
        found = batches(net_of(data_layer("raw_lmdb", 20, more="rand_skip: 5"), seed=seed), 1)[0]["label"]
        starts |= {i for i in range(200) if np.array_equal(labels[(i + np.arange(20)) % 200], found)}
    assert starts == {0, 1, 2, 3, 4}


def test_float64_nets_get_float64_batches() -> None:
    out = net_of(data_layer("raw_lmdb", transform="mean_value: 0.1"), dtype=np.float64).forward()
    with np.load(GOLDENS / "raw.npz") as raw:
        np.testing.assert_array_equal(out["data"], raw["images"][:7] - np.float64(np.float32(0.1)))


@pytest.mark.parametrize(
    ("text", "records", "count"),
    [
        (data_layer("raw_lmdb", 30), 200, 6),
        (data_layer("raw_lmdb", 300), 200, 1),
        (images_layer(), 6, 1),
        (hdf5_layer(), 20, 3),
    ],
    ids=["lmdb", "batch_larger_than_all", "images", "hdf5"],
)
def test_data_layers_tell_how_many_records_and_whole_batches_there_are(text: str, records: int, count: int) -> None:
    layer = net_of(text).layers[0]
    assert (layer.epoch_records(), layer.epoch_batches()) == (records, count)


# -- resume ------------------------------------------------------------------------------------------------------------

RESUMED = {
    "data_random": (data_layer("raw_lmdb", 30, transform="crop_size: 5 mirror: true", more="rand_skip: 50"), pb.TRAIN),
    "data_synchronous": (
        data_layer("raw_lmdb", 30, transform="crop_size: 5 mirror: true", more="prefetch: 0"),
        pb.TRAIN,
    ),
    "data_augmented": (
        data_layer("raw_lmdb", 30, transform="pad: 2 crop_size: 8 mirror: true brightness: 9 contrast: 0.5"),
        pb.TRAIN,
    ),
    "data_encoded": (data_layer("encoded_jpeg_lmdb", 7, transform="mirror: true"), pb.TEST),
    "builtin": (data_layer("digits/train", 100, backend="BUILTIN"), pb.TRAIN),
    "images_shuffled": (images_layer("shuffle: true rand_skip: 3"), pb.TRAIN),
    "hdf5_shuffled": (hdf5_layer(6, "shuffle: true"), pb.TRAIN),
    "dummy": (
        'layer { name: "d" type: "DummyData" top: "data" dummy_data_param { shape { dim: 3 } data_filler { type: "gaussian" } } }',
        pb.TRAIN,
    ),
    "dummy_and_constant": (
        'layer { name: "d" type: "DummyData" top: "c" top: "data" dummy_data_param { shape { dim: 3 }'
        ' data_filler { type: "constant" value: 5 } data_filler { type: "gaussian" } } }',
        pb.TRAIN,
    ),
}


@pytest.mark.parametrize("used", [0, 1, 5])
@pytest.mark.parametrize("case", RESUMED)
def test_resumed_run_gets_the_batches_of_the_uninterrupted_one(case: str, used: int) -> None:
    text, phase = RESUMED[case]
    whole = batches(net_of(text, phase=phase), used + 5)
    first = net_of(text, phase=phase)
    batches(first, used)
    states = first.layer_states()
    second = net_of(text, phase=phase)
    second.set_layer_states(states)
    assert_equal(batches(second, 5), whole[used:])
    first.set_layer_states(states)  # also where batches had been read ahead
    assert_equal(batches(first, 5), whole[used:])


@pytest.mark.parametrize("case", RESUMED)
def test_net_with_another_seed_from_now_on_is_the_net_made_with_it(case: str) -> None:
    text, phase = RESUMED[case]
    net = net_of(text, phase=phase, seed=1)
    batches(net, 2)
    net.reseed(9)
    assert_equal(batches(net, 3), batches(net_of(text, phase=phase, seed=9), 3))


@pytest.mark.parametrize("case", ["data_random", "data_augmented", "images_shuffled", "hdf5_shuffled"])
def test_batches_depend_on_the_seed(case: str) -> None:
    text, phase = RESUMED[case]
    one, other = (batches(net_of(text, phase=phase, seed=seed), 2) for seed in (1, 2))
    assert any(not np.array_equal(a["data"], b["data"]) for a, b in zip(one, other))


def test_damaged_state_is_refused() -> None:
    net = net_of(data_layer("raw_lmdb"))
    for state in (b"{", b"[]", b'{"position": -1, "batch": 0}', b'{"position": "x", "batch": 0}', b"\xff"):
        with pytest.raises(WeightsError):
            net.layers[0].set_state(state)


# -- threads -----------------------------------------------------------------------------------------------------------


def prefetch_threads() -> int:
    return sum(thread.name == "sslnet-prefetch" for thread in threading.enumerate())


def test_prefetch_thread_ends_with_its_net() -> None:
    gc.collect()
    before = prefetch_threads()
    net = net_of(data_layer("raw_lmdb"))
    assert prefetch_threads() == before  # a net that is only looked at starts none
    net.forward()
    assert prefetch_threads() == before + 1
    del net
    gc.collect()
    assert prefetch_threads() == before


def test_two_nets_read_one_database() -> None:
    one, two = net_of(data_layer("raw_lmdb")), net_of(data_layer("raw_lmdb"))
    assert_equal(batches(one, 3), batches(two, 3))


def test_data_goes_on_after_the_program_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    net = net_of(data_layer("raw_lmdb"))
    expected = batches(net_of(data_layer("raw_lmdb")), 3)
    found = batches(net, 1)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("sslnet.sources.prefetch.Prefetcher._take", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        net.forward()
    assert_equal(found + batches(net, 2), expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_data_goes_on_in_a_forked_child() -> None:
    code = """
import os, sys, warnings
import numpy as np
from sslnet import prototxt, sslnet_pb2 as pb
from sslnet.net.net import Net
warnings.simplefilter("ignore")
make = lambda: Net(prototxt.parse(sys.argv[1], pb.NetParameter), phase=pb.TEST, seed=1)
net, other = make(), make()
net.forward()
expected = [np.array(other.forward()["data"]) for _ in range(3)][1:]
child = os.fork()
found = [np.array(net.forward()["data"]) for _ in range(2)]
ok = all(np.array_equal(a, b) for a, b in zip(found, expected))
if child == 0:
    os._exit(0 if ok else 1)
_, status = os.waitpid(child, 0)
sys.exit(0 if ok and status == 0 else 1)
"""
    text = data_layer(str(GOLDENS / "raw_lmdb"))
    assert subprocess.run([sys.executable, "-c", code, text], timeout=100).returncode == 0


def test_program_ends_while_batches_are_read_ahead() -> None:
    code = """
import sys
from sslnet import prototxt, sslnet_pb2 as pb
from sslnet.net.net import Net
net = Net(prototxt.parse(sys.argv[1], pb.NetParameter), phase=pb.TEST, seed=1)
net.forward()
"""
    text = data_layer(str(GOLDENS / "encoded_jpeg_lmdb"), 2000)
    done = subprocess.run([sys.executable, "-c", code, text], timeout=60, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# -- errors ------------------------------------------------------------------------------------------------------------


def message_of(text: str, folder: Path, *, error: type[Exception] = DataError, runs: bool = False) -> str:
    with pytest.raises(error) as caught:
        net = net_of(text, folder=folder)
        if runs:
            batches(net, 40)
    return str(caught.value).replace(str(folder), "DIR")


def test_missing_database_says_where_and_how_to_make_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert message_of(data_layer("examples/mnist/mnist_train_lmdb"), tmp_path) == (
        'DIR/net.prototxt:3:24: error: there is no file "examples/mnist/mnist_train_lmdb"\n'
        '      data_param { source: "examples/mnist/mnist_train_lmdb" backend: LMDB batch_size: 7  } }\n'
        "                           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\n"
        '  layer "d"; `sslnet data mnist --to examples/mnist` makes it'
    )
    assert "`sslnet data cifar10` makes one" in message_of(data_layer("my_cifar_lmdb"), tmp_path)
    assert "looked for" in message_of(data_layer("other_lmdb"), tmp_path)


def test_unknown_builtin_set_names_the_nearest(tmp_path: Path) -> None:
    text = message_of(data_layer("digits/trian", backend="BUILTIN"), tmp_path)
    assert 'no data set "digits/trian" ships with sslnet' in text
    assert 'did you mean "digits/train"?' in text


def test_backend_left_out_for_an_lmdb_is_told() -> None:
    text = message_of(data_layer("raw_lmdb", backend="LEVELDB"), GOLDENS)
    assert "this is an LMDB, and the backend is LEVELDB (which is the default)" in text
    assert "add backend: LMDB" in text


def test_leveldb_without_its_package_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plyvel", None)
    (tmp_path / "db").mkdir()
    assert "pip install plyvel" in message_of(data_layer("db", backend="LEVELDB"), tmp_path)


def test_folder_without_an_lmdb_is_told(tmp_path: Path) -> None:
    (tmp_path / "db").mkdir()
    assert "a folder with an LMDB holds a file data.mdb" in message_of(data_layer("db"), tmp_path)


def test_empty_database_is_told(tmp_path: Path) -> None:
    database(tmp_path / "db", [])
    assert "DIR/db: the database is empty" in message_of(data_layer("db"), tmp_path)


def test_cut_off_database_is_told(tmp_path: Path) -> None:
    shutil.copytree(GOLDENS / "raw_lmdb", tmp_path / "db")
    with open(tmp_path / "db" / "data.mdb", "r+b") as file:
        file.truncate(20000)
    assert "the database is cut off: it has 20000 of 61440 bytes" in message_of(data_layer("db"), tmp_path)
    with open(tmp_path / "db" / "data.mdb", "r+b") as file:
        file.truncate(100)
    assert "is not an LMDB" in message_of(data_layer("db"), tmp_path)


def test_damaged_record_is_told_by_its_number(tmp_path: Path) -> None:
    good = datum(np.arange(12).reshape(1, 3, 4))
    database(tmp_path / "db", [good] * 9 + [good[:-4]])
    assert message_of(data_layer("db", 4), tmp_path, runs=True) == (
        "DIR/net.prototxt:3:24: error: DIR/db: record 9 (18 bytes) is cut off or damaged: it is no Datum\n"
        '      data_param { source: "db" backend: LMDB batch_size: 4  } }\n'
        "                           ^^^^\n"
        '  layer "d"'
    ).replace("18", str(len(good) - 4))


def test_record_of_another_shape_is_told(tmp_path: Path) -> None:
    database(tmp_path / "db", [datum(np.zeros((1, 3, 4)))] * 5 + [datum(np.zeros((1, 4, 3)))])
    assert "DIR/db: record 5: is 1 x 4 x 3, but the first one is 1 x 3 x 4" in message_of(
        data_layer("db", 4), tmp_path, runs=True
    )


def test_records_of_any_size_are_cropped(tmp_path: Path) -> None:
    images = [np.arange(h * w).reshape(1, h, w) for h, w in ((3, 4), (5, 3), (3, 3))]
    database(tmp_path / "db", [datum(image) for image in images])
    out = net_of(data_layer("db", 3, transform="crop_size: 3"), folder=tmp_path).forward()["data"]
    np.testing.assert_array_equal(out[:, 0], [images[0][0, :, :3], images[1][0, 1:4], images[2][0]])
    database(tmp_path / "db2", [datum(np.zeros((1, 3, 4)))] * 5 + [datum(np.zeros((1, 2, 3)))])
    text = message_of(data_layer("db2", 4, transform="crop_size: 3"), tmp_path, runs=True)
    assert "record 5: is 1 x 2 x 3, which is smaller than crop_size 3" in text


def test_missing_labels_are_told_unless_nobody_wants_them(tmp_path: Path) -> None:
    image = np.zeros((1, 3, 4))
    database(tmp_path / "none", [datum(image, None)] * 3)
    database(tmp_path / "some", [datum(image, 5)] * 5 + [datum(image, None)])
    text = message_of(data_layer("none"), tmp_path)
    assert "the records have no labels" in text
    assert 'remove the top "label"' in text
    assert "record 5 has no label" in message_of(data_layer("some"), tmp_path, runs=True)
    net_of(data_layer("none", tops=1), folder=tmp_path).forward()
    net_of(data_layer("some", tops=1), folder=tmp_path).forward()


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        ("crop_size: 9", "crop_size 9 is larger than the images, which are 8 x 8"),
        ("mean_value: 1 mean_value: 2", "there are 2 mean_value, but the images have 3 channels"),
        ('mean_value: 1 mean_file: "raw_mean.binaryproto"', "mean_file and mean_value exclude each other"),
        ('mean_file: "raw.npz"', "raw.npz: is not a mean file"),
        ("force_gray: true", "force_gray acts on encoded records only; these are raw, of 3 channels"),
        ("force_gray: true force_color: true", "force_color and force_gray exclude each other"),
    ],
)
def test_transform_param_that_cannot_be_is_told(transform: str, expected: str) -> None:
    text = message_of(data_layer("raw_lmdb", transform=transform), GOLDENS, error=DefinitionError)
    assert expected in text
    assert "DIR/net.prototxt:2:" in text


def test_missing_mean_file_is_told_at_its_place() -> None:
    text = message_of(data_layer("raw_lmdb", transform='mean_file: "no.binaryproto"'), GOLDENS)
    assert text.startswith('DIR/net.prototxt:2:32: error: there is no file "no.binaryproto"')


def test_fields_without_effect_are_errors() -> None:
    text = message_of(data_layer("raw_lmdb", more="scale: 0.5"), GOLDENS, error=DefinitionError)
    assert "scale has no effect here" in text
    assert "transform_param" in text
    more = "transform_param { scale: 2 } hdf5_data_param { batch_size: 1"
    text = message_of(
        hdf5_layer().replace("hdf5_data_param {", more, 1).replace("batch_size: 6", ""), GOLDENS, error=DefinitionError
    )
    assert "an HDF5Data layer does not transform its data" in text


def test_batch_size_must_be_there() -> None:
    assert "batch_size must be at least 1" in message_of(data_layer("raw_lmdb", 0), GOLDENS, error=DefinitionError)


def test_image_lists_tell_what_is_wrong_with_them(tmp_path: Path) -> None:
    shutil.copy(GOLDENS / "img0.png", tmp_path)
    list_file = tmp_path / "img_list.txt"
    list_file.write_text("img0.png 0\nimg1.png 1\n")
    assert "img1.png: image 2 cannot be read: No such file" in message_of(images_layer(), tmp_path, runs=True)
    list_file.write_text("img0.png 0\nimg0.png one\n")
    assert "img_list.txt:2:10: error: a line must be a file name, a space, and a whole number as label" in message_of(
        images_layer(), tmp_path
    )
    list_file.write_text("img0.png 0\nimg\0.png 1\n")
    assert "image 2 cannot be read: embedded null" in message_of(images_layer(), tmp_path, runs=True)
    list_file.write_text("\n")
    assert "the list names no images" in message_of(images_layer(), tmp_path)
    list_file.write_text("img0.png 0\n")
    text = message_of(images_layer("new_height: 5"), tmp_path, error=DefinitionError)
    assert "new_height is given, new_width is not" in text


def test_images_of_different_sizes_are_told(tmp_path: Path) -> None:
    from PIL import Image

    for i, size in enumerate(((4, 3), (5, 3))):
        Image.new("RGB", size).save(tmp_path / f"{i}.png")
    (tmp_path / "img_list.txt").write_text("0.png 0\n1.png 0\n")
    assert "record 1: is 3 x 3 x 5, but the first one is 3 x 3 x 4" in message_of(images_layer(), tmp_path, runs=True)


def test_hdf5_lists_tell_what_is_wrong_with_them(tmp_path: Path) -> None:
    source = tmp_path / "h5_list.txt"
    source.write_text("no.h5\n")
    assert 'there is no file "no.h5"' in message_of(hdf5_layer(), tmp_path)
    source.write_text("")
    assert "the list names no files" in message_of(hdf5_layer(), tmp_path)
    source.write_text("a.h5 b.h5")
    for name, columns, rows in (("a.h5", 3, 4), ("b.h5", 2, 4)):
        with h5py.File(tmp_path / name, "w") as file:
            file["data"], file["label"], file["extra"] = np.zeros((rows, columns)), np.zeros(rows), np.zeros(rows)
    assert 'b.h5: the rows of "data" are 2, those of DIR/a.h5 are 3' in message_of(hdf5_layer(), tmp_path)
    source.write_text("a.h5")
    assert 'there is no data set "other"' in message_of(hdf5_layer().replace('top: "extra"', 'top: "other"'), tmp_path)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        del file["extra"]
        file["extra"] = np.zeros(5)
    assert '"extra" has 5 rows, "data" has 4' in message_of(hdf5_layer(), tmp_path)
    (tmp_path / "a.h5").write_bytes(b"not hdf5")
    assert "a.h5: cannot be read as HDF5" in message_of(hdf5_layer(), tmp_path)


# -- the layers without files ------------------------------------------------------------------------------------------


def test_dummy_data_fills_constants_once_and_random_numbers_anew() -> None:
    net = net_of(
        'layer { name: "d" type: "DummyData" top: "a" top: "b" dummy_data_param { shape { dim: 4 dim: 2 }'
        ' data_filler { type: "constant" value: 3 } data_filler { type: "uniform" min: 5 max: 6 } } }'
    )
    one, two = batches(net, 2)
    np.testing.assert_array_equal(one["a"], np.full((4, 2), 3))
    assert (one["b"] != two["b"]).all()
    assert min(one["b"].min(), two["b"].min()) >= 5
    net.blobs["a"].data[...] = 7
    np.testing.assert_array_equal(net.forward()["a"], np.full((4, 2), 7))


def test_dummy_data_takes_the_old_fields() -> None:
    text = 'layer { name: "d" type: "DummyData" top: "a" top: "b" dummy_data_param { num: 2 num: 5 channels: 3 height: 4 width: 1 } }'
    out = net_of(text).forward()
    assert (out["a"].shape, out["b"].shape) == ((2, 3, 4, 1), (5, 3, 4, 1))
    assert "height is missing" in message_of(text.replace("height: 4", ""), GOLDENS, error=DefinitionError)
    assert "exclude each other" in message_of(
        text.replace("width: 1", "width: 1 shape { dim: 1 }"), GOLDENS, error=DefinitionError
    )


def test_input_keeps_the_shape_it_is_given() -> None:
    net = net_of('layer { name: "d" type: "Input" top: "a" top: "b" input_param { shape { dim: 4 dim: 2 } } }')
    assert net.blobs["b"].shape == (4, 2)
    net.blobs["a"].reshape(9, 2)
    net.reshape()
    assert net.blobs["a"].shape == (9, 2)
    text = 'layer { name: "d" type: "Input" top: "a" input_param { shape { dim: 4 } shape { dim: 2 } } }'
    assert "there are 2 shapes for 1 tops" in message_of(text, GOLDENS, error=DefinitionError)


MEMORY = (
    'layer { name: "m" type: "MemoryData" top: "data" top: "label" %s'
    " memory_data_param { batch_size: 2 channels: 1 height: 2 width: 3 } }"
)


def test_memory_data_serves_its_rows_over_and_over() -> None:
    net = net_of(MEMORY % "")
    rows, labels = np.arange(24.0).reshape(4, 1, 2, 3), np.array([5, 6, 7, 8])
    with pytest.raises(RunError, match="there is no data"):
        net.forward()
    net.layers[0].set_input_arrays(rows, labels[:, None, None, None])
    found = batches(net, 3)
    np.testing.assert_array_equal(np.concatenate([batch["data"] for batch in found]), rows[[0, 1, 2, 3, 0, 1]])
    np.testing.assert_array_equal(np.concatenate([batch["label"] for batch in found]), labels[[0, 1, 2, 3, 0, 1]])
    state = net.layer_states()
    expected = batches(net, 1)
    net.set_layer_states(state)
    assert_equal(batches(net, 1), expected)
    for data, given in ((rows[:3], labels[:3]), (rows[:, :, :1], labels), (rows, labels[:2]), (rows[:0], labels[:0])):
        with pytest.raises(UsageError):
            net.layers[0].set_input_arrays(data, given)


def test_memory_data_transforms_images_only() -> None:
    net = net_of(MEMORY % "transform_param { scale: 2 mean_value: 1 }")
    rows = np.arange(12, dtype=np.uint8).reshape(2, 1, 2, 3)
    net.layers[0].add_images(rows, [0, 1])
    np.testing.assert_array_equal(net.forward()["data"], (rows - 1.0) * 2)
    with pytest.warns(UserWarning, match="add_images"):
        net.layers[0].set_input_arrays(rows, [0, 1])
    np.testing.assert_array_equal(net.forward()["data"], rows)


OUTPUT = 'layer { name: "o" type: "HDF5Output" bottom: "data" bottom: "label" hdf5_output_param { file_name: "%s" } }'


@pytest.fixture
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_hdf5_output_writes_what_caffe_writes_and_adds_later_rows(working_folder: Path) -> None:
    path = working_folder / "out.h5"
    layer = 'layer { name: "d" type: "HDF5Data" top: "data" top: "label" hdf5_data_param { source: "h5_list.txt" batch_size: 4 } }'
    net = net_of(layer + OUTPUT % "out.h5")
    assert not path.exists()
    net.forward()
    with h5py.File(path) as ours, h5py.File(GOLDENS / "hdf5_output.h5") as golden:
        for name in ("data", "label"):
            assert ours[name].dtype == golden[name].dtype
            np.testing.assert_array_equal(ours[name][...], golden[name][...])
    net.forward()
    with h5py.File(path) as ours, h5py.File(GOLDENS / "h0.h5") as first, h5py.File(GOLDENS / "h1.h5") as second:
        np.testing.assert_array_equal(ours["data"][:, :, :, 0], np.concatenate([first["data"], second["data"][:1]]))


def test_hdf5_output_tells_what_it_cannot_write(working_folder: Path) -> None:
    dummies = 'layer { name: "d" type: "DummyData" top: "data" top: "label" dummy_data_param { shape { dim: 2 } shape { dim: %d } } }'
    net = net_of(dummies % 2 + OUTPUT % (working_folder / "no" / "out.h5"))
    with pytest.raises(RunError, match="cannot write"):
        net.forward()
    with pytest.raises(ShapeError, match="they have 2 and 3"):
        net_of(dummies % 3 + OUTPUT % "out.h5")


DUMMIES = 'layer { name: "d" type: "DummyData" top: "data" top: "label" dummy_data_param { shape { dim: 2 } } }'


@pytest.mark.parametrize("how", ["absolute", "parents", "link", "folder link", "dangling link", "there", "root itself"])
def test_hdf5_output_writes_below_the_working_folder_alone_and_over_nothing(
    how: str, tmp_path: Path, monkeypatch
) -> None:
    work, outside = tmp_path / "work", tmp_path / "outside"
    work.mkdir()
    outside.mkdir()
    victim = outside / "precious.txt"
    victim.write_text("precious")
    monkeypatch.chdir(work)
    (work / "link").symlink_to(victim)
    (work / "folder").symlink_to(outside)
    (work / "dangling").symlink_to(outside / "new.txt")
    (work / "there").write_text("precious")
    names = {
        "absolute": str(outside / "new.h5"), "parents": "../outside/new.h5", "link": "link", "folder link": "folder/new.h5",
        "dangling link": "dangling", "there": "there", "root itself": ".",
    }  # fmt: skip
    net = net_of(DUMMIES + OUTPUT % names[how])
    with pytest.raises(DefinitionError, match="the layer may not write this file") as found:
        net.forward()
    assert found.value.span is not None
    assert found.value.layer == "o"
    assert victim.read_text() == (work / "there").read_text() == "precious"
    assert sorted(path.name for path in outside.iterdir()) == ["precious.txt"]


def test_output_rule_opens_another_folder_and_old_files(working_folder: Path, tmp_path_factory) -> None:
    root = tmp_path_factory.mktemp("root")
    (root / "old.h5").write_text("old")
    net = net_of(DUMMIES + OUTPUT % (root / "new.h5"))
    with layers_write(OutputRule(str(root))):
        net.forward()
        with pytest.raises(DefinitionError, match="already exists"):
            net_of(DUMMIES + OUTPUT % (root / "old.h5")).forward()
    with layers_write(OutputRule(str(root), overwrite=True)):
        net_of(DUMMIES + OUTPUT % (root / "old.h5")).forward()
    with layers_write(OutputRule(writes=False)):
        net_of(DUMMIES + OUTPUT % "none.h5").forward()
    assert not (working_folder / "none.h5").exists()
    for name in ("old.h5", "new.h5"):
        with h5py.File(root / name) as file:
            assert file["data"].shape == (2, 1, 1, 1)


def test_hdf5_output_adds_rows_to_no_file_that_took_the_place_of_its_own(working_folder: Path) -> None:
    net = net_of(DUMMIES + OUTPUT % "out.h5")
    net.forward()
    os.replace("out.h5", "mine.h5")
    shutil.copy("mine.h5", "out.h5")
    before = (working_folder / "out.h5").read_bytes()
    with pytest.raises(RunError, match="another layer or program has replaced it"):
        net.forward()
    assert (working_folder / "out.h5").read_bytes() == before


def test_files_that_this_process_has_made_may_be_replaced(working_folder: Path) -> None:
    first = net_of(DUMMIES + OUTPUT % "out.h5")
    first.forward()
    second = net_of(DUMMIES + OUTPUT % "out.h5")
    second.check_outputs()
    second.forward()
    second.forward()
    with h5py.File("out.h5") as file:
        assert len(file["data"]) == 4
    with pytest.raises(RunError, match="another layer or program has replaced it"):
        first.forward()


def test_output_root_is_that_of_the_call(working_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (working_folder / "sub" / "sub").mkdir(parents=True)
    try:
        set_output_rule("sub")
        monkeypatch.chdir("sub")
        net_of(DUMMIES + OUTPUT % "out.h5").forward()
        assert (working_folder / "sub" / "out.h5").exists()
    finally:
        set_output_rule()


def test_labels_of_any_length_are_read(tmp_path: Path) -> None:
    values = [0, 1, 127, 128, 300, 16383, 16384, 2**31 - 1, -1]
    database(tmp_path / "db", [datum(np.full((1, 2, 2), i), label) for i, label in enumerate(values)])
    out = net_of(data_layer("db", len(values)), folder=tmp_path, dtype=np.float64).forward()
    assert out["label"].tolist() == values
