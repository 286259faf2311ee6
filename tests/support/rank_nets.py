"""Small nets and solvers for the tests of ranks: LeNet with dropout and group lasso, and a residual net with BatchNorm."""

from __future__ import annotations

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb

DATA = """
layer {{ name: "data" type: "Data" top: "data" top: "label" include {{ phase: TRAIN }}
  transform_param {{ scale: 0.0625 mirror: true crop_size: 7 }}
  data_param {{ source: "digits/train" backend: BUILTIN batch_size: {batch} shuffle: true }} }}
layer {{ name: "data" type: "Data" top: "data" top: "label" include {{ phase: TEST }}
  transform_param {{ scale: 0.0625 crop_size: 7 }} data_param {{ source: "digits/test" backend: BUILTIN batch_size: 50 }} }}
"""

LENET = (
    DATA
    + """
layer {{ name: "conv1" type: "Convolution" bottom: "data" top: "conv1" param {{ breadth_decay_mult: 1 }}
  convolution_param {{ num_output: 8 kernel_size: 3 pad: 1 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1" pooling_param {{ pool: MAX kernel_size: 2 stride: 2 }} }}
layer {{ name: "conv2" type: "Convolution" bottom: "pool1" top: "conv2"
  param {{ breadth_decay_mult: 1 kernel_shape_decay_mult: 1 }}
  convolution_param {{ num_output: 12 kernel_size: 3 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "ip1" type: "InnerProduct" bottom: "conv2" top: "ip1" param {{ breadth_decay_mult: 1 }}
  inner_product_param {{ num_output: 20 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "relu1" type: "ReLU" bottom: "ip1" top: "ip1" }}
layer {{ name: "drop1" type: "Dropout" bottom: "ip1" top: "ip1" }}
layer {{ name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
  inner_product_param {{ num_output: 10 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "accuracy" type: "Accuracy" bottom: "ip2" bottom: "label" top: "accuracy" include {{ phase: TEST }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" {loss} }}
"""
)


def _block(name: str, bottom: str, top: str, relu: bool) -> str:
    """A convolution with BatchNorm and coupled scales, and perhaps a ReLU."""
    text = f"""
layer {{{{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{top}"
  convolution_param {{{{ num_output: 8 bias_term: false pad: 1 kernel_size: 3 weight_filler {{{{ type: "msra" }}}} }}}} }}}}
layer {{{{ name: "bn_{name}" type: "BatchNorm" bottom: "{top}" top: "{top}" }}}}
layer {{{{ name: "scale_{name}" type: "Scale" bottom: "{top}" top: "{top}"
  param {{{{ group_lasso {{{{ group: FILTER take_bias: true couple: true }}}} }}}} param {{{{ decay_mult: 0 }}}}
  scale_param {{{{ bias_term: true }}}} }}}}
"""
    return text + (f'layer {{{{ name: "relu_{name}" type: "ReLU" bottom: "{top}" top: "{top}" }}}}\n' if relu else "")


RESNET = (
    DATA
    + _block("c1", "data", "c1", True)
    + _block("a1", "c1", "a1", True)
    + _block("a2", "a1", "a2", False)
    + """
layer {{ name: "sum_a" type: "Eltwise" bottom: "c1" bottom: "a2" top: "sum_a" }}
layer {{ name: "relu_a" type: "ReLU" bottom: "sum_a" top: "sum_a" }}
"""
    + _block("b1", "sum_a", "b1", True)
    + _block("b2", "b1", "b2", False)
    + """
layer {{ name: "sum_b" type: "Eltwise" bottom: "sum_a" bottom: "b2" top: "sum_b" }}
layer {{ name: "relu_b" type: "ReLU" bottom: "sum_b" top: "sum_b" }}
layer {{ name: "pool" type: "Pooling" bottom: "sum_b" top: "pool" pooling_param {{ pool: AVE global_pooling: true }} }}
layer {{ name: "ip" type: "InnerProduct" bottom: "pool" top: "ip"
  inner_product_param {{ num_output: 10 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" include {{ phase: TEST }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" {loss} }}
"""
)

SOLVERS = {
    "lenet": (LENET, "base_lr: 0.02 momentum: 0.9 breadth_decay: 0.01 kernel_shape_decay: 0.003 iter_size: 2"),
    "resnet": (RESNET, "base_lr: 0.05 momentum: 0.9 weight_decay: 0.0001 group_lasso_decay: 0.003"),
    "adamw": (RESNET, 'type: "AdamW" base_lr: 0.003 momentum: 0.9 weight_decay: 0.01 group_lasso_decay: 0.003'),
}


def solver_param(name: str, batch: int, more: str = "", loss: str = "") -> pb.SolverParameter:
    """The solver of one of these nets.

    batch   records of a part of the whole batch;  more: further fields;  loss: fields of the loss layer
    """
    net, fields = SOLVERS[name]
    text = f"""{fields} lr_policy: "fixed" random_seed: 3 test_iter: 3 test_interval: 5 max_iter: 20
      snapshot_after_train: false {more} net_param {{ {net.format(batch=batch, loss=loss)} }}"""
    return prototxt.parse(text, pb.SolverParameter).message


def overridden(param: pb.SolverParameter, text: str) -> pb.SolverParameter:
    """The message with other values of some single fields.  [changes it]"""
    param.MergeFrom(prototxt.parse(text, pb.SolverParameter).message)
    return param
