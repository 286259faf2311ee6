"""compact leaves out zero columns of convolutions: a net that is smaller on disk, the same net, and one that trains on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.compress.compaction.compact import compact
from sslnet.net.net import Net
from sslnet.solver.solver import Solver
from sslnet.sparsity.measure import measure

NET = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 4 dim: 9 dim: 8 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 8 kernel_size: 5 pad: 2 } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "conv2" type: "Convolution" bottom: "conv1" top: "conv2"
  convolution_param { num_output: 6 kernel_size: 3 pad: 1 stride: 2 group: 2 } }
layer { name: "conv3" type: "Convolution" bottom: "conv2" top: "conv3"
  convolution_param { num_output: 5 kernel_h: 3 kernel_w: 1 pad_h: 1 dilation: 1 } }
layer { name: "ip" type: "InnerProduct" bottom: "conv3" top: "ip" inner_product_param { num_output: 3 } }
"""


@pytest.fixture
def pruned(make_net: Callable[..., Net]) -> Net:
    """conv1 without the border of its kernel and a filter, conv2 and conv3 without many columns: of each group's channels,
    conv2 reads the first and the last."""
    net = make_net(NET)
    conv1, conv2, conv3 = (net.params[name][0].data for name in ("conv1", "conv2", "conv3"))
    border = np.ones((5, 5), bool)
    border[1:-1, 1:-1] = False
    conv1[:, :, border] = 0
    conv1[1] = 0
    conv2.reshape(2, 3, -1)[0][:, 2:30] = 0
    conv2.reshape(2, 3, -1)[1][:, 7:] = 0
    conv3.reshape(5, -1)[:, ::2] = 0
    return net


def shapes(weights) -> dict[str, tuple[int, ...]]:
    return {layer.name: tuple(layer.blobs[0].shape.dim) for layer in weights.layer}


def test_zero_columns_and_kernel_borders_go(pruned, outputs_agree) -> None:
    definition, weights = prototxt.parse(NET, pb.NetParameter), pruned.to_proto()
    result = compact(definition, weights)
    assert shapes(result.weights) == {"conv1": (4, 4, 3, 3), "conv2": (6, 8), "conv3": (5, 9), "ip": (3, 5 * 5 * 4)}
    outputs_agree(definition.message, weights, result.message, result.weights)
    conv2 = next(layer for layer in result.message.layer if layer.name == "conv2").convolution_param
    assert list(conv2.kept_column) == [0, 1, *range(12, 18), *range(8)]
    assert conv2.conv_mode == pb.ConvolutionParameter.AUTO
    sizes = {size.name: size for size in result.layers}
    assert sizes["conv2"].after.flops / sizes["conv2"].before.flops == 8 / 36
    assert result.weights.ByteSize() < 0.7 * weights.ByteSize()


def test_standard_only_keeps_what_caffe_reads(pruned, outputs_agree) -> None:
    definition, weights = prototxt.parse(NET, pb.NetParameter), pruned.to_proto()
    result = compact(definition, weights, standard_only=True)
    assert shapes(result.weights)["conv2"] == (6, 2, 3, 3)
    assert shapes(result.weights)["conv1"] == (4, 4, 3, 3)
    for layer in result.message.layer:
        assert not layer.convolution_param.kept_column
        assert not layer.convolution_param.HasField("conv_mode")
    outputs_agree(definition.message, weights, result.message, result.weights)


def test_a_smaller_net_is_made_smaller_again_and_written_out_again(pruned, outputs_agree) -> None:
    definition, weights = prototxt.parse(NET, pb.NetParameter), pruned.to_proto()
    first = compact(definition, weights)
    again = prototxt.parse(prototxt.write(first.message), pb.NetParameter)
    second = compact(again, first.weights)
    assert shapes(second.weights) == shapes(first.weights)
    for layer in first.weights.layer:
        if layer.name == "conv3":
            values = np.array(layer.blobs[0].data).reshape(5, 9)
            values[2] = values[:, 4] = 0
            layer.blobs[0].data[:] = values.ravel().tolist()
    third = compact(again, first.weights)
    assert shapes(third.weights)["conv3"] == (4, 8)
    outputs_agree(again.message, first.weights, third.message, third.weights)
    whole = compact(again, first.weights, standard_only=True)
    assert shapes(whole.weights)["conv3"] == (4, 6, 3, 1)
    outputs_agree(again.message, first.weights, whole.message, whole.weights)


def test_a_net_with_kept_columns_trains_on(pruned, tmp_path) -> None:
    """Each iteration changes the kept weights as it changes those of the whole net whose other weights are frozen."""
    definition, weights = prototxt.parse(NET, pb.NetParameter), pruned.to_proto()
    small = compact(definition, weights)
    losses = []
    for message, values in ((definition.message, weights), (small.message, small.weights)):
        net = pb.NetParameter()
        net.CopyFrom(message)
        random = np.random.default_rng(0)
        data = net.layer[0]
        data.type = "DummyData"
        data.ClearField("input_param")
        data.dummy_data_param.shape.add(dim=[2, 4, 9, 8])
        data.dummy_data_param.data_filler.add(type="constant", value=float(random.random()))
        for layer in net.layer:
            if layer.type == "Convolution":
                layer.connectivity_mode = pb.DISCONNECTED_GRPWISE
        net.layer.add(name="loss", type="Reduction", bottom=["ip"], top=["loss"], loss_weight=[1e-3])
        net.layer[-1].reduction_param.operation = pb.ReductionParameter.SUMSQ
        parameter = pb.SolverParameter(net_param=net, base_lr=1e-6, lr_policy="fixed", momentum=0.9, max_iter=5)
        solver = Solver(parameter)
        path = tmp_path / "weights.caffemodel"
        path.write_bytes(values.SerializeToString())
        solver.load(path)
        losses.append([])
        for _ in range(5):
            solver.step(1)
            losses[-1].append(solver.net.loss)
    assert losses[0][-1] < losses[0][0]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)


def test_the_sparsity_of_kept_columns_counts_channels_and_flops(pruned) -> None:
    small = compact(prototxt.parse(NET, pb.NetParameter), pruned.to_proto())
    net = Net(small.message, small.weights)
    net.params["conv2"][0].data[:3, :2] = 0
    sparsity = {one.name: one for one in measure(net)}["conv2[0]"]
    assert sparsity.shape == (6, 8)
    assert (sparsity.channels.kept, sparsity.channels.total) == (2, 3)
    # One of the second group's eight columns was zero from the first: the groups list equally many.
    assert (sparsity.columns.kept, sparsity.columns.total) == (13, 16)
    assert sparsity.flops.fraction == pytest.approx(13 / 16)
