"""ImageSegData: batches of images with a class for each pixel, padded to the crop (DeepLab, PSPNet).

    top[0]  (batch_size, C, H, W)   see sslnet.sources.transformer; planes blue, green, red, or one with is_color: false
    top[1]  (batch_size, 1, H, W)   labels; ignore_label where the image is padded
    top[2]  (batch_size, 1, 1, 2)   rows and columns of the image, at most those of the crop; optional

A line of the list is an image file and, by label_type, a label file (PIXEL), the class of all its pixels (IMAGE), or nothing
(NONE: ignore_label). Images smaller than the crop are padded at the bottom and at the right, with the mean. `new_height` and
`new_width` resize (labels by the nearest pixel).

Ref: Chen et al. 2015, DeepLab; Zhao et al. 2017, PSPNet
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, final

from sslnet.layers.image_pairs import ImagePairData
from sslnet.sources.image_pairs import PairOptions


@final
class ImageSegData(ImagePairData):
    TYPE: ClassVar[str] = "ImageSegData"
    TOPS: ClassVar[tuple[int, int | None]] = (2, 3)
    SOURCE_FIELD: ClassVar[tuple[str, str]] = ("image_data_param", "source")

    def options(self) -> PairOptions:
        param = self._parameters()
        return replace(super().options(), kind=param.label_type, ignore=param.ignore_label, pads=True)
