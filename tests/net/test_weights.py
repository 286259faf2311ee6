"""Weights on disk: files of Caffe's, of every age; ours read back, also by field numbers alone; what does not fit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import RunError, WeightsError
from sslnet.net import weights
from sslnet.net.net import Net

GOLDENS = Path(__file__).parents[1] / "goldens"
SUFFIXES = ["caffemodel", "caffemodel.h5"]


def net(seed: int = 1, outputs: int = 3, name: str = "ip") -> Net:
    return Net(
        prototxt.parse(
            'name: "two" layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 2 dim: 4 dim: 4 } } }\n'
            'layer { name: "block/conv" type: "Convolution" bottom: "x" top: "y" convolution_param { num_output: 4 '
            'kernel_size: 3 weight_filler { type: "gaussian" } bias_filler { type: "gaussian" } } }\n'
            'layer { name: "relu" type: "ReLU" bottom: "y" top: "y" }\n'
            f'layer {{ name: "{name}" type: "InnerProduct" bottom: "y" top: "z" inner_product_param {{ num_output: {outputs} '
            'weight_filler { type: "gaussian" } bias_filler { type: "gaussian" } } }',
            pb.NetParameter,
        ),
        seed=seed,
    )


def values(which: Net) -> list[np.ndarray]:
    return [blob.data.copy() for blobs in which.params.values() for blob in blobs]


def assert_same(one: list[np.ndarray], other: list[np.ndarray]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other):
        np.testing.assert_array_equal(a, b)


# -- both ways ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_saved_weights_come_back(tmp_path: Path, suffix: str) -> None:
    one, other = net(1), net(2)
    one.save(tmp_path / f"w.{suffix}")
    copied = other.copy_from(tmp_path / f"w.{suffix}")
    assert_same(values(one), values(other))
    assert (sorted(copied.copied), copied.ignored, copied.missing) == (["block/conv", "ip"], [], [])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_diffs_are_saved_on_request(tmp_path: Path, suffix: str) -> None:
    one = net()
    one.params["ip"][0].diff[...] = 7
    one.save(tmp_path / f"w.{suffix}", write_diff=True)
    if suffix.endswith("h5"):
        with h5py.File(tmp_path / f"w.{suffix}") as file:
            assert (file["diff/ip/0"][()] == 7).all()
    else:
        message = weights.read_message(tmp_path / f"w.{suffix}", pb.NetParameter())
        blob = next(layer for layer in message.layer if layer.name == "ip").blobs[0]
        assert (weights.blob_array(blob, diff=True) == 7).all()


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, value) of a message, by the wire format alone."""

    def varint() -> int:
        nonlocal at
        result = shift = 0
        while True:
            byte = data[at]
            at, result, shift = at + 1, result | (byte & 127) << shift, shift + 7
            if byte < 128:
                return result

    at = 0
    while at < len(data):
        key = varint()
        size = {0: 0, 1: 8, 5: 4}.get(key & 7)
        if key & 7 == 0:
            yield key >> 3, varint()
            continue
        size = varint() if size is None else size
        yield key >> 3, data[at : at + size]
        at += size


def test_binary_file_is_caffes_by_its_field_numbers(tmp_path: Path) -> None:
    """NetParameter.layer is 100; LayerParameter name 1, type 2, blobs 7; BlobProto data 5, shape 7; BlobShape dim 1."""
    one = net()
    one.save(tmp_path / "w.caffemodel")
    top = list(fields((tmp_path / "w.caffemodel").read_bytes()))
    assert (1, b"two") in top
    layers = [list(fields(value)) for number, value in top if number == 100 and isinstance(value, bytes)]
    ip = next(layer for layer in layers if (1, b"ip") in layer)
    assert (2, b"InnerProduct") in ip
    blobs = [dict(fields(value)) for number, value in ip if number == 7 and isinstance(value, bytes)]
    for blob, mine in zip(blobs, one.params["ip"], strict=True):
        np.testing.assert_array_equal(np.frombuffer(blob[5], "<f4").reshape(mine.shape), mine.data)  # type: ignore[arg-type]
        assert list(dict(fields(blob[7]))[1]) == list(mine.shape)  # type: ignore[arg-type]


def test_hdf5_file_has_caffes_layout(tmp_path: Path) -> None:
    one = net()
    one.save(tmp_path / "w.caffemodel.h5")
    with h5py.File(tmp_path / "w.caffemodel.h5") as file:
        np.testing.assert_array_equal(file["data/ip/1"][()], one.params["ip"][1].data)
        assert file["data/block/conv/0"].dtype == np.float32
        assert isinstance(file["data/relu"], h5py.Group)


@pytest.mark.parametrize("name", ["", "a\0b", "/a", "a//b", "."])
def test_name_that_hdf5_cannot_hold_is_an_error(name: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="HDF5 cannot hold a layer of this name"):
        weights.save_arrays({name: [np.zeros(2)]}, tmp_path / "w.caffemodel.h5", hdf5=True)
    assert not list(tmp_path.iterdir())


def test_layer_named_like_anothers_blob_in_hdf5_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="HDF5 already holds a blob of this name"):
        weights.save_arrays({"a": [np.zeros(2)], "a/0": [np.zeros(2)]}, tmp_path / "w.caffemodel.h5", hdf5=True)


def test_double_precision_is_kept() -> None:
    array = np.array([[1 / 3, 2]])
    message = weights.blob_proto(array, array + 1)
    assert len(message.double_data) == 2
    assert not message.data
    np.testing.assert_array_equal(weights.blob_array(message), array)
    np.testing.assert_array_equal(weights.blob_array(message, diff=True), array + 1)


# -- files of others ---------------------------------------------------------------------------------------------------


def test_files_that_caffe_wrote_hold_what_it_says() -> None:
    found = weights.read_weights(GOLDENS / "solvers" / "net_init.caffemodel")
    with np.load(GOLDENS / "solvers" / "sgd_plain.npz") as golden:
        for name in ("conv", "ip"):
            assert_same(found[name], [golden[f"init/{name}/{k}"] for k in range(2)])


def test_hdf5_that_caffe_wrote_is_read() -> None:
    found = weights.read_weights(GOLDENS / "formats" / "tiny_hdf5_iter_20.caffemodel.h5")
    assert {name: [array.shape for array in arrays] for name, arrays in found.items()} == {
        "bn": [(4,), (4,), (1,)],
        "conv": [(4, 2, 3, 3), (4,)],
        "ip": [(3, 64), (3,)],
        "sc": [(4,), (4,)],
    }


def old_net(kind: str) -> pb.NetParameter:
    """An InnerProduct layer as files of 2014 ("V1") and of 2013 ("V0") have it, with four sizes a blob."""
    message = pb.NetParameter()
    layer = message.layers.add()
    if kind == "V1":
        layer.name, layer.type = "ip", pb.V1LayerParameter.INNER_PRODUCT
    else:
        layer.layer.name, layer.layer.type = "ip", "innerproduct"
    blobs = layer.blobs if kind == "V1" else layer.layer.blobs
    for shape in ((1, 1, 3, 16), (1, 1, 1, 3)):
        blob = blobs.add(num=shape[0], channels=shape[1], height=shape[2], width=shape[3])
        blob.data.extend(range(shape[2] * shape[3]))
    return message


@pytest.mark.parametrize("kind", ["V1", "V0"])
def test_layers_and_shapes_of_old_files_fit(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "old.caffemodel"
    path.write_bytes(old_net(kind).SerializeToString())
    one = net()
    copied = one.copy_from(path)
    assert (copied.copied, copied.missing) == (["ip"], ["block/conv"])
    np.testing.assert_array_equal(one.params["ip"][0].data, np.arange(48).reshape(3, 16))


@pytest.mark.data
def test_real_models_of_2014_are_read() -> None:
    path = Path(os.environ["SSLNET_TEST_DATA"]) / "caffemodels" / "lenet" / "lenet_iter_10000.caffemodel"
    assert weights.read_weights(path)["ip1"][0].shape == (1, 1, 500, 800)


# -- what does not fit -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_layers_that_do_not_match_are_reported(tmp_path: Path, suffix: str) -> None:
    net(name="old").save(tmp_path / f"w.{suffix}")
    copied = net(name="new").copy_from(tmp_path / f"w.{suffix}")
    assert (copied.copied, copied.ignored, copied.missing) == (["block/conv"], ["old"], ["new"])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_other_shape_is_an_error_and_nothing_is_copied(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"w.{suffix}"
    net(1, outputs=5).save(path)
    one = net(2)
    before = values(one)
    with pytest.raises(WeightsError) as caught:
        one.copy_from(path)
    assert_same(values(one), before)
    assert caught.value.message == "blob 0 has shape 5 x 16 in the file and 3 x 16 in the net"
    assert (caught.value.layer, caught.value.path) == ("ip", str(path))
    assert caught.value.hint == 'rename the layer "ip" in the net to ignore its weights'


def test_other_number_of_blobs_is_an_error() -> None:
    message = net().to_proto()
    del message.layer[-1].blobs[1]
    with pytest.raises(WeightsError, match="the file has 1 parameter blobs for the layer, the net has 2"):
        net().copy_from(message)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_cut_off_file_is_an_error(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"w.{suffix}"
    net().save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    one = net(2)
    before = values(one)
    with pytest.raises(WeightsError) as caught:
        one.copy_from(path)
    assert caught.value.path == str(path)
    assert_same(values(one), before)


def test_values_that_do_not_fill_the_shape_are_an_error() -> None:
    blob = pb.BlobProto(data=[1, 2, 3])
    blob.shape.dim.extend([2, 2])
    with pytest.raises(WeightsError, match="blob 0 has shape 2 x 2 and 3 values"):
        weights.blob_array(blob)


def test_huge_shape_is_an_error_before_memory_is_taken() -> None:
    blob = pb.BlobProto(data=[1])
    blob.shape.dim.extend([1 << 40, 1 << 20])
    with pytest.raises(WeightsError, match="and 1 values"):
        weights.blob_array(blob)


def test_hdf5_that_claims_more_than_it_stores_is_an_error(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.create_dataset("data/ip/0", shape=(1 << 20, 1 << 20), dtype="f4", chunks=(1024, 1024))
    with pytest.raises(WeightsError, match="the data sets unpack to more than"):
        net().copy_from(tmp_path / "w.h5")


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "the file is empty"),
        (b"some text\n", "10 bytes that are not a whole NetParameter"),
        (None, "cannot be read"),
    ],
)
def test_file_of_another_kind_is_an_error(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "w.caffemodel"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        net().copy_from(path)


def test_net_without_weights_is_an_error() -> None:
    with pytest.raises(WeightsError, match="there are no weights in it"):
        net().copy_from(pb.NetParameter(name="empty"))


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.caffemodel"
    net().save(path)
    before = path.read_bytes()

    def fail(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(Exception, match="No space left"):
        net(2).save(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["w.caffemodel"]


def test_weights_too_large_for_a_binary_file_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "MOST_MESSAGE", 100)
    path = tmp_path / "w.caffemodel"
    with pytest.raises(RunError, match="more than a binary file can hold") as caught:
        net().save(path)
    assert "HDF5" in caught.value.hint
    assert not path.exists()
    net().save(tmp_path / "w.caffemodel.h5")


# -- stored weights ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_stored_weights_fill_any_number_of_nets_without_their_file(tmp_path: Path, suffix: str) -> None:
    one, path = net(1), tmp_path / f"w.{suffix}"
    one.save(path)
    stored = weights.stored_weights(path)
    path.unlink()
    assert weights.stored_weights(stored) is stored
    for seed in (2, 3):
        other = net(seed)
        assert sorted(other.copy_from(stored).copied) == ["block/conv", "ip"]
        assert_same(values(one), values(other))


def test_errors_of_stored_weights_name_their_file(tmp_path: Path) -> None:
    path = str(tmp_path / "w.caffemodel")
    net(1).save(path)
    stored = weights.stored_weights(path)
    with pytest.raises(WeightsError) as error:
        net(1, outputs=4).copy_from(stored)
    assert error.value.path == path
    with pytest.raises(WeightsError, match="no weights for a layer of the net: new") as error:
        weights.copy_all_weights(net(1, name="new").params, stored)
    assert error.value.path == path


def test_stored_weights_of_a_net_are_a_copy() -> None:
    one = net(1)
    before, stored = values(one), weights.StoredWeights.of(one.params)
    for blobs in one.params.values():
        for blob in blobs:
            blob.data[...] = 0
    other = net(2)
    other.copy_from(stored)
    assert_same(values(other), before)


def test_no_stored_weights_are_an_error() -> None:
    with pytest.raises(WeightsError, match="there are no weights in it"):
        net(1).copy_from(weights.StoredWeights({}))
