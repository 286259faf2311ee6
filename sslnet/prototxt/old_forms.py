"""Names in older forms of Caffe's definitions, and their names in today's form."""

from __future__ import annotations

from typing import Any

from sslnet import sslnet_pb2 as pb

LAYERS_OF_2014 = {
    "ABSVAL": "AbsVal",
    "ACCURACY": "Accuracy",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "CONCAT": "Concat",
    "CONTRASTIVE_LOSS": "ContrastiveLoss",
    "CONVOLUTION": "Convolution",
    "DATA": "Data",
    "DECONVOLUTION": "Deconvolution",
    "DROPOUT": "Dropout",
    "DUMMY_DATA": "DummyData",
    "ELTWISE": "Eltwise",
    "EUCLIDEAN_LOSS": "EuclideanLoss",
    "EXP": "Exp",
    "FLATTEN": "Flatten",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "HINGE_LOSS": "HingeLoss",
    "IM2COL": "Im2col",
    "IMAGE_DATA": "ImageData",
    "INFOGAIN_LOSS": "InfogainLoss",
    "INNER_PRODUCT": "InnerProduct",
    "LRN": "LRN",
    "MEMORY_DATA": "MemoryData",
    "MULTINOMIAL_LOGISTIC_LOSS": "MultinomialLogisticLoss",
    "MVN": "MVN",
    "NONE": "",
    "POOLING": "Pooling",
    "POWER": "Power",
    "RELU": "ReLU",
    "SIGMOID": "Sigmoid",
    "SIGMOID_CROSS_ENTROPY_LOSS": "SigmoidCrossEntropyLoss",
    "SILENCE": "Silence",
    "SLICE": "Slice",
    "SOFTMAX": "Softmax",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "SPLIT": "Split",
    "TANH": "TanH",
    "THRESHOLD": "Threshold",
    "WINDOW_DATA": "WindowData",
}
"""Values of V1LayerParameter.LayerType."""

LAYERS_OF_2013 = {
    "accuracy": "Accuracy",
    "bnll": "BNLL",
    "concat": "Concat",
    "conv": "Convolution",
    "data": "Data",
    "dropout": "Dropout",
    "euclidean_loss": "EuclideanLoss",
    "flatten": "Flatten",
    "hdf5_data": "HDF5Data",
    "hdf5_output": "HDF5Output",
    "im2col": "Im2col",
    "images": "ImageData",
    "infogain_loss": "InfogainLoss",
    "innerproduct": "InnerProduct",
    "lrn": "LRN",
    "multinomial_logistic_loss": "MultinomialLogisticLoss",
    "pool": "Pooling",
    "relu": "ReLU",
    "sigmoid": "Sigmoid",
    "softmax": "Softmax",
    "softmax_loss": "SoftmaxWithLoss",
    "split": "Split",
    "tanh": "TanH",
    "window_data": "WindowData",
}
"""The `type` of a V0LayerParameter; "padding" has become a field of the layer that follows."""

_CONV, _POOL, _IP, _LRN = "convolution_param", "pooling_param", "inner_product_param", "lrn_param"
_DATA, _HDF5, _IMAGES, _WINDOWS = "data_param", "hdf5_data_param", "image_data_param", "window_data_param"
_READERS = {"data": _DATA, "hdf5_data": _HDF5, "images": _IMAGES, "window_data": _WINDOWS}


def _of(blocks: dict[str, str], field: str) -> dict[str, tuple[str, str]]:
    return {kind: (block, field) for kind, block in blocks.items()}


FIELDS_OF_2013: dict[str, dict[str, tuple[str, str]]] = {
    "num_output": _of({"conv": _CONV, "innerproduct": _IP}, "num_output"),
    "biasterm": _of({"conv": _CONV, "innerproduct": _IP}, "bias_term"),
    "weight_filler": _of({"conv": _CONV, "innerproduct": _IP}, "weight_filler"),
    "bias_filler": _of({"conv": _CONV, "innerproduct": _IP}, "bias_filler"),
    "pad": _of({"conv": _CONV, "pool": _POOL}, "pad"),
    "kernelsize": _of({"conv": _CONV, "pool": _POOL}, "kernel_size"),
    "group": _of({"conv": _CONV}, "group"),
    "stride": _of({"conv": _CONV, "pool": _POOL}, "stride"),
    "pool": _of({"pool": _POOL}, "pool"),
    "dropout_ratio": _of({"dropout": "dropout_param"}, "dropout_ratio"),
    "local_size": _of({"lrn": _LRN}, "local_size"),
    "alpha": _of({"lrn": _LRN}, "alpha"),
    "beta": _of({"lrn": _LRN}, "beta"),
    "k": _of({"lrn": _LRN}, "k"),
    "source": _of({**_READERS, "infogain_loss": "infogain_loss_param"}, "source"),
    "scale": {"*": ("transform_param", "scale")},
    "meanfile": {"*": ("transform_param", "mean_file")},
    "batchsize": _of(_READERS, "batch_size"),
    "cropsize": {"*": ("transform_param", "crop_size")},
    "mirror": {"*": ("transform_param", "mirror")},
    "rand_skip": _of({"data": _DATA, "images": _IMAGES}, "rand_skip"),
    "det_fg_threshold": _of({"window_data": _WINDOWS}, "fg_threshold"),
    "det_bg_threshold": _of({"window_data": _WINDOWS}, "bg_threshold"),
    "det_fg_fraction": _of({"window_data": _WINDOWS}, "fg_fraction"),
    "det_context_pad": _of({"window_data": _WINDOWS}, "context_pad"),
    "det_crop_mode": _of({"window_data": _WINDOWS}, "crop_mode"),
    "new_height": _of({"images": _IMAGES}, "new_height"),
    "new_width": _of({"images": _IMAGES}, "new_width"),
    "shuffle_images": _of({"images": _IMAGES}, "shuffle"),
    "concat_dim": _of({"concat": "concat_param"}, "concat_dim"),
    "hdf5_output_param": {},  # a block, which stays as it is
}
"""Field of a V0LayerParameter -> its type ("*": any) -> (block, field) of a LayerParameter."""

PARAM_FIELDS = {"param": "name", "blob_share_mode": "share_mode", "blobs_lr": "lr_mult", "weight_decay": "decay_mult"}
"""Lists of old layers with one item per blob -> the field of its ParamSpec."""

TRANSFORM_BLOCKS = {"Data": "data_param", "ImageData": "image_data_param", "WindowData": "window_data_param"}
TRANSFORM_FIELDS = ("scale", "mean_file", "crop_size", "mirror")
"""Fields that have moved from those blocks to transform_param."""

SOLVER_TYPES: dict[Any, str] = {
    pb.SolverParameter.SGD: "SGD",
    pb.SolverParameter.NESTEROV: "Nesterov",
    pb.SolverParameter.ADAGRAD: "AdaGrad",
    pb.SolverParameter.RMSPROP: "RMSProp",
    pb.SolverParameter.ADADELTA: "AdaDelta",
    pb.SolverParameter.ADAM: "Adam",
}

BLOB_AXES = {"Convolution": (4, 1), "Deconvolution": (4, 1), "InnerProduct": (2, 1)}
"""Axes of the blobs of layers that files with four sizes a blob can hold; the sizes in front of them are 1."""
