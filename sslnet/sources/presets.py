"""Presets of transform_param, and settings of transform_param that exclude each other.

IMAGENET_TORCH and CIFAR10 are (x / 255 - mean) / std of pixels R, G, B, as torchvision and the usual scripts for CIFAR-10
write it, here in units of the pixels; IMAGENET_CAFFE is the mean of B, G, R of Caffe's models.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from sslnet import sslnet_pb2 as pb
from sslnet.errors import SslnetError

Fail = Callable[..., SslnetError]
"""Creates the error about a field of transform_param: fail(message, *field)."""


class Preset(NamedTuple):
    """Order of the channels, and per channel, in that order, mean and standard deviation in units of the pixels."""

    order: pb.TransformationParameter.ChannelOrder
    mean: tuple[float, ...]
    std: tuple[float, ...]


def _of_unit(mean: tuple[float, ...], std: tuple[float, ...]) -> Preset:
    """The preset of numbers that are meant for pixels from 0 to 1, in the order R, G, B."""
    return Preset(pb.TransformationParameter.RGB, tuple(255 * m for m in mean), tuple(255 * s for s in std))


PRESETS = {
    pb.TransformationParameter.IMAGENET_TORCH: _of_unit((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    pb.TransformationParameter.IMAGENET_CAFFE: Preset(pb.TransformationParameter.BGR, (104.0, 117.0, 123.0), ()),
    pb.TransformationParameter.CIFAR10: _of_unit((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
}
MOST_SHORTER = 1 << 13
"""Maximum number of pixels of the shorter side of a resized image."""
SET_BY_PRESET = ("channel_order", "mean_value", "mean_file", "std_value", "standardize", "scale")
RANDOM = ("mirror", "brightness", "contrast", "random_resized_crop", "rotation", "saturation", "hue", "erasing")
"""Fields that change images at random: they are not part of the preprocessing of a trained net."""


def resolved(param: pb.TransformationParameter, fail: Fail | None = None) -> pb.TransformationParameter:
    """A copy of transform_param in which the fields that a preset stands for are written out.

    fail    creates the error where a field is given beside the preset that sets it; None: the field is kept
    """
    result = pb.TransformationParameter()
    result.CopyFrom(param)
    result.ClearField("preset")
    preset = PRESETS.get(param.preset)
    if preset is None:
        return result
    for field in SET_BY_PRESET:
        given = param.HasField(field) if field not in ("mean_value", "std_value") else bool(getattr(param, field))
        if given and fail is not None:
            name = pb.TransformationParameter.Preset.Name(param.preset)
            raise fail(f"preset {name} sets the channel order, the mean and the scale: {field} excludes it", field)
    result.channel_order = preset.order
    result.mean_value.extend(preset.mean)
    result.std_value.extend(preset.std)
    return result


def crop_of(param: pb.TransformationParameter) -> tuple[int, int] | None:
    """(height, width) of a crop: crop_size, or crop_h and crop_w (SSD), or crop_height and crop_width (PSPNet)."""
    if param.crop_size:
        return int(param.crop_size), int(param.crop_size)
    if param.crop_h and param.crop_w:
        return int(param.crop_h), int(param.crop_w)
    return (int(param.crop_height), int(param.crop_width)) if param.crop_height and param.crop_width else None


def check_transform(param: pb.TransformationParameter, fail: Fail) -> None:
    """Checks that the fields of transform_param have values with a meaning, alone and together; raises what fail makes."""
    _check_ranges(param, fail)
    whole = param.HasField("random_resized_crop")
    for rows, columns in (("crop_h", "crop_w"), ("crop_height", "crop_width")):
        if bool(getattr(param, rows)) != bool(getattr(param, columns)):
            given, missing = (rows, columns) if getattr(param, rows) else (columns, rows)
            raise fail(f"{given} is given, {missing} is not: give both or neither", given)
        if getattr(param, rows) and (param.crop_size or (rows == "crop_height" and param.crop_h)):
            raise fail(f"{rows} and {columns} exclude another size of the crop", rows)
    if (param.resize_param or param.HasField("random_resize_param")) and (whole or param.resize_shorter):
        raise fail("the images would be resized twice", "random_resized_crop" if whole else "resize_shorter")
    if param.pad and not param.crop_size:
        raise fail("pad is for crops that are taken at random: give crop_size too", "pad")
    if param.pad and param.pad >= param.crop_size:
        raise fail(
            f"pad must be smaller than crop_size, {param.crop_size}, not {param.pad}: a crop would show no image", "pad"
        )
    if param.HasField("pad_mode") and not param.pad:
        raise fail("pad_mode has no effect without pad", "pad_mode")
    for field in ("random_resized_crop", "resize_shorter"):
        if getattr(param, field) and param.HasField(field) and not param.crop_size:
            raise fail(f"{field} needs crop_size: the size of the result", field)
    if whole and param.pad:
        raise fail("random_resized_crop fills the whole crop: pad has no effect beside it", "pad")
    if param.resize_shorter > MOST_SHORTER:
        raise fail(f"resize_shorter must be at most {MOST_SHORTER}, not {param.resize_shorter}", "resize_shorter")
    if param.resize_shorter and param.resize_shorter + 2 * param.pad < param.crop_size:
        raise fail(
            f"resize_shorter {param.resize_shorter} is smaller than crop_size {param.crop_size}", "resize_shorter"
        )
    for field in ("mean_file", "mean_value", "std_value"):
        if param.standardize and getattr(param, field):
            raise fail(f"standardize takes off each image's own mean: {field} has no effect beside it", field)


def _check_ranges(param: pb.TransformationParameter, fail: Fail) -> None:
    if not 0 <= param.brightness < math.inf:
        raise fail(f"brightness must be 0 or more, not {param.brightness:g}", "brightness")
    for field, most in (("contrast", 1.0), ("saturation", 1.0), ("hue", 0.5), ("rotation", 180.0)):
        value = getattr(param, field)
        if not 0 <= value <= most:
            raise fail(f"{field} must be from 0 to {most:g}, not {value:g}", field)
    for value in param.std_value:
        if not 0 < value < math.inf:
            raise fail(f"std_value must be above 0, not {value:g}", "std_value")
    if param.HasField("erasing") and not 0 <= param.erasing.probability <= 1:
        raise fail(f"probability must be from 0 to 1, not {param.erasing.probability:g}", "erasing", "probability")
    for block in ("random_resized_crop", "erasing"):
        part = getattr(param, block)
        if not 0 < part.area_min <= part.area_max <= 1:
            message = (
                f"0 < area_min <= area_max <= 1 must hold, not area_min {part.area_min:g}, area_max {part.area_max:g}"
            )
            raise fail(message, block)
        if not 0 < part.ratio_min <= part.ratio_max < math.inf:
            message = (
                f"0 < ratio_min <= ratio_max must hold, not ratio_min {part.ratio_min:g}, ratio_max {part.ratio_max:g}"
            )
            raise fail(message, block)
