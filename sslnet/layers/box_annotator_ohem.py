"""BoxAnnotatorOHEM: only the roi_per_img regions of each image with the largest losses take part in training.

labels = those of these regions, ignore_label for the others; weights = those of these regions, 0 for the others. Of equal
losses the region that comes first is taken.

bottom  regions (R, 5) of image index, x1, y1, x2, y2; losses (R), labels (R), box weights (R, C)
top     labels (R), box weights (R, C), in the shapes of the bottoms

Ref: Shrivastava, Gupta, Girshick 2016, online hard example mining; Dai et al. 2016, R-FCN
"""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

from sslnet.layers.base import Blobs
from sslnet.layers.no_gradient import NoInputGradient
from sslnet.layers.regions import region_count


@final
class BoxAnnotatorOHEM(NoInputGradient):
    TYPE: ClassVar[str] = "BoxAnnotatorOHEM"
    KIND: ClassVar[str] = "result"
    BOTTOMS: ClassVar[tuple[int, int | None]] = (4, 4)
    TOPS: ClassVar[tuple[int, int | None]] = (2, 2)
    DEPLOYED: ClassVar[bool] = False

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        if self.param.box_annotator_ohem_param.roi_per_img < 1:
            raise self.error("roi_per_img must be at least 1", "box_annotator_ohem_param", "roi_per_img")

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        count = region_count(self, bottom[0])
        for blob in bottom[1:3]:
            if blob.count != count:
                raise self.shape_error(f'there are {count} regions, "{blob.name}" has shape {blob.shape}')
        if bottom[3].num != count:
            raise self.shape_error(f'there are {count} regions, "{bottom[3].name}" has shape {bottom[3].shape}')
        top[0].reshape_like(bottom[2])
        top[1].reshape_like(bottom[3])

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        param = self.param.box_annotator_ohem_param
        images = bottom[0].data.reshape(-1, 5)[:, 0]
        losses = bottom[1].data.reshape(-1)
        order = np.argsort(-losses, kind="stable")
        kept = np.zeros(len(losses), np.bool_)
        for image in np.unique(images):
            kept[order[images[order] == image][: param.roi_per_img]] = True
        labels = np.where(kept, bottom[2].data.reshape(-1), param.ignore_label)
        top[0].data[...] = labels.reshape(top[0].shape)
        top[1].data[...] = bottom[3].data
        top[1].data[~kept] = 0
