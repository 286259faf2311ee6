"""Names of pycaffe beyond those of its notebooks: as Caffe's own tests and common scripts use them."""

from __future__ import annotations

import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from PIL import Image

import sslnet as caffe
from sslnet import coord_map
from sslnet import layers as L
from sslnet import params as P
from sslnet.errors import UsageError
from sslnet.proto import caffe_pb2

NET = """name: 'testnet' force_backward: true
layer { type: 'DummyData' name: 'data' top: 'data' top: 'label' dummy_data_param {
  num: 5 channels: 2 height: 3 width: 4  num: 5 channels: 1 height: 1 width: 1
  data_filler { type: 'gaussian' std: 1 } data_filler { type: 'constant' } } }
layer { type: 'Convolution' name: 'conv' bottom: 'data' top: 'conv' convolution_param { num_output: 11 kernel_size: 2
  pad: 3 weight_filler { type: 'gaussian' std: 1 } bias_filler { type: 'constant' value: 2 } } }
layer { type: 'InnerProduct' name: 'ip' bottom: 'conv' top: 'ip_blob' inner_product_param { num_output: 13
  weight_filler { type: 'gaussian' std: 2.5 } bias_filler { type: 'constant' value: -3 } } }
layer { type: 'SoftmaxWithLoss' name: 'loss' bottom: 'ip_blob' bottom: 'label' top: 'loss' }"""
IDENTITY = """layer { name: 'data' type: 'Input' top: 'data' input_param { shape { dim: 2 dim: 3 dim: 8 dim: 8 } } }
layer { name: 'relu' type: 'Power' bottom: 'data' top: 'out' }"""


@pytest.fixture
def net(tmp_path: Path) -> caffe.Net:
    (tmp_path / "net.prototxt").write_text(NET)
    return caffe.Net(str(tmp_path / "net.prototxt"), caffe.TRAIN)


def test_names_of_tops_and_bottoms_by_layer(net: caffe.Net) -> None:
    tops = [("data", ["data", "label"]), ("conv", ["conv"]), ("ip", ["ip_blob"]), ("loss", ["loss"])]
    bottoms = [("data", []), ("conv", ["data"]), ("ip", ["conv"]), ("loss", ["ip_blob", "label"])]
    assert net.top_names == OrderedDict(tops) and net.bottom_names == OrderedDict(bottoms)
    assert net.top_names != OrderedDict(bottoms)
    assert list(net.top_names.items()) == tops and list(net.top_names.keys()) == net._layer_names
    assert dict(net.bottom_names)["ip"] == net.bottom_names["ip"] == net.bottom_names[2] == ["conv"]
    assert "ip" in net.top_names and "none" not in net.top_names and net.top_names.get("none", 1) == 1
    with pytest.raises(KeyError):
        net.top_names["none"]


def test_private_names_and_loss_weights(net: caffe.Net) -> None:
    assert net._blob_names == ["data", "label", "conv", "ip_blob", "loss"] == list(net.blobs)
    assert net._outputs == [4] and net._inputs == []
    assert net.blob_loss_weights == {"data": 0, "label": 0, "conv": 0, "ip_blob": 0, "loss": 1}
    assert list(net.layer_dict) == net._layer_names


def test_backward_of_a_part_returns_the_diffs_of_its_bottoms(net: caffe.Net) -> None:
    net.forward()
    dy = np.random.default_rng(0).standard_normal(net.blobs["ip_blob"].shape).astype(np.float32)
    net.blobs["ip_blob"].diff[...] = dy
    found = net.backward(start="ip", end="ip")
    wanted = (dy @ net.params["ip"][0].data).reshape(net.blobs["conv"].shape)
    np.testing.assert_allclose(found["conv"], wanted, rtol=1e-3, atol=1e-4)


def test_weights_as_hdf5_whatever_the_name(net: caffe.Net, tmp_path: Path) -> None:
    net.save_hdf5(tmp_path / "weights")
    other = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TRAIN)
    other.load_hdf5(tmp_path / "weights")
    for name, blobs in net.params.items():
        for mine, theirs in zip(blobs, other.params[name]):
            np.testing.assert_array_equal(mine.data, theirs.data)


def test_functions_that_run_between_layers(net: caffe.Net) -> None:
    seen: list[tuple[str, int]] = []
    for name in ("before_forward", "after_forward", "before_backward", "after_backward"):
        getattr(net, name)(lambda layer, name=name: seen.append((name, layer)))
    net.before_forward(lambda layer: seen.append(("second", layer)))
    net.forward()
    assert seen == [(name, i) for i in range(4) for name in ("before_forward", "second", "after_forward")]
    seen.clear()
    net.backward()
    assert seen == [(name, i) for i in (3, 2, 1, 0) for name in ("before_backward", "after_backward")]


def test_function_before_a_layer_may_change_what_it_reads(tmp_path: Path) -> None:
    (tmp_path / "n.prototxt").write_text(IDENTITY)
    net = caffe.Net(str(tmp_path / "n.prototxt"), caffe.TEST)

    def change(layer: int) -> None:
        if layer == 1:
            net.blobs["data"].data[...] += 1

    net.before_forward(change)
    assert (net.forward(data=np.zeros((2, 3, 8, 8)))["out"] == 1).all()


def test_forward_and_backward_of_many_images(tmp_path: Path) -> None:
    (tmp_path / "n.prototxt").write_text("force_backward: true " + IDENTITY.replace("Power", "AbsVal"))
    net = caffe.Net(str(tmp_path / "n.prototxt"), caffe.TRAIN)
    x, dy = np.random.default_rng(0).standard_normal((2, 5, 3, 8, 8))
    data, diffs = net.forward_backward_all(data=x, out=dy)
    np.testing.assert_allclose(data["out"], np.abs(x), rtol=1e-6)
    np.testing.assert_allclose(diffs["data"], dy * np.sign(x), rtol=1e-6)
    with pytest.raises(UsageError, match="no input or output"):
        net.forward_backward_all(dat=x)


def test_rows_of_memory_data(tmp_path: Path) -> None:
    (tmp_path / "m.prototxt").write_text(
        "layer { name: 'd' type: 'MemoryData' top: 'x' top: 't'"
        " memory_data_param { batch_size: 2 channels: 1 height: 1 width: 3 } }"
    )
    net = caffe.Net(str(tmp_path / "m.prototxt"), caffe.TEST)
    data = np.arange(12, dtype=np.float32).reshape(4, 1, 1, 3)
    net.set_input_arrays(data, np.arange(4, dtype=np.float32))
    net.forward()
    net.forward()
    np.testing.assert_array_equal(net.blobs["x"].data, data[2:])
    (tmp_path / "n.prototxt").write_text(IDENTITY)
    with pytest.raises(UsageError, match="no MemoryData"):
        caffe.Net(str(tmp_path / "n.prototxt"), caffe.TEST).set_input_arrays(data, data)


# -- messages, drawings --------------------------------------------------------------------------------------------------


def test_messages_have_caffes_names(tmp_path: Path) -> None:
    message = text_format.Merge(NET, caffe_pb2.NetParameter())
    assert [layer.type for layer in message.layer][1] == "Convolution"
    assert caffe.proto.caffe_pb2 is caffe_pb2 is caffe.io.caffe_pb2
    assert caffe_pb2.Phase.Name(caffe_pb2.TEST) == "TEST"
    assert caffe_pb2.V1LayerParameter.LayerType.Name(4) == "CONVOLUTION"
    blob = caffe_pb2.BlobProto(num=1, channels=1, height=1, width=2, data=[1, 2])
    np.testing.assert_array_equal(caffe.io.blobproto_to_array(blob).reshape(-1), [1, 2])
    net = caffe.Net(message, phase=caffe.TRAIN)
    net.forward()


def test_module_of_messages_stands_beside_caffes_own() -> None:
    code = """
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
file = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe")
for name in ("NetParameter", "BlobProto"):
    file.message_type.add(name=name).field.add(name="name", number=1, type=9, label=1)
descriptor_pool.Default().Add(file)
theirs = message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName("caffe.NetParameter"))
from sslnet.proto import caffe_pb2
ours = caffe_pb2.NetParameter(name="a")
assert theirs.FromString(ours.SerializeToString()).name == "a"
print(caffe_pb2.NetParameter.DESCRIPTOR.full_name, theirs.DESCRIPTOR.full_name)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["sslnet.NetParameter", "caffe.NetParameter"]


def test_net_is_drawn_from_its_message(tmp_path: Path) -> None:
    message = text_format.Merge(NET, caffe_pb2.NetParameter())
    caffe.draw.draw_net_to_file(message, tmp_path / "net.svg", "LR")
    text = (tmp_path / "net.svg").read_text()
    assert text.startswith("<svg") and "conv" in text and "loss" in text
    assert caffe.draw.draw_net(message, "TB", phase=caffe.TRAIN).startswith(b"<svg")
    with pytest.raises(UsageError, match="pictures are SVG"):
        caffe.draw.draw_net_to_file(message, tmp_path / "net.png")


# -- places of pixels ----------------------------------------------------------------------------------------------------


def conv(bottom: object, size: int, stride: int = 1, pad: int = 0) -> object:
    return L.Convolution(bottom, num_output=2, kernel_size=size, stride=stride, pad=pad)


def vgg_pools() -> tuple[caffe.NetSpec, list[object]]:
    """The convolutions and poolings of VGG-16 as FCN has them: 100 pixels of padding in front."""
    n = caffe.NetSpec()
    n.data = L.Input(shape=dict(dim=[1, 3, 500, 500]))
    top, pools = n.data, []
    for block, count in enumerate((2, 2, 3, 3, 3)):
        for layer in range(count):
            top = L.ReLU(conv(top, 3, pad=100 if (block, layer) == (0, 0) else 1), in_place=True)
        top = L.Pooling(top, kernel_size=2, stride=2, pool=P.Pooling.MAX)
        pools.append(top)
    return n, pools


def up(bottom: object, size: int, stride: int) -> object:
    param = dict(num_output=2, kernel_size=size, stride=stride, bias_term=False)
    return L.Deconvolution(bottom, convolution_param=param)


def offset(top: object) -> list[int]:
    return list(top.fn.params["crop_param"]["offset"])  # type: ignore[attr-defined]


def test_offsets_of_fcn_are_the_published_ones() -> None:
    n, pools = vgg_pools()
    score = conv(L.Dropout(L.ReLU(conv(pools[4], 7))), 1)
    whole = coord_map.crop(up(score, 64, 32), n.data)
    assert offset(whole) == [19] and whole.fn.params["crop_param"]["axis"] == 2
    four = coord_map.crop(conv(pools[3], 1), up(score, 4, 2))
    assert offset(four) == [5]
    fused = L.Eltwise(up(score, 4, 2), four)
    assert offset(coord_map.crop(up(fused, 32, 16), n.data)) == [27]
    three = coord_map.crop(conv(pools[2], 1), up(fused, 4, 2))
    assert offset(three) == [9]
    assert offset(coord_map.crop(up(L.Eltwise(up(fused, 4, 2), three), 16, 8), n.data)) == [31]


def test_maps_of_layers_compose_and_invert() -> None:
    n = caffe.NetSpec()
    n.data = L.Input(shape=dict(dim=[1, 1, 20, 20]))
    pooled = L.Pooling(conv(n.data, 3, pad=1), kernel_size=2, stride=2)
    axis, scale, shift = coord_map.coord_map_from_to(pooled, n.data)
    assert axis == 1 and np.ravel(scale) == [2] and np.ravel(shift) == pytest.approx([0.5])
    forth = coord_map.coord_map(conv(n.data, 5, stride=3, pad=2).fn)  # type: ignore[attr-defined]
    back = coord_map.inverse(coord_map.inverse(forth))
    assert all(np.allclose(a, b) for a, b in zip(forth[1:], back[1:]))
    assert coord_map.compose(forth, (None, 1, 0))[0] == 1
    with pytest.raises(coord_map.AxisMismatchException):
        coord_map.compose((1, 1, 0), (2, 1, 0))


def test_crops_that_cannot_be_are_errors() -> None:
    n = caffe.NetSpec()
    n.data, n.other = (L.Input(shape=dict(dim=[1, 1, 20, 20])) for _ in range(2))
    with pytest.raises(UsageError, match="cannot change the scale"):
        coord_map.crop(L.Pooling(n.data, kernel_size=2, stride=2), n.data)
    with pytest.raises(UsageError, match="before the blob"):
        coord_map.crop(conv(n.data, 3), n.data)
    with pytest.raises(UsageError, match="between pixels"):
        coord_map.crop(conv(n.data, 2, pad=1), n.data)
    with pytest.raises(UsageError, match="no map between the tops"):
        coord_map.crop(n.other, n.data)
    with pytest.raises(coord_map.UndefinedMapException):
        coord_map.coord_map(L.InnerProduct(n.data, num_output=2).fn)


# -- windows -------------------------------------------------------------------------------------------------------------


def detector(tmp_path: Path, **settings: object) -> caffe.Detector:
    (tmp_path / "n.prototxt").write_text(IDENTITY + "layer { name: 'p' type: 'Scale' bottom: 'out' top: 'y' }")
    net = caffe.Net(str(tmp_path / "n.prototxt"), caffe.TEST)
    net.params["p"][0].data[...] = 1
    net.save(tmp_path / "w.caffemodel")
    return caffe.Detector(tmp_path / "n.prototxt", tmp_path / "w.caffemodel", **settings)  # type: ignore[arg-type]


def test_windows_of_images_go_through_the_net(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "i.png")
    windows = [[2, 3, 10, 11], [0, 0, 20, 30], [12, 22, 20, 30]]
    found = detector(tmp_path, raw_scale=255).detect_windows([(str(tmp_path / "i.png"), windows)])
    assert [each["window"] for each in found] == windows and found[0]["filename"].endswith("i.png")
    np.testing.assert_allclose(found[0]["prediction"], pixels[2:10, 3:11].transpose(2, 0, 1), atol=1e-3)
    np.testing.assert_allclose(found[2]["prediction"], pixels[12:, 22:].transpose(2, 0, 1), atol=1e-3)
    assert detector(tmp_path).detect_windows([]) == []


def test_context_of_a_window_is_filled_with_the_mean(tmp_path: Path) -> None:
    mean = np.array([10.0, 20, 30], np.float32)
    net = detector(tmp_path, raw_scale=255, mean=mean, channel_swap=(2, 1, 0), context_pad=2)
    image = np.ones((40, 40, 3), np.float32)
    inside = net.crop(image, [15, 15, 22, 22])
    assert inside.shape == (8, 8, 3) and (inside == 1).all()
    corner = net.crop(image, [0, 0, 8, 8])
    np.testing.assert_allclose(corner[0, 0] * 255, mean[::-1], rtol=1e-5)
    assert (corner[4:6, 4:6] == 1).all()
    processed = net.transformer.preprocess("data", corner)
    np.testing.assert_allclose(processed[:, 0, 0], 0, atol=1e-3)
    with pytest.raises(UsageError, match="no pixels"):
        net.crop(image, [50, 50, 60, 60])
    with pytest.raises(UsageError, match="leaves nothing"):
        detector(tmp_path, context_pad=4)


@pytest.mark.parametrize(
    "statement",
    [
        "from sslnet.proto import caffe_pb2",
        "import sslnet.draw",
        "from sslnet.coord_map import crop",
        "import sslnet; sslnet.Detector",
        "import sslnet; sslnet.io.caffe_pb2",
        "import sslnet as caffe; caffe.proto.caffe_pb2.NetParameter",
        "import sslnet as caffe; caffe.draw.draw_net_to_file",
    ],
)
def test_scripts_import_the_names(statement: str) -> None:
    subprocess.run([sys.executable, "-c", statement], check=True)
