"""Nets and weights of Caffe's forks run as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import sslnet
from sslnet import sslnet_pb2 as pb
from sslnet.errors import DefinitionError, ErrorList, WeightsError

X = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 5 dim: 5 } } }\n'
CONV = (
    'layer { name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param { num_output: 2 kernel_size: 3 } }\n'
)
BN = 'layer { name: "b" type: "BatchNorm" bottom: "x" top: "y" batch_norm_param { scale_bias: true eps: 0.001 } }\n'


def make(tmp_path: Path, text: str, *weights: object, phase: int = sslnet.TEST) -> sslnet.Net:
    path = tmp_path / "net.prototxt"
    path.write_text(text)
    return sslnet.Net(str(path), *map(str, weights), phase=phase)


def stored(tmp_path: Path, layer: str, *blobs: pb.BlobProto) -> Path:
    path = tmp_path / "w.caffemodel"
    net = pb.NetParameter()
    net.layer.add(name=layer, blobs=blobs)
    path.write_bytes(net.SerializeToString())
    return path


def blob(values: np.ndarray, shape: tuple[int, ...] | None = None) -> pb.BlobProto:
    message = pb.BlobProto(data=values.ravel())
    message.shape.dim.extend(shape or values.shape)
    return message


@pytest.mark.parametrize(("kind", "name"), [("<f4", "FLOAT"), ("<f2", "FLOAT16"), ("<f8", "DOUBLE")])
def test_weights_as_bytes_are_read(tmp_path: Path, kind: str, name: str) -> None:
    random = np.random.default_rng(3)
    arrays = [random.standard_normal((2, 3, 3, 3)).astype(kind), random.standard_normal(2).astype(kind)]
    blobs = [pb.BlobProto(raw_data=a.tobytes(), raw_data_type=pb.BlobProto.RawType.Value(name)) for a in arrays]
    for message, array in zip(blobs, arrays):
        message.shape.dim.extend(array.shape)
    net = make(tmp_path, X + CONV, stored(tmp_path, "c", *blobs))
    for param, array in zip(net.params["c"], arrays):
        np.testing.assert_array_equal(param.data, array.astype(np.float32))


def test_bytes_that_are_no_whole_numbers_are_an_error(tmp_path: Path) -> None:
    message = pb.BlobProto(raw_data=b"12345", raw_data_type=pb.BlobProto.FLOAT)
    with pytest.raises(WeightsError, match="5 bytes, which are no whole number of 4 each"):
        make(tmp_path, X + CONV, stored(tmp_path, "c", message))


def test_layer_fields_of_forks_do_not_stop_weights_from_being_read(tmp_path: Path) -> None:
    path = stored(tmp_path, "c", blob(np.ones((2, 3, 3, 3))), blob(np.ones(2)))
    data = bytearray(path.read_bytes())
    net = pb.NetParameter.FromString(bytes(data))
    layer = net.layer[0].SerializeToString()
    engine = b"\xaa\x09\x06MKLDNN"  # field 149, a text there, a message in another fork
    layer += engine
    path.write_bytes(b"\xa2\x06" + bytes([len(layer) & 127 | 128, len(layer) >> 7]) + layer)
    assert make(tmp_path, X + CONV, path).params["c"][1].data.tolist() == [1, 1]


@pytest.mark.parametrize("old", [False, True])
def test_batch_norm_with_five_blobs_is_scaled_in_either_order(tmp_path: Path, old: bool) -> None:
    random = np.random.default_rng(5)
    mean, variance, scale, bias = random.uniform(0.5, 2, (4, 3))
    axes = (1, 3, 1, 1) if old else (3,)
    vectors = [blob(v, axes) for v in (mean, variance, scale, bias)]
    one = blob(np.array([1.0]))
    blobs = [vectors[2], vectors[3], vectors[0], vectors[1], one] if old else [*vectors[:2], one, *vectors[2:]]
    net = make(tmp_path, X + BN, stored(tmp_path, "b", *blobs))
    x = random.standard_normal((2, 3, 5, 5))
    found = net.forward(x=x)["y"]
    wanted = np.empty_like(x)
    for c in range(3):
        wanted[:, c] = (x[:, c] - mean[c]) / np.sqrt(variance[c] + 0.001) * scale[c] + bias[c]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    net.save(str(tmp_path / "own.caffemodel"))
    again = make(tmp_path, X + BN, tmp_path / "own.caffemodel")
    np.testing.assert_array_equal(again.forward(x=x)["y"], found)


def test_five_blobs_for_a_plain_batch_norm_say_what_to_do(tmp_path: Path) -> None:
    blobs = [blob(np.ones(n)) for n in (3, 3, 1, 3, 3)]
    with pytest.raises(WeightsError, match="scale_bias: true"):
        make(tmp_path, X + BN.replace("scale_bias: true", ""), stored(tmp_path, "b", *blobs))


def test_layers_of_one_name_run_unless_both_have_weights(tmp_path: Path) -> None:
    relu = 'layer { name: "c" type: "ReLU" bottom: "x" top: "r" }\n'
    assert list(make(tmp_path, X + CONV + relu).params) == ["c"]
    with pytest.raises(DefinitionError, match='a second layer with weights is named "c"') as caught:
        make(tmp_path, X + CONV + CONV.replace('top: "c"', 'top: "d"'))
    assert caught.value.line == 3


def test_unknown_type_is_named_and_not_its_parameter(tmp_path: Path) -> None:
    text = X + 'layer { name: "w" type: "Wonder" bottom: "x" top: "w" wonder_param { a: 1 } }\n' + CONV
    with pytest.raises(DefinitionError, match='unknown layer type "Wonder"') as caught:
        make(tmp_path, text)
    assert "wonder_param" not in str(caught.value).split("\n")[0]
    assert not isinstance(caught.value, ErrorList)


def test_all_problems_of_a_net_are_raised_at_once(tmp_path: Path) -> None:
    text = (
        X
        + CONV.replace("num_output: 2", "num_output: 2 kernels: 3")
        + 'layer { name: "p" type: "Pooling" bottom: "x" top: "p" pooling_param { } }\n'
        + 'layer { name: "r" type: "ReLU" bottom: "p" top: "r" }\n'
        + 'layer { name: "e" type: "Eltwise" bottom: "x" bottom: "c" top: "e" }\n'
    )
    with pytest.raises(DefinitionError, match='no field "kernels"'):
        make(tmp_path, text)
    with pytest.raises(ErrorList) as caught:
        make(tmp_path, text.replace(" kernels: 3", ""))
    assert [error.line for error in caught.value.errors] == [3, 5]


@pytest.mark.parametrize("scale_train", [True, False])
def test_dropout_scales_in_one_of_the_phases(tmp_path: Path, scale_train: bool) -> None:
    text = X + (
        'layer { name: "d" type: "Dropout" bottom: "x" top: "y"'
        f" dropout_param {{ dropout_ratio: 0.75 scale_train: {str(scale_train).lower()} }} }}"
    )
    x = np.full((2, 3, 5, 5), 2.0)
    test = make(tmp_path, text).forward(x=x)["y"]
    train = make(tmp_path, text, phase=sslnet.TRAIN).forward(x=x)["y"]
    assert set(np.unique(test)) == {2.0 if scale_train else 0.5}
    assert set(np.unique(train)) == {0.0, 8.0 if scale_train else 2.0}


def test_dropout_samples_in_test_when_asked_for(tmp_path: Path) -> None:
    text = X + 'layer { name: "d" type: "Dropout" bottom: "x" top: "y" dropout_param { sample_weights_test: true } }'
    net = make(tmp_path, text)
    first, second = (net.forward(x=np.ones((2, 3, 5, 5)))["y"].copy() for _ in range(2))
    assert set(np.unique(first)) == {0.0, 2.0}
    assert (first != second).any()


LOSS = (
    X
    + 'layer { name: "l" type: "Input" top: "l" input_param { shape { dim: 2 dim: 1 dim: 5 dim: 5 } } }\n'
    + 'layer { name: "s" type: "SoftmaxWithLoss" bottom: "x" bottom: "l" top: "s" loss_param { ignore_label: 2 %s } }'
)


@pytest.mark.parametrize("fixed", [False, True])
def test_softmax_loss_with_weights_of_classes_and_a_fixed_normalizer(tmp_path: Path, fixed: bool) -> None:
    weights = [0.5, 3.0, 7.0]
    fields = "weight_by_label_freqs: true " + " ".join(f"class_weighting: {w}" for w in weights)
    if fixed:
        fields += " normalization: PRE_FIXED pre_fixed_normalizer: 12"
    net = make(tmp_path, "force_backward: true\n" + LOSS % fields, phase=sslnet.TRAIN)
    random = np.random.default_rng(0)
    x, labels = random.standard_normal((2, 3, 5, 5)), random.integers(0, 3, (2, 1, 5, 5))
    net.forward(x=x, l=labels)
    net.backward()
    p = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
    loss, count, gradient = 0.0, 0, np.zeros_like(x)
    for n, i, j in np.ndindex(2, 5, 5):
        k = labels[n, 0, i, j]
        if k != 2:
            loss -= weights[k] * np.log(p[n, k, i, j])
            gradient[n, :, i, j] = weights[k] * (p[n, :, i, j] - np.eye(3)[k])
            count += 1
    divisor = 12 if fixed else count
    np.testing.assert_allclose(net.blobs["s"].data, loss / divisor, rtol=1e-5)
    np.testing.assert_allclose(net.blobs["x"].diff, gradient / divisor, rtol=1e-4, atol=1e-6)


def test_softmax_loss_needs_a_weight_a_class(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match="class_weighting is given 1 times for 3 classes"):
        make(tmp_path, LOSS % "weight_by_label_freqs: true class_weighting: 1")
    with pytest.raises(DefinitionError, match="pre_fixed_normalizer must be above 0"):
        make(tmp_path, LOSS % "normalization: PRE_FIXED pre_fixed_normalizer: 0")
