"""DepthwiseConvolution, ConvolutionDepthwise: a Convolution with one group per channel, regardless of ``group``.

Each channel has its own num_output / C filters, which read no other channel. Both names are in use for the same layer.

Ref: Howard et al. 2017, MobileNets
"""

from __future__ import annotations

from abc import ABC
from typing import ClassVar, final

from sslnet import sslnet_pb2 as pb
from sslnet.layers.axes import axis_of
from sslnet.layers.base import Blobs
from sslnet.layers.convolution import Convolution


class Depthwise(Convolution, ABC):
    MIXES_CHANNELS: ClassVar[bool] = False
    DEFAULT_GROUP: ClassVar[str] = ""
    LOW_RANK: ClassVar[bool] = False
    CHANNELS: ClassVar[str] = "each channel is removed with its filters"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.param = pb.LayerParameter.FromString(self.param.SerializeToString())
        param = self.param.convolution_param
        param.group = bottom[0].shape[axis_of(self, bottom[0], param.axis, "convolution_param", "axis")]
        if param.group < 1:
            raise self.shape_error(f'"{bottom[0].name}" has no channels: its shape is {bottom[0].shape}')
        super().setup(bottom, top)


@final
class DepthwiseConvolution(Depthwise):
    TYPE: ClassVar[str] = "DepthwiseConvolution"


@final
class ConvolutionDepthwise(Depthwise):
    TYPE: ClassVar[str] = "ConvolutionDepthwise"
