"""sslnet convert-imageset: the records that Caffe's tool makes; bad images named by their line; nothing half-made."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import lmdb
import numpy as np
import pytest
from PIL import Image

from sslnet import cli
from sslnet import sslnet_pb2 as pb
from sslnet.cli import progress
from sslnet.sources import imageset
from sslnet.sources.images import decode_image
from sslnet.sources.lmdb import LmdbSource

GOLDENS = Path(__file__).parent.parent / "goldens" / "data"
LIST = GOLDENS / "img_list.txt"


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def convert(*options: str, root: str = str(GOLDENS), images: str | Path = LIST) -> int:
    return cli.main(["convert-imageset", root, str(images), "db", *options])


def records() -> list[tuple[bytes, bytes]]:
    environment = lmdb.open("db", readonly=True, lock=False)
    with environment.begin() as transaction:
        found = [(bytes(key), bytes(value)) for key, value in transaction.cursor()]
    environment.close()
    return found


def datums() -> list[pb.Datum]:
    return [pb.Datum.FromString(value) for _, value in records()]


def photo(name: str, height: int = 6, width: int = 5, seed: int = 0, **options: object) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(name, **options)


def test_records_have_caffes_keys_labels_and_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    assert convert() == 0
    assert capsys.readouterr().out == "db: 6 images\n"
    found = records()
    assert [key for key, _ in found] == [f"{i:08d}_img{i}.png".encode() for i in range(6)]
    for i, (_, value) in enumerate(found):
        pixels = np.asarray(Image.open(GOLDENS / f"img{i}.png").convert("RGB"))
        planes = pixels[:, :, ::-1].transpose(2, 0, 1)
        expected = pb.Datum(data=planes.tobytes(), label=3 * i, encoded=False)
        expected.channels, expected.height, expected.width = planes.shape
        assert value == expected.SerializeToString()


def test_resized_records_hold_what_caffe_reads_from_the_files() -> None:
    with np.load(GOLDENS / "imagedata_resize.npz") as golden:
        expected = golden["batch0/data"]
    height, width = map(str, expected.shape[2:])
    assert convert("--resize-height", height, "--resize-width", width) == 0
    images = LmdbSource("db").read(np.arange(len(expected)) % 6).images
    np.testing.assert_array_equal(images, expected)


def test_gray_records_have_one_channel() -> None:
    assert convert("--gray") == 0
    for i, datum in enumerate(datums()):
        assert datum.channels == 1
        expected = np.asarray(Image.open(GOLDENS / f"img{i}.png").convert("RGB")) @ [0.299, 0.587, 0.114]
        found = np.frombuffer(datum.data, np.uint8).reshape(datum.height, datum.width)
        assert np.abs(found - expected).max() < 1


def test_encoded_records_are_the_files_themselves() -> None:
    assert convert("--encoded") == 0
    for i, datum in enumerate(datums()):
        assert datum.data == (GOLDENS / f"img{i}.png").read_bytes()
        assert datum.encoded and datum.label == 3 * i
        assert not datum.HasField("channels")


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_encode_type_makes_encoded_records_of_that_format(kind: str) -> None:
    ramps = np.stack([np.full((20, 30), 50), *np.indices((20, 30)) * 8], axis=2).astype(np.uint8)
    Image.fromarray(ramps).save("a.bmp")
    Path("list").write_text("a.bmp 1\n")
    assert convert("--encode-type", kind, root="", images="list") == 0
    (datum,) = datums()
    assert datum.encoded
    with Image.open(io.BytesIO(datum.data)) as image:
        assert image.format == {"png": "PNG", "jpg": "JPEG"}[kind]
    difference = np.abs(decode_image(datum.data)[::-1].transpose(1, 2, 0).astype(int) - ramps)
    assert difference.max() <= {"png": 0, "jpg": 15}[kind]
    assert difference.mean() < 2


@pytest.mark.parametrize("options", [["--gray"], ["--resize-height", "3", "--resize-width", "3"]])
def test_encoded_records_are_made_anew_where_the_file_does_not_fit(options: list[str]) -> None:
    assert convert("--encoded", *options) == 0
    for datum in datums():
        with Image.open(io.BytesIO(datum.data)) as image:
            assert image.format == "PNG"
            assert image.mode == "L" if "--gray" in options else image.size == (3, 3)


def test_turned_photos_are_stored_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter to the right
    photo("a.jpg", 8, 16, exif=exif)
    Path("list").write_text("a.jpg 1\n")
    assert convert("--encoded", root="", images="list") == 0
    (datum,) = datums()
    assert decode_image(datum.data).shape == (3, 16, 8)


def test_shuffle_keeps_every_image_and_depends_on_the_seed() -> None:
    orders = []
    for seed in ("0", "0", "1"):
        assert convert("--shuffle", "--seed", seed) == 0
        orders.append([(key[9:], pb.Datum.FromString(value).label) for key, value in records()])
        assert [key[:9] for key, _ in records()] == [f"{i:08d}_".encode() for i in range(6)]
        shutil.rmtree("db")
    listed = [(name.encode(), int(label)) for name, label in map(str.split, LIST.read_text().splitlines())]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2]) == sorted(listed)
    assert orders[0] != listed


def test_many_images_keep_their_order_over_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imageset, "AHEAD", 3)
    for i in range(20):
        photo(f"{i}.png", 2 + i % 7, 5, seed=i)
    Path("list").write_text("".join(f"{i}.png {i}\n" for i in range(20)))
    assert convert("--threads", "2", root="", images="list") == 0
    assert [datum.label for datum in datums()] == list(range(20))
    assert [datum.height for datum in datums()] == [2 + i % 7 for i in range(20)]


def test_unreadable_image_is_an_error_that_names_its_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    photo("a.png")
    Path("b.png").write_bytes(Path("a.png").read_bytes()[:60])
    Path("list").write_text("a.png 0\n\nb.png 1\nc.png 2\n")
    before = sorted(path.name for path in tmp_path.iterdir())
    assert convert(root="", images="list") == 2
    error = capsys.readouterr().err.splitlines()
    assert error[0].startswith("list:3:1: error: b.png: the image cannot be decoded")
    assert error[1:3] == ["      b.png 1", "      ^^^^^"]
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_bad_images_are_left_out_and_named_with_skip_bad(capsys: pytest.CaptureFixture[str]) -> None:
    photo("a.png")
    Path("b.png").write_bytes(b"no image")
    Path("list").write_text("b.png 1\na.png 0\nc.png 2\n")
    assert convert("--skip-bad", root="", images="list") == 0
    output = capsys.readouterr()
    assert output.out == "db: 1 images, 2 skipped\n"
    lines = output.err.splitlines()
    assert lines[0].startswith("list:1: skipped: b.png: the image cannot be decoded")
    assert lines[1] == "list:3: skipped: c.png cannot be read: No such file or directory"
    assert [key for key, _ in records()] == [b"00000001_a.png"]


def test_nothing_but_bad_images_make_no_database(capsys: pytest.CaptureFixture[str]) -> None:
    Path("list").write_text("b.png 1\n")
    assert convert("--skip-bad", root="", images="list") == 1
    assert "error: none of the 1 images could be read" in capsys.readouterr().err
    assert not Path("db").exists()


def test_check_size_refuses_an_image_of_another_size(capsys: pytest.CaptureFixture[str]) -> None:
    photo("a.png")
    photo("b.png", 7)
    Path("list").write_text("a.png 0\nb.png 1\n")
    assert convert(root="", images="list") == 0
    shutil.rmtree("db")
    assert convert("--check-size", root="", images="list") == 2
    assert "list:2:1: error: b.png is 3 x 7 x 5, but the first one is 3 x 6 x 5" in capsys.readouterr().err


def test_interrupted_conversion_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = imageset._key

    def interrupted(index: int, image: object) -> bytes:
        if index == 4:
            raise KeyboardInterrupt
        return key(index, image)

    monkeypatch.setattr(imageset, "_key", interrupted)
    assert convert() == 130
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().err == "interrupted\n"


def test_existing_database_stays_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert convert() == 0
    before = Path("db/data.mdb").read_bytes()
    assert convert("--gray") == 1
    assert "error: cannot write db: it exists already" in capsys.readouterr().err
    assert Path("db/data.mdb").read_bytes() == before


@pytest.mark.parametrize("seconds", [0, 1000])
def test_progress_is_told_every_thousand_images_and_some_seconds(
    seconds: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SECONDS", seconds)
    photo("a.png", 1, 1)
    Path("list").write_text("a.png 0\n" * 2001)
    assert convert(root="", images="list") == 0
    told = "Processed 1000 images.\nProcessed 2000 images.\n"
    assert capsys.readouterr().err == ("" if seconds else told)


@pytest.mark.parametrize(
    ("line", "options", "message"),
    [
        ("a.png", [], "list:1:1: error: a line must be a file name, a space, and a whole number as label"),
        ("a.png 1", ["--resize-height", "5"], "error: --resize-height and --resize-width belong together"),
        ("a.png 1", ["--resize-height", "-5"], "error: --resize-height must be at least 1"),
        ("a.png 1", ["--resize-height", "99999", "--resize-width", "99999"], "error: images of 99999 x 99999 are too"),
        ("a.png 1", ["--encode-type", "doc"], 'error: --encode-type cannot be "doc"'),
        ("a.gif 1", ["--encoded"], "list:1:1: error: a.gif cannot be read"),
        ("a.dat 1", ["--encoded"], "list:1:1: error: a.dat: the name does not end in an encoding that can be written"),
        ("././" * 130 + "a.png 1", [], "list:1:1: error: the file name has more than 502 bytes"),
    ],
)
def test_bad_input_is_told(
    line: str, options: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    photo("a.png")
    shutil.copy("a.png", "a.dat")
    Path("list").write_text(line + "\n")
    assert convert(*options, root="", images="list") == 2
    assert capsys.readouterr().err.startswith(message)
    assert not Path("db").exists()
