"""The numbers that define a 2-D convolution."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property

from sslnet.errors import ShapeError
from sslnet.kernels.conv.im2col import output_extent


@dataclass(frozen=True)
class ConvGeometry:
    """One 2-D convolution: x (batch, channels, height, width) * w (filters, channels / groups, kernel_h, kernel_w).

    pad_h and pad_w are zeros above and to the left, pad_end_h and pad_end_w below and to the right; -1, the default: as many.

    raises ShapeError when a number is out of range, groups do not divide, or no output position fits
    """

    batch: int
    channels: int
    height: int
    width: int
    filters: int
    kernel_h: int
    kernel_w: int
    stride_h: int = 1
    stride_w: int = 1
    pad_h: int = 0
    pad_w: int = 0
    dilation_h: int = 1
    dilation_w: int = 1
    groups: int = 1
    pad_end_h: int = -1
    pad_end_w: int = -1

    def __post_init__(self) -> None:
        for side in "hw":
            if getattr(self, f"pad_end_{side}") == -1:
                object.__setattr__(self, f"pad_end_{side}", getattr(self, f"pad_{side}"))
        for field in fields(self):
            value, least = getattr(self, field.name), 0 if field.name.startswith("pad") else 1
            if value < least:
                raise ShapeError(f"{field.name} must be at least {least}, not {value}")
        for name in ("channels", "filters"):
            if getattr(self, name) % self.groups:
                raise ShapeError(f"groups must divide {name}: {getattr(self, name)} % {self.groups} != 0")
        if self.out_h < 1 or self.out_w < 1:
            raise ShapeError(
                f"the kernel does not fit: input {self.height} x {self.width} with pad {self.pad_h}, {self.pad_w}, "
                f"kernel {self.kernel_h} x {self.kernel_w} with dilation {self.dilation_h}, {self.dilation_w}"
            )

    @cached_property
    def out_h(self) -> int:
        return output_extent(self.height, self.kernel_h, self.stride_h, self.pad_h, self.dilation_h, self.pad_end_h)

    @cached_property
    def out_w(self) -> int:
        return output_extent(self.width, self.kernel_w, self.stride_w, self.pad_w, self.dilation_w, self.pad_end_w)

    @property
    def is_padded_h(self) -> bool:
        """Whether windows may reach above or below the image."""
        return self.pad_h > 0 or self.pad_end_h > 0

    @property
    def is_padded_w(self) -> bool:
        """Whether windows may reach to the left or right of the image."""
        return self.pad_w > 0 or self.pad_end_w > 0

    @property
    def group_channels(self) -> int:
        return self.channels // self.groups

    @property
    def group_filters(self) -> int:
        return self.filters // self.groups

    @property
    def columns(self) -> int:
        """Columns of the weight matrix: weights of one filter."""
        return self.group_channels * self.kernel_h * self.kernel_w

    @property
    def pointwise(self) -> bool:
        """Whether each output pixel reads only the pixels of its own position: 1 x 1, without stride and padding."""
        unpadded = self.pad_h == self.pad_w == self.pad_end_h == self.pad_end_w == 0
        same_positions = (self.height, self.width) == (self.out_h, self.out_w)
        return unpadded and same_positions and self.kernel_h == self.kernel_w == 1

    def in_rows(self, rows: int) -> ConvGeometry:
        """A pointwise convolution with the pixels of each plane seen as this number of rows, which must divide them: the
        same arrays, the same values."""
        assert self.pointwise
        return replace(self, height=rows, width=self.height * self.width // rows, stride_h=1, stride_w=1)

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        return (self.batch, self.channels, self.height, self.width)

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        return (self.batch, self.filters, self.out_h, self.out_w)

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        return (self.filters, self.group_channels, self.kernel_h, self.kernel_w)

    @property
    def flops(self) -> int:
        """Multiplications plus additions of one pass, padding counted as if it were data."""
        return 2 * self.batch * self.filters * self.out_h * self.out_w * self.columns
