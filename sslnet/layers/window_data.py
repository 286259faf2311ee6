"""WindowData: batches of windows cropped from images, a given fraction of objects, the rest of background.

    top[0]  (batch_size, 3, crop_size, crop_size)   (pixel - mean) * scale; 0 where the context exceeds the image
    top[1]  (batch_size)                            classes; 0 for background

A window with an overlap of at least fg_threshold shows an object, one below bg_threshold background; others are unused.
Each batch draws batch_size - n windows of background, then n = batch_size * fg_fraction (rounded down) of objects,
uniformly with replacement; `mirror` flips half of them horizontally. List and crops: sslnet.sources.windows.

Ref: Girshick et al. 2014, "Rich feature hierarchies for accurate object detection and semantic segmentation", 2.3
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, final

import numpy as np

from sslnet.errors import DataError, WeightsError
from sslnet.layers.base import Blobs
from sslnet.layers.prefetched import PrefetchedLayer
from sslnet.sources.prefetch import Reader

if TYPE_CHECKING:
    from sslnet.sources.window_batches import Crops

_TRANSFORMS = ("scale", "mirror", "crop_size", "mean_file", "mean_value")


@final
class WindowData(PrefetchedLayer):
    TYPE: ClassVar[str] = "WindowData"
    TOPS: ClassVar[tuple[int, int | None]] = (2, 2)
    SOURCE_FIELD: ClassVar[tuple[str, str]] = ("window_data_param", "source")

    def make_reader(self, top: Blobs) -> Reader:
        from sslnet.sources.window_batches import WindowReader
        from sslnet.sources.windows import LABEL, OVERLAP, read_windows

        param, batch_size = self._parameters(), self.batch_size()
        crops = self._crops()
        listed = read_windows(self.source_path())
        overlap = listed.windows[:, OVERLAP]
        is_object = overlap >= np.float32(param.fg_threshold)
        is_background = ~is_object & (overlap < np.float32(param.bg_threshold))
        objects = int(np.float32(batch_size) * np.float32(param.fg_fraction))
        self._check_shares(batch_size, objects, is_object, is_background)
        if (listed.windows[is_object, LABEL] <= 0).any():
            raise DataError("a window of an object has class 0, that of background", path=listed.path)
        return WindowReader(
            crops,
            [param.root_folder + name for name in listed.images],
            listed.path,
            [listed.windows[is_background], listed.windows[is_object]],
            [batch_size - objects, objects],
            (self.context.seed, self.name),
            keep=param.cache_images,
        )

    def _crops(self) -> Crops:
        """The crop settings of transform_param and window_data_param, checked."""
        from sslnet.sources.window_batches import Crops

        param, transform = self._parameters(), self.param.transform_param
        for field, _ in transform.ListFields():
            if field.name not in _TRANSFORMS:
                raise self.error(f"{field.name} has no effect on windows", "transform_param", field.name)
        size = int(transform.crop_size)
        if size < 1:
            raise self.error(
                "crop_size must be given: the size of the windows in pixels", "transform_param", "crop_size"
            )
        if 2 * param.context_pad >= size:
            message = f"context_pad {param.context_pad} at both sides leaves nothing of crop_size {size}"
            raise self.error(message, "window_data_param", "context_pad")
        if param.crop_mode not in ("warp", "square"):
            message = f'crop_mode must be "warp" or "square", not "{param.crop_mode}"'
            raise self.error(message, "window_data_param", "crop_mode", value=True)
        scale = np.float32(transform.scale) * np.float32(param.scale)
        square = param.crop_mode == "square"
        return Crops(size, int(param.context_pad), square, bool(transform.mirror), self._mean(size), scale)

    def _mean(self, size: int) -> np.ndarray:
        """The mean: (3, size, size), the centre of a mean image, or (3, 1, 1)."""
        from sslnet.sources.mean import read_mean

        transform = self.param.transform_param
        values = np.array(transform.mean_value, np.float32)
        if not transform.HasField("mean_file"):
            if len(values) not in (0, 1, 3):
                message = f"there are {len(values)} mean_value: give one, or one for each of 3 channels"
                raise self.error(message, "transform_param", "mean_value")
            return np.broadcast_to(values if len(values) else np.float32(0), 3).reshape(3, 1, 1).copy()
        if len(values):
            raise self.error("mean_file and mean_value exclude each other", "transform_param", "mean_file")
        place = ("transform_param", "mean_file")
        try:
            mean = read_mean(Path(self.find(transform.mean_file, *place)))
        except WeightsError as problem:
            raise self.error(f"{problem.path}: {problem.message}", *place) from problem
        if mean.shape == (3, 1, 1):
            return mean
        if len(mean) != 3 or min(mean.shape[1:]) < size:
            shape = " x ".join(map(str, mean.shape))
            raise self.error(f"the mean image is {shape}, but the windows are 3 x {size} x {size}", *place)
        first = (mean.shape[2] - size) // 2  # from the width, for both axes, as in Caffe
        if first + size > mean.shape[1]:
            shape = " x ".join(map(str, mean.shape))
            raise self.error(f"the mean image is {shape}: it must not be wider than high", *place)
        return mean[:, first : first + size, first : first + size]

    def _check_shares(self, size: int, objects: int, is_object: np.ndarray, is_background: np.ndarray) -> None:
        param = self._parameters()
        if not 0 <= param.fg_fraction <= 1:
            message = f"fg_fraction must be from 0 to 1, not {param.fg_fraction:g}"
            raise self.error(message, "window_data_param", "fg_fraction", value=True)
        if objects and not is_object.any():
            raise DataError(
                f"no window has an overlap of fg_threshold, {param.fg_threshold:g}, or more", path=param.source
            )
        if objects < size and not is_background.any():
            raise DataError(f"no window has an overlap below bg_threshold, {param.bg_threshold:g}", path=param.source)

    def _refuse_old_fields(self) -> None:
        """Refuses fields that belong to transform_param; `scale` still has an effect here, as in Caffe."""
        for field in ("mean_file", "crop_size", "mirror"):
            if self._parameters().HasField(field):
                hint = "write it in transform_param { }"
                raise self.error(f"{field} has no effect here", "window_data_param", field, hint=hint)
