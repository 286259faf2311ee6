"""NetSpec: the messages it makes, against what pycaffe's documentation promises of the same calls."""

import pytest

from sslnet import sslnet_pb2 as pb
from sslnet.errors import UsageError
from sslnet.prototxt.net_spec import NetSpec, layers, params, to_proto


def lenet():
    n = NetSpec()
    n.data, n.label = layers.Data(
        source="train_lmdb", backend=params.Data.LMDB, batch_size=64, transform_param=dict(scale=1 / 256), ntop=2
    )
    n.conv1 = layers.Convolution(n.data, kernel_size=5, num_output=20, weight_filler=dict(type="xavier"))
    n.pool1 = layers.Pooling(n.conv1, kernel_size=2, stride=2, pool=params.Pooling.MAX)
    n.relu1 = layers.ReLU(n.pool1, in_place=True)
    n.ip1 = layers.InnerProduct(n.relu1, num_output=10, param=[dict(lr_mult=1), dict(lr_mult=2, decay_mult=0)])
    n.loss = layers.SoftmaxWithLoss(n.ip1, n.label, loss_param=dict(ignore_label=3))
    return n.to_proto()


def test_net_spec_names_layers_and_blobs():
    net = lenet()
    assert [layer.name for layer in net.layer] == ["data", "conv1", "pool1", "relu1", "ip1", "loss"]
    assert list(net.layer[0].top) == ["data", "label"]
    assert list(net.layer[5].bottom) == ["ip1", "label"]


def test_net_spec_in_place_layer_keeps_its_bottoms_name():
    net = lenet()
    assert list(net.layer[3].bottom) == list(net.layer[3].top) == ["pool1"]
    assert list(net.layer[4].bottom) == ["pool1"]


def test_net_spec_fields_go_to_the_layers_own_message():
    net = lenet()
    assert net.layer[0].data_param.batch_size == 64
    assert net.layer[0].data_param.backend == pb.DataParameter.LMDB
    assert net.layer[0].transform_param.scale == pytest.approx(1 / 256)
    assert list(net.layer[1].convolution_param.kernel_size) == [5]
    assert net.layer[1].convolution_param.weight_filler.type == "xavier"
    assert [p.lr_mult for p in net.layer[4].param] == [1, 2]
    assert net.layer[5].loss_param.ignore_label == 3


def test_net_spec_unnamed_layers_are_named_by_type():
    data = layers.DummyData(shape=dict(dim=[2, 3]))
    net = to_proto(layers.ReLU(layers.ReLU(data)))
    assert [layer.name for layer in net.layer] == ["DummyData1", "ReLU1", "ReLU2"]


def test_net_spec_layer_used_twice_appears_once():
    n = NetSpec()
    n.data = layers.DummyData(shape=dict(dim=[2, 3]))
    n.sum = layers.Eltwise(n.data, n.data)
    assert [layer.name for layer in n.to_proto().layer] == ["data", "sum"]


def test_net_spec_unknown_field_is_named():
    n = NetSpec()
    n.data = layers.DummyData(shape=dict(dim=[2, 3]))
    n.conv = layers.Convolution(n.data, num_ouput=3)
    with pytest.raises(UsageError, match='ConvolutionParameter has no field "num_ouput"') as caught:
        n.to_proto()
    assert 'did you mean "num_output"?' in str(caught.value)


def test_net_spec_input_must_be_a_top():
    with pytest.raises(UsageError, match="input 0 of ReLU is a int"):
        layers.ReLU(3)
