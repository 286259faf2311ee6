"""Regions of images, as layers of detection nets take them: rows of image index, x1, y1, x2, y2 in pixels."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from sslnet.blob import Blob
from sslnet.layers.base import Blobs, BoolVector, Layer


def region_count(layer: Layer, regions: Blob) -> int:
    """The number of regions of a blob (R, 5) or (R, 5, 1, 1); raises ShapeError for other shapes."""
    if regions.num_axes < 2 or regions.count_of(1) != 5:
        raise layer.shape_error(
            f'regions are five numbers each, image and x1, y1, x2, y2: "{regions.name}" has shape {regions.shape}'
        )
    return regions.shape[0]


def check_regions(layer: Layer, regions: np.ndarray, images: int) -> None:
    """Raises BatchError for an image index out of range, or coordinates that are not finite.

    regions  (R, 5)
    """
    index = regions[:, 0]
    wrong = ~((index >= 0) & (index < images)) | ~np.isfinite(regions).all(axis=1) | (np.abs(regions) > 1e9).any(axis=1)
    if wrong.any():
        row = int(np.argmax(wrong))
        numbers = ", ".join(f"{value:g}" for value in regions[row])
        raise layer.batch_error(
            f"region {row} is {numbers}: an image index from 0 to {images - 1} and four finite coordinates are needed"
        )


class RegionPooling(Layer):
    """Base of layers that pool regions (second bottom) of each channel of the first; a channel of zeros gives zeros."""

    KIND: ClassVar[str] = "pooling"
    BOTTOMS: ClassVar[tuple[int, int | None]] = (2, 2)
    INDEX_BOTTOMS: ClassVar[tuple[int, ...]] = (1,)
    CHANNELS: ClassVar[str] = "removed in the first bottom and the top together"
    SHRINKS: ClassVar[bool] = True
    IGNORES_ZEROS: ClassVar[bool] = True

    def allow_force_backward(self, index: int) -> bool:
        return index == 0

    def zeroed_channels(self, zero: list[BoolVector], constant: list[BoolVector]) -> list[BoolVector]:
        return [zero[0]]

    def needed_channels(self, top: list[BoolVector], bottom_constant: list[BoolVector]) -> list[BoolVector]:
        return [top[0], np.ones_like(bottom_constant[1])]

    def followed_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        return [bottom[0]]

    def check_features(self, bottom: Blobs) -> None:
        """Raises ShapeError unless the first bottom is images of at least one pixel."""
        x = bottom[0]
        if x.num_axes != 4 or 0 in x.shape[2:]:
            raise self.shape_error(f'regions are of images (N, C, H, W): "{x.name}" has shape {x.shape}')

    def pooled_size(self, param: Any, field: str) -> tuple[int, int]:
        """(rows, columns) of the top: pooled_h and pooled_w; raises DefinitionError below 1."""
        sizes = int(param.pooled_h), int(param.pooled_w)
        for name, size in zip(("pooled_h", "pooled_w"), sizes):
            if size < 1:
                raise self.error(f"{name} must be at least 1", field, name)
        return sizes
