"""Reading and checking of layer parameters that name axes and windows (kernel, stride, padding, dilation)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.blob import Blob
from sslnet.kernels.conv.im2col import same_padding
from sslnet.layers.base import Layer
from sslnet.layers.bounds import WINOGRAD_ERROR


def axis_of(layer: Layer, blob: Blob, axis: int, *field: str) -> int:
    """The axis of the blob, counted from the front, that ``axis`` names (negative: from the back).

    raises ShapeError, at the field, when the blob has no such axis
    """
    try:
        return blob.axis(axis)
    except IndexError:
        raise layer.shape_error(
            f'{field[-1]} {axis} is not an axis of "{blob.name}", which has {blob.num_axes}: {blob.shape}', *field
        ) from None


@dataclass(frozen=True)
class Window:
    """The window of a convolution; each field has one number per spatial axis.

    pad, pad_end   zeros in front of an image and behind it
    same           whether these follow from the size of the image, as TensorFlow's SAME; ``fitted`` computes them
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    pad: tuple[int, ...]
    dilation: tuple[int, ...]
    pad_end: tuple[int, ...] = ()
    """As ``pad`` where not given."""
    same: bool = False

    def __post_init__(self) -> None:
        if not self.pad_end:
            object.__setattr__(self, "pad_end", self.pad)

    @property
    def is_point(self) -> bool:
        """Whether the window is a single pixel with stride 1 and no padding: the lowered matrix is the image itself."""
        return all(n == 1 for n in (*self.kernel, *self.stride)) and not any((*self.pad, *self.pad_end))

    @property
    def axes(self) -> tuple[tuple[int, ...], ...]:
        """The numbers in the order of the arguments of ``im2col``."""
        return self.kernel, self.stride, self.pad, self.dilation, self.pad_end

    def rounding(self, dtype: np.dtype) -> float:
        """The part of a sum of magnitudes by which a kernel may be wrong beside the rounding of a plain sum."""
        suits = len(set(self.kernel)) == 1 and self.kernel[0] in (3, 5) and set(self.stride + self.dilation) == {1}
        return WINOGRAD_ERROR if suits and dtype == np.float32 else 0.0

    def fitted(self, sizes: Sequence[int]) -> Window:
        """The window with the padding for an image of this size: the window itself where the padding is given."""
        if not self.same:
            return self
        pads = [same_padding(*numbers) for numbers in zip(sizes, self.kernel, self.stride, self.dilation, strict=True)]
        return replace(self, pad=tuple(front for front, _ in pads), pad_end=tuple(behind for _, behind in pads))


def read_groups(layer: Layer, param: Any, channels: int) -> tuple[int, int]:
    """(num_output, group) of a ConvolutionParameter for a bottom with ``channels`` channels.

    raises DefinitionError for numbers below 1, ShapeError where the groups do not divide the channels or num_output
    """
    for name in ("num_output", "group"):
        if getattr(param, name) < 1:
            raise layer.error(f"{name} must be at least 1", "convolution_param", name)
    for what, count in (("the channels of the bottom", channels), ("num_output", param.num_output)):
        if count % param.group:
            raise layer.shape_error(
                f"group must divide {what}: {count} % {param.group} != 0", "convolution_param", "group"
            )
    return param.num_output, param.group


def read_window(layer: Layer, param: Any, field: str, num_spatial: int) -> Window:
    """The window of a ConvolutionParameter for ``num_spatial`` axes.

    Each of kernel_size, stride, pad, dilation is given once for all axes, or once per axis; for two axes kernel_h and
    kernel_w, stride_h and stride_w, pad_h and pad_w may be given instead. With pad_type SAME no padding is given.
    raises DefinitionError, at the field, for both forms at once, a wrong number of values, or a value out of range
    """

    def read(name: str, short: str, default: int | None, least: int) -> tuple[int, ...]:
        given = [f"{short}_{side}" for side in "hw" if short and param.HasField(f"{short}_{side}")]
        values = list(getattr(param, name))
        if given:
            if num_spatial != 2:
                raise layer.error(f"{given[0]} is for two spatial axes, here are {num_spatial}", field, given[0])
            if values:
                raise layer.error(f"either {name} or {short}_h and {short}_w, not both", field, given[0])
            if least and len(given) == 1:
                other = f"{short}_w" if given[0].endswith("h") else f"{short}_h"
                raise layer.error(f"{other} is missing beside {given[0]}", field, given[0])
            values = [getattr(param, f"{short}_h"), getattr(param, f"{short}_w")]
        if not values:
            if default is None and num_spatial:
                raise layer.error(f"{name} is missing", field)
            values = [1 if default is None else default]
        if len(values) not in (1, num_spatial):
            raise layer.error(
                f"{name} is given {len(values)} times for {num_spatial} spatial axes",
                field,
                name,
                0,
                hint="give it once, or once for each axis",
            )
        for index, value in enumerate(values):
            if value < least:
                where = (given[index],) if given else (name, index)
                raise layer.error(f"{name} must be at least {least}, not {value}", field, *where)
        return tuple(values) if len(values) == num_spatial else tuple(values) * num_spatial

    same = param.pad_type == pb.ConvolutionParameter.SAME
    if same:
        refuse_pad(layer, param, field)
    pad = read("pad", "pad", 0, 0)
    return Window(
        kernel=read("kernel_size", "kernel", None, 1),
        stride=read("stride", "stride", 1, 1),
        pad=pad,
        dilation=read("dilation", "", 1, 1),
        same=same,
    )


def refuse_pad(layer: Layer, param: Any, field: str) -> None:
    """Raises DefinitionError, at the field, where padding is given beside pad_type SAME."""
    given = {descriptor.name for descriptor, _ in param.ListFields()}
    for name in ("pad", "pad_h", "pad_w"):
        if name in given:
            raise layer.error(
                "with pad_type SAME the padding follows from the size of the image", field, name,
                hint=f"remove {name}, or pad_type",
            )  # fmt: skip


def window_words(param: Any) -> str:
    """A convolution's window as text: "3 × 3, stride 2, pad 1"."""
    values = {name: list(getattr(param, name)) for name in ("stride", "pad", "dilation")}
    for name in ("stride", "pad"):
        if param.HasField(f"{name}_h") or param.HasField(f"{name}_w"):
            values[name] = [getattr(param, f"{name}_h"), getattr(param, f"{name}_w")]
    size = [param.kernel_h, param.kernel_w] if param.kernel_h or param.kernel_w else list(param.kernel_size)
    words = [
        times(size),
        *unusual(stride=(values["stride"], 1), pad=(values["pad"], 0), dilation=(values["dilation"], 1)),
        *(["pad SAME"] if param.pad_type == pb.ConvolutionParameter.SAME else []),
    ]
    return ", ".join([*words, f"{param.group} groups"] if param.group > 1 else words)


def unusual(**fields: tuple[list[int], int]) -> list[str]:
    """The window fields that differ from their usual values, as text. fields: name -> (values, usual value)"""
    return [
        f"{name} {times(values) if len(set(values)) > 1 else values[0]}"
        for name, (values, usual) in fields.items()
        if any(value != usual for value in values)
    ]


def times(sizes: list[int]) -> str:
    """The sizes as text, "3 × 3"; a single size counts for both axes."""
    return " × ".join(map(str, sizes * 2 if len(sizes) == 1 else sizes))
