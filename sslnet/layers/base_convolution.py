"""BaseConvolution: what Convolution and Deconvolution have in common: parameters, shapes of the bottoms, compaction.

Both have weights of a window for each pair of an input channel and an output of its group; several bottoms share them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np

from sslnet.layers.affine import fold_shift
from sslnet.layers.axes import axis_of, read_groups, read_window, window_words
from sslnet.layers.base import Blobs, BoolVector, Layer


class BaseConvolution(Layer, ABC):
    """Base of the layers with a ConvolutionParameter and weights.

    One group: any output and any channel may be removed. Several groups must have equal sizes: a group is removed as a
    whole, with its channels and outputs (in a depthwise convolution: channel by channel). Several bottoms, or channels
    along another axis: all are kept.
    """

    KIND: ClassVar[str] = "convolution"
    HAS_WEIGHTS: ClassVar[bool] = True
    MIXES_CHANNELS: ClassVar[bool] = True
    CHANNELS: ClassVar[str] = (
        "filters and inputs are removed, constants are folded into the bias; with several groups, whole groups are removed; "
        "along another axis, or with several bottoms, all are kept"
    )
    BOTTOMS: ClassVar[tuple[int, int | None]] = (1, None)
    TOPS: ClassVar[tuple[int, int | None]] = (1, None)
    EQUAL_BOTTOMS_TOPS: ClassVar[bool] = True
    SHRINKS: ClassVar[bool] = True
    ABSORBS: ClassVar[bool] = True

    @classmethod
    def describe(cls, param: Any) -> str:
        return f"{window_words(param.convolution_param)} · {param.convolution_param.num_output} filters"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.param.convolution_param
        self.axis = axis_of(self, bottom[0], param.axis, "convolution_param", "axis")
        self.num_spatial = bottom[0].num_axes - self.axis - 1
        self.window = read_window(self, param, "convolution_param", self.num_spatial)
        self.channels = bottom[0].shape[self.axis]
        self.num_output, self.group = read_groups(self, param, self.channels)

    def spatial_sizes(self, bottom: Blobs, verb: str) -> tuple[int, ...]:
        """The sizes of the bottoms' spatial axes; raises ShapeError for shapes that do not fit the weights, or without
        pixels.

        verb  what the layer does with pixels, for the message
        """
        first = bottom[0]
        for blob in bottom:
            if blob.shape != first.shape:
                raise self.shape_error(
                    f'bottoms that share weights must have one shape: "{first.name}" {first.shape}, '
                    f'"{blob.name}" {blob.shape}'
                )
        if first.num_axes != self.axis + 1 + self.num_spatial or first.shape[self.axis] != self.channels:
            raise self.shape_error(
                f'the weights take {self.channels} channels and {self.num_spatial} spatial axes, "{first.name}" has '
                f"shape {first.shape}"
            )
        sizes = first.shape[self.axis + 1 :]
        if 0 in sizes:
            raise self.shape_error(f'there are no pixels to {verb}: "{first.name}" has shape {first.shape}')
        return sizes

    def reshape_tops(self, bottom: Blobs, top: Blobs, out: tuple[int, ...]) -> None:
        """Shapes the tops, with these spatial sizes."""
        for blob in top:
            blob.reshape(*bottom[0].shape[: self.axis], self.num_output, *out)
        self.top_channels = top[0].shape[1] if top[0].num_axes > 1 else self.num_output

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return self.param_propagate_down[0]

    # -- compaction ----------------------------------------------------------------------------------------------------

    def constant_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        """True for outputs whose weights on all channels that vary are zero."""
        if self._keeps_all:
            return []
        varies = ~bottom[0].reshape(self.group, 1, -1)
        return [~(self._uses() & varies).any(axis=2).reshape(-1)]

    def needed_channels(self, top: list[BoolVector], bottom_constant: list[BoolVector]) -> list[BoolVector]:
        """True for channels that vary and have a nonzero weight to a kept output; with groups: all of a kept group."""
        if self._keeps_all:
            return []
        if self.group > 1:
            return [self._whole_groups(top[0], self.channels)]
        return [self._uses()[0][top[0]].any(axis=0) & ~bottom_constant[0]]

    def followed_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        if self._keeps_all:
            return [np.ones(self.top_channels, bool) for _ in self.param.top]
        return [self._whole_groups(bottom[0], self.num_output)] if self.group > 1 else []

    def shrink(
        self, bottom_keep: list[np.ndarray], top_keep: list[np.ndarray], shift: np.ndarray | None
    ) -> tuple[Any, list[np.ndarray]]:
        param, blobs = super().shrink(bottom_keep, top_keep, shift)
        if self._keeps_all:
            return param, blobs
        outputs, sub = top_keep[0], param.convolution_param
        sub.ClearField("kept_column")
        if self.group > 1:
            sub.group = len(outputs) // (self.num_output // self.group)
        sub.num_output = len(outputs)
        weights = self._kept_weights(bottom_keep[0], outputs)
        bias = fold_shift(param, sub, blobs[1][outputs] if len(blobs) > 1 else None, shift)
        return param, [weights] if bias is None else [weights, bias]

    @property
    def _keeps_all(self) -> bool:
        """Whether compaction keeps all channels and outputs."""
        return self.axis != 1 or len(self.param.bottom) > 1

    @abstractmethod
    def _kept_weights(self, channels: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """A copy of the weights of these channels and outputs (sorted indices), of several groups whole ones."""

    @abstractmethod
    def _uses(self) -> np.ndarray:
        """(group, outputs of a group, channels of a group) bool: whether a weight between them is nonzero."""

    def _whole_groups(self, chosen: BoolVector, size: int) -> BoolVector:
        """(size) bool: True for all channels, on the other side of the layer, of the groups with a chosen channel."""
        return np.repeat(chosen.reshape(self.group, -1).any(axis=1), size // self.group)
