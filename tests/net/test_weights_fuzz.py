"""Whatever a file of weights holds: it loads, or one WeightsError says why not, soon and within a bound of memory."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sslnet import cli
from sslnet import sslnet_pb2 as pb
from sslnet.errors import WeightsError
from sslnet.net.integer_weights import packed_blob
from sslnet.net.weights import MOST_LAYERS, read_weights

ROOT = Path(__file__).parents[2]
FORMATS = ROOT / "tests" / "goldens" / "formats"
SLOW = {"max_examples": 300, "deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


def old_net() -> bytes:
    """Layers of 2013 and 2014 with every kind of field that the upgrade looks at."""
    net = pb.NetParameter(name="old", input=["data"], input_dim=[1, 2, 3, 4])
    conv = net.layers.add(name="conv", type=pb.V1LayerParameter.CONVOLUTION, blobs_lr=[1, 2], weight_decay=[1])
    conv.blobs.add(num=2, channels=1, height=2, width=2, data=range(8))
    conv.blobs.add(num=1, channels=1, height=1, width=2, double_data=[1, 2])
    net.layers.add(name="data", type=pb.V1LayerParameter.DATA).data_param.scale = 2
    net.layers.add(layer=pb.V0LayerParameter(name="pad", type="padding", pad=1), bottom=["data"], top=["p"])
    v0 = net.layers.add(layer=pb.V0LayerParameter(name="c", type="conv", num_output=3), bottom=["p"], top=["c"])
    v0.layer.blobs.add(num=1, channels=1, height=1, width=3, data=[1, 2, 3])
    return net.SerializeToString()


def packed_hdf5(path: Path) -> bytes:
    with h5py.File(path, "w", libver="latest") as file:
        values = np.random.default_rng(0).standard_normal((4, 2, 3, 3)).astype("f4")
        file.create_dataset("data/conv/0", data=values, compression="gzip", shuffle=True, chunks=(2, 2, 3, 3))
        file.create_dataset("data/a/b/0", data=values[0], maxshape=(None, 3, 3), fletcher32=True)
    return path.read_bytes()


def packed_numbers() -> bytes:
    """Weights of a quantised layer: numbers of 4 bits and steps."""
    net = pb.NetParameter(name="numbers")
    numbers = np.random.default_rng(0).integers(-7, 8, (4, 2, 3, 3)).astype(np.float32)
    layer = net.layer.add(name="conv", type="Convolution")
    layer.blobs.append(packed_blob(numbers * np.float32(0.25), 4))
    layer.blobs.add(data=[1, 2, 3, 4]).shape.dim.append(4)
    return net.SerializeToString()


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return {
        "binary": (FORMATS / "tiny_binaryproto_iter_20.caffemodel").read_bytes(),
        "old": old_net(),
        "hdf5": (FORMATS / "tiny_hdf5_iter_20.caffemodel.h5").read_bytes(),
        "numbers": packed_numbers(),
        "packed": packed_hdf5(tmp_path_factory.mktemp("good") / "packed.h5"),
    }


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["byte", "number", "cut", "copy", "put"]),
        st.floats(0, 1, exclude_max=True) | st.floats(0, 0.1),
        st.binary(min_size=1, max_size=9) | st.sampled_from([b"\xff" * 8, b"\0" * 8, b"\1" + b"\0" * 7, b"\x80" * 9]),
    ),
    min_size=1,
    max_size=8,
)


def changed(data: bytes, changes: list[tuple[str, float, bytes]]) -> bytes:
    for kind, place, piece in changes:
        at = int(place * len(data))
        if kind == "byte":
            data = data[:at] + piece[:1] + data[at + 1 :]
        elif kind == "number":
            data = data[:at] + piece + data[at + len(piece) :]
        elif kind == "put":
            data = data[:at] + piece + data[at:]
        elif kind == "copy":
            data = data[:at] + data[at // 2 : at // 2 + 4 * len(piece)] + data[at:]
        elif at > 8:
            data = data[:at]
    return data


def loads_or_says_why(path: Path) -> bool:
    try:
        arrays = read_weights(path)
    except WeightsError as error:
        assert_clear(str(error), path)
        return False
    assert arrays
    assert all(isinstance(array, np.ndarray) for values in arrays.values() for array in values)
    return True


def assert_clear(text: str, path: Path) -> None:
    assert text.startswith(f"{path}: error: ")
    assert len(text) < 1500
    assert text.replace("\n", "").isprintable()


@pytest.mark.parametrize("kind", ["binary", "old", "numbers", "hdf5", "packed"])
@settings(**SLOW)
@given(changes=CHANGES)
def test_damaged_weights_load_or_are_one_error(kind, good, tmp_path, changes) -> None:
    path = tmp_path / "damaged.caffemodel"
    path.write_bytes(changed(good[kind], changes))
    loads_or_says_why(path)


@pytest.mark.parametrize("kind", ["binary", "old", "numbers", "hdf5"])
@settings(**{**SLOW, "max_examples": 100})
@given(changes=CHANGES)
def test_upgrade_of_damaged_weights_writes_or_is_one_error(kind, good, tmp_path, capsys, changes) -> None:
    path = tmp_path / "damaged.caffemodel"
    path.write_bytes(changed(good[kind], changes))
    for target in (tmp_path / "new.caffemodel", tmp_path / "new.caffemodel.h5"):
        target.unlink(missing_ok=True)
        code = cli.main(["upgrade", str(path), str(target)])
        printed = capsys.readouterr()
        if code == 0:
            assert loads_or_says_why(target)
        else:
            assert code == 2
            assert not target.exists()
            assert_clear(printed.err.rstrip("\n"), path)


@settings(**SLOW)
@given(data=st.binary(max_size=60))
def test_any_bytes_load_or_are_one_error(data, tmp_path) -> None:
    path = tmp_path / "bytes.caffemodel"
    path.write_bytes(data)
    loads_or_says_why(path)


@st.composite
def records(draw: st.DrawFn, message: type = pb.NetParameter, depth: int = 0) -> bytes:
    """A message as it is on the wire: fields that it has, each with what is allowed and what is not."""
    data = b""
    for field in draw(st.lists(st.sampled_from(list(message.DESCRIPTOR.fields)), max_size=4)):
        if field.message_type is not None and depth < 4:
            value = draw(records(field.message_type._concrete_class, depth + 1))
            data += varint(field.number << 3 | 2) + varint(len(value)) + value
        else:
            wire = draw(st.sampled_from([0, 1, 2, 5]))
            value = draw(st.binary(max_size=12))
            number = varint(draw(st.integers(0, 2**64 - 1) | st.integers(0, 9)))
            body = {
                0: number,
                1: value.ljust(8, b"\0")[:8],
                2: varint(len(value)) + value,
                5: value.ljust(4, b"\0")[:4],
            }
            data += varint(field.number << 3 | wire) + body[wire]
    return data


def varint(value: int) -> bytes:
    result = b""
    while value > 127:
        result += bytes([value & 127 | 128])
        value >>= 7
    return result + bytes([value])


@settings(**SLOW)
@given(data=records())
def test_any_records_load_or_are_one_error(data, tmp_path) -> None:
    path = tmp_path / "records.caffemodel"
    path.write_bytes(data)
    loads_or_says_why(path)


# -- memory and time -------------------------------------------------------------------------------------------------


def record(number: int, value: bytes = b"") -> bytes:
    return varint(number << 3 | 2) + varint(len(value)) + value


WORST = {
    "empty layers, as many as are taken": lambda: record(100) * MOST_LAYERS,
    "empty layers of 2014, more than are taken": lambda: record(2) * (4 * MOST_LAYERS),
    "empty blobs": lambda: record(100, record(7) * 2_000_000),
    "empty params": lambda: record(100, record(6) * 2_000_000),
    "layers full of empty blocks": lambda: (
        record(100, b"".join(record(f.number) for f in pb.LayerParameter.DESCRIPTOR.fields if f.message_type)) * 20_000
    ),
    "numbers one by one": lambda: record(100, record(7, b"\x2dabcd" * 800_000)),
    "a shape of a million axes": lambda: record(
        100, record(7, record(7, record(1, b"\xff\xff\xff\xff\x7f" * 1_000_000)))
    ),
    "a name of four million letters": lambda: record(100, record(1, b"n" * 4_000_000) + record(7, record(5, b"abc"))),
}
MEASURE = """
import resource, sys, time
from sslnet.errors import WeightsError
from sslnet.net.weights import read_weights
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_weights(sys.argv[1])
except WeightsError as error:
    assert len(str(error)) < 1500, len(str(error))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.timeout(60)
@pytest.mark.parametrize("case", WORST)
def test_worst_binary_file_takes_no_more_memory_than_stated(case, tmp_path) -> None:
    path = tmp_path / "worst.caffemodel"
    path.write_bytes(WORST[case]())
    taken = subprocess.run([sys.executable, "-c", MEASURE, path], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(taken.stdout) <= 50 * path.stat().st_size + 2**26


def in_itself(file: h5py.File) -> None:
    group = file.create_group("data/a")
    group["x"] = group["y"] = file["data"]


def the_same_many_times(file: h5py.File) -> None:
    file.create_dataset("data/0/0", data=np.zeros((1000, 1000)), compression="gzip")
    for index in range(1, 100):
        file.require_group(f"data/{index}")["0"] = file["data/0/0"]


def in_another_file(file: h5py.File) -> None:
    file.require_group("data/a")["0"] = h5py.ExternalLink("other.h5", "/data/a/0")


def in_a_raw_file(file: h5py.File) -> None:
    file.create_dataset("data/a/0", shape=(10,), dtype="f4", external=[("other.bin", 0, 40)])


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((10**9,), "f4")
    layout[:10] = h5py.VirtualSource("other.h5", "data", (10,))
    file.create_virtual_dataset("data/a/0", layout)


def never_written(file: h5py.File) -> None:
    file.create_dataset("data/a/0", shape=(10**5, 10**5), dtype="f4", fillvalue=1)


def deep(file: h5py.File) -> None:
    file.create_dataset("data/" + "a/" * 500 + "0", data=np.zeros(2))


def of_text(file: h5py.File) -> None:
    file["data/a/0"] = np.array([b"text"])


def of_nothing(file: h5py.File) -> None:
    file["data/a/0"] = h5py.Empty("f4")


def of_records(file: h5py.File) -> None:
    file["data/a/0"] = np.zeros(3, [("x", "f4")])


def not_in_a_group(file: h5py.File) -> None:
    file["data"] = np.zeros(3)


def with_a_bad_name(file: h5py.File) -> None:
    file["data/a\n\x1b[31m/5"] = np.zeros(3)


def without_layers(file: h5py.File) -> None:
    file.create_group("data")


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "make",
    [
        in_itself,
        the_same_many_times,
        in_another_file,
        in_a_raw_file,
        virtual,
        never_written,
        deep,
        of_text,
        of_nothing,
        of_records,
        not_in_a_group,
        with_a_bad_name,
        without_layers,
    ],
    ids=lambda make: make.__name__,
)
def test_odd_hdf5_is_one_error(make, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with h5py.File("other.h5", "w") as file:
        file["data/a/0"] = np.zeros(10)
    Path("other.bin").write_bytes(bytes(40))
    with h5py.File("odd.h5", "w") as file:
        make(file)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert not loads_or_says_why(Path("odd.h5"))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**16  # KiB


@pytest.mark.parametrize("name", [".", "/dev/zero", "no\0name"])
def test_what_is_no_file_is_one_error(name) -> None:
    with pytest.raises(WeightsError, match="cannot be read"):
        read_weights(name)


def test_file_beyond_what_protobuf_reads_is_one_error(tmp_path) -> None:
    path = tmp_path / "large.caffemodel"
    with path.open("wb") as file:
        file.truncate(2**33)  # sparse: takes no room on disk
    with pytest.raises(WeightsError, match="at most 2147483647 are read"):
        read_weights(path)
