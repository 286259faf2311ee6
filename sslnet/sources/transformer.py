"""transform_param: computes the input of a net from records, as Caffe does.

    out = (pixel - mean) * scale / std

for the pixels of a crop of the image, mirrored or not. In phase TRAIN each image is cropped at a random place, in phase
TEST at its centre, with the offset (size - crop) // 2; `mirror` flips half of the images at random, in both phases. The
mean is an image, which is cropped at the same place, or one number per channel.

With what Caffe does not have, the operations are, in this order (T: only in phase TRAIN):

    channel_order        blue, green, red to red, green, blue, or back. A mean image is of the images as they are stored and
                         is turned with them; mean_value and std_value are in the order that the net gets
    resize_param         and the other sizes of Caffe's forks: sslnet.sources.resizing. A mean image is of the resized images
    random_resized_crop  T: a part of random size and shape, resized to the crop; in TEST, and without it:
    resize_shorter       resized so that the shorter side has this size
    rotation             T: by a uniform angle; pixels from outside get the value of pad
    pad                  pixels around the image, with the value of the mean (of a mean image: of its channel), or 0 without a
                         mean; or, by pad_mode, from the image
    crop                 of the padded image
    mirror
    brightness           T: x + b, one b for the image, uniform in [-brightness, brightness)
    contrast             T: (x - m) f + m, m the mean of a channel of the crop, one f, uniform in [1 - contrast, 1 + contrast)
    saturation, hue      T: sslnet.sources.colors
    mean                 x - mean; or standardize: (x - m) / max(s, 1 / sqrt(n)), m and s the mean and the standard deviation of
                         the n numbers of the crop
    scale, std           x * scale / std
    erasing              T: a rectangle becomes 0

The random choices for an image are made from random numbers that depend only on the seed, the layer and the place of the
image in the run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.errors import DataError, SslnetError
from sslnet.sources.base import size_text
from sslnet.sources.colors import change_colors
from sslnet.sources.geometry import ATTEMPTS, crop_box, draw_box, pad_images, resize, resize_shorter, rotate
from sslnet.sources.normalization import factors_of, mean_of, padded_mean
from sslnet.sources.presets import check_transform, crop_of, resolved
from sslnet.sources.resizing import DRAWS, Resizing
from sslnet.sources.transform_kernels import augment, center, mirror, standardize, transform

BASE_DRAWS = 5
"""Number of random numbers of an image: mirror, row and column of the crop, brightness, contrast."""
ROTATION, SATURATION, HUE, ERASE = range(BASE_DRAWS, BASE_DRAWS + 4)
ERASE_PLACE = slice(ERASE + 1, ERASE + 3)
BOX_PLACE = slice(ERASE + 3, ERASE + 5)
BOX_SIZES = slice(BOX_PLACE.stop, BOX_PLACE.stop + 2 * ATTEMPTS)
ERASE_SIZES = slice(BOX_SIZES.stop, BOX_SIZES.stop + 2 * ATTEMPTS)
ALL_DRAWS = ERASE_SIZES.stop
"""Number of random numbers of an image where one of the operations beyond contrast is random."""
PAD_MODES = {pb.TransformationParameter.REFLECT: "reflect", pb.TransformationParameter.EDGE: "edge"}


class DataTransformer:
    """The transformation of the records of one layer.

    param   a TransformationParameter
    shape   (C, H, W) of the records
    train   whether crops are random
    dtype   type of the output
    error   creates the error about a field of transform_param: error(message, *field)
    locate  returns the path of the mean file, given its name in the prototxt
    order   the order of the channels of records of three channels: pb.TransformationParameter.BGR or RGB
    """

    def __init__(
        self,
        param: pb.TransformationParameter,
        shape: Sequence[int],
        *,
        train: bool,
        dtype: np.dtype | type[np.floating],
        error: Callable[..., SslnetError],
        locate: Callable[[str], str | Path] = Path,
        order: int = pb.TransformationParameter.BGR,
    ) -> None:
        preset, param = bool(param.preset), resolved(param, error)
        check_transform(param, error)
        self._resizing = Resizing(param, train=train, error=error)
        channels, height, width = shape = (shape[0], *(self._resizing.fixed or shape[1:]))
        self._train = train
        self._mirror = bool(param.mirror)
        self._crop = crop_of(param)
        self._pad = int(param.pad)
        self._pad_mode = PAD_MODES.get(param.pad_mode)
        self._brightness = float(param.brightness) if train else 0.0
        self._contrast = float(param.contrast) if train else 0.0
        self._standardize = bool(param.standardize)
        self._channels = channels
        self._box = param.random_resized_crop if train and param.HasField("random_resized_crop") else None
        self._shorter = int(param.resize_shorter) if self._box is None else 0
        self._rotation = float(param.rotation) if train else 0.0
        self._saturation = float(param.saturation) if train else 0.0
        self._hue = float(param.hue) if train else 0.0
        self._erasing = param.erasing if train and param.HasField("erasing") and param.erasing.probability else None
        self.order = int(param.channel_order) if param.HasField("channel_order") else order
        """The order of the channels of the output, where there are three."""
        self._swap = self.order != order
        self._check_colors(param, error, preset)
        self._check_sizes(param, (height, width), error)
        self._image_size = (height, width)
        mean = mean_of(param, shape, error, locate).astype(dtype)
        if self._swap and mean.shape[1:] != (1, 1):
            mean = np.ascontiguousarray(mean[::-1])
        self._edge = mean.mean(axis=(1, 2), dtype=np.float64).astype(dtype)
        self._mean = self._padded_mean(mean)
        self._scale = np.dtype(dtype).type(param.scale)
        self._factors = factors_of(param, channels, self._scale, error)
        self.shape = (channels, *(self._crop or (height, width)))
        """Shape of an output image: (C, H, W)."""

    @property
    def random(self) -> bool:
        """Whether the output depends on the random numbers of ``draw``."""
        crop = self._train and self._crop is not None
        return self._mirror or crop or self._brightness > 0 or self._contrast > 0 or self._draws_more

    @property
    def _draws_more(self) -> bool:
        return any((self._box, self._rotation, self._saturation, self._hue, self._erasing, self._resizing.random))

    @property
    def _resizes(self) -> bool:
        return self._box is not None or self._shorter > 0 or self._resizing.active

    def draw(self, random: np.random.Generator, count: int) -> np.ndarray:
        """Random numbers for each image, in [0, 1): (count, BASE_DRAWS), (count, ALL_DRAWS) if more is random, or
        (count, ALL_DRAWS + DRAWS) if sizes of forks are.

        Fields that are set later do not change the numbers of those before: crops are the same with and without brightness.
        """
        draws = np.zeros((count, ALL_DRAWS if self._draws_more else BASE_DRAWS))
        if self.random:
            draws[:, :3] = random.random((count, 3))
        if self._brightness or self._contrast or self._draws_more:
            draws[:, 3:BASE_DRAWS] = random.random((count, 2))
        if self._draws_more:
            draws[:, BASE_DRAWS:] = random.random((count, ALL_DRAWS - BASE_DRAWS))
        if self._resizing.random:
            draws = np.concatenate([draws, random.random((count, DRAWS))], axis=1)
        return draws

    def bounds(self, low: float, high: float) -> tuple[np.ndarray, np.ndarray] | None:
        """The smallest and the largest number of each channel, (channels) float64, for pixels from low to high; None if
        images are resized or rotated, or their colours change, which has no such bounds here."""
        if self._resizes or self._rotation or self._saturation or self._hue:
            return None
        least, most = self._bounds(low, high)
        if self._erasing is not None:
            least, most = np.minimum(least, 0), np.maximum(most, 0)
        return least, most

    def _bounds(self, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
        """``bounds`` before a rectangle is erased."""
        edge, mean = self._edge.astype(np.float64), self._mean.reshape(self._channels, -1)
        least, most = np.full(self._channels, float(low)), np.full(self._channels, float(high))
        if self._pad:
            least, most = np.minimum(least, edge), np.maximum(most, edge)
        if not (self._brightness or self._contrast or self._standardize):
            # What is computed for a pixel rises or falls with it: computed at both ends, it needs no room for rounding.
            first, last = (
                end.astype(mean.dtype) - m for end, m in ((least, mean.max(axis=1)), (most, mean.min(axis=1)))
            )
            both = np.stack([first * self._factors, last * self._factors]).astype(np.float64)
            return both.min(axis=0), both.max(axis=0)
        least, most = least - self._brightness, most + self._brightness
        spread = self._contrast * (most - least)
        least, most = least - spread, most + spread
        size = np.maximum(np.abs(least), np.abs(most))
        factors = self._factors.astype(np.float64)
        if self._standardize:
            # No number is further from the mean of n than sqrt(n - 1) standard deviations.
            reach = math.sqrt(max(math.prod(self.shape) - 1, 0))
            least, most = np.full(self._channels, -reach), np.full(self._channels, reach)
            size = most * self.shape[1] * self.shape[2]
            factors = np.full(self._channels, float(self._scale))
        else:
            size = size + np.abs(mean).max(axis=1)
            least, most = least - mean.max(axis=1), most - mean.min(axis=1)
        ends = np.stack([least * factors, most * factors])
        slack = 8 * np.finfo(self._factors.dtype).eps * size * np.abs(factors)
        return ends.min(axis=0) - slack, ends.max(axis=0) + slack

    def __call__(self, images: np.ndarray, out: np.ndarray, draws: np.ndarray) -> None:
        """Transforms images.  [overwrites out]

        images  (n, C, H, W) uint8 or float32
        out     (n,) + self.shape
        draws   (n, ...) random numbers, as from ``draw``
        raises  DataError for images whose size differs from the first record's; with a crop, if the crop does not fit
        """
        self._check(images.shape[1:])
        if self._swap:
            images = images[:, ::-1]
        if self._resizes or self._rotation:
            for i, image in enumerate(images):
                moved = self._moved(image, draws[i])[None]
                self._finish(moved, out[i : i + 1], draws[i : i + 1])
        else:
            self._finish(images, out, draws)

    def displayed(self, out: np.ndarray) -> np.ndarray:
        """Pixels to look at, (n, H, W, C) uint8 with R, G, B, or with one channel (the first, unless there are three).

        out  (n,) + self.shape, as this object made it: the mean is added again, a mean image as its channels' means;
             standardized images are spread from their smallest to their largest value
        """
        values = np.asarray(out, np.float64)
        if self._standardize:
            low = values.min(axis=(1, 2, 3), keepdims=True)
            values = (values - low) * (255 / np.maximum(values.max(axis=(1, 2, 3), keepdims=True) - low, 1e-12))
        else:
            factors = np.where(self._factors == 0, 1, self._factors)
            values = values / factors[:, None, None] + self._edge[:, None, None]
        if self._channels != 3:
            values = values[:, :1]
        elif self.order == pb.TransformationParameter.BGR:
            values = values[:, ::-1]
        pixels: np.ndarray = np.clip(np.rint(values), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
        return pixels

    def _moved(self, image: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """An image (C, H, W) resized and rotated."""
        if self._resizing.active:
            image = self._resizing(image, draws[ALL_DRAWS:] if self._resizing.random else draws)
            self._check_crop(image.shape)
        if self._box is not None:
            assert self._crop is not None
            height, width = image.shape[1:]
            box = crop_box(self._box, height, width, draws[BOX_SIZES].reshape(-1, 2), draws[BOX_PLACE])
            part = image[:, box.top : box.top + box.height, box.left : box.left + box.width]
            image = resize(part, *self._crop)
        elif self._shorter:
            image = resize_shorter(image, self._shorter)
        if self._rotation:
            image = rotate(image, (2 * draws[ROTATION] - 1) * self._rotation, self._edge)
        return image

    def _finish(self, images: np.ndarray, out: np.ndarray, draws: np.ndarray) -> None:
        """Everything after rotation.  [overwrites out]"""
        offsets, flip = self._places(images.shape[2:], out.shape[2:], draws)
        pad = self._pad
        if pad and self._pad_mode:
            images, pad = pad_images(images, pad, self._pad_mode), 0
        images = np.ascontiguousarray(images)
        colors = self._saturation > 0 or self._hue > 0
        if pad or self._brightness or self._contrast or self._standardize or colors:
            shift = ((2 * draws[:, 3] - 1) * self._brightness).astype(out.dtype)
            factor = (1 + (2 * draws[:, 4] - 1) * self._contrast).astype(out.dtype)
            augment(images, out, offsets - pad, self._edge, shift, factor)
            if colors:
                red = 0 if self.order == pb.TransformationParameter.RGB else 2
                by = 1 + (2 * draws[:, SATURATION] - 1) * self._saturation
                change_colors(out, red, by, (2 * draws[:, HUE] - 1) * self._hue)
            if self._standardize:
                standardize(out, self._scale)
            else:
                center(out, offsets, self._mean, self._factors)
            mirror(out, flip)
        else:
            transform(images, out, offsets, flip, self._mean, self._factors)
        if self._erasing is not None:
            self._erase(out, draws)

    def place(self, size: Sequence[int], draws: np.ndarray) -> tuple[tuple[int, int], bool]:
        """Row and column at which an image (H, W), not padded or resized, is cropped, and whether the crop is mirrored.

        draws  random numbers of the image, as from ``draw``
        """
        offsets, flip = self._places(size, self.shape[1:], draws[None])
        return (int(offsets[0, 0]), int(offsets[0, 1])), bool(flip[0])

    def _places(self, size: Sequence[int], crop: Sequence[int], draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Offsets of the crops in padded images (n, 2), and which are mirrored (n)."""
        room = np.array(size) + 2 * self._pad - np.array(crop)
        if self._train and self._crop:
            offsets = (draws[:, 1:3] * (room + 1)).astype(np.int64)
        else:
            offsets = np.repeat((room // 2)[None], len(draws), axis=0)
        return offsets, self.mirrors(draws)

    def mirrors(self, draws: np.ndarray) -> np.ndarray:
        """Which images are mirrored, given their random numbers: (n) bool."""
        return np.asarray((draws[:, 0] < 0.5) & self._mirror)

    def _erase(self, out: np.ndarray, draws: np.ndarray) -> None:
        """Sets a random rectangle of some of the images to 0.  [overwrites out]"""
        param, size = self._erasing, (out.shape[2], out.shape[3])
        assert param is not None
        for image, numbers in zip(out, draws):
            if numbers[ERASE] >= param.probability:
                continue
            areas, ratios = (param.area_min, param.area_max), (param.ratio_min, param.ratio_max)
            box = draw_box(*size, areas, ratios, numbers[ERASE_SIZES].reshape(-1, 2), numbers[ERASE_PLACE])
            if box is not None:
                image[:, box.top : box.top + box.height, box.left : box.left + box.width] = 0

    def _check(self, shape: tuple[int, ...]) -> None:
        channels, height, width = shape
        first = (self._channels, *self._image_size)
        if shape == first:
            return
        if channels != self._channels or not (self._crop or self._resizes):
            raise DataError(f"is {size_text(shape)}, but the first one is {size_text(first)}")
        if self._resizes:
            return
        self._check_crop(shape)
        if self._pad_mode == "reflect" and self._pad >= min(height, width):
            raise DataError(f"is {size_text(shape)}, which pad {self._pad} cannot reflect")
        if self._mean.shape[1:] != (1, 1):
            raise DataError(
                f"is {size_text(shape)}, but the mean image {size_text((self._channels, *self._image_size))}"
            )

    def _check_crop(self, shape: Sequence[int]) -> None:
        """Raises DataError for an image (C, H, W) that the crop does not fit into."""
        height, width = self._crop or (0, 0)
        if shape[1] + 2 * self._pad < height or shape[2] + 2 * self._pad < width:
            crop = f"crop_size {height}" if height == width else f"the crop of {size_text((height, width))}"
            raise DataError(f"is {size_text(shape)}, which is smaller than {crop}")

    def _check_colors(self, param: pb.TransformationParameter, error: Callable[..., SslnetError], preset: bool) -> None:
        for field in ("channel_order", "saturation", "hue"):
            if self._channels != 3 and param.HasField(field) and (getattr(param, field) or field == "channel_order"):
                named = "preset" if preset and field == "channel_order" else field
                raise error(f"{named} is for images of 3 channels; these have {self._channels}", named)

    def _check_sizes(
        self, param: pb.TransformationParameter, size: tuple[int, int], error: Callable[..., SslnetError]
    ) -> None:
        """Checks the sizes of padding and crop against those of the first image."""
        height, width = size
        if param.resize_shorter or param.HasField("random_resized_crop"):
            if param.pad_mode == pb.TransformationParameter.REFLECT and self._pad >= param.resize_shorter:
                raise error(f"pad {self._pad} cannot reflect images of resize_shorter {param.resize_shorter}", "pad")
            if self._resizes:
                return
        if self._resizing.active and not self._resizing.fixed:
            return
        if self._pad > min(height, width):
            raise error(f"pad {self._pad} is larger than the images, which are {height} x {width}", "pad")
        if self._pad_mode == "reflect" and self._pad >= min(height, width):
            raise error(f"pad {self._pad} cannot reflect images of {height} x {width}", "pad")
        crop = self._crop or (0, 0)
        if crop[0] > height + 2 * self._pad or crop[1] > width + 2 * self._pad:
            padded = f", with pad {self._pad} at each side" if self._pad else ""
            given = f"crop_size {crop[0]}" if param.crop_size else f"the crop of {size_text(crop)}"
            field = "crop_size" if param.crop_size else "crop_h" if param.crop_h else "crop_height"
            raise error(f"{given} is larger than the images, which are {height} x {width}{padded}", field)

    def _padded_mean(self, mean: np.ndarray) -> np.ndarray:
        if self._pad_mode and mean.shape[1:] != (1, 1):
            return pad_images(mean, self._pad, self._pad_mode)
        return padded_mean(mean, self._pad, self._edge)
