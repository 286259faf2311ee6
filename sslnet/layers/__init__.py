"""The registry of layer types.

A layer's class declares everything about the layer: its kind, ONNX operators, channels, groups, label in drawings.
``base.Layer`` lists what a class may declare. Lists, drawings, export, import and compaction read the registry.

To add a layer:

1. one file here, named after the type (``inner_product.py`` for InnerProduct), with its private kernels and a final
   class that derives from ``elementwise.Elementwise`` when it maps each value independently (activations;
   ``hard_swish.py`` is a short example), from ``channelwise.ChannelWise`` when channels stay independent, else from
   ``base.Layer``;
2. its import and one line in ``LAYERS``, in alphabetical order;
3. one golden case, ``tests/goldens/layers/<case>.prototxt`` and ``.npz``, from another implementation (PyTorch's by
   ``make_torch.py`` there, in an environment with torch), or a line with the reason in ``tests/layers/cases.py``;
   there also its configurations for the gradient check; its options for export in ``tests/exchange/test_export.py``;
4. its message in ``protos/sslnet.proto`` when it has parameters, its lines in ``tests/sslnet_schema.txt``, then
   ``tools/gen_proto``;
5. ``tools/gen_docs``, which brings the lists up to date.

The tests run over ``LAYERS`` and report what is missing. Knows: blobs, kernels, sources, prototxt. Does not know: nets.
"""

from __future__ import annotations

from sslnet.layers.absval import AbsVal
from sslnet.layers.accuracy import Accuracy
from sslnet.layers.annotated_data import AnnotatedData
from sslnet.layers.arg_max import ArgMax
from sslnet.layers.array_data import ArrayData
from sslnet.layers.auto_crop import AutoCrop
from sslnet.layers.axpy import Axpy
from sslnet.layers.base import Layer
from sslnet.layers.batch_norm import BatchNorm
from sslnet.layers.batch_reindex import BatchReindex
from sslnet.layers.bias import Bias
from sslnet.layers.bnll import BNLL
from sslnet.layers.box_annotator_ohem import BoxAnnotatorOHEM
from sslnet.layers.box_output import BoxOutput
from sslnet.layers.center_loss import CenterLoss
from sslnet.layers.channel_scale import ChannelScale
from sslnet.layers.clip import Clip
from sslnet.layers.concat import Concat
from sslnet.layers.constant import Constant
from sslnet.layers.continuation_indicator import ContinuationIndicator
from sslnet.layers.contrastive_loss import ContrastiveLoss
from sslnet.layers.convolution import Convolution
from sslnet.layers.correlation import Correlation
from sslnet.layers.crop import Crop
from sslnet.layers.ctc_loss import CTCLoss, CtcLoss
from sslnet.layers.data import Data
from sslnet.layers.decode_bbox import DecodeBBox
from sslnet.layers.deconvolution import Deconvolution
from sslnet.layers.dense_image_data import DenseImageData
from sslnet.layers.depthwise_convolution import ConvolutionDepthwise, DepthwiseConvolution
from sslnet.layers.detection_evaluate import DetectionEvaluate
from sslnet.layers.detection_output import DetectionOutput
from sslnet.layers.dropout import Dropout
from sslnet.layers.dummy_data import DummyData
from sslnet.layers.eltwise import Eltwise
from sslnet.layers.elu import ELU
from sslnet.layers.embed import Embed
from sslnet.layers.euclidean_loss import EuclideanLoss
from sslnet.layers.exp import Exp
from sslnet.layers.filter import Filter
from sslnet.layers.flatten import Flatten
from sslnet.layers.flip import Flip
from sslnet.layers.flow_warp import FlowWarp
from sslnet.layers.gelu import GELU
from sslnet.layers.group_norm import GroupNorm
from sslnet.layers.hard_sigmoid import HardSigmoid
from sslnet.layers.hard_swish import HardSwish
from sslnet.layers.hdf5_data import HDF5Data
from sslnet.layers.hdf5_output import HDF5Output
from sslnet.layers.hinge_loss import HingeLoss
from sslnet.layers.im2col import Im2col
from sslnet.layers.image_data import ImageData
from sslnet.layers.image_folder_data import ImageFolderData
from sslnet.layers.image_labelmap_data import ImageLabelmapData
from sslnet.layers.image_seg_data import ImageSegData
from sslnet.layers.infogain_loss import InfogainLoss
from sslnet.layers.inner_distance import InnerDistance
from sslnet.layers.inner_product import InnerProduct
from sslnet.layers.input import Input
from sslnet.layers.interp import Interp
from sslnet.layers.label_specific_add import LabelSpecificAdd
from sslnet.layers.labelsequence_accuracy import LabelsequenceAccuracy
from sslnet.layers.layer_norm import LayerNorm
from sslnet.layers.log import Log
from sslnet.layers.lrn import LRN
from sslnet.layers.lstm import LSTM
from sslnet.layers.lstm_rows import Lstm
from sslnet.layers.lstm_unit import LSTMUnit
from sslnet.layers.margin_inner_product import MarginInnerProduct
from sslnet.layers.mat_mul import MatMul
from sslnet.layers.memory_data import MemoryData
from sslnet.layers.mish import Mish
from sslnet.layers.multibox_loss import MultiBoxLoss
from sslnet.layers.multinomial_logistic_loss import MultinomialLogisticLoss
from sslnet.layers.mvn import MVN
from sslnet.layers.normalize import Normalize
from sslnet.layers.pad import Pad
from sslnet.layers.parameter import Parameter
from sslnet.layers.permute import Permute
from sslnet.layers.pooling import Pooling
from sslnet.layers.power import Power
from sslnet.layers.prelu import PReLU
from sslnet.layers.prior_box import PriorBox
from sslnet.layers.proposal import Proposal
from sslnet.layers.psroi_pooling import PSROIPooling
from sslnet.layers.python import Python
from sslnet.layers.reduction import Reduction
from sslnet.layers.region import Region
from sslnet.layers.region_loss import RegionLoss
from sslnet.layers.relu import ReLU
from sslnet.layers.relu6 import ReLU6
from sslnet.layers.reorg import Reorg
from sslnet.layers.resample import Resample
from sslnet.layers.reshape import Reshape
from sslnet.layers.resize import Resize
from sslnet.layers.reverse import Reverse
from sslnet.layers.rnn import RNN
from sslnet.layers.roi_align import ROIAlign
from sslnet.layers.roi_pooling import ROIPooling
from sslnet.layers.scale import Scale
from sslnet.layers.seg_accuracy import SegAccuracy
from sslnet.layers.selu import SELU
from sslnet.layers.shuffle_channel import ShuffleChannel
from sslnet.layers.sigmoid import Sigmoid
from sslnet.layers.sigmoid_cross_entropy_loss import SigmoidCrossEntropyLoss
from sslnet.layers.silence import Silence
from sslnet.layers.slice import Slice
from sslnet.layers.smooth_l1_loss import SmoothL1Loss, SmoothL1LossOHEM
from sslnet.layers.softmax import Softmax
from sslnet.layers.softmax_loss import SoftmaxWithLoss, SoftmaxWithLossOHEM
from sslnet.layers.sparsify import Sparsify
from sslnet.layers.split import Split
from sslnet.layers.spp import SPP
from sslnet.layers.swish import SiLU, Swish
from sslnet.layers.tanh import TanH
from sslnet.layers.threshold import Threshold
from sslnet.layers.tile import Tile
from sslnet.layers.transpose import Transpose
from sslnet.layers.upsample import Upsample
from sslnet.layers.window_data import WindowData
from sslnet.layers.yolo_detection_output import YoloDetectionOutput
from sslnet.layers.yolov3 import Yolov3
from sslnet.layers.yolov3_detection_output import Yolov3DetectionOutput
from sslnet.prototxt.net_spec import layer_function

LAYERS: dict[str, type[Layer]] = {
    "AbsVal": AbsVal,
    "Accuracy": Accuracy,
    "AnnotatedData": AnnotatedData,
    "ArgMax": ArgMax,
    "ArrayData": ArrayData,
    "AutoCrop": AutoCrop,
    "Axpy": Axpy,
    "BatchNorm": BatchNorm,
    "BatchReindex": BatchReindex,
    "Bias": Bias,
    "BNLL": BNLL,
    "BoxAnnotatorOHEM": BoxAnnotatorOHEM,
    "BoxOutput": BoxOutput,
    "CenterLoss": CenterLoss,
    "ChannelScale": ChannelScale,
    "Clip": Clip,
    "Concat": Concat,
    "Constant": Constant,
    "ContinuationIndicator": ContinuationIndicator,
    "ContrastiveLoss": ContrastiveLoss,
    "Convolution": Convolution,
    "ConvolutionDepthwise": ConvolutionDepthwise,
    "Correlation": Correlation,
    "Crop": Crop,
    "CtcLoss": CtcLoss,
    "CTCLoss": CTCLoss,
    "Data": Data,
    "DecodeBBox": DecodeBBox,
    "Deconvolution": Deconvolution,
    "DenseImageData": DenseImageData,
    "DepthwiseConvolution": DepthwiseConvolution,
    "DetectionEvaluate": DetectionEvaluate,
    "DetectionOutput": DetectionOutput,
    "Dropout": Dropout,
    "DummyData": DummyData,
    "Eltwise": Eltwise,
    "ELU": ELU,
    "Embed": Embed,
    "EuclideanLoss": EuclideanLoss,
    "Exp": Exp,
    "Filter": Filter,
    "Flatten": Flatten,
    "Flip": Flip,
    "FlowWarp": FlowWarp,
    "GELU": GELU,
    "GroupNorm": GroupNorm,
    "HardSigmoid": HardSigmoid,
    "HardSwish": HardSwish,
    "HDF5Data": HDF5Data,
    "HDF5Output": HDF5Output,
    "HingeLoss": HingeLoss,
    "Im2col": Im2col,
    "ImageData": ImageData,
    "ImageFolderData": ImageFolderData,
    "ImageLabelmapData": ImageLabelmapData,
    "ImageSegData": ImageSegData,
    "InfogainLoss": InfogainLoss,
    "InnerDistance": InnerDistance,
    "InnerProduct": InnerProduct,
    "Input": Input,
    "Interp": Interp,
    "LabelsequenceAccuracy": LabelsequenceAccuracy,
    "LabelSpecificAdd": LabelSpecificAdd,
    "LayerNorm": LayerNorm,
    "Log": Log,
    "LRN": LRN,
    "Lstm": Lstm,
    "LSTM": LSTM,
    "LSTMUnit": LSTMUnit,
    "MarginInnerProduct": MarginInnerProduct,
    "MatMul": MatMul,
    "MemoryData": MemoryData,
    "Mish": Mish,
    "MultiBoxLoss": MultiBoxLoss,
    "MultinomialLogisticLoss": MultinomialLogisticLoss,
    "MVN": MVN,
    "Normalize": Normalize,
    "Pad": Pad,
    "Parameter": Parameter,
    "Permute": Permute,
    "Pooling": Pooling,
    "Power": Power,
    "PReLU": PReLU,
    "PriorBox": PriorBox,
    "Proposal": Proposal,
    "PSROIPooling": PSROIPooling,
    "Python": Python,
    "Reduction": Reduction,
    "Region": Region,
    "RegionLoss": RegionLoss,
    "ReLU": ReLU,
    "ReLU6": ReLU6,
    "Reorg": Reorg,
    "Resample": Resample,
    "Reshape": Reshape,
    "Resize": Resize,
    "Reverse": Reverse,
    "RNN": RNN,
    "ROIAlign": ROIAlign,
    "ROIPooling": ROIPooling,
    "Scale": Scale,
    "SegAccuracy": SegAccuracy,
    "SELU": SELU,
    "ShuffleChannel": ShuffleChannel,
    "Sigmoid": Sigmoid,
    "SigmoidCrossEntropyLoss": SigmoidCrossEntropyLoss,
    "Silence": Silence,
    "SiLU": SiLU,
    "Slice": Slice,
    "SmoothL1Loss": SmoothL1Loss,
    "SmoothL1LossOHEM": SmoothL1LossOHEM,
    "Softmax": Softmax,
    "SoftmaxWithLoss": SoftmaxWithLoss,
    "SoftmaxWithLossOHEM": SoftmaxWithLossOHEM,
    "Sparsify": Sparsify,
    "Split": Split,
    "SPP": SPP,
    "Swish": Swish,
    "TanH": TanH,
    "Threshold": Threshold,
    "Tile": Tile,
    "Transpose": Transpose,
    "Upsample": Upsample,
    "WindowData": WindowData,
    "YoloDetectionOutput": YoloDetectionOutput,
    "Yolov3": Yolov3,
    "Yolov3DetectionOutput": Yolov3DetectionOutput,
}

# ``layers.Convolution(bottom, num_output=20)`` is a call in a NetSpec, as in pycaffe; its class: LAYERS["Convolution"].
globals().update({_name: layer_function(_name) for _name in LAYERS})
