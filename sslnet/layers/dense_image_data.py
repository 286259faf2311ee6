"""DenseImageData: batches of images with a class for each pixel, from a list of an image and a label file a line (SegNet).

    top[0]  (batch_size, C, H, W)   see sslnet.sources.transformer; planes blue, green, red, or one with is_color: false
    top[1]  (batch_size, 1, H, W)   labels: the grey values of the label file

`new_height` and `new_width` resize (labels by the nearest pixel); `mirror`, `crop_height` and `crop_width` act on both.

Ref: Badrinarayanan et al. 2015, SegNet
"""

from __future__ import annotations

from typing import Any, ClassVar, final

from sslnet import sslnet_pb2 as pb
from sslnet.layers.image_pairs import ImagePairData

BLOCK = "dense_image_data_param"
CAMVID = (360, 480)
"""Height and width of the images that the nets of this layer were made for; their tops of odd sizes fit no other."""


@final
class DenseImageData(ImagePairData):
    TYPE: ClassVar[str] = "DenseImageData"
    SOURCE_FIELD: ClassVar[tuple[str, str]] = (BLOCK, "source")

    def transform_param(self) -> pb.TransformationParameter:
        param, own = pb.TransformationParameter(), self._parameters()
        param.CopyFrom(self.param.transform_param)
        if own.mirror:
            param.mirror = True
        if own.crop_height or own.crop_width:
            param.crop_h, param.crop_w = own.crop_height, own.crop_width
        return param

    def _refuse_old_fields(self) -> None:
        if self._parameters().HasField("mean_file"):
            raise self.error("mean_file has no effect here", BLOCK, "mean_file", hint="write it in transform_param { }")

    @classmethod
    def assumed_shapes(cls, param: Any) -> tuple[list[tuple[int, ...]], str]:
        shapes, reason = super().assumed_shapes(param)
        own, crop = param.dense_image_data_param, param.transform_param.crop_size
        if own.crop_height and own.crop_width and not crop:
            size = (int(own.crop_height), int(own.crop_width))
            return [(*shape[:2], *size) for shape in shapes], "from crop_height and crop_width"
        if reason == "no size is given":
            return [(*shape[:2], *CAMVID) for shape in shapes], f"{reason}: that of SegNet's images, CamVid"
        return shapes, reason
