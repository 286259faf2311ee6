"""ImageLabelmapData: batches of images with maps of edges, from a list of an image and a map file a line (HED).

    top[0]  (batch_size, C, H, W)   see sslnet.sources.transformer; planes blue, green, red, or one with is_color: false
    top[1]  (batch_size, 1, H, W)   1 where the grey value of the map is 128 or more, else 0

`new_height` and `new_width` resize images and maps (bilinear); crops and mirroring act on both.

Ref: Xie, Tu 2015, "Holistically-nested edge detection"
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, final

from sslnet.layers.image_pairs import ImagePairData
from sslnet.sources.image_pairs import PairOptions


@final
class ImageLabelmapData(ImagePairData):
    TYPE: ClassVar[str] = "ImageLabelmapData"
    SOURCE_FIELD: ClassVar[tuple[str, str]] = ("image_data_param", "source")

    def options(self) -> PairOptions:
        return replace(super().options(), edges=True)
