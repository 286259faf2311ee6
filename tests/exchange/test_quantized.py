"""Quantised nets as QDQ models: the numbers of the net, and onnxruntime's outputs."""

import numpy as np
import pytest

from sslnet import sslnet_pb2 as pb
from sslnet.net.net import Net
from sslnet.prototxt import parse

onnx = pytest.importorskip("onnx")

from sslnet.exchange.export import export  # noqa: E402
from sslnet.exchange.quantized import integer_steps_of  # noqa: E402

NET = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 12 dim: 12 } } }
layer { name: "c1" type: "Convolution" bottom: "data" top: "c1"
  convolution_param { num_output: 8 kernel_size: 3 pad: 1 weight_filler { type: "msra" } bias_filler { type: "gaussian" std: 0.3 } }
  quantization_param { weight_bits: 7 input_range { min: -3 max: 3.5 } output_range { max: 5 } } }
layer { name: "r1" type: "ReLU" bottom: "c1" top: "c1" }
layer { name: "p1" type: "Pooling" bottom: "c1" top: "p1" pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "c2" type: "Convolution" bottom: "p1" top: "c2"
  convolution_param { num_output: 8 kernel_size: 3 pad: 1 bias_term: false group: 2 weight_filler { type: "msra" } }
  quantization_param { weight_bits: 4 activation_bits: 4 output_range { min: -4 max: 5 } } }
layer { name: "e" type: "Eltwise" bottom: "c2" bottom: "p1" top: "e" quantization_param { output_range { min: -2 max: 6 } } }
layer { name: "r2" type: "ReLU" bottom: "e" top: "r2" relu_param { negative_slope: 0.25 } }
layer { name: "t" type: "TanH" bottom: "r2" top: "t" }
layer { name: "ip" type: "InnerProduct" bottom: "t" top: "ip"
  inner_product_param { num_output: 5 transpose: true weight_filler { type: "msra" } bias_filler { type: "gaussian" std: 0.3 } }
  quantization_param { weight_bits: 7 input_range { min: -1 max: 1 } } }
"""


@pytest.fixture
def net() -> Net:
    return Net(parse(NET, pb.NetParameter, None), seed=1)


def test_model_holds_the_numbers(net):
    model, _ = export(net)
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for name, bits in (("c1", 7), ("c2", 4), ("ip", 7)):
        numbers, steps = arrays[f"{name}.0.numbers"], arrays[f"{name}.0.step"]
        assert numbers.dtype == np.int8 and np.abs(numbers).max() == 2 ** (bits - 1) - 1
        weights = net.params[name][0].data.T if name == "ip" else net.params[name][0].data
        values = numbers * steps.reshape(-1, *(1,) * (numbers.ndim - 1))
        assert np.abs(values - weights).max() <= steps.max() / 2 * 1.001
    assert not {"c1.0", "c2.0", "ip.0", "c1.1", "ip.1"} & set(arrays)
    assert arrays["c1.1.numbers"].dtype == np.int32
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("QuantizeLinear") == 7  # two inputs; c1, p1, c2, e, r2
    assert "Relu" not in kinds and kinds.count("Clip") == 1
    assert set(integer_steps_of(net)) == {1, 2, 3, 5, 6, 7, 9}


def test_onnxruntime_gives_the_outputs_of_the_net(net):
    pytest.importorskip("onnxruntime")
    _, difference = export(net)
    assert difference is not None and difference.relative < 0.02
